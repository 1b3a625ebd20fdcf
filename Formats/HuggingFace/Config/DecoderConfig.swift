import Base
import IR

/// What configurations of decoders have in common.
struct DecoderConfig: Sendable {
  /// What an architecture calls these things, and what they are where nothing is said.
  struct Spelling: Sendable {
    /// What an absent number of tokens means, where it may be absent.
    var vocabulary: Int?
    var width = ["hidden_size"]
    var layers = ["num_hidden_layers"]
    var heads = ["num_attention_heads"]
    /// What an absent number of heads means, where it may be absent.
    var defaultHeads: Int?
    /// None where each head has keys and values of its own.
    var kvHeads = ["num_key_value_heads"]
    /// What an absent key means; null always means one for each head.
    var defaultKVHeads: Int?
    /// None where heads divide the width.
    var headDim = ["head_dim"]
    /// What an absent key means, if not that heads divide the width.
    var defaultHeadDim: Int?
    var context = ["max_position_embeddings"]
    var defaultContext = 2048
    var tiesEmbedding = false
  }

  var vocabulary: Int
  var width: Int
  var layers: Int
  var heads: Int
  var kvHeads: Int
  var headDim: Int
  var context: Int
  /// Whether the rows of the embedding are the output weights.
  var tiesEmbedding: Bool
  let limits: LoadLimits
  private let file: JSONField

  init(_ config: inout CheckpointConfig, limits: LoadLimits, _ spelling: Spelling = Spelling()) throws {
    self.limits = limits
    file = config.root
    let tokens = config.field("vocab_size")
    if !tokens.exists, let fallback = spelling.vocabulary {
      vocabulary = fallback
    } else {
      vocabulary = try tokens.int(in: 1...limits.tokens)
    }
    width = try config.agreed(spelling.width).int(in: 1...limits.width)
    layers = try config.agreed(spelling.layers).int(in: 1...limits.layers)
    let heads = try config.agreed(spelling.heads)
    if !heads.exists, let fallback = spelling.defaultHeads {
      self.heads = fallback
    } else {
      self.heads = try heads.int(in: 1...65536)
    }
    kvHeads = self.heads
    if !spelling.kvHeads.isEmpty {
      let field = try config.agreed(spelling.kvHeads)
      if field.exists {
        kvHeads = try field.int(in: 1...65536)
      } else if !spelling.kvHeads.contains(where: config.says), let fallback = spelling.defaultKVHeads {
        kvHeads = fallback
      }
      guard self.heads % kvHeads == 0 else {
        throw file.failure(
          "'\(spelling.heads[0])' is \(self.heads), which '\(spelling.kvHeads[0])', \(kvHeads), does not divide")
      }
    }
    let stated = spelling.headDim.isEmpty ? nil : try config.agreed(spelling.headDim)
    if let stated, stated.exists {
      headDim = try stated.int(in: 1...65536)
    } else if let fallback = spelling.defaultHeadDim {
      headDim = fallback
    } else {
      guard width % self.heads == 0 else {
        throw file.failure(
          "'\(spelling.width[0])' is \(width), which '\(spelling.heads[0])', \(self.heads), does not divide")
      }
      headDim = width / self.heads
    }
    guard headDim * self.heads <= limits.width else {
      throw file.failure("\(self.heads) heads of \(headDim) numbers, at most \(limits.width) in all are allowed")
    }
    context = spelling.defaultContext
    if !spelling.context.isEmpty { context = try config.agreed(spelling.context).int(or: context) }
    guard context >= 1, context <= limits.context else {
      throw file.failure("'\(spelling.context[0])' is \(context), expected 1 to \(limits.context)")
    }
    tiesEmbedding = try config.field("tie_word_embeddings").bool(or: spelling.tiesEmbedding)
  }

  /// A decoder of these sizes without blocks.
  func decoder(norm: NormModule?) -> Decoder {
    var decoder = Decoder()
    decoder.vocabulary = vocabulary
    decoder.width = width
    decoder.context = context
    decoder.norm = norm
    decoder.head.isTied = tiesEmbedding
    return decoder
  }

  /// A rotary embedding for these heads; none if nothing turns.
  func rotaries(_ rotary: RotaryConfig, isInterleaved: Bool = false) throws -> [DecoderRotary] {
    try rotary.rotary(headDim: headDim, isInterleaved: isInterleaved).map { [$0] } ?? []
  }

  /// Blocks with a norm before each part and the usual names of modules.
  func llamaBlocks(
    _ norm: NormModule, _ parts: (Int) -> (attention: any DecoderPart, feedForward: any DecoderPart)
  ) -> [DecoderBlock] {
    (0..<layers).map { layer in
      let (attention, feedForward) = parts(layer)
      return DecoderBlock(
        module: "model.layers.\(layer)", attentionNorm: norm.named("input_layernorm"),
        feedForwardNorm: norm.named("post_attention_layernorm"), attention: attention, feedForward: feedForward)
    }
  }

  /// Attention with the usual names of modules and scores divided by the root of the size of a head.
  func attention(bias: Bool = false, outputBias: Bool = false, rotary: Int? = 0) -> DecoderAttention {
    DecoderAttention(
      heads: heads, kvHeads: kvHeads, headDim: headDim, scale: 1 / Float(headDim).squareRoot(),
      projections: .separate(
        LinearModule("self_attn.q_proj", bias: bias), LinearModule("self_attn.k_proj", bias: bias),
        LinearModule("self_attn.v_proj", bias: bias)),
      output: LinearModule("self_attn.o_proj", bias: outputBias), rotary: rotary)
  }

  /// A gated feed-forward layer with the usual names of modules.
  func gatedFeedForward(
    _ width: Int, _ activation: FeedForwardActivation, bias: Bool = false
  ) -> DecoderFeedForward {
    DecoderFeedForward(
      width: width,
      projections: .gated(
        gate: LinearModule("mlp.gate_proj", bias: bias), up: LinearModule("mlp.up_proj", bias: bias)),
      down: LinearModule("mlp.down_proj", bias: bias), activation: activation)
  }
}

extension CheckpointConfig {
  /// What is added to variances.
  mutating func epsilon(_ key: String, or fallback: Double) throws -> Float {
    let epsilon = try field(key).double(or: fallback)
    guard epsilon >= 0, epsilon < 1 else { throw root.failure("'\(key)' is \(epsilon), expected 0 to 1") }
    return Float(epsilon)
  }

  /// A factor or a limit: a finite number other than 0; nil if null, and `fallback` if absent.
  mutating func optionalNumber(_ key: String, or fallback: Float? = nil) throws -> Float? {
    guard let value = try field(key).optionalDouble() else { return says(key) ? nil : fallback }
    guard value.isFinite, value != 0, abs(value) <= 1e9 else {
      throw root.failure("'\(key)' is \(value), expected a number other than 0")
    }
    return Float(value)
  }

  /// A soft cap or limit, which is positive; nil if null, and `fallback` if absent.
  mutating func optionalPositive(_ key: String, or fallback: Float? = nil) throws -> Float? {
    guard let value = try optionalNumber(key, or: fallback) else { return nil }
    guard value > 0 else { throw root.failure("'\(key)' is \(value), expected a positive number") }
    return value
  }

  /// The number of keys that a query sees; nil if null, and `fallback` if absent.
  mutating func window(or fallback: Int? = nil) throws -> Int? {
    let field = field("sliding_window")
    if field.exists { return try field.int(in: 1...Int(Int32.max)) }
    return says("sliding_window") ? nil : fallback
  }

  /// The types of the layers, if they are listed: whether each sees a window of keys alone.
  mutating func listedWindows(layers: Int) throws -> [Bool]? {
    let field = field("layer_types")
    guard field.exists else { return nil }
    let elements = try field.elements()
    if elements.isEmpty { return nil }
    guard elements.count == layers else {
      throw root.failure("'layer_types' has \(elements.count) entries for \(layers) layers")
    }
    return try elements.map { element in
      switch try element.string() {
      case "full_attention": return false
      case "sliding_attention": return true
      case let type:
        throw CompileError(
          .unsupported, "'\(element.path)' '\(type)' is not supported, only full_attention and sliding_attention",
          subject: .init(file: root.file))
      }
    }
  }

  /// The window of each layer: `window` where the listed types, or if none are listed `isWindowed`, say so.
  mutating func windows(
    layers: Int, _ window: Int?, where isWindowed: (Int) -> Bool
  ) throws -> [Int?] {
    let listed = try listedWindows(layers: layers)
    return try (0..<layers).map { layer in
      guard listed?[layer] ?? isWindowed(layer) else { return nil }
      if listed != nil, window == nil {
        throw root.failure("'layer_types[\(layer)]' is 'sliding_attention', but 'sliding_window' is missing")
      }
      return window
    }
  }

  /// Throws unless the value is absent or one of `values`.
  mutating func require(_ key: String, in values: [String]) throws {
    guard let value = try field(key).optionalString(), !values.contains(value) else { return }
    throw CompileError(
      .unsupported, "'\(key)' '\(value)' is not supported, only \(listed(values, "and"))",
      subject: .init(file: root.file))
  }

  /// Throws if the value is true.
  mutating func refuse(_ keys: String...) throws {
    for key in keys where try field(key).bool(or: false) {
      throw CompileError(.unsupported, "'\(key)' is not supported", subject: .init(file: root.file))
    }
  }
}

extension CheckpointTensors {
  /// Throws unless the names of tensors that begin with `prefix` go on with the numbers of so many blocks.
  func requireBlocks(_ count: Int, prefix: String, key: String = "num_hidden_layers") throws {
    var found = 0
    for tensor in all where tensor.name.hasPrefix(prefix) {
      let digits = tensor.name.dropFirst(prefix.count).prefix { $0 != "." }
      if let number = Int(digits), number >= 0, number < Int.max { found = max(found, number + 1) }
    }
    guard found == count else {
      throw CompileError(
        .input, "'\(key)' is \(count), but the weights have \(found) layers",
        subject: .init(file: "\(place)/config.json"))
    }
  }
}
