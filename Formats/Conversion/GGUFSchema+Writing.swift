import Base
import Glibc
import IR
import Tensors

extension GGUFSchema {
  /// A checkpoint whose tensors have the names and forms of GGUF, and the metadata for it.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the hyper-parameter or tensor that GGUF has no place for.
  static func prepared(_ source: Checkpoint) throws -> (Checkpoint, GGUFWriter) {
    let modelType = source.config["model_type"]?.string ?? ""
    guard let schema = schema(modelType: modelType) else {
      throw CompileError(
        .unsupported, "the architecture '\(modelType)' is not written as GGUF",
        notes: ["known are \(listed(Set(all.map(\.modelType)).sorted(), "and"))"])
    }
    return try schema.prepare(source)
  }

  private func prepare(_ source: Checkpoint) throws -> (Checkpoint, GGUFWriter) {
    var writer = GGUFWriter()
    writer["general.architecture"] = .string(name)
    writer["general.name"] = .string(source.name)
    var config = ConvertedConfig(source.config)
    for key in keys { try write(key, &config, &writer) }
    for (key, value) in formalities { writer["\(name).\(key)"] = .u32(value) }
    for key in ignored { _ = config.value(key) }
    try writeHeads(&config, &writer)
    try checkGranted(&config)
    var checkpoint = source
    if hasRotary { try writeRotary(&config, &writer, &checkpoint) }
    try writeSpecials(&config)
    let layers = config.taken("num_hidden_layers") ?? config.taken("n_layer") ?? 0
    try rename(&checkpoint, layers: layers, config)
    if let vocabulary = checkpoint.type(of: "token_embd.weight")?.shape.dims.first?.fixedValue {
      writer["\(name).vocab_size"] = .u32(vocabulary)
    }
    if config.bool("tie_word_embeddings") ?? isTiedByDefault {
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
    let width = config.taken("hidden_size") ?? config.taken("n_embd") ?? 0
    let heads = max(config.taken("num_attention_heads") ?? config.taken("n_head") ?? 1, 1)
    let headDim = config.int("head_dim") ?? width / heads
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
    let theta = table?["rope_theta"]?.double ?? config.value("rope_theta")?.double ?? defaultTheta
    _ = config.value("rope_theta")
    writer["\(name).rope.freq_base"] = .f32(theta)
    let share =
      table?["partial_rotary_factor"]?.double ?? config.value("partial_rotary_factor")?.double
      ?? config.value("rotary_pct")?.double ?? 1
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

  private static func factors(_ key: String, _ table: JSON, count: Int) throws -> [Float] {
    let factors = table[key]?.array?.compactMap(\.double) ?? []
    guard factors.count == count else {
      throw CompileError(.input, "'\(key)' has \(factors.count) numbers, expected \(count)")
    }
    return factors.map { Float($0) }
  }

  /// Hyper-parameters that have no key of their own, but a value that readers derive.
  private func writeSpecials(_ config: inout ConvertedConfig) throws {
    let divisor = scoreDivisor(
      layers: config.taken("num_hidden_layers") ?? 0, width: config.taken("hidden_size") ?? 0,
      heads: config.taken("num_attention_heads") ?? 1, headDim: config.headDim)
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

  private func rename(_ checkpoint: inout Checkpoint, layers: Int, _ config: ConvertedConfig) throws {
    let heads = config.taken("num_attention_heads") ?? config.taken("n_head") ?? 1
    let kvHeads = config.taken("num_key_value_heads") ?? heads
    func apply(_ weight: Weight, _ from: String, _ to: String) throws {
      guard checkpoint.contains(from) else { return }
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
      for layer in 0..<layers { try apply(weight, weight.config.at(layer), weight.gguf.at(layer)) }
    }
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
    for tensor in checkpoint.names where !known.contains(tensor) && !tensor.hasPrefix("blk.") {
      if tensor.hasSuffix("rotary_emb.inv_freq") || tensor.hasSuffix("attn.bias") || tensor.hasSuffix("masked_bias") {
        checkpoint.remove(tensor)
        continue
      }
      throw CompileError(.unsupported, "tensor '\(tensor)' has no place in the architecture '\(name)' of GGUF")
    }
  }
}
