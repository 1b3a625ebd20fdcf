import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// A file that once broke a reader of model files, under the name of the record about it.
struct Attack: Sendable, CustomTestStringConvertible {
  /// Identifiers of the records.
  var id: String
  /// The name of the file, which decides nothing.
  var file: String
  var bytes: [UInt8]
  /// A part of the message that must come.
  var message: String
  var kind = CompileError.Kind.input

  init(_ id: String, _ message: String, _ file: String, _ bytes: [UInt8], kind: CompileError.Kind = .input) {
    self.id = id
    self.file = file
    self.bytes = bytes
    self.message = message
    self.kind = kind
  }

  /// A change to a small valid GGUF file.
  init(
    gguf id: String, _ message: String, kind: CompileError.Kind = .input, _ change: (inout GGUFBytes) -> Void
  ) {
    var file = GGUFBytes.llama()
    change(&file)
    self.init(id, message, "model.gguf", file.bytes, kind: kind)
  }

  /// A safetensors file of a header and data.
  init(safetensors id: String, _ message: String, _ header: String, _ data: [UInt8] = []) {
    var text = header
    while text.utf8.count % 8 != 0 { text += " " }
    self.init(id, message, "model.safetensors", FileBytes.safetensors(text, data))
  }

  var testDescription: String { "\(id) in \(file): \(message)" }
}

@Suite struct AttackCatalogueTests {
  static let gguf: [Attack] = [
    Attack(gguf: "CVE-2024-21825", "the length of the array 'x' of 1152921504606846976") {
      $0.set("x", .array(8, 1 << 60, []))
    },
    Attack(gguf: "CVE-2024-23496", "the length of the value of 'x' of 18446744073709551615") {
      $0.set("x", .raw(8, FileBytes.littleEndian(UInt64.max)))
    },
    Attack(gguf: "CVE-2024-21802 (axes)", "5 axes, expected 1 to 4") { $0.tensors[0].sizes = [32, 8, 1, 1, 1] },
    Attack(gguf: "CVE-2024-21802 (sizes)", "a size of 18446744073709551615") { $0.tensors[0].sizes = [.max, 8] },
    Attack(gguf: "CVE-2024-21836", "the number of tensors of 2305843009213693952") { $0.tensorCount = 1 << 61 },
    Attack(gguf: "CVE-2024-23605", "the number of metadata keys of 2305843009213693952") { $0.keyCount = 1 << 61 },
    Attack("CVE-2024-41130 (empty file)", "the empty file", "model.gguf", []),
    Attack("CVE-2024-41130 (header only)", "a 64-bit integer", "model.gguf", Array("GGUF".utf8) + [3, 0, 0, 0]),
    Attack(gguf: "CVE-2024-41130 (empty name)", "a tensor name is empty") { $0.tensors[0].name = "" },
    Attack(gguf: "CVE-2025-53630", "lie outside the") { file in
      for index in file.tensors.indices { file.tensors[index].sizes = [1 << 40] }
    },
    Attack(gguf: "CVE-2026-27940", "the number of tensors of 4194304") { $0.tensorCount = 1 << 22 },
    Attack(gguf: "CVE-2026-33298", "out of range") { file in
      file.tensors[0].sizes = [1 << 40, 1 << 22]
      file.tensors[0].type = 8
    },
    Attack(gguf: "CVE-2026-33298 (Q4_0)", "out of range") { file in
      file.tensors[0].sizes = [1 << 40, 1 << 23]
      file.tensors[0].type = 2
    },
    Attack(gguf: "padding that wraps (2^62 - 1)", "a size of 4611686018427387903") {
      $0.tensors[0].sizes = [1 << 62 - 1]
    },
    Attack(gguf: "padding that wraps (2^63 - 3)", "a size of 9223372036854775805") {
      $0.tensors[0].sizes = [1 << 63 - 3]
    },
    Attack(gguf: "size 0 divides by zero (first)", "a size of 0") { $0.tensors[0].sizes = [0, 8] },
    Attack(gguf: "size 0 divides by zero (second)", "a size of 0") { $0.tensors[0].sizes = [32, 0] },
    Attack(gguf: "CVE-2025-0317 (0)", "'general.alignment' is 0") { $0.set("general.alignment", .u32(0)) },
    Attack(gguf: "CVE-2025-0317 (3)", "'general.alignment' is 3") { $0.set("general.alignment", .u32(3)) },
    Attack(gguf: "CVE-2025-0317 (2^31)", "'general.alignment' is 2147483648") {
      $0.set("general.alignment", .u32(1 << 31))
    },
    Attack(gguf: "CVE-2025-0317 (text)", "'general.alignment' is not of type u32") {
      $0.set("general.alignment", .string("32"))
    },
    Attack(gguf: "CVE-2024-8063 (0)", "'llama.block_count' is 0") { $0.set("llama.block_count", .u32(0)) },
    Attack(gguf: "CVE-2024-8063 (text)", "'llama.block_count' is a string") {
      $0.set("llama.block_count", .string("1"))
    },
    Attack(gguf: "CVE-2024-8063 (negative)", "'llama.block_count' is -1") { $0.set("llama.block_count", .i32(-1)) },
    Attack("CVE-2025-0312, CVE-2024-39720", "needs", "model.gguf", Array("GGUF".utf8)),
    Attack(gguf: "CVE-2025-0315", "lie outside the") { $0.tensors[0].sizes = [1 << 40] },
    Attack(gguf: "CVE-2024-12055", "lie outside the") { $0.tensors[0].offset = 1 << 32 },
    Attack(gguf: "CVE-2026-7482 (by 2^40)", "lie outside the") { $0.tensors[0].offset = 1 << 40 },
    Attack(
      "CVE-2026-7482 (by 1)", "lie outside the", "model.gguf", Array(GGUFBytes.llama().bytes.dropLast())),
    Attack(gguf: "llama.cpp 19003", "of 1099511627776") {
      $0.set("x", .raw(8, FileBytes.littleEndian(UInt64(1 << 40))))
    },
    Attack(gguf: "llama.cpp 18674, 15711", "lie outside the") { $0.tensors[0].sizes = [1 << 20 + 1, 1 << 20] },
    Attack(gguf: "llama.cpp 26690 (scores)", "expected an array of f32") {
      $0.set("tokenizer.ggml.scores", .array(0, 8, (0..<8).map { .u8($0) }))
    },
    Attack(gguf: "llama.cpp 26690 (token types)", "expected an array of i32") {
      $0.set("tokenizer.ggml.token_type", .strings(["a"]))
    },
    Attack(gguf: "llama.cpp 25821, 26051 (513)", "513") { $0.set("llama.block_count", .u32(513)) },
    Attack(gguf: "llama.cpp 25821, 26051 (2^31)", "2147483648") { $0.set("llama.block_count", .u32(1 << 31)) },
    Attack(gguf: "llama.cpp 25969, 27226", "is no byte token") {
      $0.set("tokenizer.ggml.tokens", .strings(["<unk>", "<s>", "</s>", "<0x-1>", "▁", "a", "▁a", "aa"]))
    },
    Attack(gguf: "llama.cpp 25969, 27226 (space)", "is no byte token") {
      $0.set("tokenizer.ggml.tokens", .strings(["<unk>", "<s>", "</s>", "<0x 1>", "▁", "a", "▁a", "aa"]))
    },
    Attack(gguf: "llama.cpp 25969, 27226 (not hexadecimal)", "is no byte token") {
      $0.set("tokenizer.ggml.tokens", .strings(["<unk>", "<s>", "</s>", "<0xZZ>", "▁", "a", "▁a", "aa"]))
    },
    Attack(gguf: "DFlash (scores)", "has 1 elements for 8 tokens") { $0.set("tokenizer.ggml.scores", .floats([0])) },
    Attack(gguf: "DFlash (token types)", "has 0 elements for 8 tokens") {
      $0.set("tokenizer.ggml.token_type", .ints([]))
    },
    Attack(gguf: "DFlash (no elements)", "has 0 tokens") { $0.set("tokenizer.ggml.tokens", .strings([])) },
    Attack(gguf: "DFlash (one element)", "has 1 tokens") { $0.set("tokenizer.ggml.tokens", .strings(["a"])) },
    Attack(gguf: "DFlash (huge)", "the length of the array") {
      $0.set("tokenizer.ggml.tokens", .array(8, 1 << 40, []))
    },
    Attack(gguf: "arrays 10,000 deep", "is nested deeper than", kind: .unsupported) { file in
      let level = FileBytes.littleEndian(UInt32(9)) + FileBytes.littleEndian(UInt64(1))
      file.set("x", .raw(9, (0..<10_000).flatMap { _ in level }))
    },
    Attack(gguf: "tensors that share bytes", "share bytes") { $0.tensors[1].offset = 0 },
    Attack(gguf: "duplicate keys", "occurs twice") { $0.metadata.append(("general.name", .string("b"))) },
    Attack(gguf: "duplicate tensors", "occurs twice") { $0.tensors.append($0.tensors[0]) },
    Attack(gguf: "offset out of alignment", "no multiple of the alignment") { $0.tensors[0].offset = 1 },
    Attack(gguf: "CVE-2025-49847 (a token of 2^31 + 1 bytes)", "the length of a string") {
      $0.set("tokenizer.ggml.tokens", .array(8, 8, [.raw(8, FileBytes.littleEndian(UInt64(1 << 31 + 1)))]))
    },
  ]

  private static func one(_ entry: String) -> String { "{\"w\":{\(entry)}}" }

  static let safetensors: [Attack] = [
    Attack("header length 0", "header length 0", "m.safetensors", FileBytes.littleEndian(UInt64(0)) + [0x7B, 0x7D]),
    Attack(
      "header length 2^64 - 1", "header length 18446744073709551615", "m.safetensors",
      FileBytes.littleEndian(UInt64.max) + [0x7B, 0x7D]),
    Attack(
      "header length 100,000,001", "header length 100000001", "m.safetensors",
      FileBytes.littleEndian(UInt64(100_000_001)) + [0x7B, 0x7D]),
    Attack(
      "header longer than the file", "bytes follow", "m.safetensors", FileBytes.littleEndian(UInt64(3)) + [0x7B, 0x7D]),
    Attack(
      "not beginning with a brace", "does not begin with", "m.safetensors", FileBytes.safetensors(" {}     ")),
    Attack(
      "invalid UTF-8", "UTF-8", "m.safetensors",
      FileBytes.littleEndian(UInt64(8)) + Array("{\"".utf8) + [0xFF]
        + Array("\":1} ".utf8)),
    Attack(safetensors: "duplicate keys", "duplicate key", "{\"a\":{},\"a\":{}}"),
    Attack(safetensors: "metadata that is no text", "expected a string", "{\"__metadata__\":{\"a\":1}}"),
    Attack(
      safetensors: "unknown dtype", "unknown dtype",
      one("\"dtype\":\"F128\",\"shape\":[1],\"data_offsets\":[0,16]"), [UInt8](repeating: 0, count: 16)),
    Attack(
      safetensors: "offsets reversed", "'data_offsets' are",
      one("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]"),
      [0]),
    Attack(
      safetensors: "offsets negative", "no size", one("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]"), [0]),
    Attack(
      safetensors: "holes", "belong to no tensor", one("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]"), [0, 0]),
    Attack(
      safetensors: "polyglot: bytes after the last tensor", "but the file has",
      one("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]"), [0, 0x50, 0x4B]),
    Attack(
      safetensors: "shape and span disagree", "needs 2 bytes",
      one("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,1]"), [0]),
    Attack(
      safetensors: "product that overflows", "out of range",
      one("\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]"), [0, 0, 0, 0]),
    Attack(
      safetensors: "half a byte", "do not fill whole bytes",
      one("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]"), [0, 0]),
    Attack(
      safetensors: "tensors that overlap", "overlaps",
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
        + "\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[4,12]}}", [UInt8](repeating: 0, count: 12)),
    Attack(
      safetensors: "empty tensor inside of another", "overlaps",
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},"
        + "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[4,4]}}", [UInt8](repeating: 0, count: 8)),
  ]

  private static func call(_ module: String, _ name: String) -> [UInt8] {
    [0x80, 2] + Array("c\(module)\n\(name)\n(U\u{2}idtR.".utf8)
  }

  static let archives: [Attack] = [
    Attack(
      "CVE-2025-32434", "the pickle names 'posix.system'", "model.pt", TorchBytes.zip(call("posix", "system")),
      kind: .unsupported),
    Attack(
      "CVE-2022-45907", "the pickle names 'torch.jit.annotations.parse_type_line'", "model.pt",
      TorchBytes.zip(call("torch.jit.annotations", "parse_type_line")), kind: .unsupported),
    Attack(
      "CVE-2024-48063, CVE-2024-5480", "the pickle names 'torch.distributed.nn.RemoteModule'", "model.pt",
      TorchBytes.zip(call("torch.distributed.nn", "RemoteModule")), kind: .unsupported),
    Attack(
      "CVE-2025-1716", "the pickle names 'pip.main'", "model.pt", TorchBytes.zip(call("pip", "main")),
      kind: .unsupported),
    Attack(
      "CVE-2025-10155 (extension)", "the pickle names 'builtins.exec'", "model.safetensors",
      TorchBytes.zip(call("builtins", "exec")), kind: .unsupported),
    Attack(
      "CVE-2026-24747 (storage size)", "is said to have 5 elements", "model.pt",
      TorchBytes.zip(TorchBytes.tensor(count: 5, offset: 0, size: 1, stride: 1))),
    Attack(
      "CVE-2026-24747 (offset)", "lie outside of the storage", "model.pt",
      TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 4, size: 1, stride: 1))),
    Attack(
      "CVE-2026-24747 (negative offset)", "negative", "model.pt",
      TorchBytes.zip(TorchBytes.tensor(count: 4, offset: -1, size: 1, stride: 1))),
    Attack(
      "CVE-2026-24747 (stride)", "lie outside of the storage", "model.pt",
      TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 0, size: 2, stride: 4))),
    Attack(
      "CVE-2026-24747 (negative stride)", "negative", "model.pt",
      TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 0, size: 2, stride: -1))),
    Attack(
      "zip bomb (compressed member)", "'m/data.pkl' is compressed", "model.pt",
      ZipBytes.archive([.init("m/data.pkl", [0x03, 0x00], method: 8, size: 1000)]), kind: .unsupported),
    Attack(
      "zip bomb (members that share bytes)", "share bytes", "model.pt",
      ZipBytes.archive([
        .init("m/data.pkl", ZipBytes.local(.init("m/x", [0x2E]))), .init("m/x", [0x2E], at: 40),
      ])),
    Attack(
      "duplicate members", "duplicate zip member", "model.pt", TorchBytes.zip([0x2E], [("m/data.pkl", [0x2E])])),
  ]

  /// Every file is refused with a sentence that names file and place, within two seconds.
  @Test(arguments: gguf + safetensors + archives)
  func isRefused(attack: Attack) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(attack.file, attack.bytes)
    let watch = ThreadTime()
    do {
      if attack.file.hasSuffix("safetensors"), !attack.bytes.starts(with: [0x50, 0x4B]) {
        _ = try SafetensorsFile(MappedFile(path: path))
      } else if attack.bytes.starts(with: [0x50, 0x4B]) {
        _ = try TorchFile(MappedFile(path: path))
      } else {
        _ = try FormatRegistry.load(path)
      }
      Issue.record("accepted")
    } catch let error as CompileError {
      #expect(error.kind == attack.kind, "\(error)")
      #expect(error.description.contains(attack.message), "\(error)")
      #expect(error.description.contains(attack.file), "\(error)")
    }
    #expect(watch.seconds < 2)
    // The audit says no as well, and what for; those that concern the network alone it cannot see.
    let report = try Audit.run(path)
    let aboutNetwork = [
      "llama.block_count", "tokenizer", "is no byte token", "expected an array", "tokens", "513", "2147",
    ]
    if !aboutNetwork.contains(where: { attack.message.contains($0) }) {
      #expect(!report.isAccepted, "\(report.lines)")
    }
    #expect(folder.names() == [attack.file])
  }

  /// CVE-2024-32878: an error on every path, wherever the file ends.
  @Test func cve202432878() throws {
    let bytes = GGUFBytes.llama().bytes
    let folder = try TemporaryFolder()
    for count in stride(from: 0, to: bytes.count, by: 7) {
      let path = try folder.write("m.gguf", Array(bytes[..<count]))
      #expect(throws: CompileError.self) { _ = try FormatRegistry.load(path) }
      #expect(try !Audit.run(path).isAccepted)
    }
  }

  /// CVE-2019-6446, CVE-2024-34997, CVE-2020-13092: arrays of pickled objects. CVE-2025-62608: headers of arrays.
  @Test func arraysOfObjectsAndBrokenHeaders() throws {
    func npy(_ header: String, _ data: [UInt8] = []) -> [UInt8] {
      [0x93] + Array("NUMPY".utf8) + [1, 0] + FileBytes.littleEndian(UInt16(header.utf8.count)) + Array(header.utf8)
        + data
    }
    let folder = try TemporaryFolder()
    for (id, bytes, message): (String, [UInt8], String) in [
      ("object", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", [0x80, 4, 0x2E]), "'|O'"),
      ("no end", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)"), "expected '}'"),
      ("huge", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }\n"), "out of range"),
      ("structured", npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n"), "structured"),
      ("header length", [0x93] + Array("NUMPY".utf8) + [2, 0, 255, 255, 255, 255], "header of 4294967295"),
    ] {
      let path = try folder.write("x.npy", bytes)
      do {
        _ = try NumPyArray.read(path: path)
        Issue.record("accepted \(id)")
      } catch let error as CompileError {
        #expect(error.description.contains(message) && error.description.contains("x.npy"), "\(id): \(error)")
      }
      #expect(try !Audit.run(path).isAccepted, "\(id)")
    }
  }

  /// Megabytes of header about one byte of data, and more headers than memory: bounded.
  @Test func manySmallEntries() throws {
    var header = "{\"w\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}"
    for index in 0..<20_000 {
      header += ",\"e\(index)\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}"
    }
    header += "}"
    while header.utf8.count % 8 != 0 { header += " " }
    let folder = try TemporaryFolder()
    let path = try folder.write("m.safetensors", FileBytes.safetensors(header, [7]))
    let watch = ThreadTime()
    let report = try Audit.run(path)
    #expect(report.isAccepted, "\(report.lines)")
    #expect(report.facts.contains { $0.key == "tensors" && $0.value == 20_001 })
    #expect(watch.seconds < 2)
    // The same with two tensors at one place: the streaming walk finds it, too.
    let bad = header.replacing(
      "\"e7\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}",
      with: "\"e7\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}")
    var padded = bad
    while padded.utf8.count % 8 != 0 { padded += " " }
    try folder.write("m.safetensors", FileBytes.safetensors(padded, [7]))
    #expect(try !Audit.run(path).isAccepted)
  }
}

/// Zip archives for tests, right or wrong ones.
enum ZipBytes {
  struct Member {
    var name: String
    var data: [UInt8]
    var method: UInt16
    var size: Int
    /// The local header that the directory names instead of the own one.
    var place: Int?

    init(_ name: String, _ data: [UInt8], method: UInt16 = 0, size: Int? = nil, at place: Int? = nil) {
      self.name = name
      self.data = data
      self.method = method
      self.size = size ?? data.count
      self.place = place
    }
  }

  static func stored(_ members: [(String, [UInt8])]) -> [UInt8] { archive(members.map { Member($0.0, $0.1) }) }

  /// What the local header and the directory say alike.
  private static func common(_ member: Member) -> [UInt8] {
    FileBytes.littleEndian(member.method) + [0, 0, 0x21, 0]
      + FileBytes.littleEndian(member.data.withUnsafeBytes { Zlib.crc32($0) })
      + FileBytes.littleEndian(UInt32(member.data.count)) + FileBytes.littleEndian(UInt32(member.size))
      + FileBytes.littleEndian(UInt16(member.name.utf8.count)) + [0, 0]
  }

  /// A member with its local header.
  static func local(_ member: Member) -> [UInt8] {
    [0x50, 0x4B, 3, 4, 20, 0, 0, 8] + common(member) + Array(member.name.utf8) + member.data
  }

  /// The archive; a member with a place is in the directory alone.
  static func archive(_ members: [Member]) -> [UInt8] {
    var output: [UInt8] = []
    var directory: [UInt8] = []
    for member in members {
      let offset = member.place ?? output.count
      if member.place == nil { output += local(member) }
      directory += [0x50, 0x4B, 1, 2, 20, 3, 20, 0, 0, 8] + common(member) + [UInt8](repeating: 0, count: 10)
      directory += FileBytes.littleEndian(UInt32(offset)) + Array(member.name.utf8)
    }
    let start = output.count
    output += directory + [0x50, 0x4B, 5, 6, 0, 0, 0, 0] + FileBytes.littleEndian(UInt16(members.count))
    output += FileBytes.littleEndian(UInt16(members.count)) + FileBytes.littleEndian(UInt32(directory.count))
    return output + FileBytes.littleEndian(UInt32(start)) + [0, 0]
  }
}
