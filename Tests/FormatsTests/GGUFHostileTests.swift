import Base
import Formats
import IR
import TestSupport
import Testing

/// Files made to break a reader: each is refused with a sentence that names the place.
@Suite struct GGUFHostileTests {
  private func refuse(
    _ message: String, kind: CompileError.Kind = .input, sourceLocation: SourceLocation = #_sourceLocation,
    _ change: (inout GGUFBytes) -> Void
  ) throws {
    var file = GGUFBytes.llama()
    change(&file)
    try refuse(message, file.bytes, kind: kind, sourceLocation: sourceLocation)
  }

  private func refuse(
    _ message: String, _ bytes: [UInt8], kind: CompileError.Kind = .input,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("m.gguf", bytes)
    expectFailure(kind, message, "m.gguf", sourceLocation: sourceLocation) { _ = try folder.load(file: path) }
  }

  @Test func header() throws {
    try refuse("needs 4 bytes", Array("GGUF".utf8))
    try refuse("a 64-bit integer needs 8 bytes", Array("GGUF".utf8) + [3, 0, 0, 0])
    try refuse("version 1", kind: .unsupported) { $0.version = 1 }
    try refuse("version 0", kind: .unsupported) { $0.version = 0 }
    try refuse("version 4", kind: .unsupported) { $0.version = 4 }
    try refuse("big-endian", kind: .unsupported) { $0.version = 0x0300_0000 }
    try refuse("missing 'general.architecture'", GGUFBytes().bytes)
  }

  @Test(arguments: [1 << 61, 1 << 63, .max, 1 << 42, 1_000_000] as [UInt64])
  func counts(count: UInt64) throws {
    try refuse("the number of tensors of \(count)") { $0.tensorCount = count }
    try refuse("the number of metadata keys of \(count)") { $0.keyCount = count }
  }

  @Test(arguments: [UInt64.max, 1 << 63, 1 << 60, 1 << 40, (1 << 31) + 1] as [UInt64])
  func lengths(length: UInt64) throws {
    let size = FileBytes.littleEndian(length)
    try refuse("the length of the value of 'x' of \(length)") { $0.set("x", .raw(8, size)) }
    try refuse("the length of the array 'x' of \(length)") { $0.set("x", .array(8, length, [])) }
    try refuse("the length of the array 'x' of \(length)") { $0.set("x", .array(6, length, [])) }
    try refuse("the length of a string in 'x' of \(length)") { $0.set("x", .array(8, 1, [.raw(8, size)])) }
    // The key count promises one more entry than there is room for.
    var file = GGUFBytes()
    file.keyCount = 1
    try refuse(
      "the length of a metadata key of \(length)",
      Array(file.bytes[..<24]) + size + [UInt8](repeating: 0, count: 32))
  }

  @Test func metadata() throws {
    try refuse("unknown type 13") { $0.set("x", .raw(13, [])) }
    try refuse("unknown type 4294967295") { $0.set("x", .raw(.max, [])) }
    try refuse("has the unknown type 99") { $0.set("x", .array(99, 1, [])) }
    try refuse("a boolean of value 2") { $0.set("x", .bool(2)) }
    try refuse("a boolean above 1") { $0.set("x", .array(7, 2, [.bool(0), .bool(3)])) }
    try refuse("'general.name' occurs twice") { $0.metadata.append(("general.name", .string("b"))) }
    try refuse("a metadata key is empty") { $0.metadata.insert(("", .u8(0)), at: 0) }
    try refuse("not valid UTF-8") { $0.set("x", .raw(8, FileBytes.littleEndian(UInt64(1)) + [0xFF])) }
    try refuse("'x' is nested deeper than 8 arrays", kind: .unsupported) { file in
      let level = FileBytes.littleEndian(UInt32(9)) + FileBytes.littleEndian(UInt64(1))
      let nested = GGUFBytes.Value.raw(9, (0..<10_000).flatMap { _ in level })
      file.set("x", nested)
    }
    try refuse("unknown architecture 'rwkv6'", kind: .unsupported) { $0.set("general.architecture", .string("rwkv6")) }
    try refuse("'general.architecture' is an integer") { $0.set("general.architecture", .u32(1)) }
  }

  @Test func alignment() throws {
    for value: UInt32 in [0, 3, 48, 1 << 31] {
      try refuse("'general.alignment' is \(value), expected a power of two") {
        $0.set("general.alignment", .u32(value))
      }
    }
    for value: GGUFBytes.Value in [.u64(32), .i32(32), .string("32"), .f32(32), .array(4, 0, [])] {
      try refuse("'general.alignment' is not of type u32") { $0.set("general.alignment", value) }
    }
  }

  @Test func tensorTable() throws {
    for size: UInt64 in [0, 1 << 41, 1 << 62 - 1, 1 << 63 - 3, .max] {
      for axis in 0..<2 {
        try refuse("a size of \(size)") { $0.tensors[0].sizes[axis] = size }
      }
    }
    try refuse("out of range") { $0.tensors[0].sizes = [1 << 40, 1 << 40, 1 << 40, 1 << 40] }
    // Elements that fit 63 bits while their bytes do not.
    for type: UInt32 in [0, 2, 8] {
      try refuse("out of range") { file in
        file.tensors[0].sizes = [1 << 40, 1 << 21]
        file.tensors[0].type = type
      }
    }
    try refuse("lie outside the") { $0.tensors[0].sizes = [1 << 40] }
    try refuse("0 axes") { $0.tensors[0].sizes = [] }
    try refuse("5 axes") { $0.tensors[0].sizes = [32, 8, 1, 1, 1] }
    try refuse("rows of 31 numbers do not divide into Q8_0 blocks of 32") { file in
      file.tensors[0].sizes = [31, 8]
      file.tensors[0].type = 8
    }
    try refuse("unknown tensor type 4") { $0.tensors[0].type = 4 }
    try refuse("unknown tensor type 4294967295") { $0.tensors[0].type = .max }
    try refuse("tensor type Q8_K is not supported, only F32", kind: .unsupported) { $0.tensors[0].type = 15 }
    try refuse("tensor name is empty") { $0.tensors[0].name = "" }
    try refuse("a tensor name has 65 bytes") { $0.tensors[0].name = String(repeating: "n", count: 65) }
    try refuse("'token_embd.weight' occurs twice") { $0.tensors.append($0.tensors[0]) }
  }

  @Test func offsets() throws {
    for offset: UInt64 in [.max, 1 << 63, 1 << 40, .max - 31] {
      try refuse("at offset \(offset) lie outside") { $0.tensors[0].offset = offset }
    }
    try refuse("offset 1 is no multiple of the alignment, 32") { $0.tensors[0].offset = 1 }
    try refuse("tensors 'token_embd.weight' and 'blk.0.attn_norm.weight' share bytes") { $0.tensors[1].offset = 0 }
    try refuse("share bytes") { $0.tensors[1].offset = 992 }
    try refuse("'output_norm.weight'", Array(GGUFBytes.llama().bytes.dropLast()))
    try refuse("lie outside") { file in
      let last = file.tensors.count - 1
      file.tensors[last].data.removeLast()
    }
  }

  @Test func hyperparameters() throws {
    let count = "llama.block_count"
    for (value, message) in [
      (.u32(0), "'\(count)' is 0"), (.string("1"), "'\(count)' is a string"), (.i32(-1), "'\(count)' is -1"),
      (.f32(1), "'\(count)' is a number"), (.u32(513), "is 513, but the tensors have 1 blocks"),
      (.u32(1 << 31), "'\(count)' is 2147483648"), (.u64(.max), "'\(count)' is 18446744073709551615"),
      (.array(4, 1, [.u32(1)]), "'\(count)' is an array of 1 u32"), (.bool(1), "'\(count)' is a boolean"),
    ] as [(GGUFBytes.Value, String)] { try refuse(message) { $0.set(count, value) } }
    for key in ["embedding_length", "feed_forward_length", "attention.head_count", "context_length", "block_count"] {
      try refuse("missing 'llama.\(key)'") { $0.set("llama.\(key)", nil) }
      try refuse("'llama.\(key)' is 0") { $0.set("llama.\(key)", .u32(0)) }
    }
    try refuse("'llama.attention.head_count_kv', 3, does not divide") {
      $0.set("llama.attention.head_count_kv", .u32(3))
    }
    try refuse("'llama.attention.head_count', 3, does not divide") { file in
      file.set("llama.attention.head_count", .u32(3))
      file.set("llama.attention.head_count_kv", .u32(3))
    }
    try refuse("blk.0.attn_k.weight' has shape [16, 32], expected [32, 32]") {
      $0.set("llama.attention.head_count_kv", .u32(2))
    }
    try refuse("'llama.vocab_size' is 9, but 'token_embd.weight' has 8 rows") { $0.set("llama.vocab_size", .u32(9)) }
    try refuse("'llama.rope.dimension_count' is 8, only 16", kind: .unsupported) {
      $0.set("llama.rope.dimension_count", .u32(8))
    }
    try refuse("'llama.expert_count'", kind: .unsupported) { $0.set("llama.expert_count", .u32(8)) }
    try refuse("'llama.attention.sliding_window'", kind: .unsupported) {
      $0.set("llama.attention.sliding_window", .u32(8))
    }
    try refuse("'llama.attention.layer_norm_rms_epsilon' is nan") {
      $0.set("llama.attention.layer_norm_rms_epsilon", .f32(.nan))
    }
    try refuse("'llama.rope.freq_base' is nan") { $0.set("llama.rope.freq_base", .f32(.nan)) }
    try refuse("missing tensor 'blk.0.ffn_up.weight'") { $0.tensors.removeAll { $0.name == "blk.0.ffn_up.weight" } }
    try refuse("missing tensor 'token_embd.weight'") { $0.tensors.removeFirst() }
    try refuse("tensor 'blk.0.extra' has no place", kind: .unsupported) { file in
      file.tensors.append(.init(name: "blk.0.extra", sizes: [1], data: [0, 0, 0, 0]))
    }
    try refuse("the tensors have 9223372036854775807 blocks") { file in
      file.tensors.append(.init(name: "blk.9223372036854775806.x", sizes: [1], data: [0, 0, 0, 0]))
    }
  }

  @Test func tokenizerArrays() throws {
    let prefix = "tokenizer.ggml."
    for (key, value, message) in [
      (
        "scores", .array(0, 8, (0..<8).map { .u8($0) }),
        "'\(prefix)scores' is an array of 8 u8, expected an array of f32"
      ),
      ("token_type", .strings(["a"]), "'\(prefix)token_type' is an array of 1 string, expected an array of i32"),
      ("tokens", .ints([1, 2]), "'\(prefix)tokens' is an array of 2 i32, expected an array of string"),
      ("tokens", .strings([]), "'\(prefix)tokens' has 0 tokens, but the network knows 8"),
      ("tokens", .strings(["a"]), "has 1 tokens"), ("tokens", .u32(1), "'\(prefix)tokens' is an integer"),
      ("tokens", nil, "missing '\(prefix)tokens'"), ("scores", nil, "missing '\(prefix)scores'"),
      ("scores", .floats([]), "'\(prefix)scores' has 0 elements for 8 tokens"),
      ("scores", .floats([Float](repeating: .nan, count: 8)), "contains NaN"),
      ("token_type", .ints([]), "'\(prefix)token_type' has 0 elements"),
      ("token_type", .ints([2, 3, 3, 6, 1, 1, 1, 7]), "'\(prefix)token_type[7]' is 7"),
      ("token_type", .ints([2, 3, 3, 6, 1, 1, 1, -1]), "'\(prefix)token_type[7]' is -1"),
      ("token_type", .ints([2, 3, 3, 6, 6, 1, 1, 1]), "token 4, '▁', is no byte token"),
      ("bos_token_id", .u32(8), "'\(prefix)bos_token_id' is 8"),
      ("eos_token_id", .i32(-1), "'\(prefix)eos_token_id' is -1"),
      ("add_bos_token", .u8(1), "'\(prefix)add_bos_token' is an integer, expected a boolean"),
    ] as [(String, GGUFBytes.Value?, String)] {
      try refuse(message) { $0.set(prefix + key, value) }
    }
    try refuse("a tokenizer of type 'rwkv'", kind: .unsupported) { $0.set(prefix + "model", .string("rwkv")) }
    for text in ["<0x-1>", "<0x+5>", "<0x 1>", "<0xZZ>", "<0x1>", "<0x0a>", "", "<0x"] {
      let tokens = ["<unk>", "<s>", "</s>", text, "▁", "a", "▁a", "aa"]
      try refuse("token 3, '\(text)', is no byte token") { $0.set(prefix + "tokens", .strings(tokens)) }
    }
    try refuse("tokens 4 and 7 are both '▁'") {
      $0.set(prefix + "tokens", .strings(["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "▁a", "▁"]))
    }
  }

  /// Limits hold whatever the file says.
  @Test func limits() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("m.gguf", GGUFBytes.llama().bytes)
    func refuse(_ message: String, _ change: (inout LoadLimits) -> Void) {
      var options = LoadOptions()
      change(&options.limits)
      expectFailure(.input, message) { _ = try FormatRegistry.load(path, options) }
    }
    refuse("11 tensors, at most 10") { $0.tensors = 10 }
    refuse("18 metadata keys, at most 3") { $0.metadataKeys = 3 }
    refuse("at most 4 are allowed") { $0.stringBytes = 4 }
    refuse("'tokenizer.ggml.tokens' has 8 elements, at most 7") { $0.arrayElements = 7 }
    refuse("'llama.embedding_length' is 32, expected 1 to 31") { $0.width = 31 }
  }

  @Test func damagedFilesGiveErrors() throws {
    try expectOnlyCompileErrors(GGUFBytes.llama(type: 2).bytes, fileName: "m.gguf", mutations: 3000) { path in
      try Verifier.verify(FormatRegistry.load(path))
    }
  }
}
