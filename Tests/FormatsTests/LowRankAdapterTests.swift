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
    for (config, entries, part) in [
      ("{\(plain), \"use_dora\": true}", factors, "DoRA"),
      ("{\(plain), \"bias\": \"all\"}", factors, "'bias'"),
      ("{\(plain), \"init_lora_weights\": \"pissa\"}", factors, "pissa"),
      ("{\(plain), \"layer_replication\": [[0, 4]]}", factors, "layer_replication"),
      ("{\(plain), \"rank_pattern\": {\".*v_proj\": 4}}", factors, "regular expression"),
      ("{\"peft_type\": \"IA3\", \"r\": 4}", factors, "IA3"),
      ("{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 6}", factors, "expected the rank 2"),
      ("{\(plain)}", Array(factors.prefix(1)), "alone"),
      ("{\(plain)}", renamed("v_proj", "w_proj"), "w_proj"),
      ("{\(plain)}", renamed("v_proj", "q_proj"), "shape"),
      ("{\(plain)}", renamed("lora_B.weight", "lora_magnitude_vector"), "DoRA"),
      ("{\(plain)}", renamed("base_model.model.", ""), "base_model.model."),
    ] {
      let error = #expect(throws: CompileError.self) { try Self.logits(config, entries) }
      #expect(error?.description.contains(part) == true, "\(config): \(error?.description ?? "")")
    }
  }
}
