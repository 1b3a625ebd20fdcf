import Base
import IR

/// Qwen 2 and 2.5 (Yang and others, 2024): Llama with biases of queries, keys and values; later layers may see a window of
/// keys alone.
struct Qwen2: DecoderArchitecture {
  static let modelType = "qwen2"
  static let className = "Qwen2ForCausalLM"

  var decoder: Decoder

  var vocabulary: Int { decoder.vocabulary }

  init(_ config: inout CheckpointConfig, limits: LoadLimits) throws {
    var spelling = DecoderConfig.Spelling()
    spelling.defaultKVHeads = 32
    spelling.defaultContext = 32768
    let shape = try DecoderConfig(&config, limits: limits, spelling)
    let norm = NormModule("model.norm", epsilon: try config.epsilon("rms_norm_eps", or: 1e-6))
    let feedForward = try config.field("intermediate_size").int(in: 1...limits.width)
    let activation = try config.field("hidden_act").activation(or: "silu")
    let windows = try config.qwenWindows(layers: shape.layers)

    var decoder = shape.decoder(norm: norm)
    decoder.rotaries = try shape.rotaries(RotaryConfig(&config, context: shape.context))
    decoder.blocks = shape.llamaBlocks(norm) { layer in
      var attention = shape.attention(bias: true)
      attention.window = windows[layer]
      return (attention, shape.gatedFeedForward(feedForward, activation))
    }
    self.decoder = decoder
  }

  func build(_ tensors: inout CheckpointTensors, into model: inout Model, options: LoadOptions) throws {
    try decoder.buildHuggingFace(&tensors, into: &model, options: options)
  }
}

extension CheckpointConfig {
  /// The windows of Qwen's layers: with `use_sliding_window`, those from `max_window_layers` on have one.
  mutating func qwenWindows(layers: Int) throws -> [Int?] {
    let uses = try field("use_sliding_window").bool(or: false)
    let stated = try window(or: 4096)
    let first = try field("max_window_layers").int(or: 28)
    let window = uses ? stated : nil
    return try windows(layers: layers, window) { window != nil && $0 >= first }
  }
}
