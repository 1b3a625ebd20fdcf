import Base
import IR

/// Llama 1 to 3 (Touvron and others, 2023): a decoder with RMS norms, rotary embedding, grouped key and value heads
/// and a gated feed-forward layer.
struct Llama: Architecture {
  static let modelType = "llama"
  static let className = "LlamaForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    let attentionBias = try config.field("attention_bias").bool(or: false)
    let feedForwardBias = try config.field("mlp_bias").bool(or: false)
    let activation = try config.field("hidden_act").activation(or: "silu")
    let rotary = try RotaryConfig(&config, context: shape.context)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = [try rotary.rotary(headDim: shape.headDim)].compactMap { $0 }
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.layers.\(layer)", attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: norm.named("post_attention_layernorm"),
        attention: shape.attention(bias: attentionBias, outputBias: attentionBias),
        feedForward: shape.gatedFeedForward(feedForward, activation, bias: feedForwardBias))
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
