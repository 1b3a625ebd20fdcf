import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

@Suite struct SafetensorsTests {
  private func read(_ bytes: [UInt8]) throws -> SafetensorsFile {
    let folder = try TemporaryFolder()
    return try SafetensorsFile(MappedFile(path: try folder.write("model.safetensors", bytes)))
  }

  private func entry(_ dtype: String, _ shape: String, _ begin: Int, _ end: Int) -> String {
    "{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":[\(begin),\(end)]}"
  }

  @Test func readsTypesShapesAndRanges() throws {
    let types: [(String, DType)] = [
      ("F64", .f64), ("F32", .f32), ("F16", .f16), ("BF16", .bf16), ("F8_E4M3", .f8e4m3), ("F8_E5M2", .f8e5m2),
      ("I64", .i64), ("I32", .i32), ("I16", .i16), ("I8", .i8), ("U8", .u8), ("BOOL", .bool),
    ]
    var entries: [String] = []
    var position = 0
    for (name, type) in types {
      entries.append("\"t.\(name)\":" + entry(name, "[2,1,4]", position, position + 8 * type.byteCount))
      position += 8 * type.byteCount
    }
    var header = "{\"__metadata__\":{\"format\":\"pt\"}," + entries.joined(separator: ",") + "}"
    while header.utf8.count % 8 != 0 { header += " " }
    let file = try read(FileBytes.safetensors(header, [UInt8](repeating: 7, count: position)))
    #expect(file.tensors.map(\.name) == types.map { "t.\($0.0)" })
    #expect(file.tensors.map(\.type) == types.map { TensorType($0.1, [2, 1, 4]) })
    #expect(file.tensors[0].range == 8 + header.utf8.count..<8 + header.utf8.count + 64)
    #expect(file.metadata.map(\.key) == ["format"] && file.metadata.map(\.value) == ["pt"])
  }

  @Test func readsNumbersAndEmptyTensors() throws {
    let header =
      "{\"a\":\(entry("F32", "[]", 0, 4)),\"b\":\(entry("F32", "[0,3]", 4, 4)),\"c\":\(entry("U8", "[1]", 4, 5))}"
    let padded = header + String(repeating: " ", count: (8 - header.utf8.count % 8) % 8)
    let file = try read(FileBytes.safetensors(padded, [0, 0, 0x80, 0x3F, 9]))
    #expect(file.tensors.map(\.range.count) == [4, 0, 1])
    #expect(file.tensors[0].type.rank == 0)
    #expect(try read(FileBytes.safetensors("{}")).tensors.isEmpty)
  }

  /// NaN and infinity are values like others.
  @Test func acceptsNumbersThatAreNotFinite() throws {
    let header = "{\"a\":\(entry("F32", "[2]", 0, 8))}    "
    let data = FileBytes.f32([.nan, .infinity])
    #expect(
      try read(FileBytes.safetensors(header + String(repeating: " ", count: (8 - header.utf8.count % 8) % 8), data))
        .tensors.count == 1)
  }

  @Test func refusesHeaderLengths() {
    expectFailure(.input, "header length 0", "byte 0") { _ = try read(FileBytes.littleEndian(UInt64(0)) + [123, 125]) }
    for length: UInt64 in [100_000_001, .max, 1 << 63] {
      expectFailure(.input, "header length \(length)", "at most 100000000") {
        _ = try read(FileBytes.littleEndian(length) + Array("{}".utf8))
      }
    }
    expectFailure(.input, "header length 3", "2 bytes follow") {
      _ = try read(FileBytes.littleEndian(UInt64(3)) + Array("{}".utf8))
    }
    expectFailure(.input, "has 7 bytes") { _ = try read([2, 0, 0, 0, 0, 0, 0]) }
    expectFailure(.input, "has 0 bytes") { _ = try read([]) }
  }

  @Test func refusesHeaderText() {
    expectFailure(.input, "does not begin with '{'") { _ = try read(FileBytes.safetensors(" {}")) }
    expectFailure(.input, "does not begin with '{'") { _ = try read(FileBytes.safetensors("[1]")) }
    expectFailure(.input, "duplicate key 'a'", "byte") {
      _ = try read(FileBytes.safetensors("{\"a\":\(entry("U8", "[0]", 0, 0)),\"a\":\(entry("U8", "[0]", 0, 0))}"))
    }
    expectFailure(.input, "model.safetensors") { _ = try read(FileBytes.safetensors("{\"a\":}")) }
    expectFailure(.input, "invalid JSON", "byte 10") { _ = try read(FileBytes.safetensors("{}{}")) }
    expectFailure(.input, "nesting") {
      _ = try read(FileBytes.safetensors("{\"a\":" + String(repeating: "[", count: 100_000)))
    }
    expectFailure(.input, "invalid UTF-8") {
      _ = try read(FileBytes.littleEndian(UInt64(7)) + [0x7B, 0x22, 0xFF, 0x22, 0x3A, 0x31, 0x7D])
    }
    expectFailure(.input, "'__metadata__.k' is an integer") {
      _ = try read(FileBytes.safetensors("{\"__metadata__\":{\"k\":1}}"))
    }
    expectFailure(.input, "'__metadata__' is no object") {
      _ = try read(FileBytes.safetensors("{\"__metadata__\":[]}"))
    }
  }

  @Test(arguments: [
    ("{\"dtype\":\"F32\",\"shape\":[1]}", "'data_offsets' is missing"),
    ("{\"dtype\":\"F32\",\"data_offsets\":[0,4]}", "'shape' is missing"),
    ("{\"shape\":[1],\"data_offsets\":[0,4]}", "'dtype' is missing"),
    ("[]", "an array, expected an object"),
    ("{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}", "unknown dtype 'F33'"),
    ("{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}", "no size"),
    ("{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}", "no size"),
    ("{\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,4]}", "no size"),
    ("{\"dtype\":\"F32\",\"shape\":[9223372036854775807,9223372036854775807],\"data_offsets\":[0,4]}", "out of range"),
    ("{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}", "out of range"),
    ("{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,4]}", "out of range"),
    ("{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}", "9 axes"),
    ("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}", "'data_offsets' are [4, 0]"),
    ("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}", "no size"),
    ("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}", "'data_offsets' are [0]"),
    ("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}", "outside the 4 bytes"),
    ("{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}", "outside the 4 bytes"),
    ("{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}", "needs 8 bytes"),
    ("{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,4]}", "needs 0 bytes"),
    ("{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}", "end at byte"),
    ("{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,4]}", "belong to no tensor"),
  ])
  func refusesEntry(entry: String, message: String) {
    var header = "{\"weight\":\(entry)}"
    while header.utf8.count % 8 != 0 { header += " " }
    expectFailure(.input, message, "model.safetensors") { _ = try read(FileBytes.safetensors(header, [0, 0, 0, 0])) }
  }

  /// Types that mcc has none for are bytes, which no architecture gets.
  @Test(arguments: [("F4", 4), ("F6_E2M3", 6), ("F8_E8M0", 8), ("U16", 16), ("U32", 32), ("U64", 64), ("C64", 64)])
  func readsForeignTypesAsBytes(type: String, bits: Int) throws {
    let folder = try TemporaryFolder()
    var header = "{\"w\":\(entry(type, "[2,4]", 0, bits))}"
    while header.utf8.count % 8 != 0 { header += " " }
    let path = try folder.write("m", FileBytes.safetensors(header, [UInt8](repeating: 1, count: bits)))
    let file = try SafetensorsFile(MappedFile(path: path))
    #expect(file.tensors.map(\.foreignType) == [type] && file.tensors[0].type == TensorType(.u8, [bits]))
    expectFailure(.unsupported, "dtype \(type) is not supported", "tensor 'w'") {
      var model = Model(name: "m")
      var builder = GraphBuilder(name: "main")
      _ = try file.tensors[0].constant(into: &model, &builder)
    }
  }

  @Test func refusesHalfBytes() {
    expectFailure(.input, "3 numbers of 4 bits do not fill whole bytes", "tensor 'w'") {
      _ = try read(FileBytes.safetensors("{\"w\":\(entry("F4", "[3]", 0, 2))}", [0, 0]))
    }
  }

  @Test func refusesPlacesOfTensors() {
    func pair(_ first: (Int, Int), _ second: (Int, Int)) -> [UInt8] {
      var header =
        "{\"a\":\(entry("U8", "[\(first.1 - first.0)]", first.0, first.1)),"
        + "\"b\":\(entry("U8", "[\(second.1 - second.0)]", second.0, second.1))}"
      while header.utf8.count % 8 != 0 { header += " " }
      return FileBytes.safetensors(header, [UInt8](repeating: 0, count: 8))
    }
    #expect(throws: Never.self) { try read(pair((4, 8), (0, 4))) }
    expectFailure(.input, "overlaps", "tensor 'b'") { _ = try read(pair((0, 5), (4, 8))) }
    expectFailure(.input, "overlaps") { _ = try read(pair((0, 8), (0, 8))) }
    expectFailure(.input, "1 bytes before", "tensor 'b'") { _ = try read(pair((0, 3), (4, 8))) }
    expectFailure(.input, "but the file has") { _ = try read(pair((0, 3), (3, 7))) }
    expectFailure(.input, "outside the 8 bytes") { _ = try read(pair((0, 4), (4, 9))) }
    // An empty tensor in the middle of another one is no way around the check.
    expectFailure(.input, "overlaps") { _ = try read(pair((0, 8), (4, 4))) }
    expectFailure(.input, "no multiple of 4", "tensor 'w'") {
      _ = try read(
        FileBytes.safetensors("{\"w\":\(entry("F32", "[1]", 0, 4))}  ".padded(toMultipleOf: 8, plus: 2), [0, 0, 0, 0]))
    }
  }

  @Test func damagedFilesGiveErrors() throws {
    let bytes = FileBytes.safetensors([("model.a", [2, 3]), ("model.b", [5])])
    try expectOnlyCompileErrors(bytes, fileName: "model.safetensors", mutations: 4000) { path in
      let file = try SafetensorsFile(MappedFile(path: path))
      for tensor in file.tensors { _ = try file.file.slice(tensor.range).reduce(0) { $0 &+ Int($1) } }
    }
  }

  @Test func aSingleFileIsNoModel() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("weights", FileBytes.safetensors([("a", [2])]))
    expectFailure(.unsupported, "holds weights alone", "config.json") { _ = try FormatRegistry.load(path) }
  }
}

extension String {
  /// The text with spaces to a length of `rest` beyond a multiple of `multiple`.
  fileprivate func padded(toMultipleOf multiple: Int, plus rest: Int) -> String {
    var text = self
    while text.utf8.count % multiple != rest { text += " " }
    return text
  }
}
