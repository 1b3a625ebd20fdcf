import Base
import IR

/// StarCoder 2 (Lozhkov and others, 2024): layer norms, biases, grouped heads and a window of keys.
struct Starcoder2: Architecture {
  static let modelType = "starcoder2"
  static let className = "Starcoder2ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 2
    spelling.defaultContext = 4096
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    try config.require("mlp_type", in: ["default"])
    try config.require("norm_type", in: ["layer_norm"])
    let norm = NormModule(
      "model.norm", .layer, epsilon: try config.epsilon("norm_epsilon", or: 1e-5), bias: true)
    let bias = try config.field("use_bias").bool(or: true)
    let feedForward = DecoderFeedForward(
      width: try config.field("intermediate_size").int(in: 1...limits.width),
      projections: .plain(up: LinearModule("mlp.c_fc", bias: bias)), down: LinearModule("mlp.c_proj", bias: bias),
      activation: try config.field("hidden_act").activation(or: "gelu_pytorch_tanh"))
    var attention = shape.attention(bias: bias, outputBias: bias)
    attention.window = try config.window()

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = shape.llamaBlocks(norm) { _ in (attention, feedForward) }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}
