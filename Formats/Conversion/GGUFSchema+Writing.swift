import Base
import Glibc
import IR
import Tensors

extension GGUFSchema {
  /// A checkpoint whose tensors have the names and forms of GGUF, and the metadata for it, with sentences about what could
  /// not be represented.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the hyper-parameter or tensor that GGUF has no place for.
  static func prepared(_ source: Checkpoint) throws -> (Checkpoint, GGUFWriter, notes: [String]) {
    let modelType = source.config["model_type"]?.string ?? ""
    let className = source.config["architectures"]?.array?.first?.string
    guard let schema = schema(modelType: modelType, className: className) else {
      throw CompileError(
        .unsupported, "the architecture '\(modelType)' is not written as GGUF",
        notes: ["known are \(listed(Set(all.flatMap { [$0.modelType] + $0.otherModelTypes }).sorted(), "and"))"])
    }
    var notes: [String] = []
    let (checkpoint, writer) = try schema.prepare(source, className: className, &notes)
    return (checkpoint, writer, notes)
  }

  private func prepare(
    _ source: Checkpoint, className: String?, _ notes: inout [String]
  ) throws -> (Checkpoint, GGUFWriter) {
    var writer = GGUFWriter()
    writer["general.architecture"] = .string(name)
    writer["general.name"] = .string(source.name)
    var config = ConvertedConfig(source.config)
    for key in keys { try write(key, &config, &writer) }
    for (key, value) in formalities { writer["\(name).\(key)"] = value }
    for key in ignored { _ = config.value(key) }
    try writeHeads(&config, &writer)
    try checkGranted(&config)
    var checkpoint = source
    if hasRotary { try writeRotary(&config, &writer, &checkpoint) }
    try writeSpecials(&config, &notes)
    var schema = self
    try schema.writeEncoder(&config, &writer, &checkpoint, className: className, &notes)
    try schema.rename(&checkpoint, config)
    if let vocabulary = checkpoint.type(of: "token_embd.weight")?.shape.dims.first?.fixedValue {
      writer["\(name).vocab_size"] = .u32(vocabulary)
    }
    // T5 has rules of its own.
    if name != Self.t5.name, config.bool("tie_word_embeddings") ?? isTiedByDefault {
      checkpoint.remove("output.weight")
    }
    _ = config.int("vocab_size")
    try config.requireAllTaken(architecture: name)
    return (checkpoint, writer)
  }

  private func write(_ key: Key, _ config: inout ConvertedConfig, _ writer: inout GGUFWriter) throws {
    let full = "\(name).\(key.gguf)"
    let stated = key.config.compactMap({ config.value($0) }).first
    let value = (stated?.string == "auto" ? nil : stated) ?? implied(key, config) ?? key.fallback
    if case .null? = value { return }
    guard let value else {
      throw CompileError(.input, "missing '\(key.config[0])' in the configuration")
    }
    switch key.kind {
    case .int:
      guard let number = value.int, number >= 0 else {
        throw CompileError(.input, "'\(key.config[0])' is \(value.kindDescription), expected a number of at least 0")
      }
      writer[full] = .u32(number)
    case .float:
      guard let number = value.double else {
        throw CompileError(.input, "'\(key.config[0])' is \(value.kindDescription), expected a number")
      }
      writer[full] = .f32(number)
    case .bool:
      guard let truth = value.bool else {
        throw CompileError(.input, "'\(key.config[0])' is \(value.kindDescription), expected true or false")
      }
      writer[full] = .bool(truth)
    }
  }

  /// What a missing hyper-parameter follows from.
  private func implied(_ key: Key, _ config: ConvertedConfig) -> JSON? {
    switch key.config[0] {
    case "num_key_value_heads": config.taken("num_attention_heads").map { .int($0) }
    case "num_decoder_layers": config.taken("num_layers").map { .int($0) }
    case "layer_norm_eps": .number(name == "bert" ? 1e-12 : 1e-5)
    case "layer_norm_epsilon": .number(name.hasPrefix("t5") ? 1e-6 : 1e-5)
    case "n_inner": config.taken("n_embd").map { .int(4 * $0) }
    case "time_step_rank": config.taken("hidden_size").map { .int(($0 + 15) / 16) }
    case "intermediate_size":
      config.taken("expand").flatMap { factor in
        config.taken("hidden_size").map { .int(factor * $0) }
      }
    default: nil
    }
  }

  private func writeHeads(_ config: inout ConvertedConfig, _ writer: inout GGUFWriter) throws {
    let width = stated("embedding_length", config) ?? 0
    let heads = max(stated("attention.head_count", config) ?? 1, 1)
    let headDim = config.int("head_dim") ?? config.taken("d_kv") ?? width / heads
    if headDim * heads != width {
      writer["\(name).attention.key_length"] = .u32(headDim)
      writer["\(name).attention.value_length"] = .u32(headDim)
    }
    config.headDim = headDim
  }

  private func checkGranted(_ config: inout ConvertedConfig) throws {
    for (key, values) in granted {
      guard let value = config.value(key) else { continue }
      // A window that no text outgrows is none.
      if key == "sliding_window", let window = value.int, let context = config.taken("max_position_embeddings"),
        window >= context
      {
        continue
      }
      guard values.contains(value) else {
        throw CompileError(
          .unsupported, "'\(key)' is \(value.text()), which the architecture '\(name)' of GGUF does not express")
      }
    }
  }

  private func writeRotary(
    _ config: inout ConvertedConfig, _ writer: inout GGUFWriter, _ checkpoint: inout Checkpoint
  ) throws {
    var tables = [config.value("rope_parameters"), config.value("rope_scaling")].compactMap { $0 }
    if let full = tables.first?["full_attention"] {
      // Gemma 3: local layers turn with base 10000, which GGUF takes for granted.
      let local = tables[0]["sliding_attention"]
      guard local?["rope_theta"]?.double ?? 10000 == 10000, (local?["rope_type"]?.string ?? "default") == "default"
      else {
        throw CompileError(.unsupported, "'rope_parameters.sliding_attention' is not expressed in GGUF")
      }
      tables[0] = full
    }
    if let local = config.value("rope_local_base_freq"), local.double != 10000 {
      throw CompileError(.unsupported, "'rope_local_base_freq' is not expressed in GGUF")
    }
    let table = tables.first
    // All spellings count as taken, whichever says it.
    let bases = (["rope_theta"] + (hasPartialRotary ? ["rotary_emb_base"] : [])).compactMap { config.value($0)?.double }
    let theta = table?["rope_theta"]?.double ?? bases.first ?? defaultTheta
    writer["\(name).rope.freq_base"] = .f32(theta)
    let shares = ["partial_rotary_factor", "rotary_pct"].compactMap { config.value($0)?.double }
    let share = table?["partial_rotary_factor"]?.double ?? shares.first ?? (modelType == "gpt_neox" ? 0.25 : 1)
    guard share == 1 || hasPartialRotary else {
      throw CompileError(.unsupported, "'partial_rotary_factor' is not expressed in GGUF for '\(name)'")
    }
    let turned = Int(Double(config.headDim) * share)
    writer["\(name).rope.dimension_count"] = .u32(turned)
    guard let table else { return }
    let kind = table["rope_type"]?.string ?? table["type"]?.string ?? "default"
    switch kind {
    case "default": break
    case "linear":
      writer["\(name).rope.scaling.type"] = .string("linear")
      writer["\(name).rope.scaling.factor"] = .f32(table["factor"]?.double ?? 1)
    case "yarn" where name != "phi3": try writeYarn(table, &config, &writer)
    case "llama3" where name == "llama":
      let context = config.taken("max_position_embeddings") ?? 8192
      let scaling = RotaryScaling.llama3(
        factor: table["factor"]?.double ?? 8, lowFactor: table["low_freq_factor"]?.double ?? 1,
        highFactor: table["high_freq_factor"]?.double ?? 4,
        originalContext: table["original_max_position_embeddings"]?.int ?? context)
      let plain = RotaryScaling.none.inverseFrequencies(theta: theta, width: turned)
      let scaled = scaling.inverseFrequencies(theta: theta, width: turned)
      try checkpoint.add(zip(plain, scaled).map { $0 / $1 }, as: "rope_freqs.weight")
    case "longrope" where name == "phi3":
      let context = config.taken("max_position_embeddings") ?? 4096
      let original =
        config.taken("original_max_position_embeddings") ?? table["original_max_position_embeddings"]?.int ?? 4096
      let factor = table["factor"]?.double ?? Double(context) / Double(max(original, 1))
      let inferred = factor <= 1 || original <= 1 ? 1 : (1 + log(factor) / log(Double(original))).squareRoot()
      writer["\(name).rope.scaling.attn_factor"] = .f32(table["attention_factor"]?.double ?? inferred)
      for kind in ["short", "long"] {
        try checkpoint.add(Self.factors("\(kind)_factor", table, count: turned / 2), as: "rope_factors_\(kind).weight")
      }
    case "longrope"
    where name == "llama" && table["short_factor"] == table["long_factor"] && table["attention_factor"]?.double == 1:
      try checkpoint.add(Self.factors("short_factor", table, count: turned / 2), as: "rope_freqs.weight")
    default:
      throw CompileError(.unsupported, "rotary embedding of type '\(kind)' is not written as GGUF")
    }
  }

  /// Writes YaRN: readers multiply cosines and sines by `0.1 log(factor) + 1`, and by an attention factor if one is given.
  private func writeYarn(_ table: JSON, _ config: inout ConvertedConfig, _ writer: inout GGUFWriter) throws {
    let prefix = "\(name).rope.scaling"
    let context = config.taken("max_position_embeddings") ?? 0
    let original =
      config.int("original_max_position_embeddings") ?? table["original_max_position_embeddings"]?.int ?? context
    let factor = table["factor"]?.double ?? Double(context) / Double(max(original, 1))
    guard original > 0, factor > 0, factor.isFinite else {
      throw CompileError(.input, "a factor of \(factor) over a context of \(original) for rotary embedding")
    }
    guard table["truncate"]?.bool ?? true else {
      throw CompileError(.unsupported, "'truncate' of rotary embedding is false, which GGUF does not express")
    }
    writer["\(prefix).type"] = .string("yarn")
    writer["\(prefix).factor"] = .f32(factor)
    writer["\(prefix).original_context_length"] = .u32(original)
    for (key, own, usual) in [("yarn_beta_fast", "beta_fast", 32.0), ("yarn_beta_slow", "beta_slow", 1)] {
      if let turns = table[own]?.double, turns != usual { writer["\(prefix).\(key)"] = .f32(turns) }
    }
    let inferred = RotaryScaling.yarnFactor(
      factor: factor, scale: table["mscale"]?.double, scaleAll: table["mscale_all_dim"]?.double)
    let extra = (table["attention_factor"]?.double ?? inferred) / RotaryScaling.yarnMagnitude(factor: factor)
    if abs(extra - 1) > 0x1p-24 { writer["\(prefix).attn_factor"] = .f32(extra) }
  }

  private static func factors(_ key: String, _ table: JSON, count: Int) throws -> [Float] {
    let factors = table[key]?.array?.compactMap(\.double) ?? []
    guard factors.count == count else {
      throw CompileError(.input, "'\(key)' has \(factors.count) numbers, expected \(count)")
    }
    return factors.map { Float($0) }
  }

  /// Hyper-parameters that have no key of their own, but a value that readers derive.
  private func writeSpecials(_ config: inout ConvertedConfig, _ notes: inout [String]) throws {
    let divisor = scoreDivisor(
      layers: config.taken("num_hidden_layers") ?? 0, width: config.taken("hidden_size") ?? 0,
      heads: config.taken("num_attention_heads") ?? 1, headDim: config.headDim)
    if name == "phi3", let window = config.taken("sliding_window"),
      window < config.taken("max_position_embeddings") ?? Int.max
    {
      notes.append("llama.cpp computes attention of the architecture 'phi3' without its window of \(window) tokens")
    }
    if let scalar = config.value("query_pre_attn_scalar"), scalar.double != Double(divisor) {
      throw CompileError(
        .unsupported, "'query_pre_attn_scalar' is \(scalar.text()), GGUF takes \(divisor) for granted")
    }
    let pattern = windowPeriod ?? 1
    if let stated = config.value("sliding_window_pattern") ?? config.value("_sliding_window_pattern"),
      stated.int != pattern
    {
      throw CompileError(
        .unsupported, "'sliding_window_pattern' is \(stated.text()), GGUF takes \(pattern) for granted")
    }
    _ = config.value("_sliding_window_pattern")
    if let types = config.value("layer_types")?.array {
      for (layer, type) in types.enumerated() {
        let wanted = (layer + 1) % pattern == 0 ? "full_attention" : "sliding_attention"
        guard type.string == wanted else {
          throw CompileError(
            .unsupported, "'layer_types[\(layer)]' is \(type.text()), GGUF takes '\(wanted)' for granted")
        }
      }
    }
    // Windows that are switched off.
    for key in ["sliding_window", "max_window_layers"] where pattern == 1 { _ = config.value(key) }
  }

  /// What the configuration says under a key of GGUF, if it is a whole number.
  private func stated(_ key: String, _ config: ConvertedConfig) -> Int? {
    let own = keys.first { $0.gguf == key }?.config.lazy.compactMap { config.taken($0) }.first
    return own ?? Self.implied[key].flatMap { stated($0, config) }
  }

  /// The names that a tensor may have: with what some classes put before, and the spelling of old checkpoints.
  private func spellings(of name: String) -> [String] {
    guard let prefix else { return [name] }
    let norm = "LayerNorm."
    let names = [("weight", "gamma"), ("bias", "beta")].reduce([name]) { names, pair in
      name.hasSuffix(norm + pair.0) ? names + [String(name.dropLast(pair.0.count)) + pair.1] : names
    }
    return names + names.map { prefix + $0 }
  }

  private func rename(_ checkpoint: inout Checkpoint, _ config: ConvertedConfig) throws {
    let heads = stated("attention.head_count", config) ?? 1
    let kvHeads = stated("attention.head_count_kv", config) ?? heads
    let layers = stated("block_count", config) ?? 0
    func apply(_ weight: Weight, _ name: String, _ to: String) throws {
      guard let from = spellings(of: name).first(where: { checkpoint.contains($0) }) else { return }
      try checkpoint.rename(from, to: to) { builder, value in
        let changed = try weight.change.forward(&builder, value, heads: heads, kvHeads: kvHeads)
        // Vectors, which readers add and multiply, are f32.
        return builder.type(of: changed).rank < 2 ? try builder.cast(changed, to: .f32) : changed
      }
    }
    for weight in weights {
      guard weight.config.contains("{}") else {
        try apply(weight, weight.config, weight.gguf)
        continue
      }
      let stack = stacks.first { weight.gguf.hasPrefix($0.prefix) }
      for layer in 0..<(stack.flatMap { stated($0.count, config) } ?? 0) {
        try apply(weight, weight.config.at(layer), weight.gguf.at(layer))
      }
    }
    for name in unread { for own in spellings(of: name) { checkpoint.remove(own) } }
    for group in experts {
      for layer in 0..<layers {
        let count = config.taken("num_local_experts") ?? config.taken("num_experts") ?? 0
        let parts = (0..<count).map {
          group.config.at(layer).replacing("{e}", with: "\($0)")
        }
        try checkpoint.stack(parts, to: group.gguf.at(layer))
      }
    }
    let known = Set(weights.filter { !$0.gguf.contains("{}") }.map(\.gguf)).union(Self.factorNames)
    for tensor in checkpoint.names
    where !known.contains(tensor) && !stacks.contains(where: { tensor.hasPrefix($0.prefix) }) {
      if tensor.hasSuffix("rotary_emb.inv_freq") || tensor.hasSuffix("attn.bias") || tensor.hasSuffix("masked_bias") {
        checkpoint.remove(tensor)
        continue
      }
      throw CompileError(.unsupported, "tensor '\(tensor)' has no place in the architecture '\(name)' of GGUF")
    }
  }
}
