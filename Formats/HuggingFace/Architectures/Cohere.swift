import Base
import IR

/// Command R (Cohere, 2024): layer norms without bias, parts of blocks side by side, rotary embedding of neighbours, scaled
/// logits.
struct Cohere: Architecture {
  static let modelType = "cohere"
  static let className = "CohereForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultContext = 8192
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", .layer, epsilon: try config.epsilon("layer_norm_eps", or: 1e-5))
    let feedForward = shape.gatedFeedForward(
      try config.field("intermediate_size").int(in: 1...limits.width),
      try config.field("hidden_act").activation(or: "silu"))
    let bias = try config.field("attention_bias").bool(or: false)
    var attention = shape.attention(bias: bias, outputBias: bias)
    if try config.field("use_qk_norm").bool(or: false) {
      attention.queryNorm = .init(norm: norm.named("self_attn.q_norm"), scope: .headWithOwnWeight)
      attention.keyNorm = .init(norm: norm.named("self_attn.k_norm"), scope: .headWithOwnWeight)
    }
    var rotary = RotaryConfig.Spelling()
    rotary.theta = 500_000

    var decoder = shape.decoder(norm: norm)
    decoder.head.scale = try config.optionalNumber("logit_scale", or: 0.0625) ?? 1
    decoder.rotaries = try shape.rotaries(
      RotaryConfig(&config, context: shape.context, rotary), isInterleaved: true)
    decoder.blocks = (0..<shape.layers).map { layer in
      DecoderBlock(
        module: "model.layers.\(layer)", isParallel: true, attentionNorm: norm.named("input_layernorm"),
        attention: attention, feedForward: feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
