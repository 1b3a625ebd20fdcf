import Base
import IR

/// Mistral 7B and its successors (Jiang and others, 2023): Llama with a window of keys that each query sees.
struct Mistral: Architecture {
  static let modelType = "mistral"
  static let className = "MistralForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 8
    spelling.defaultContext = 131072
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    let activation = try config.field("hidden_act").activation(or: "silu")
    var attention = shape.attention()
    attention.window = try config.window(or: 4096)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = shape.llamaBlocks(norm) { _ in
      (attention, shape.gatedFeedForward(feedForward, activation))
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
