import Base
import Driver
import Formats
import Glibc
import IR
import Tensors
import TestSupport
import Testing

/// `mcc convert`: what is written is what was read.
@Suite struct ConvertTests {
  /// The tensors of a Hugging Face folder by name, in f32.
  private static func tensors(_ folder: String) throws -> [String: (shape: Shape, values: [Float])] {
    let file = try SafetensorsFile(MappedFile(path: "\(folder)/model.safetensors"))
    return try Dictionary(
      uniqueKeysWithValues: file.tensors.map { tensor in
        (tensor.name, (tensor.type.shape, floats(try tensor.file.slice(tensor.range), tensor.type.element)))
      })
  }

  /// To GGUF, whose names, orders of rows and stacked experts differ, and back. Gemma's gains are stored plus 1, which
  /// rounds them to the last bit of numbers around 1.
  @Test(arguments: [
    "llama", "llama3-rope", "qwen2", "qwen3", "qwen3-moe", "mixtral", "gemma2", "gemma3", "phi3", "gpt2", "gpt-neox",
    "olmo2", "mamba",
  ])
  func ggufAndBack(_ name: String) throws {
    guard let source = Fixtures.path("architectures/\(name)") else { return }
    let folder = try TemporaryFolder()
    _ = try Converter().convert(source, to: folder.path("model.gguf"))
    _ = try Converter().convert(folder.path("model.gguf"), to: folder.path("back"))
    let (before, after) = (try Self.tensors(source), try Self.tensors(folder.path("back")))
    #expect(before.keys.sorted() == after.keys.sorted())
    // Mamba's decays are stored as exponentials.
    let bound: Float = name.hasPrefix("gemma") ? 0x1p-23 : name == "mamba" ? 0x1p-21 : 0
    for (key, tensor) in before {
      let other = try #require(after[key])
      #expect(tensor.shape == other.shape)
      #expect(zip(tensor.values, other.values).allSatisfy { abs($0 - $1) <= bound }, "\(key)")
    }
    // What the configuration says of the network survives: it is read as the same graph.
    var options = LoadOptions()
    options.context = 64
    let (first, second) = (
      try ModelLoader.load(source, options), try ModelLoader.load(folder.path("back"), options)
    )
    #expect(first.functions.map(\.nodeCount) == second.functions.map(\.nodeCount))
    // Without the key transformers takes token 32000 of Phi 3, which a small vocabulary does not have.
    let config = try JSON.read(path: folder.path("back/config.json"))
    #expect(config["pad_token_id"] != nil)
  }

  /// What is compiled from the GGUF file is what transformers recorded for the original.
  @Test(arguments: [
    "llama", "llama3-rope", "qwen2", "qwen3", "qwen3-moe", "mixtral", "gemma2", "gemma3", "phi3", "gpt2", "gpt-neox",
    "olmo2", "mamba",
  ])
  func ggufComputesTheSame(_ name: String) throws {
    guard let source = Fixtures.path("architectures/\(name)") else { return }
    let folder = try TemporaryFolder()
    _ = try Converter().convert(source, to: folder.path("model.gguf"))
    let model = try ModelLoader.load(folder.path("model.gguf"))
    let recorded = try NumPyArchive(path: source + "/expected.npz")
    let ids = try recorded.require("input_ids_0", file: "expected.npz")
    let expected = try recorded.require("output_0", file: "expected.npz").floats
    let tokens = Tensor(.i32, [ids.count], ids.integers.map { Int32($0) })
    let results = try Evaluator(model).run([tokens, Tensor(.i32, [1], [0] as [Int32])], symbols: ["L": ids.count])
    let found = try #require(results.outputs.first).array(of: Float.self)
    // What two correct f32 implementations reach on these networks.
    #expect(maxRelativeError(found, expected) <= 1e-4)
  }

  /// Factors of rotary embedding, for short and for long caches, go along: the file gives the same numbers as the folder.
  @Test(arguments: [32, 128]) func longRotaryFactors(context: Int) throws {
    guard let source = Fixtures.path("architectures/phi3") else { return }
    let folder = try TemporaryFolder()
    var config = try #require(try JSON.read(path: "\(source)/config.json").object)
    func factors(_ step: Double) -> JSON { .array((0..<8).map { .number(1 + step * Double($0)) }) }
    config["original_max_position_embeddings"] = 64
    config["rope_parameters"] = [
      "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": factors(0.25), "long_factor": factors(0.5),
    ]
    let copy = folder.path("hf")
    #expect(mkdir(copy, 0o755) == 0)
    #expect(symlink("\(source)/model.safetensors", "\(copy)/model.safetensors") == 0)
    try AtomicFile.write(JSON.object(config).bytes(), to: "\(copy)/config.json")
    _ = try Converter().convert(copy, to: folder.path("model.gguf"))
    _ = try Converter().convert(folder.path("model.gguf"), to: folder.path("back"))
    var options = LoadOptions()
    options.context = context
    let tokens = Tensor(.i32, [5], [3, 1, 4, 1, 5] as [Int32])
    func logits(_ path: String) throws -> [Float] {
      let position = Tensor(.i32, [1], [Int32(0)])
      let results = try Evaluator(ModelLoader.load(path, options)).run([tokens, position], symbols: ["L": 5])
      return try #require(results.outputs.first).array(of: Float.self)
    }
    let expected = try logits(copy)
    // The attention factor is stored in 32 bits.
    #expect(maxRelativeError(try logits(folder.path("model.gguf")), expected) <= 1e-5)
    #expect(maxRelativeError(try logits(folder.path("back")), expected) <= 1e-5)
    #expect(maxRelativeError(try logits(source), expected) > 1e-3)
  }

  /// Configurations that a key of a fixture's turns into others, with the original's weights, in GGUF and back: all
  /// three give the same logits, which are not the original's.
  private static func expectSame(
    _ name: String, _ changes: [(String, JSON)], notes: [String] = []
  ) throws {
    guard let source = Fixtures.path("architectures/\(name)") else { return }
    let folder = try TemporaryFolder()
    var config = try #require(try JSON.read(path: "\(source)/config.json").object)
    for (key, value) in changes { config[key] = value }
    let copy = folder.path("hf")
    #expect(mkdir(copy, 0o755) == 0)
    #expect(symlink("\(source)/model.safetensors", "\(copy)/model.safetensors") == 0)
    try AtomicFile.write(JSON.object(config).bytes(), to: "\(copy)/config.json")
    #expect(try Converter().convert(copy, to: folder.path("model.gguf")) == notes)
    _ = try Converter().convert(folder.path("model.gguf"), to: folder.path("back"))
    let tokens = Tensor(.i32, [24], (0..<24).map { Int32(7 * $0 % 61) })
    func logits(_ path: String) throws -> [Float] {
      let position = Tensor(.i32, [1], [Int32(0)])
      let results = try Evaluator(ModelLoader.load(path)).run([tokens, position], symbols: ["L": 24])
      return try #require(results.outputs.first).array(of: Float.self)
    }
    let expected = try logits(copy)
    // Factors are stored in 32 bits.
    #expect(maxRelativeError(try logits(folder.path("model.gguf")), expected) <= 1e-5)
    #expect(maxRelativeError(try logits(folder.path("back")), expected) <= 1e-5)
    #expect(maxRelativeError(try logits(source), expected) > 1e-3)
  }

  /// YaRN, with and without what its readers take for granted.
  @Test(
    arguments: [
      ["rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16],
      [
        "rope_type": "yarn", "rope_theta": 500.0, "factor": 2.5, "original_max_position_embeddings": 8,
        "beta_fast": 4.0,
        "beta_slow": 0.5, "attention_factor": 0.75,
      ],
      [
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16,
        "mscale": 0.7,
        "mscale_all_dim": 0.4,
      ],
    ] as [JSON]) func yarn(_ table: JSON) throws
  {
    for name in ["llama", "qwen2"] { try Self.expectSame(name, [("rope_parameters", table)]) }
  }

  /// A blend that ends between pairs has no key.
  @Test func yarnThatIsNotTruncatedIsRefused() throws {
    let table: JSON = [
      "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
      "truncate": false,
    ]
    guard Fixtures.path("architectures/llama") != nil else { return }
    let error = #expect(throws: CompileError.self) { try Self.expectSame("llama", [("rope_parameters", table)]) }
    #expect(error?.message == "'truncate' of rotary embedding is false, which GGUF does not express")
  }

  /// Base and part of rotary embedding as GPT-NeoX of old spells them.
  @Test func spellingsOfGPTNeoX() throws {
    try Self.expectSame("gpt-neox", [("rope_parameters", nil), ("rotary_emb_base", 500), ("rotary_pct", 0.5)])
    try Self.expectSame("gpt-neox", [("rope_parameters", nil), ("rotary_emb_base", 500)])
  }

  /// The window of Phi 3 goes along; that llama.cpp does not look at it is said.
  @Test func windowOfPhi3() throws {
    try Self.expectSame(
      "phi3", [("sliding_window", 8)],
      notes: ["llama.cpp computes attention of the architecture 'phi3' without its window of 8 tokens"])
  }

  /// Quantizing reads the checkpoint once: what a GGUF file and llama2.c hold is quantized as the folder they came from.
  @Test func quantizedFromOtherForms() throws {
    guard let source = Fixtures.path("stories260K/hf") else { return }
    let folder = try TemporaryFolder()
    let converter = Converter(quantization: try QuantizationSpec(parsing: "w8g32"))
    _ = try Converter().convert(source, to: folder.path("plain.gguf"))
    _ = try Converter().convert(source, to: folder.path("plain.bin"))
    for (name, input) in [("a", source), ("b", folder.path("plain.gguf")), ("c", folder.path("plain.bin"))] {
      _ = try converter.convert(input, to: folder.path(name + ".gguf"))
    }
    func weights(_ name: String) throws -> [Model.Entry] {
      let model = try ModelLoader.load(folder.path(name + ".gguf"))
      return try model.constants.constants.indices.compactMap { index in
        let id = ConstantID(index: Int32(index))
        let constant = model.constants[id]
        guard constant.name.hasPrefix("model.") else { return nil }
        let hash = try model.withBytes(of: id) { xxHash64($0, seed: 0) } ?? 0
        return Model.Entry(key: constant.name, value: "\(constant.type) \(hash)")
      }.sorted { $0.key < $1.key }
    }
    let expected = try weights("a")
    #expect(expected.contains { $0.value.contains("q8_0") || $0.value.contains("block") })
    #expect(try weights("b") == expected)
    #expect(try weights("c") == expected)
  }

  /// The file of llama2.c that was made elsewhere, byte for byte up to its table of angles, which nobody reads.
  @Test func llama2C() throws {
    guard let source = Fixtures.path("stories260K/hf"), let made = Fixtures.path("stories260K/stories260K.bin") else {
      return
    }
    let folder = try TemporaryFolder()
    _ = try Converter().convert(source, to: folder.path("stories.bin"))
    let found = try MappedFile.contents(path: folder.path("stories.bin"))
    let wanted = try MappedFile.contents(path: made)
    let angles = 512 * 8 * 4
    #expect(found.count == wanted.count)
    #expect(found.dropLast(angles) == wanted.dropLast(angles))
    // Its tokenizer lies beside it, and encodes with scores as the original does with merges.
    let original = try #require(try ModelLoader.load(source).tokenizer)
    let written = try #require(try ModelLoader.load(folder.path("stories.bin")).tokenizer)
    #expect(written.algorithm == .scoredBPE && written.tokens == original.tokens)
    #expect(written.prefix == original.prefix && written.endIDs == original.endIDs)
    _ = try Converter().convert(folder.path("stories.bin"), to: folder.path("back"))
    let (before, after) = (try Self.tensors(source), try Self.tensors(folder.path("back")))
    #expect(before.keys.sorted() == after.keys.sorted())
    for (name, tensor) in before { #expect(after[name]?.values == tensor.values, "\(name)") }
    try Self.expectEqualTokenizers(source, folder.path("back"))
  }

  /// The tokenizers of two folders give equal ids, in the package `tokenizers`.
  private static func expectEqualTokenizers(_ first: String, _ second: String) throws {
    guard Fixtures.python(["tokenizers"]) else { return }
    let script = """
      import sys
      from tokenizers import Tokenizer
      a, b = (Tokenizer.from_file(path + "/tokenizer.json") for path in sys.argv[1:])
      texts = ["", " ", "Once upon a time", "  two  spaces ", "a\\nb\\tc", "héllo wörld 1234", "日本語 🙂", "def f(x):\\n    return x",
               "<s>hi</s>", "it's we'll DON'T", "x" * 70, "aaaa aaa aa a"]
      wrong = [text for text in texts if a.encode(text).ids != b.encode(text).ids]
      wrong += [text for text in texts if a.decode(a.encode(text).ids) != b.decode(b.encode(text).ids)]
      print(wrong)
      sys.exit(1 if wrong else 0)
      """
    let outcome = try Command.run("python3", ["-c", script, first, second])
    #expect(outcome.exitCode == 0, "\(outcome.text)\(outcome.errors)")
  }

  /// Tokenizers go to GGUF and back: one of characters, whose merges become scores, and one of bytes.
  @Test(arguments: ["stories260K/hf", "pycode7m"]) func tokenizersThroughGGUF(_ name: String) throws {
    guard let source = Fixtures.path(name) else { return }
    let folder = try TemporaryFolder()
    let notes = try Converter().convert(source, to: folder.path("model.gguf"))
    #expect(notes == [])
    let original = try #require(try ModelLoader.load(source).tokenizer)
    let stored = try #require(try ModelLoader.load(folder.path("model.gguf")).tokenizer)
    #expect(stored.tokens == original.tokens && stored.prefix == original.prefix && stored.suffix == original.suffix)
    #expect(stored.beginID == original.beginID && stored.endIDs == original.endIDs)
    if original.algorithm == .byteLevelBPE {
      #expect(stored.algorithm == .byteLevelBPE && stored.merges == original.merges)
      #expect(stored.splitters == original.splitters && stored.decoders == original.decoders)
    } else {
      #expect(stored.algorithm == .scoredBPE && stored.normalizers == original.normalizers)
    }
    _ = try Converter().convert(folder.path("model.gguf"), to: folder.path("back"))
    try Self.expectEqualTokenizers(source, folder.path("back"))
  }

  /// Matrices whose rows are not whole blocks keep their type, which is said.
  @Test func rowsThatAreNoBlocksStayWide() throws {
    guard let source = Fixtures.path("stories260K/hf") else { return }
    let folder = try TemporaryFolder()
    let quantization = try QuantizationSpec(parsing: "w8g32")
    let notes = try Converter(quantization: quantization).convert(source, to: folder.path("model.gguf"))
    // The feed-forward layers are 172 wide.
    #expect(
      notes == [
        "5 matrices are not quantized, since their rows are not whole blocks of 32 numbers, such as "
          + "'blk.0.ffn_down.weight'"
      ])
    let model = try ModelLoader.load(folder.path("model.gguf"))
    let types = Dictionary(model.constants.constants.map { ($0.name, $0.type) }) { first, _ in first }
    #expect(types["model.layers.0.mlp.down_proj.weight"]?.isDense == true)
    #expect(types["model.layers.0.mlp.up_proj.weight"]?.isDense == false)
  }

  @Test func archivesOfNumPy() throws {
    guard let source = Fixtures.path("stories260K/hf") else { return }
    let folder = try TemporaryFolder()
    let notes = try Converter().convert(source, to: folder.path("stories.npz"))
    #expect(notes == ["the tokenizer is not written to .npz files"])
    let archive = try NumPyArchive(path: folder.path("stories.npz"))
    let tensors = try Self.tensors(source)
    for (name, tensor) in tensors {
      let array = try archive.require(name, file: "stories.npz")
      #expect(array.shape == tensor.shape.fixedSizes && array.floats == tensor.values, "\(name)")
    }
    let config = try archive.require("config.json", file: "stories.npz")
    #expect(try JSON.parse(config.bytes, file: "config.json")["model_type"]?.string == "llama")
  }

  /// A graph of ONNX that computes what transformers recorded, in the reference implementation of the onnx package, at
  /// once and in two steps through the cache. Both compute in f32.
  @Test(arguments: ["llama", "gemma2", "mixtral"]) func onnx(_ name: String) throws {
    guard let source = Fixtures.path("architectures/\(name)"), Fixtures.python(["numpy", "onnx"]) else { return }
    let folder = try TemporaryFolder()
    _ = try Converter().convert(source, to: folder.path("model.onnx"))
    let script = """
      import sys
      import numpy as np, onnx
      from onnx.reference import ReferenceEvaluator
      onnx.checker.check_model(sys.argv[1])
      model, expected = ReferenceEvaluator(sys.argv[1]), np.load(sys.argv[2])
      shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in onnx.load(sys.argv[1]).graph.input}
      ids, wanted = expected["input_ids_1"].astype(np.int64), expected["output_1"]
      past = {n: np.zeros(s, np.float32) for n, s in shapes.items() if n.startswith("past")}
      whole = model.run(None, {"input_ids": ids, **past})[0]
      first = model.run(None, {"input_ids": ids[:, :7], **past})
      past = {n.replace("present", "past_key_values"): v for n, v in zip(model.output_names, first) if "present" in n}
      second = model.run(None, {"input_ids": ids[:, 7:], **past})
      both = np.concatenate([first[0], second[0]], 1)
      print(max(np.abs(x - wanted).max() for x in (whole, both)) / np.abs(wanted).max())
      """
    let outcome = try Command.run(
      "python3", ["-c", script, folder.path("model.onnx"), "\(source)/expected.npz"])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let error = try #require(Double(outcome.text.filter { !$0.isNewline }))
    #expect(error <= 1e-4)
  }

  /// What the other format cannot hold is refused by name, and nothing is written.
  @Test func whatHasNoPlaceIsRefused() throws {
    guard let source = Fixtures.path("architectures/mistral") else { return }
    let folder = try TemporaryFolder()
    let path = folder.path("model.gguf")
    let error = #expect(throws: CompileError.self) { try Converter().convert(source, to: path) }
    #expect(error?.message == "'sliding_window' is 8, which the architecture 'llama' of GGUF does not express")
    #expect(error?.kind == .unsupported)
    #expect(throws: CompileError.self) { try MappedFile(path: path) }
    #expect(throws: CompileError.self) { try Converter().convert(source, to: folder.path("model.pth")) }
  }

  /// Codes and scales are written as they are: what the file stands for is what mcc's own format stands for, to the bit.
  @Test(arguments: [
    "w8g32", "w8g64", "w6g32", "w5g32", "w4g32", "w4g128", "w4g32z", "w3g64", "wtg32",
    "wmxfp4", "wiq4nl", "wiq4nlg64", "wtl4", "wnf4g128", "wtl3",
  ])
  func quantizedGGUF(_ spec: String) throws {
    guard let source = Fixtures.path("pycode7m") else { return }
    let folder = try TemporaryFolder()
    let quantization = try QuantizationSpec(parsing: spec)
    _ = try Converter(quantization: quantization).convert(source, to: folder.path("model.gguf"))
    _ = try Converter().convert(folder.path("model.gguf"), to: folder.path("back"))
    let (before, after) = (try Self.tensors(source), try Self.tensors(folder.path("back")))
    let name = "model.layers.3.mlp.down_proj.weight"
    let (weight, found) = (try #require(before[name]), try #require(after[name]))
    let columns = try #require(weight.shape.last.fixedValue)
    let format = try #require(quantization.weightFormat)
    var expected = [Float](repeating: 0, count: columns)
    var row = [UInt8](repeating: 0, count: format.rowBytes(columns: columns))
    for start in stride(from: 0, to: weight.values.count, by: columns) {
      weight.values.withUnsafeBufferPointer { source in
        row.withUnsafeMutableBytes { row in
          guard let source = source.baseAddress, let bytes = row.baseAddress else { return }
          format.quantizeRow(source + start, columns: columns, into: bytes)
          format.dequantizeRow(bytes, columns: columns, into: &expected)
        }
      }
      #expect(found.values[start..<start + columns].elementsEqual(expected))
    }
  }
}
