import Base
import IR

/// What configurations of decoders have in common.
struct DecoderConfig: Sendable {
  /// What an architecture calls these things, and what they are where nothing is said.
  struct Spelling: Sendable {
    var width = ["hidden_size"]
    var layers = ["num_hidden_layers"]
    var heads = ["num_attention_heads"]
    /// None where each head has keys and values of its own.
    var kvHeads = ["num_key_value_heads"]
    /// None where heads divide the width.
    var headDim = ["head_dim"]
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
    vocabulary = try config.field("vocab_size").int(in: 1...limits.tokens)
    width = try config.field(anyOf: spelling.width).int(in: 1...limits.width)
    layers = try config.field(anyOf: spelling.layers).int(in: 1...limits.layers)
    heads = try config.field(anyOf: spelling.heads).int(in: 1...65536)
    kvHeads = heads
    if !spelling.kvHeads.isEmpty, case let field = config.field(anyOf: spelling.kvHeads), field.exists {
      kvHeads = try field.int(in: 1...65536)
      guard heads % kvHeads == 0 else {
        throw file.failure(
          "'\(spelling.heads[0])' is \(heads), which '\(spelling.kvHeads[0])', \(kvHeads), does not divide")
      }
    }
    let stated = spelling.headDim.isEmpty ? nil : config.field(anyOf: spelling.headDim)
    if let stated, stated.exists {
      headDim = try stated.int(in: 1...65536)
    } else if let fallback = spelling.defaultHeadDim {
      headDim = fallback
    } else {
      guard width % heads == 0 else {
        throw file.failure(
          "'\(spelling.width[0])' is \(width), which '\(spelling.heads[0])', \(heads), does not divide")
      }
      headDim = width / heads
    }
    guard headDim * heads <= limits.width else {
      throw file.failure("\(heads) heads of \(headDim) numbers, at most \(limits.width) in all are allowed")
    }
    context = spelling.defaultContext
    if !spelling.context.isEmpty { context = try config.field(anyOf: spelling.context).int(or: context) }
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

  /// A factor or a limit: a finite number other than 0; nil if absent.
  mutating func optionalNumber(_ key: String) throws -> Float? {
    guard let value = try field(key).optionalDouble() else { return nil }
    guard value.isFinite, value != 0, abs(value) <= 1e9 else {
      throw root.failure("'\(key)' is \(value), expected a number other than 0")
    }
    return Float(value)
  }

  /// A soft cap or limit, which is positive; nil if absent.
  mutating func optionalPositive(_ key: String) throws -> Float? {
    guard let value = try optionalNumber(key) else { return nil }
    guard value > 0 else { throw root.failure("'\(key)' is \(value), expected a positive number") }
    return value
  }

  /// A number of keys that a query sees; nil if absent.
  mutating func optionalWindow(_ key: String) throws -> Int? {
    let field = field(key)
    return field.exists ? try field.int(in: 1...Int(Int32.max)) : nil
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
