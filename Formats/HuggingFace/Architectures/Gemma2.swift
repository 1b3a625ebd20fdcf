import Base
import IR

/// Gemma 2 (Gemma Team, 2024): norms before and after each part, with factors of one more than their weights; scores and
/// logits are softly capped, every other layer sees a window of keys alone.
struct Gemma2: Architecture {
  static let modelType = "gemma2"
  static let className = "Gemma2ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 4
    spelling.defaultHeadDim = 256
    spelling.defaultContext = 8192
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let gemma = try GemmaBlocks(&config, shape, limits: limits)
    try config.refuse("use_bidirectional_attention")
    let softcap = try config.optionalPositive("attn_logit_softcapping", or: 50)
    let windows = try config.windows(layers: shape.layers, config.window(or: 4096)) { $0 % 2 == 0 }

    var decoder = shape.decoder(norm: gemma.norm.named("model.norm"))
    decoder.embedding.scale = Float(Double(shape.width).squareRoot())
    decoder.head.softcap = try config.optionalPositive("final_logit_softcapping", or: 30)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = (0..<shape.layers).map { layer in
      var attention = gemma.attention
      attention.softcap = softcap
      attention.window = windows[layer]
      return gemma.block("model.layers.\(layer)", attention)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}

/// What the blocks of Gemma 2 and 3 have in common.
struct GemmaBlocks {
  let norm: NormModule
  let attention: DecoderAttention
  private let feedForward: DecoderFeedForward

  init(_ config: inout CheckpointConfig, _ shape: DecoderConfig, limits: LoadLimits) throws {
    norm = NormModule("", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6), addsOne: true)
    let bias = try config.field("attention_bias").bool(or: false)
    var attention = shape.attention(bias: bias, outputBias: bias)
    let scalar = try config.optionalPositive("query_pre_attn_scalar", or: 256) ?? 256
    attention.scale = Float(1 / Double(scalar).squareRoot())
    self.attention = attention
    feedForward = shape.gatedFeedForward(
      try config.field("intermediate_size").int(in: 1...limits.width),
      try config.field("hidden_activation", "hidden_act").activation(or: "gelu_pytorch_tanh"))
  }

  func block(_ module: String, _ attention: DecoderAttention) -> DecoderBlock {
    DecoderBlock(
      module: module, attentionNorm: norm.named("input_layernorm"),
      attentionOutputNorm: norm.named("post_attention_layernorm"),
      feedForwardNorm: norm.named("pre_feedforward_layernorm"),
      feedForwardOutputNorm: norm.named("post_feedforward_layernorm"), attention: attention,
      feedForward: feedForward)
  }
}
