import Base
import Foundation
import IR
import Tensors

extension Checkpoint {
  /// The tensors and hyper-parameters of a GGUF file in the naming and form of Hugging Face.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` naming the key or tensor that has no place there.
  init(_ file: inout GGUFFile, name: String, limits: LoadLimits) throws {
    var keys = file.metadata
    let architecture = try keys.string("general.architecture")
    let experts = try keys.optionalInt("\(architecture).expert_count", in: 0...65536) ?? 0
    guard let schema = GGUFSchema.schema(gguf: architecture, hasExperts: experts > 0) else {
      throw CompileError(
        .unsupported, "the GGUF architecture '\(architecture)' is not converted", subject: .init(file: file.file.path),
        notes: ["known are \(listed(Array(Set(GGUFSchema.all.map(\.name))).sorted(), "and"))"])
    }
    self.init(name: name, config: try schema.config(&keys, file.tensors, limits))
    for tensor in file.tensors { try add(tensor, as: tensor.name) }
    try schema.restore(&self, experts: experts)
    if !["no_vocab", "none"].contains(try keys.optionalString("tokenizer.ggml.model") ?? "none") {
      notes.append("the tokenizer of the GGUF file is not converted")
    }
    if file.tensors.contains(where: { tensor in
      if case .block = tensor.type.encoding { return true }
      return tensor.blocks != nil
    }) {
      notes.append("quantized weights are written as f32")
    }
    file.metadata = keys
  }
}

extension GGUFMetadata {
  /// The string under `key`.
  mutating func string(_ key: String) throws -> String {
    guard let text = try optionalString(key) else { throw failure("missing '\(key)', expected a string") }
    return text
  }
}

extension GGUFSchema {
  /// Keys under the architecture's name that say nothing about the function.
  private static let withoutEffect: Set<String> = [
    "tensor_data_layout", "rope.scaling.finetuned", "pooling_type", "rope.scaling.original_context_length",
  ]

  /// The hyper-parameters as `config.json` spells them.
  func config(
    _ keys: inout GGUFMetadata, _ tensors: [CheckpointTensor], _ limits: LoadLimits
  ) throws -> JSONObject {
    var config = JSONObject([
      ("architectures", .array([.string(className)])), ("model_type", .string(modelType)),
    ])
    for (key, values) in granted where !values.isEmpty { config[key] = values[0] }
    for key in self.keys {
      let full = "\(name).\(key.gguf)"
      let value: JSON?
      switch key.kind {
      case .int: value = try keys.optionalInt(full, in: 0...1 << 40).map { .int($0) }
      case .float: value = try keys.optionalDouble(full).map { .number(Self.decimal($0)) }
      case .bool: value = try keys.optionalBool(full).map { .bool($0) }
      }
      if let value = value ?? key.fallback {
        config[key.config[0]] = value
      } else if key.config[0] == "num_key_value_heads" {
        config[key.config[0]] = config["num_attention_heads"]
      } else if key.gguf != "rope.scaling.original_context_length" {
        throw keys.failure("missing '\(full)'")
      }
    }
    let names = Set(tensors.map(\.name))
    try readHeads(&keys, &config)
    if hasRotary { try readRotary(&keys, &config, tensors) }
    if let embedding = tensors.first(where: { $0.name == "token_embd.weight" }),
      let count = embedding.shape.fixedSizes?.first
    {
      config["vocab_size"] = .int(count)
    }
    _ = try keys.optionalInt("\(name).vocab_size", in: 0...limits.tokens)
    config["tie_word_embeddings"] = .bool(!names.contains("output.weight"))
    if modelType == "llama" {
      config["attention_bias"] = .bool(names.contains("blk.0.attn_q.bias"))
      config["mlp_bias"] = .bool(names.contains("blk.0.ffn_gate.bias"))
    }
    for key in keys.keys
    where key.hasPrefix("\(name).") && !keys.readKeys.contains(key)
      && !Self.withoutEffect.contains(String(key.dropFirst(name.count + 1)))
    {
      throw keys.failure("'\(key)' is not expressed in the configuration of '\(modelType)'", kind: .unsupported)
    }
    return config
  }

  /// The number of the fewest decimal digits that a number of 32 bits stands for: 1e-05, not 9.99999974e-06.
  private static func decimal(_ value: Double) -> Double {
    Double(exactly: Float(value)) == value ? Double("\(Float(value))") ?? value : value
  }

  private func readHeads(_ keys: inout GGUFMetadata, _ config: inout JSONObject) throws {
    let width = config["hidden_size"]?.int ?? config["n_embd"]?.int ?? 0
    let heads = max(config["num_attention_heads"]?.int ?? config["n_head"]?.int ?? 1, 1)
    let headDim = try keys.optionalInt("\(name).attention.key_length", in: 1...65536) ?? width / heads
    let values = try keys.optionalInt("\(name).attention.value_length", in: 1...65536) ?? headDim
    guard values == headDim else {
      throw keys.failure("'\(name).attention.value_length' is \(values), expected \(headDim)", kind: .unsupported)
    }
    if hasRotary, !hasPartialRotary || headDim * heads != width { config["head_dim"] = .int(headDim) }
    if name == "gemma2" || name == "gemma3" {
      config["query_pre_attn_scalar"] = .int(headDim)
      let pattern = name == "gemma2" ? 2 : 6
      let layers = config["num_hidden_layers"]?.int ?? 0
      config["layer_types"] = .array(
        (0..<min(layers, 4096)).map { .string(($0 + 1) % pattern == 0 ? "full_attention" : "sliding_attention") })
    }
  }

  private func readRotary(
    _ keys: inout GGUFMetadata, _ config: inout JSONObject, _ tensors: [CheckpointTensor]
  ) throws {
    let width = config["hidden_size"]?.int ?? 0
    let heads = max(config["num_attention_heads"]?.int ?? 1, 1)
    let headDim = config["head_dim"]?.int ?? width / heads
    let theta = Self.decimal(try keys.optionalDouble("\(name).rope.freq_base") ?? 10000)
    var table = JSONObject([("rope_type", .string("default")), ("rope_theta", .number(theta))])
    let turned = try keys.optionalInt("\(name).rope.dimension_count", in: 0...65536) ?? headDim
    if turned != headDim {
      guard hasPartialRotary else {
        throw keys.failure("'\(name).rope.dimension_count' is \(turned), expected \(headDim)", kind: .unsupported)
      }
      table["partial_rotary_factor"] = .number(Double(turned) / Double(max(headDim, 1)))
    }
    switch try keys.optionalString("\(name).rope.scaling.type") ?? "none" {
    case "none": break
    case "linear":
      table["rope_type"] = .string("linear")
      table["factor"] = .number(try keys.optionalDouble("\(name).rope.scaling.factor") ?? 1)
    case let kind:
      throw keys.failure("rotary embedding of type '\(kind)' is not converted", kind: .unsupported)
    }
    if let factors = tensors.first(where: { $0.name == "rope_freqs.weight" }) {
      try fitFactors(factors, theta: theta, width: turned, &table, keys)
    }
    if name == "gemma3" {
      config["rope_parameters"] = [
        "full_attention": .object(table), "sliding_attention": ["rope_type": "default", "rope_theta": 10000.0],
      ]
    } else {
      config["rope_parameters"] = .object(table)
    }
  }

  /// Finds the parameters of Llama 3's scaling that give the factors of a file.
  private func fitFactors(
    _ tensor: CheckpointTensor, theta: Double, width: Int, _ table: inout JSONObject, _ keys: GGUFMetadata
  ) throws {
    let bytes = try tensor.file.slice(tensor.range)
    let factors = floats(bytes, tensor.type.element)
    let plain = RotaryScaling.none.inverseFrequencies(theta: theta, width: width)
    // The lowest frequency is divided by the whole factor; contexts are powers of two.
    let factor = Double(factors.last ?? 1).rounded()
    for context in (4...20).map({ 1 << $0 }) {
      for high in [4.0, 2, 8, 16] {
        let scaling = RotaryScaling.llama3(factor: factor, lowFactor: 1, highFactor: high, originalContext: context)
        let scaled = scaling.inverseFrequencies(theta: theta, width: width)
        let fits =
          factors.count == plain.count
          && zip(factors, zip(plain, scaled)).allSatisfy {
            abs($0 - $1.0 / $1.1) <= 1e-5 * abs($0)
          }
        guard fits else { continue }
        table["rope_type"] = .string("llama3")
        table["factor"] = .number(factor)
        table["low_freq_factor"] = .number(1)
        table["high_freq_factor"] = .number(high)
        table["original_max_position_embeddings"] = .int(context)
        return
      }
    }
    throw keys.failure(
      "'rope_freqs.weight' follows from no scaling that the configuration can state", kind: .unsupported)
  }

  /// Gives the tensors of GGUF their names and forms in Hugging Face.
  func restore(_ checkpoint: inout Checkpoint, experts count: Int) throws {
    let config = checkpoint.config
    let heads = config["num_attention_heads"]?.int ?? config["n_head"]?.int ?? 1
    let kvHeads = config["num_key_value_heads"]?.int ?? heads
    let layers = config["num_hidden_layers"]?.int ?? config["n_layer"]?.int ?? 0
    func apply(_ weight: Weight, _ from: String, _ to: String) throws {
      guard checkpoint.contains(from) else { return }
      try checkpoint.rename(from, to: to) { try weight.change.backward(&$0, $1, heads: heads, kvHeads: kvHeads) }
    }
    if checkpoint.contains("rope_freqs.weight") { checkpoint.remove("rope_freqs.weight") }
    for weight in weights {
      guard weight.gguf.contains("{}") else {
        try apply(weight, weight.gguf, weight.config)
        continue
      }
      for layer in 0..<layers { try apply(weight, weight.gguf.at(layer), weight.config.at(layer)) }
    }
    for group in experts {
      for layer in 0..<layers {
        let names = (0..<count).map { group.config.at(layer).replacingOccurrences(of: "{e}", with: "\($0)") }
        try checkpoint.split(group.gguf.at(layer), to: names) { builder, value in
          let shape = builder.type(of: value).shape
          guard shape.rank == 3, shape[0] == .fixed(count) else {
            throw CompileError(.input, "'\(group.gguf.at(layer))' has shape \(shape), expected \(count) matrices")
          }
          return try (0..<count).map { expert in
            let part = try builder.emit(Slice(axis: 0, start: .fixed(expert), size: 1), value)
            return try builder.emit(Reshape([shape[1], shape[2]]), part)
          }
        }
      }
    }
    if let rest = checkpoint.names.first(where: { $0.hasPrefix("blk.") }) {
      throw CompileError(
        .unsupported, "tensor '\(rest)' has no place in the architecture '\(modelType)'",
        subject: .init(file: checkpoint.name))
    }
  }
}

extension GGUFSchema.Change {
  /// The weight of Hugging Face from that of GGUF.
  func backward(_ builder: inout GraphBuilder, _ value: ValueID, heads: Int, kvHeads: Int) throws -> ValueID {
    let stored = builder.type(of: value)
    let rows = stored.shape.dims.first?.fixedValue ?? 0
    let dense = stored.isDense ? value : try builder.emit(Dequantize(.f32), value)
    switch self {
    case .none: return dense
    case .pairRows(let keys):
      let count = max(keys ? kvHeads : heads, 1)
      return try builder.reorderRows(dense, parts: [count, rows / count / 2, 2], permutation: [0, 2, 1])
    case .addOne:
      let gain = try builder.cast(dense, to: .f32)
      return try builder.emit(Subtract(), gain, builder.constant(.inline("one", .f32, [1], [Float(1)])))
    case .transpose: return try builder.emit(Transpose([1, 0]), dense)
    case .groupRows:
      return try builder.reorderRows(
        dense, parts: [3, heads, rows / max(heads, 1) / 3], permutation: [1, 0, 2])
    }
  }
}
