import Base
import Formats
import IR
import TestSupport
import Tensors
import Testing

/// Adapters as peft saves them, against checkpoints whose weights were changed beforehand.
@Suite struct LowRankAdapterTests {
  /// A tensor to be written.
  struct Entry {
    var name: String
    var sizes: [Int]
    var values: [Float]

    var bytes: [UInt8] { FileBytes.f32(values) }
  }

  /// A safetensors file of f32 tensors with given values.
  private static func file(_ entries: [Entry]) -> [UInt8] {
    var parts: [String] = []
    var data: [UInt8] = []
    for entry in entries {
      let begin = data.count
      data += entry.bytes
      parts.append(
        "\"\(entry.name)\":{\"dtype\":\"F32\",\"shape\":\(entry.sizes),\"data_offsets\":[\(begin),\(data.count)]}")
    }
    var header = "{" + parts.joined(separator: ",") + "}"
    while header.utf8.count % 8 != 0 { header += " " }
    return FileBytes.safetensors(header, data)
  }

  private static let base: [Entry] = {
    var random = SplitMix64(seed: 1)
    return TinyCheckpoint().tensors.map { name, sizes in
      Entry(name: name, sizes: sizes, values: random.floats(sizes.reduce(1, *)))
    }
  }()

  private static let layer = "model.layers.0."

  /// The two factors of a module, `A[r, inputs]` and `B[outputs, r]`.
  private static func factors(_ module: String, rank: Int, seed: UInt64) -> [Entry] {
    let sizes = base.first { $0.name == layer + module + ".weight" }?.sizes ?? []
    var random = SplitMix64(seed: seed)
    let name = "base_model.model." + layer + module
    return [
      Entry(name: name + ".lora_A.weight", sizes: [rank, sizes[1]], values: random.floats(rank * sizes[1])),
      Entry(name: name + ".lora_B.weight", sizes: [sizes[0], rank], values: random.floats(rank * sizes[0])),
    ]
  }

  /// The weights of the base with `scale B A` added.
  private static func merged(_ tensors: [Entry], _ module: String, _ factors: [Entry], scale: Float) -> [Entry] {
    tensors.map { entry in
      guard entry.name == layer + module + ".weight" else { return entry }
      var entry = entry
      let (a, b) = (factors[0], factors[1])
      let (rank, columns) = (a.sizes[0], a.sizes[1])
      for row in 0..<b.sizes[0] {
        for column in 0..<columns {
          var sum: Float = 0
          for k in 0..<rank { sum += b.values[row * rank + k] * a.values[k * columns + column] }
          entry.values[row * columns + column] += scale * sum
        }
      }
      return entry
    }
  }

  private static func logits(_ model: Model) throws -> [Float] {
    let ids: [Int32] = [1, 5, 7, 3, 6]
    let results = try Evaluator(model).run(
      [Tensor(.i32, [ids.count], ids), Tensor(.i32, [1], [Int32(0)])], symbols: ["L": ids.count])
    return results.outputs[0].array(of: Float.self)
  }

  private static func checkpoint(_ entries: [Entry]) throws -> TemporaryFolder {
    var tiny = TinyCheckpoint()
    tiny.writesWeights = false
    let folder = try tiny.write()
    try folder.write("model.safetensors", file(entries))
    return folder
  }

  private static func adapter(_ config: String, _ entries: [Entry]) throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("adapter_config.json", config)
    try folder.write("adapter_model.safetensors", file(entries))
    return folder
  }

  /// Logits of the base with an adapter, merged or kept.
  private static func logits(_ config: String, _ entries: [Entry], keeps: Bool = false) throws -> [Float] {
    let folder = try checkpoint(base), other = try adapter(config, entries)
    var options = LoadOptions()
    options.adapter = other.path
    options.keepsAdapter = keeps
    let model = try folder.load(options)
    try Verifier.verify(model)
    if keeps {
      #expect(!model.functions[0].nodeIDs.contains { model.functions[0][$0].op is LowRankUpdate })
    }
    return try logits(model)
  }

  /// Sums of a few f32 products in another order: 1e-6 of the largest logit.
  private static let tolerance = 2e-6

  @Test(arguments: [false, true]) func patternsAndScales(keeps: Bool) throws {
    let q = Self.factors("self_attn.q_proj", rank: 3, seed: 2)
    let down = Self.factors("mlp.down_proj", rank: 2, seed: 3)
    let config = """
      {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "rank_pattern": {"q_proj": 3},
       "alpha_pattern": {"layers.0.self_attn.q_proj": 12}, "target_modules": ["q_proj", "down_proj"], "bias": "none",
       "lora_dropout": 0.1, "task_type": "CAUSAL_LM", "inference_mode": true, "use_rslora": false, "modules_to_save": null}
      """
    var wanted = Self.merged(Self.base, "self_attn.q_proj", q, scale: 4)
    wanted = Self.merged(wanted, "mlp.down_proj", down, scale: 3)
    let expected = try Self.logits(Self.checkpoint(wanted).load())
    let found = try Self.logits(config, q + down, keeps: keeps)
    #expect(maxRelativeError(found, expected) <= Self.tolerance)
    #expect(maxRelativeError(try Self.logits(Self.checkpoint(Self.base).load()), expected) > 1e-3)
  }

  @Test func rankStabilizedScale() throws {
    let factors = Self.factors("self_attn.v_proj", rank: 4, seed: 5)
    let config = #"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": true}"#
    let expected = try Self.logits(
      Self.checkpoint(Self.merged(Self.base, "self_attn.v_proj", factors, scale: 3)).load())
    #expect(maxRelativeError(try Self.logits(config, factors), expected) <= Self.tolerance)
  }

  /// `fan_in_fan_out`: what is added is transposed. The weight is square, so that shapes do not tell.
  @Test func transposedWeights() throws {
    let factors = Self.factors("self_attn.o_proj", rank: 2, seed: 7)
    let config = #"{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "fan_in_fan_out": true}"#
    func transposed(_ entry: Entry) -> Entry {
      Entry(
        name: entry.name, sizes: [entry.sizes[1], entry.sizes[0]],
        values: (0..<entry.values.count).map {
          entry.values[$0 % entry.sizes[0] * entry.sizes[1] + $0 / entry.sizes[0]]
        })
    }
    // (B A)^T = A^T B^T.
    let swapped = [transposed(factors[1]), transposed(factors[0])]
    let expected = try Self.logits(
      Self.checkpoint(Self.merged(Self.base, "self_attn.o_proj", swapped, scale: 1)).load())
    #expect(maxRelativeError(try Self.logits(config, factors), expected) <= Self.tolerance)
  }

  /// The rows of a weight with given lengths (`lengths[i] w[i] / |w[i]|`), or its columns.
  private static func lengthened(_ tensors: [Entry], _ module: String, _ lengths: [Float], columns: Bool) -> [Entry] {
    tensors.map { entry in
      guard entry.name == layer + module + ".weight" else { return entry }
      var entry = entry
      let width = entry.sizes[1]
      for (index, length) in lengths.enumerated() {
        let places = columns ? (0..<entry.sizes[0]).map { $0 * width + index } : (0..<width).map { index * width + $0 }
        let norm = places.reduce(0) { $0 + Double(entry.values[$1]) * Double(entry.values[$1]) }.squareRoot()
        for place in places { entry.values[place] = Float(Double(entry.values[place]) / norm * Double(length)) }
      }
      return entry
    }
  }

  /// DoRA: the rows of the sum get the lengths of the adapter; with `fan_in_fan_out` its columns do. Names are those of
  /// old and new versions of peft. Kept apart, such a weight is merged all the same.
  @Test(arguments: [false, true], [false, true]) func weightDecomposed(isTransposed: Bool, keeps: Bool) throws {
    let module = "self_attn.o_proj"
    let factors = Self.factors(module, rank: 2, seed: 7)
    var random = SplitMix64(seed: 8)
    let lengths = random.floats(4).map { abs($0) + 0.5 }
    let name = "base_model.model.\(Self.layer)\(module).lora_magnitude_vector" + (keeps ? ".weight" : "")
    let config = """
      {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "use_dora": true, "use_rslora": true,
       "fan_in_fan_out": \(isTransposed)}
      """
    func transposed(_ entry: Entry) -> Entry {
      let (rows, columns) = (entry.sizes[0], entry.sizes[1])
      return Entry(
        name: entry.name, sizes: [columns, rows],
        values: (0..<entry.values.count).map { entry.values[$0 % rows * columns + $0 / rows] })
    }
    let own = isTransposed ? [transposed(factors[1]), transposed(factors[0])] : factors
    var wanted = Self.merged(Self.base, module, own, scale: 3 / Float(2).squareRoot())
    wanted = Self.lengthened(wanted, module, lengths, columns: isTransposed)
    let expected = try Self.logits(Self.checkpoint(wanted).load())
    let entries = factors + [Entry(name: name, sizes: [4], values: lengths)]
    let folder = try Self.checkpoint(Self.base), other = try Self.adapter(config, entries)
    var options = LoadOptions()
    options.adapter = other.path
    options.keepsAdapter = keeps
    let model = try folder.load(options)
    #expect((model[metadata: Model.noteKey]?.contains("magnitudes") ?? false) == keeps)
    #expect(maxRelativeError(try Self.logits(model), expected) <= Self.tolerance)
  }

  /// IA3: rows of a weight and numbers of its bias for outputs, columns for inputs, the other way round with
  /// `fan_in_fan_out`, where all weights are square.
  @Test(arguments: [false, true]) func factorsOfOutputsAndInputs(isTransposed: Bool) throws {
    var random = SplitMix64(seed: 11)
    var tiny = TinyCheckpoint()
    tiny.writesWeights = false
    tiny.config["attention_bias"] = true
    tiny.config["num_key_value_heads"] = 2
    let modules = ["q_proj", "k_proj", "v_proj", "o_proj"]
    let base =
      Self.base.filter { !$0.name.contains("self_attn") }
      + modules.flatMap { module in
        [("weight", [4, 4]), ("bias", [4])].map { kind, sizes in
          Entry(
            name: "\(Self.layer)self_attn.\(module).\(kind)", sizes: sizes, values: random.floats(sizes.reduce(1, *)))
        }
      }
    let (outputs, inputs) = (random.floats(4), random.floats(4))
    func logits(_ entries: [Entry], _ options: LoadOptions = LoadOptions()) throws -> [Float] {
      let folder = try tiny.write()
      try folder.write("model.safetensors", Self.file(entries))
      return try Self.logits(folder.load(options))
    }
    let name = "base_model.model.\(Self.layer)self_attn."
    let adapter = try Self.adapter(
      """
      {"peft_type": "IA3", "target_modules": ["k_proj", "o_proj"], "feedforward_modules": ["o_proj"],
       "fan_in_fan_out": \(isTransposed), "init_ia3_weights": true, "modules_to_save": null}
      """,
      [
        Entry(name: name + "k_proj.ia3_l", sizes: [4, 1], values: outputs),
        Entry(name: name + "o_proj.ia3_l", sizes: [1, 4], values: inputs),
      ])
    let wanted = base.map { entry in
      var entry = entry
      for index in entry.values.indices {
        let (row, column) = isTransposed ? (index % 4, index / 4) : (index / 4, index % 4)
        switch entry.name.dropFirst(Self.layer.count) {
        case "self_attn.k_proj.weight": entry.values[index] *= outputs[row]
        case "self_attn.o_proj.weight": entry.values[index] *= inputs[column]
        case "self_attn.k_proj.bias": entry.values[index] *= outputs[index]
        default: break
        }
      }
      return entry
    }
    var options = LoadOptions()
    options.adapter = adapter.path
    let expected = try logits(wanted)
    // One product rounded to f32 per weight on either side.
    #expect(try logits(base, options) == expected)
    #expect(maxRelativeError(try logits(base), expected) > 1e-3)
  }

  @Test func savedModulesReplaceTensors() throws {
    var random = SplitMix64(seed: 9)
    let norm = Entry(name: "model.norm.weight", sizes: [4], values: random.floats(4))
    var saved = norm
    saved.name = "base_model.model.model.norm.weight"
    let config = #"{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "modules_to_save": ["norm"]}"#
    let wanted = Self.base.map { $0.name == norm.name ? norm : $0 }
    let expected = try Self.logits(Self.checkpoint(wanted).load())
    #expect(maxRelativeError(try Self.logits(config, [saved]), expected) <= Self.tolerance)
  }

  @Test func whatIsNotSupportedIsNamed() throws {
    let factors = Self.factors("self_attn.v_proj", rank: 4, seed: 5)
    let plain = #""peft_type": "LORA", "r": 4, "lora_alpha": 6"#
    func renamed(_ text: String, _ other: String) -> [Entry] {
      factors.map { entry in
        var entry = entry
        if let range = entry.name.firstRange(of: text) { entry.name.replaceSubrange(range, with: other) }
        return entry
      }
    }
    func magnitude(_ count: Int) -> Entry {
      let name = "base_model.model.\(Self.layer)self_attn.v_proj.lora_magnitude_vector"
      return Entry(name: name, sizes: [count], values: [Float](repeating: 1, count: count))
    }
    func scales(_ module: String, _ sizes: [Int]) -> Entry {
      let name = "base_model.model.\(Self.layer)self_attn.\(module).ia3_l"
      return Entry(name: name, sizes: sizes, values: [Float](repeating: 1, count: sizes[0] * sizes[1]))
    }
    for (config, entries, part) in [
      ("{\(plain), \"use_dora\": true}", factors, "DoRA"),
      ("{\(plain), \"use_dora\": true}", factors + [magnitude(3)], "[3], expected [2]"),
      ("{\(plain)}", factors + [magnitude(2)], "DoRA"), ("{\(plain)}", [magnitude(2)], "alone"),
      ("{\(plain), \"bias\": \"all\"}", factors, "'bias'"),
      ("{\(plain), \"init_lora_weights\": \"pissa\"}", factors, "pissa"),
      ("{\(plain), \"layer_replication\": [[0, 4]]}", factors, "layer_replication"),
      ("{\(plain), \"rank_pattern\": {\".*v_proj\": 4}}", factors, "regular expression"),
      ("{\"peft_type\": \"LOHA\", \"r\": 4}", factors, "'LOHA' is not supported for an adapter, only LORA and IA3"),
      ("{\"peft_type\": \"IA3\", \"r\": 4}", factors, "'r' is not supported"),
      ("{\"peft_type\": \"IA3\"}", factors, "which the checkpoint does not have"),
      ("{\"peft_type\": \"IA3\"}", [scales("v_proj", [2, 2])], "[2, 2] are not supported"),
      ("{\"peft_type\": \"IA3\"}", [scales("v_proj", [4, 1])], "4 factors for f32[2, 4] along axis 0"),
      ("{\"peft_type\": \"IA3\"}", [scales("w_proj", [2, 1])], "w_proj"),
      ("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 6}", factors, "expected the rank 2"),
      ("{\(plain)}", Array(factors.prefix(1)), "alone"),
      ("{\(plain)}", renamed("v_proj", "w_proj"), "w_proj"),
      ("{\(plain)}", renamed("v_proj", "q_proj"), "shape"),
      ("{\(plain)}", renamed("lora_B.weight", "lora_bias"), "lora_A, lora_B and lora_magnitude_vector"),
      ("{\(plain)}", renamed("base_model.model.", ""), "base_model.model."),
    ] {
      let error = #expect(throws: CompileError.self) { try Self.logits(config, entries) }
      #expect(error?.description.contains(part) == true, "\(config): \(error?.description ?? "")")
    }
  }
}
