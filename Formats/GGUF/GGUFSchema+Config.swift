import Base
import IR
import Tensors

extension GGUFSchema {
  /// Keys under the architecture's name that say nothing about the function.
  private static let withoutEffect: Set<String> = [
    "tensor_data_layout", "rope.scaling.finetuned", "pooling_type", "rope.scaling.original_context_length",
    "use_parallel_residual",
  ]

  /// Keys that mean the same as another one where they are missing.
  static let implied = ["attention.head_count_kv": "attention.head_count", "decoder_block_count": "block_count"]

  /// Tensors that are no weights: what they say becomes part of the configuration.
  static let factorNames: Set<String> = [
    "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight",
  ]

  /// The hyper-parameters as `config.json` spells them.
  ///
  /// With `fitsScaling`, factors of rotary embedding are stated as the scaling of Llama 3 that gives them, if there is
  /// one; else, and where there is none, as they are.
  ///
  /// - Throws: ``CompileError`` naming the key that is missing, wrong, or not in the table.
  func config(
    _ keys: inout GGUFMetadata, _ tensors: [CheckpointTensor], limits: LoadLimits, fitsScaling: Bool
  ) throws -> JSONObject {
    var config = JSONObject([
      ("architectures", .array([.string(className)])), ("model_type", .string(modelType)),
    ])
    for (key, values) in granted where !values.isEmpty { config[key] = values[0] }
    for key in self.keys {
      let full = "\(name).\(key.gguf)"
      let value: JSON?
      switch key.kind {
      case .int: value = try keys.optionalInt(full, in: range(of: key, limits)).map { .int($0) }
      case .float: value = try finite(full, &keys).map { .number(Self.decimal($0)) }
      case .bool: value = try keys.optionalBool(full).map { .bool($0) }
      }
      if let value = value ?? key.fallback {
        config[key.config[0]] = value
      } else if let other = Self.implied[key.gguf] {
        config[key.config[0]] = number(other, in: config).map { .int($0) }
      } else if key.gguf != "rope.scaling.original_context_length" {
        throw keys.failure("missing '\(full)', expected a number")
      }
    }
    if config["sliding_window"]?.int == 0 { config["sliding_window"] = .null }
    let headDim = try readHeads(&keys, &config)
    if hasRotary { try readRotary(&keys, &config, tensors, headDim: headDim, fitsScaling: fitsScaling) }
    try readVocabulary(&keys, &config, tensors, limits)
    try readEncoder(&keys, &config, tensors)
    for key in keys.keys where key.hasPrefix("\(name).") && !keys.readKeys.contains(key) {
      let part = String(key.dropFirst(name.count + 1))
      if Self.withoutEffect.contains(part) || formalities.contains(where: { $0.gguf == part }) { continue }
      // Merged checkpoints say that there are no experts.
      if ["expert_count", "expert_used_count"].contains(part), try keys.optionalInt(key, in: 0...Int(Int32.max)) == 0 {
        continue
      }
      throw keys.failure("'\(key)' is not supported for the architecture '\(name)'", kind: .unsupported)
    }
    return config
  }

  private func range(of key: Key, _ limits: LoadLimits) -> ClosedRange<Int> {
    switch key.gguf {
    case "block_count", "decoder_block_count": 1...limits.layers
    case "context_length": 1...limits.context
    case "embedding_length": 1...limits.width
    case "feed_forward_length": (experts.isEmpty ? 1 : 0)...limits.width
    case "attention.head_count", "attention.head_count_kv": 1...65536
    case "expert_count", "expert_used_count": 1...limits.experts
    default: 0...1 << 40
    }
  }

  private func finite(_ key: String, _ keys: inout GGUFMetadata) throws -> Double? {
    guard let value = try keys.optionalDouble(key) else { return nil }
    guard value.isFinite else { throw keys.failure("'\(key)' is \(value), expected a finite number") }
    return value
  }

  /// The number of the fewest decimal digits that a number of 32 bits stands for: 1e-05, not 9.99999974e-06.
  private static func decimal(_ value: Double) -> Double {
    Double(exactly: Float(value)) == value ? Double("\(Float(value))") ?? value : value
  }

  /// What is said about heads.
  ///
  /// - Returns: the width of one.
  private func readHeads(_ keys: inout GGUFMetadata, _ config: inout JSONObject) throws -> Int {
    let (widthKey, headsKey) = ("\(name).embedding_length", "\(name).attention.head_count")
    let width = number("embedding_length", in: config) ?? 1
    let heads = number("attention.head_count", in: config) ?? 1
    if let groups = number("attention.head_count_kv", in: config), heads % groups != 0 {
      throw keys.failure("'\(headsKey)' is \(heads), which '\(headsKey)_kv', \(groups), does not divide")
    }
    let stated = try keys.optionalInt("\(name).attention.key_length", in: 1...65536)
    guard stated != nil || width % heads == 0 else {
      throw keys.failure("'\(widthKey)' is \(width), which '\(headsKey)', \(heads), does not divide")
    }
    let headDim = stated ?? width / heads
    let valueKey = "\(name).attention.value_length"
    if let values = try keys.optionalInt(valueKey, in: 0...65536), values != headDim {
      throw keys.failure(
        "'\(valueKey)' is \(values), only \(headDim), the width of a head, is supported", kind: .unsupported)
    }
    if hasRotary, !hasPartialRotary || headDim * heads != width { config["head_dim"] = .int(headDim) }
    if let windowPeriod {
      let layers = number("block_count", in: config) ?? 0
      config["query_pre_attn_scalar"] = .int(
        scoreDivisor(layers: layers, width: width, heads: heads, headDim: headDim))
      config["layer_types"] = .array(
        (0..<layers).map { .string(($0 + 1) % windowPeriod == 0 ? "full_attention" : "sliding_attention") })
    }
    return headDim
  }

  private func readVocabulary(
    _ keys: inout GGUFMetadata, _ config: inout JSONObject, _ tensors: [CheckpointTensor], _ limits: LoadLimits
  ) throws {
    guard let embedding = tensors.first(where: { $0.name == "token_embd.weight" }) else {
      throw keys.failure("missing tensor 'token_embd.weight'")
    }
    guard let sizes = embedding.shape.fixedSizes, sizes.count == 2, sizes[0] <= limits.tokens else {
      throw keys.failure("tensor 'token_embd.weight' has shape \(embedding.shape), expected [tokens, width]")
    }
    if let count = try keys.optionalInt("\(name).vocab_size", in: 1...limits.tokens), count != sizes[0] {
      throw keys.failure("'\(name).vocab_size' is \(count), but 'token_embd.weight' has \(sizes[0]) rows")
    }
    config["vocab_size"] = .int(sizes[0])
    func has(_ name: String) -> Bool { tensors.contains { $0.name == name } }
    config["tie_word_embeddings"] = .bool(!has("output.weight"))
    if modelType == "llama" {
      config["attention_bias"] = .bool(has("blk.0.attn_q.bias"))
      config["mlp_bias"] = .bool(has("blk.0.ffn_gate.bias"))
    }
  }

  // MARK: Rotary embedding

  private func readRotary(
    _ keys: inout GGUFMetadata, _ config: inout JSONObject, _ tensors: [CheckpointTensor], headDim: Int,
    fitsScaling: Bool
  ) throws {
    let theta = Self.decimal(try finite("\(name).rope.freq_base", &keys) ?? 10000)
    guard theta > 1, theta <= 1e15 else {
      throw keys.failure("'\(name).rope.freq_base' is \(theta), expected 1 to 1e15")
    }
    var table = JSONObject([("rope_type", .string("default")), ("rope_theta", .number(theta))])
    let turned = try keys.optionalInt("\(name).rope.dimension_count", in: 0...65536) ?? headDim
    if turned != headDim {
      guard hasPartialRotary else {
        throw keys.failure(
          "'\(name).rope.dimension_count' is \(turned), only \(headDim), the width of a head, is supported",
          kind: .unsupported)
      }
      table["partial_rotary_factor"] = .number(Double(turned) / Double(headDim))
    }
    try readScaling(&keys, &table)
    func factors(_ name: String) throws -> [Float]? {
      try tensors.first { $0.name == name }.map { try Self.readFactors($0, count: turned / 2) }
    }
    let context = number("context_length", in: config) ?? 1
    let attention = try finite("\(name).rope.scaling.attn_factor", &keys) ?? 1
    let (short, long) = (try factors("rope_factors_short.weight"), try factors("rope_factors_long.weight"))
    if let short, let long {
      let original = number("rope.scaling.original_context_length", in: config) ?? context
      Self.state(short, long, attention: Self.decimal(attention), original: original, &table)
    } else if short != nil || long != nil {
      throw keys.failure("one of 'rope_factors_short.weight' and 'rope_factors_long.weight' is missing")
    } else if table["rope_type"]?.string == "yarn" {
      try readYarn(&keys, &table, attention: attention, context: context)
    } else if attention != 1 {
      throw keys.failure("'\(name).rope.scaling.attn_factor' is not supported", kind: .unsupported)
    }
    if let factors = try factors("rope_freqs.weight") {
      guard table["rope_type"]?.string == "default" else {
        throw keys.failure(
          "'\(name).rope.scaling.type' together with 'rope_freqs.weight' is not supported", kind: .unsupported)
      }
      if !fitsScaling || !Self.fit(factors, theta: theta, width: turned, &table) {
        Self.state(factors, factors, attention: 1, original: context, &table)
      }
    }
    if hasLocalRotary {
      config["rope_parameters"] = [
        "full_attention": .object(table), "sliding_attention": ["rope_type": "default", "rope_theta": 10000.0],
      ]
    } else {
      config["rope_parameters"] = .object(table)
    }
  }

  private func readScaling(_ keys: inout GGUFMetadata, _ table: inout JSONObject) throws {
    let old = try finite("\(name).rope.scale_linear", &keys)
    let kind = try keys.optionalString("\(name).rope.scaling.type") ?? (old == nil ? "none" : "linear")
    let stated = try finite("\(name).rope.scaling.factor", &keys)
    switch kind {
    case "none": break
    case "linear", "yarn":
      guard let factor = stated ?? old else { throw keys.failure("missing '\(name).rope.scaling.factor'") }
      guard factor > 0, factor <= 1e9 else {
        throw keys.failure("'\(name).rope.scaling.factor' is \(factor), expected a positive number")
      }
      table["rope_type"] = .string(kind)
      table["factor"] = .number(Self.decimal(factor))
    default:
      throw keys.failure(
        "'\(name).rope.scaling.type' '\(kind)' is not supported, only none, linear and yarn", kind: .unsupported)
    }
  }

  /// Reads what YaRN needs beside the factor. Readers multiply cosines and sines by `0.1 log(factor) + 1` and by the
  /// attention factor of the file.
  private func readYarn(
    _ keys: inout GGUFMetadata, _ table: inout JSONObject, attention: Double, context: Int
  ) throws {
    let prefix = "\(name).rope.scaling"
    let factor = table["factor"]?.double ?? 1
    table["original_max_position_embeddings"] = .int(
      try keys.optionalInt("\(prefix).original_context_length", in: 1...1 << 30) ?? context)
    for (key, own) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
      if let turns = try finite("\(prefix).\(key)", &keys) { table[own] = .number(Self.decimal(turns)) }
    }
    if let share = try finite("\(prefix).yarn_ext_factor", &keys), share != 1 {
      throw keys.failure("'\(prefix).yarn_ext_factor' is \(share), only 1 is supported", kind: .unsupported)
    }
    let extra = try Self.decimal(attention) * (finite("\(prefix).yarn_attn_factor", &keys) ?? 1)
    if extra != 1 { table["attention_factor"] = .number(extra * RotaryScaling.yarnMagnitude(factor: factor)) }
  }

  private static func readFactors(_ tensor: CheckpointTensor, count: Int) throws -> [Float] {
    guard tensor.type == TensorType(.f32, [count]) else {
      throw CompileError(
        .input, "tensor '\(tensor.name)' is \(tensor.type), expected f32[\(count)]",
        subject: .init(file: tensor.file.path))
    }
    var reader = ByteReader(try tensor.file.slice(tensor.range), file: tensor.file.path, base: tensor.range.lowerBound)
    return try (0..<count).map { _ in
      let factor = try reader.f32()
      guard factor > 0, factor <= 1e9 else { throw reader.failure("a factor of \(factor) in '\(tensor.name)'") }
      return factor
    }
  }

  /// States factors as they are, in the form of LongRoPE.
  private static func state(
    _ short: [Float], _ long: [Float], attention: Double, original: Int, _ table: inout JSONObject
  ) {
    func list(_ factors: [Float]) -> JSON { .array(factors.map { .number(decimal(Double($0))) }) }
    table["rope_type"] = .string("longrope")
    table["attention_factor"] = .number(attention)
    table["original_max_position_embeddings"] = .int(original)
    table["short_factor"] = list(short)
    table["long_factor"] = list(long)
  }

  /// Finds the parameters of Llama 3's scaling that give the factors of a file; false if there are none.
  private static func fit(_ factors: [Float], theta: Double, width: Int, _ table: inout JSONObject) -> Bool {
    let plain = RotaryScaling.none.inverseFrequencies(theta: theta, width: width)
    // The lowest frequency is divided by the whole factor; contexts are powers of two.
    let factor = Double(factors.last ?? 1).rounded()
    guard factor > 0, factors.count == plain.count else { return false }
    for context in (4...20).map({ 1 << $0 }) {
      for high in [4.0, 2, 8, 16] {
        let scaling = RotaryScaling.llama3(factor: factor, lowFactor: 1, highFactor: high, originalContext: context)
        let scaled = scaling.inverseFrequencies(theta: theta, width: width)
        let fits = zip(factors, zip(plain, scaled)).allSatisfy { abs($0 - $1.0 / $1.1) <= 1e-5 * abs($0) }
        guard fits else { continue }
        table["rope_type"] = .string("llama3")
        table["factor"] = .number(factor)
        table["low_freq_factor"] = .number(1)
        table["high_freq_factor"] = .number(high)
        table["original_max_position_embeddings"] = .int(context)
        return true
      }
    }
    return false
  }
}
