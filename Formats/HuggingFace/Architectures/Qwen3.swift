import Base
import IR

/// Qwen 3 (Yang and others, 2025): Llama with norms of the queries and keys of each head.
struct Qwen3: Architecture {
  static let modelType = "qwen3"
  static let className = "Qwen3ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 32
    spelling.defaultHeadDim = 128
    spelling.defaultContext = 32768
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    let activation = try config.field("hidden_act").activation(or: "silu")
    let bias = try config.field("attention_bias").bool(or: false)
    let windows = try config.qwenWindows(layers: shape.layers)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = shape.llamaBlocks(norm) { layer in
      var attention = shape.attention(bias: bias, outputBias: bias)
      attention.window = windows[layer]
      attention.queryNorm = .init(norm: norm.named("self_attn.q_norm"), scope: .head)
      attention.keyNorm = .init(norm: norm.named("self_attn.k_norm"), scope: .head)
      return (attention, shape.gatedFeedForward(feedForward, activation))
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
