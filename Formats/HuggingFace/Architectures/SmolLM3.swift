import Base
import IR

/// SmolLM 3 (Hugging Face, 2025): Llama in which every fourth layer has no rotary embedding.
struct SmolLM3: Architecture {
  static let modelType = "smollm3"
  static let className = "SmolLM3ForCausalLM"

  let decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 4
    spelling.defaultContext = 32768
    spelling.tiesEmbedding = true
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let bias = try config.field("attention_bias").bool(or: false)
    let feedForward = shape.gatedFeedForward(
      try config.field("intermediate_size").int(in: 1...limits.width),
      try config.field("hidden_act").activation(or: "silu"), bias: try config.field("mlp_bias").bool(or: false))
    let turns = try Self.turningLayers(&config, layers: shape.layers)
    // Layers with a window are those without rotary embedding.
    config.ignore("max_window_layers")
    let usesWindow = try config.field("use_sliding_window").bool(or: false)
    let window = try config.window()
    let windows = try config.windows(layers: shape.layers, usesWindow ? window : nil) { !turns[$0] }
    var rotary = RotaryConfig.Spelling()
    rotary.theta = 2_000_000

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context, rotary))
    decoder.blocks = shape.llamaBlocks(norm) { layer in
      var attention = shape.attention(bias: bias, outputBias: bias, rotary: turns[layer] ? 0 : nil)
      attention.window = windows[layer]
      return (attention, feedForward)
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }

  /// Which layers have rotary embedding: in `no_rope_layers` 1 stands for one that has.
  private static func turningLayers(_ config: inout CheckpointConfig, layers: Int) throws -> [Bool] {
    let stated = config.field("no_rope_layers")
    let interval = try config.field("no_rope_layer_interval").int(or: 4)
    guard interval >= 1 else {
      throw config.root.failure("'no_rope_layer_interval' is \(interval), expected 1 or more")
    }
    guard stated.exists else { return (0..<layers).map { ($0 + 1) % interval != 0 } }
    let flags = try stated.elements().map { try $0.int(in: 0...1) == 1 }
    guard flags.count == layers else {
      throw config.root.failure("'no_rope_layers' has \(flags.count) entries for \(layers) layers")
    }
    return flags
  }
}
