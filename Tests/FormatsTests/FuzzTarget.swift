import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// A reader with small valid files to start from.
struct FuzzTarget: Sendable, CustomTestStringConvertible {
  var name: String
  /// The name of the file that is written.
  var file: String
  var corpus: @Sendable () throws -> [[UInt8]]
  /// Other files of the folder.
  var others: [String: [UInt8]] = [:]
  /// Whether a file that ends early may be a whole one: protobuf has no end.
  var hasValidPrefixes = false
  var load: @Sendable (String) throws -> Void

  var testDescription: String { name }

  /// The files of the tiny Llama in a folder.
  private static let llama: [String: [UInt8]] = [
    "config.json": Array(JSON.object(TinyCheckpoint().config).text().utf8),
    "model.safetensors": FileBytes.safetensors(TinyCheckpoint().tensors),
  ]

  /// Reads the folder of a file.
  private static func loadFolder(_ path: String) throws {
    try Verifier.verify(FormatRegistry.load(ArchivePath.folder(of: path)))
  }

  /// Reads a file and touches the last byte of all constants.
  private static func loadFile(_ path: String) throws {
    let model = try FormatRegistry.load(path)
    try Verifier.verify(model)
    for function in model.functions {
      for value in function.valueIDs {
        if let id = function.constant(of: value) { _ = try model.withBytes(of: id) { $0.last } }
      }
    }
  }

  private static func tflite(_ names: [String]) throws -> [[UInt8]] {
    try names.map {
      try MappedFile.contents(path: "\(Fixtures.packageRoot)/Tests/EndToEndTests/Fixtures/tflite/\($0).tflite")
    }
  }

  /// One part of the tiny Llama in two GGUF files.
  private static func ggufPart(_ number: Int) -> [UInt8] {
    let whole = GGUFBytes.llama()
    var file = whole
    if number > 1 { file.metadata = [] }
    file.tensors = whole.tensors.enumerated().filter { $0.offset % 2 == number - 1 }.map { $0.element }
    file.set("split.no", .u16(UInt16(number - 1)))
    file.set("split.count", .u16(2))
    file.set("split.tensors.count", .i32(Int32(whole.tensors.count)))
    return file.bytes
  }

  /// GGUF files of one architecture whose tokenizers are of different kinds.
  private static func ggufTokenizers() -> [[UInt8]] {
    let kinds: [(String, [String], [Int32])] = [
      ("gpt2", ["a", "b", "\u{120}", "ab", "\u{120}a", "\u{120}ab", "<|end|>", "<|pad|>"], [1, 1, 1, 1, 1, 1, 3, 4]),
      ("bert", ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "\u{2581}a", "a", "\u{2581}b", "b"], [2, 3, 3, 3, 1, 1, 1, 1]),
      ("t5", ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "ab", "\u{2581}a"], [2, 3, 3, 1, 1, 1, 1, 1]),
    ]
    return kinds.map { kind, tokens, types in
      var file = GGUFBytes.llama()
      file.set("tokenizer.ggml.model", .string(kind))
      file.set("tokenizer.ggml.tokens", .strings(tokens))
      file.set("tokenizer.ggml.token_type", .ints(types))
      if kind == "gpt2" {
        file.set("tokenizer.ggml.pre", .string("llama-bpe"))
        file.set("tokenizer.ggml.merges", .strings(["a b", "\u{120} a", "\u{120} ab"]))
        file.set("tokenizer.ggml.unknown_token_id", nil)
        for key in ["bos", "eos"] { file.set("tokenizer.ggml.\(key)_token_id", .u32(6)) }
      }
      return file.bytes
    }
  }

  /// Tokenizers of all models, with merges in both forms.
  private static func tokenizers() -> [[UInt8]] {
    let unigram: JSON = [
      "type": "Unigram", "unk_id": 0,
      "vocab": [["<unk>", 0], ["<s>", -1.5], ["</s>", -2e-1], ["\u{2581}", -3], ["a", -4.25]],
    ]
    let pieces: JSON = [
      "type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 10,
      "vocab": ["<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "##a": 4],
    ]
    let llama = TinyCheckpoint.llamaTokenizer
    return [
      llama, TinyCheckpoint.byteLevelTokenizer, llama.setting("model", to: unigram), llama.setting("model", to: pieces),
    ].map { Array($0.text().utf8) }
  }

  /// A `ModelProto` of SentencePiece: BPE (2) or unigram (1).
  static func sentencePiece(type: UInt64) -> [UInt8] {
    let pieces: [(String, UInt64, Float)] = [
      ("<unk>", 2, 0), ("<s>", 3, 0), ("</s>", 3, 0), ("<0x0A>", 6, 0), ("\u{2581}", 1, -3), ("a", 1, -4),
      ("\u{2581}a", 1, -1), ("aa", 1, -2),
    ]
    let list = pieces.flatMap { text, kind, score in
      Wire.bytes(1, Wire.text(1, text) + [0x15] + FileBytes.f32([score]) + Wire.number(3, kind))
    }
    let trainer = Wire.number(3, type) + Wire.number(41, 1) + Wire.number(42, 2)
    return list + Wire.bytes(2, trainer) + Wire.bytes(3, Wire.number(3, 1) + Wire.number(4, 1) + Wire.number(5, 1))
  }

  /// `adapter_config.json` and `adapter_model.safetensors` of the tiny Llama.
  private static let adapterConfig = Array(
    """
    {"peft_type":"LORA","r":2,"lora_alpha":6,"rank_pattern":{"q_proj":2},"alpha_pattern":{"layers.0.self_attn.q_proj":12},
    "target_modules":["q_proj"],"bias":"none","task_type":"CAUSAL_LM","use_rslora":false,"modules_to_save":null}
    """.utf8)
  private static let adapterTensors = FileBytes.safetensors([
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [2, 4]),
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", [4, 2]),
  ])

  /// Reads the folder of a file as a checkpoint and as its adapter.
  private static func loadAdapter(_ path: String) throws {
    var options = LoadOptions()
    options.adapter = ArchivePath.folder(of: path)
    try Verifier.verify(FormatRegistry.load(ArchivePath.folder(of: path), options))
  }

  /// The tiny Llama in two shards, and their index.
  private static let shards: (files: [String: [UInt8]], index: [UInt8]) = {
    let tensors = TinyCheckpoint().tensors
    let names = ["a.safetensors", "b.safetensors"], parts = [Array(tensors[..<6]), Array(tensors[6...])]
    var map = JSONObject()
    var files = ["config.json": llama["config.json"] ?? []]
    for (name, part) in zip(names, parts) {
      files[name] = FileBytes.safetensors(part)
      for tensor in part { map[tensor.name] = .string(name) }
    }
    return (files, Array((["metadata": ["total_size": 1], "weight_map": .object(map)] as JSON).text().utf8))
  }()

  static let all: [FuzzTarget] = [
    FuzzTarget(
      name: "gguf", file: "m.gguf",
      corpus: { [0, 2, 8, 20].map { GGUFBytes.llama(type: $0).bytes } + ggufTokenizers() },
      load: { try Verifier.verify(FormatRegistry.load($0)) }),
    FuzzTarget(
      name: "gguf, first part", file: "m-00001-of-00002.gguf", corpus: { [ggufPart(1)] },
      others: ["m-00002-of-00002.gguf": ggufPart(2)], load: { try loadFile($0) }),
    FuzzTarget(
      name: "gguf, second part", file: "m-00002-of-00002.gguf", corpus: { [ggufPart(2)] },
      others: ["m-00001-of-00002.gguf": ggufPart(1)],
      load: { try loadFile(ArchivePath.folder(of: $0) + "/m-00001-of-00002.gguf") }),
    FuzzTarget(
      name: "safetensors", file: "m.safetensors",
      corpus: { [FileBytes.safetensors([("a", [2, 3]), ("b", [5])]), FileBytes.safetensors("{}")] },
      load: { path in
        let file = try SafetensorsFile(MappedFile(path: path))
        for tensor in file.tensors { _ = try file.file.slice(tensor.range).reduce(0) { $0 &+ Int($1) } }
      }),
    FuzzTarget(
      name: "safetensors index", file: "model.safetensors.index.json", corpus: { [shards.index] },
      others: shards.files, load: { try loadFolder($0) }),
    FuzzTarget(
      name: "pytorch", file: "m.pt",
      corpus: { [TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 0, size: 4, stride: 1))] },
      load: { path in
        for tensor in try TorchFile(MappedFile(path: path)).tensors { _ = try PyTorchTests.numbers(tensor) }
      }),
    FuzzTarget(
      name: "pytorch, legacy", file: "m.bin", corpus: { [TorchBytes.legacy()] },
      load: { path in
        for tensor in try TorchFile(MappedFile(path: path)).tensors { _ = try PyTorchTests.numbers(tensor) }
      }),
    FuzzTarget(
      name: "numpy", file: "m.npz",
      corpus: {
        let array = NumPyArray([1, 2, 3, 4, 5, 6] as [Float], [2, 3]).npyBytes
        return [array, ZipBytes.stored([("a.npy", array), ("b.npy", NumPyArray([1] as [Int64], []).npyBytes)])]
      },
      load: { _ = try NumPyArchive(path: $0, limit: 1 << 24) }),
    FuzzTarget(
      name: "llama2.c", file: "m.bin",
      corpus: { (0...2).map { Llama2CTests.Small(version: $0).bytes() } },
      load: { try Verifier.verify(FormatRegistry.load($0)) }),
    FuzzTarget(
      name: "onnx", file: "m.onnx",
      corpus: { [try MappedFile.contents(path: Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx")] },
      load: { try Verifier.verify(FormatRegistry.load($0)) }),
    FuzzTarget(
      name: "onnx, small graphs", file: "m.onnx", corpus: { ONNXTests.smallGraphs },
      load: { try loadFile($0) }),
    FuzzTarget(
      name: "tflite", file: "m.tflite",
      corpus: {
        try tflite([
          "q_conv", "q_classifier", "strided_slice", "conv_same_relu", "depthwise", "transpose_conv", "parts", "hybrid",
          "q_pools", "q_moves", "gather", "resize_bilinear_half", "mirror_pad", "fully_connected", "batch_matmul",
        ])
      },
      load: { try loadFile($0) }),
    FuzzTarget(
      name: "config.json", file: "config.json", corpus: { [llama["config.json"] ?? []] }, others: llama,
      load: { try loadFolder($0) }),
    FuzzTarget(
      name: "tokenizer.json", file: "tokenizer.json", corpus: { tokenizers() }, others: llama,
      load: { try loadFolder($0) }),
    FuzzTarget(
      name: "tokenizer.model", file: "tokenizer.model",
      corpus: { [sentencePiece(type: 1), sentencePiece(type: 2)] }, others: llama, hasValidPrefixes: true,
      load: { try loadFolder($0) }),
    FuzzTarget(
      name: "adapter_config.json", file: "adapter_config.json", corpus: { [adapterConfig] },
      others: llama.merging(["adapter_model.safetensors": adapterTensors]) { $1 }, load: { try loadAdapter($0) }),
    FuzzTarget(
      name: "adapter_model.safetensors", file: "adapter_model.safetensors", corpus: { [adapterTensors] },
      others: llama.merging(["adapter_config.json": adapterConfig]) { $1 }, load: { try loadAdapter($0) }),
    FuzzTarget(
      name: "audit", file: "m",
      corpus: {
        [
          GGUFBytes.llama().bytes, FileBytes.safetensors([("a", [2, 3])]),
          TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 0, size: 4, stride: 1)), TorchBytes.legacy(),
          try MappedFile.contents(path: Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx"),
        ]
      },
      load: { path in
        let report = try Audit.run(path)
        guard report.isAccepted else { throw CompileError(.input, "\(report.lines)") }
      }),
  ]
}

/// PyTorch checkpoints written by hand.
enum TorchBytes {
  /// A zip archive whose only pickle is `code`, with one storage of 16 bytes called 0.
  static func zip(_ code: [UInt8], _ others: [(String, [UInt8])] = []) -> [UInt8] {
    ZipBytes.stored([("m/data.pkl", code), ("m/data/0", [UInt8](repeating: 1, count: 16))] + others)
  }

  /// A pickle of `{'w': tensor}` with a storage of `count` f32, and the tensor's offset, size and stride.
  static func tensor(count: Int32, offset: Int32, size: Int32, stride: Int32) -> [UInt8] {
    func int(_ value: Int32) -> [UInt8] { [0x4A] + FileBytes.littleEndian(value) }
    func text(_ text: String) -> [UInt8] { [0x58] + FileBytes.littleEndian(UInt32(text.utf8.count)) + Array(text.utf8) }
    func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }
    var code: [UInt8] = [0x80, 2] + Array("}(".utf8) + text("w") + global("torch._utils", "_rebuild_tensor_v2")
    code += Array("((".utf8) + text("storage") + global("torch", "FloatStorage") + text("0") + text("cpu") + int(count)
    code += Array("tQ".utf8) + int(offset) + int(size) + [0x85] + int(stride) + [0x85, 0x89]
    code += global("collections", "OrderedDict") + Array(")RtRu.".utf8)
    return code
  }

  /// The same in the legacy form.
  static func legacy() -> [UInt8] {
    let magic: [UInt8] = [0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]
    let version: [UInt8] = [0x80, 2, 0x4D, 0xE9, 0x03, 0x2E], system: [UInt8] = [0x80, 2] + Array("}.".utf8)
    let keys: [UInt8] = [0x80, 2] + Array("]X\u{1}\0\0\00a.".utf8)
    let storage = FileBytes.littleEndian(Int64(4)) + [UInt8](repeating: 2, count: 16)
    return magic + version + system + tensor(count: 4, offset: 0, size: 4, stride: 1) + keys + storage
  }
}
