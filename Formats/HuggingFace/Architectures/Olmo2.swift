import Base
import IR

/// OLMo 2 (OLMo Team, 2025): norms of what parts give instead of what they take, and of all queries and keys of a token.
struct Olmo2: Architecture {
  static let modelType = "olmo2"
  static let className = "Olmo2ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-5))
    let feedForward = shape.gatedFeedForward(
      try config.field("intermediate_size").int(in: 1...limits.width),
      try config.field("hidden_act").activation(or: "silu"))
    let bias = try config.field("attention_bias").bool(or: false)
    var attention = shape.attention(bias: bias, outputBias: bias)
    attention.queryNorm = .init(norm: norm.named("self_attn.q_norm"), scope: .allHeads)
    attention.keyNorm = .init(norm: norm.named("self_attn.k_norm"), scope: .allHeads)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.layers.\(layer)", attentionOutputNorm: norm.named("post_attention_layernorm"),
        feedForwardOutputNorm: norm.named("post_feedforward_layernorm"), attention: attention,
        feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
