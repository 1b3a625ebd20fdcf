import Base
import IR

/// Phi 3 and 4 (Abdin and others, 2024): Llama with joined projections and, for long texts, LongRoPE.
struct Phi3: Architecture {
  static let modelType = "phi3"
  static let className = "Phi3ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultContext = 4096
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-5))
    let feedForward = DecoderFeedForward(
      width: try config.field("intermediate_size").int(in: 1...limits.width),
      projections: .joined(LinearModule("mlp.gate_up_proj")), down: LinearModule("mlp.down_proj"),
      activation: try config.field("hidden_act").activation(or: "silu"))
    var attention = shape.attention()
    attention.projections = .joined(LinearModule("self_attn.qkv_proj"))
    attention.window = try config.window()
    var rotary = RotaryConfig.Spelling.partial(1)
    rotary.aliases["yarn"] = "longrope"
    rotary.originalContext = 4096

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context, rotary))
    if decoder.rotaries.isEmpty { attention.rotary = nil }
    decoder.blocks = shape.llamaBlocks(norm) { _ in (attention, feedForward) }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
