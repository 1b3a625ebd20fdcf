import Base
import Glibc

/// Base and scaling of rotary embedding as `config.json` states them.
struct RotaryConfig: Sendable {
  var theta: Double
  var scaling: RotaryScaling
  /// The part of a head that turns.
  var partial: Double
  /// What cosines and sines are multiplied by.
  var attentionFactor: Double = 1
  /// The factors for a cache of more rows than the original context (LongRoPE).
  var longFactors: (factors: [Float], beyond: Int)?
  /// The configuration, for messages.
  private let file: JSONField

  /// What an architecture calls base and part, and what they are where nothing is said.
  struct Spelling: Sendable {
    var thetaKeys = ["rope_theta"]
    var theta: Double = 10000
    /// None where an architecture always turns whole heads.
    var partialKeys: [String] = []
    var partial: Double = 1
    /// Other names of types of scaling.
    var aliases = ["su": "longrope"]
    /// The original context where none is stated, if not the context.
    var originalContext: Int?

    init() {}

    /// Base and part under their usual names.
    static func partial(_ part: Double, theta: Double = 10000) -> Spelling {
      var spelling = Spelling()
      spelling.partialKeys = ["partial_rotary_factor"]
      spelling.partial = part
      spelling.theta = theta
      return spelling
    }
  }

  /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
  init(_ config: inout CheckpointConfig, context: Int, _ spelling: Spelling = Spelling()) throws {
    let table = try Self.table(&config)
    try self.init(&config, table, context: context, spelling)
  }

  /// Reads the rotary embeddings of layers of several types: one table for all types, or one for each.
  static func byLayerType(
    _ config: inout CheckpointConfig, types: Set<String>, context: Int, _ spelling: Spelling = Spelling()
  ) throws -> [String: RotaryConfig] {
    let table = try Self.table(&config)
    let isNested = try table.exists && table.members().contains { types.contains($0.key) }
    guard isNested else {
      let one = try RotaryConfig(&config, table, context: context, spelling)
      return Dictionary(uniqueKeysWithValues: types.map { ($0, one) })
    }
    var result: [String: RotaryConfig] = [:]
    for (key, field) in try table.members() {
      guard types.contains(key) else {
        throw table.failure("'\(field.path)' stands beside tables for types of layers, but names none of them")
      }
      if field.exists { result[key] = try RotaryConfig(&config, field, context: context, spelling) }
    }
    for type in types.sorted() where result[type] == nil {
      throw table.failure("'\(table.path)' says nothing about layers of type '\(type)'")
    }
    return result
  }

  /// The table under the new or the old name.
  static func table(_ config: inout CheckpointConfig) throws -> JSONField {
    let new = config.field("rope_parameters")
    let old = config.field("rope_scaling")
    if new.exists, old.exists, new.value != old.value {
      throw new.failure("'rope_parameters' and 'rope_scaling' contradict each other")
    }
    return new.exists ? new : old
  }

  /// Reads a table, which may be absent.
  init(_ config: inout CheckpointConfig, _ table: JSONField, context: Int, _ spelling: Spelling) throws {
    func number(_ key: String, _ outer: JSONField, _ fallback: Double) throws -> Double {
      let inner = table.exists ? try table[key].optionalDouble() : nil
      let said = try outer.optionalDouble()
      if let inner, let said, inner != said {
        throw table.failure("'\(outer.path)' is \(said), but '\(table.path).\(key)' is \(inner)")
      }
      return inner ?? said ?? fallback
    }
    file = config.root
    theta = try number("rope_theta", config.agreed(spelling.thetaKeys), spelling.theta)
    guard theta > 1, theta <= 1e15 else { throw file.failure("'rope_theta' is \(theta), expected 1 to 1e15") }
    partial = 1
    if !spelling.partialKeys.isEmpty {
      partial = try number("partial_rotary_factor", config.agreed(spelling.partialKeys), spelling.partial)
      guard partial >= 0, partial <= 1 else {
        throw file.failure("'\(spelling.partialKeys[0])' is \(partial), expected 0 to 1")
      }
    }
    scaling = .none
    // Only scaled embeddings look at it.
    let original = config.field("original_max_position_embeddings")
    if table.exists {
      try readScaling(table, original, context: context, spelling)
    }
  }

  private mutating func readScaling(
    _ table: JSONField, _ outerOriginal: JSONField, context: Int, _ spelling: Spelling
  ) throws {
    var reader = RotaryTable(table)
    let said = try table[anyOf: "rope_type", "type"].string(or: "default")
    let kind = spelling.aliases[said] ?? said
    if !spelling.partialKeys.isEmpty { reader.known.insert("partial_rotary_factor") }
    func original() throws -> Int {
      let inner = reader.field("original_max_position_embeddings")
      if outerOriginal.exists { return try outerOriginal.int(in: 1...1 << 30) }
      return inner.exists ? try inner.int(in: 1...1 << 30) : spelling.originalContext ?? context
    }
    switch kind {
    case "default": break
    case "dynamic":
      // Differs from the plain one for texts longer than the context alone, which no cache holds.
      _ = try reader.positive("factor")
      _ = try original()
    case "linear": scaling = .linear(factor: try reader.positive("factor"))
    case "llama3":
      let (low, high) = (try reader.positive("low_freq_factor"), try reader.positive("high_freq_factor"))
      guard low < high else {
        throw table.failure("'\(table.path).low_freq_factor' is \(low), expected less than the high one, \(high)")
      }
      scaling = .llama3(
        factor: try reader.positive("factor"), lowFactor: low, highFactor: high, originalContext: try original())
    case "yarn":
      let original = try original()
      let factor = try reader.optionalPositive("factor") ?? Double(context) / Double(original)
      let fast = try reader.optionalPositive("beta_fast") ?? 32
      let slow = try reader.optionalPositive("beta_slow") ?? 1
      let truncates = try reader.field("truncate").bool(or: true)
      scaling = .yarn(factor: factor, fast: fast, slow: slow, originalContext: original, truncates: truncates)
      let inferred = RotaryScaling.yarnFactor(
        factor: factor, scale: try reader.optional("mscale"), scaleAll: try reader.optional("mscale_all_dim"))
      attentionFactor = try reader.optionalPositive("attention_factor") ?? inferred
    case "longrope":
      let original = try original()
      let factor = try reader.optionalPositive("factor") ?? Double(context) / Double(original)
      scaling = .factors(try reader.factors("short_factor"))
      longFactors = (try reader.factors("long_factor"), original)
      let inferred = factor <= 1 || original == 1 ? 1 : (1 + log(factor) / log(Double(original))).squareRoot()
      attentionFactor = try reader.optionalPositive("attention_factor") ?? inferred
    default:
      throw CompileError(
        .unsupported,
        "rotary embedding of type '\(kind)' is not supported, only default, linear, dynamic, llama3, yarn and longrope",
        subject: .init(file: table.file, object: "'\(table.path)'"))
    }
    try reader.requireAllRead(kind)
  }

  /// The embedding for heads of so many numbers; nil if nothing turns.
  func rotary(headDim: Int, isInterleaved: Bool = false) throws -> DecoderRotary? {
    let width = Int(Double(headDim) * partial)
    let pairs = (width + 1) / 2
    guard 2 * pairs <= headDim else {
      throw file.failure("heads of \(headDim) numbers of which \(width) turn, expected an even number")
    }
    guard width > 0 else { return nil }
    func frequencies(_ scaling: RotaryScaling) throws -> [Float] {
      if case .factors(let factors) = scaling, factors.count != pairs {
        throw file.failure("\(factors.count) factors for rotary embedding of \(pairs) pairs, expected as many")
      }
      return scaling.inverseFrequencies(theta: theta, width: width)
    }
    var rotary = DecoderRotary(inverseFrequencies: try frequencies(scaling), isInterleaved: isInterleaved)
    rotary.factor = Float(attentionFactor)
    if let longFactors {
      rotary.long = .init(
        inverseFrequencies: try frequencies(.factors(longFactors.factors)), beyond: longFactors.beyond)
    }
    return rotary
  }
}

/// A table of the configuration that knows which keys were read.
private struct RotaryTable {
  let table: JSONField
  var known: Set<String> = ["rope_type", "type", "rope_theta"]

  init(_ table: JSONField) { self.table = table }

  mutating func field(_ key: String) -> JSONField {
    known.insert(key)
    return table[key]
  }

  mutating func optional(_ key: String) throws -> Double? { try field(key).optionalDouble() }

  mutating func positive(_ key: String) throws -> Double {
    _ = try field(key).double()
    return try optionalPositive(key) ?? 1
  }

  mutating func optionalPositive(_ key: String) throws -> Double? {
    guard let value = try optional(key) else { return nil }
    guard value > 0, value <= 1e9 else {
      throw table.failure("'\(table.path).\(key)' is \(value), expected a positive number")
    }
    return value
  }

  mutating func factors(_ key: String) throws -> [Float] {
    try field(key).elements().map { element in
      let value = try element.double()
      guard value > 0, value <= 1e9 else {
        throw table.failure("'\(element.path)' is \(value), expected a positive number")
      }
      return Float(value)
    }
  }

  func requireAllRead(_ kind: String) throws {
    for (key, field) in try table.members() where !known.contains(key) && field.exists {
      if key == "partial_rotary_factor", try field.double() == 1 { continue }
      throw CompileError(
        .unsupported, "'\(field.path)' is not supported for rotary embedding of type '\(kind)'",
        subject: .init(file: table.file))
    }
  }
}
