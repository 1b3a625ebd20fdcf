import Base
import IR

/// Llama 1 to 3 (Touvron and others, 2023): a decoder with RMS norms, rotary embedding, grouped key and value heads
/// and a gated feed-forward layer.
struct Llama: DecoderArchitecture {
  static let modelType = "llama"
  static let className = "LlamaForCausalLM"

  var decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    let attentionBias = try config.field("attention_bias").bool(or: false)
    let feedForwardBias = try config.field("mlp_bias").bool(or: false)
    let activation = try config.field("hidden_act").activation(or: "silu")

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = shape.llamaBlocks(norm) { _ in
      (
        shape.attention(bias: attentionBias, outputBias: attentionBias),
        shape.gatedFeedForward(feedForward, activation, bias: feedForwardBias)
      )
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
