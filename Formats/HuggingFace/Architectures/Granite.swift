import Base
import IR

/// Granite 3 (IBM, 2024): Llama with factors of embedding, residuals, scores and logits.
struct Granite: Architecture {
  static let modelType = "granite"
  static let className = "GraniteForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    let shape = try DecoderConfig(&config, limits: limits)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let attentionBias = try config.field("attention_bias").bool(or: false)
    let feedForward = shape.gatedFeedForward(
      try config.field("intermediate_size").int(in: 1...limits.width),
      try config.field("hidden_act").activation(or: "silu"), bias: try config.field("mlp_bias").bool(or: false))
    var attention = shape.attention(bias: attentionBias, outputBias: attentionBias)
    attention.scale = try config.optionalNumber("attention_multiplier") ?? 1
    let residualScale = try config.optionalNumber("residual_multiplier") ?? 1

    var decoder = shape.decoder(norm: norm)
    decoder.embedding.scale = try config.optionalNumber("embedding_multiplier") ?? 1
    decoder.head.scale = 1 / (try config.optionalNumber("logits_scaling") ?? 1)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = shape.llamaBlocks(norm) { _ in (attention, feedForward) }
    for layer in decoder.blocks.indices { decoder.blocks[layer].residualScale = residualScale }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
