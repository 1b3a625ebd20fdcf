import Base
import Formats
import TestSupport
import Tensors
import Testing

@Suite struct NumPyTests {
  private func parse(_ bytes: [UInt8]) throws -> NumPyArray {
    try bytes.withUnsafeBytes { try NumPyArray(npy: $0, file: "x.npy") }
  }

  private func npy(_ header: String, _ data: [UInt8], version: UInt8 = 1) -> [UInt8] {
    let length = header.utf8.count
    let count = [UInt8(length & 0xFF), UInt8(length >> 8)] + (version == 1 ? [] : [0, 0])
    return [0x93] + Array("NUMPY".utf8) + [version, 0] + count + Array(header.utf8) + data
  }

  /// `numpy.save` of NumPy 2 for `numpy.arange(6, dtype="<i2").reshape(2, 3)`.
  @Test func whatNumPyWrites() throws {
    let header =
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }" + String(repeating: " ", count: 58) + "\n"
    let bytes = npy(header, [0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0])
    #expect(bytes.count == 140)
    let array = try parse(bytes)
    #expect(array.type == .i16 && array.shape == [2, 3] && array.integers == [0, 1, 2, 3, 4, 5])
    #expect(array.npyBytes == bytes)
  }

  @Test func headers() throws {
    let data: [UInt8] = [1, 2, 3, 4]
    for (header, type, shape): (String, DType, [Int]) in [
      ("{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", .u8, [4]),
      (#"{"shape":(2,2,),"fortran_order":False,"descr":"|i1"}"#, .i8, [2, 2]),
      ("{'descr': '<f4', 'fortran_order': True, 'shape': (), }   \n", .f32, []),
      ("{'descr': '=f2', 'fortran_order': False, 'shape': (1, 2, 1)}", .f16, [1, 2, 1]),
      ("{'descr': '|b1', 'fortran_order': False, 'shape': (4, 1)}", .bool, [4, 1]),
    ] {
      for version: UInt8 in [1, 2, 3] {
        let array = try parse(npy(header, data, version: version))
        #expect(array.type == type && array.shape == shape && array.bytes == data)
      }
    }
    let empty = try parse(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 5)}", []))
    #expect(empty.shape == [0, 5] && empty.doubles == [])
  }

  /// NumPy's unsigned integers become the next wider signed ones.
  @Test func unsignedIntegers() throws {
    func header(_ type: String) -> String { "{'descr': '\(type)', 'fortran_order': False, 'shape': (2,)}" }
    let short = try parse(npy(header("<u2"), [1, 0, 255, 255]))
    #expect(short.type == .i32 && short.integers == [1, 65535])
    let word = try parse(npy(header(">u4"), [0, 0, 0, 1, 255, 255, 255, 255]))
    #expect(word.type == .i64 && word.integers == [1, 4_294_967_295])
    let long = try parse(npy(header("<u8"), [1, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 255, count: 7) + [127]))
    #expect(long.type == .i64 && long.integers == [1, .max])
    #expect(throws: CompileError.self) { try parse(npy(header("<u8"), [UInt8](repeating: 255, count: 16))) }
  }

  @Test func orders() throws {
    let fortran = try parse(
      npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 2)}", Array(0..<12)))
    // Element [i, j, k] lies at i + 2 j + 6 k.
    #expect(fortran.bytes == [0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11])
    let big = try parse(
      npy("{'descr': '>i4', 'fortran_order': False, 'shape': (2,)}", [0, 0, 1, 2, 255, 255, 255, 254]))
    #expect(big.integers == [258, -2])
  }

  @Test(arguments: [
    "", "{}", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "{'descr': '<f4', 'fortran_order': False}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", "{'descr': '<f4', 'fortran_order': False, 'shape': (1",
    "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}", "{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
    "{'descr': 'f4', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", "[1]",
  ])
  func refusedHeaders(_ header: String) {
    #expect(throws: CompileError.self) { try parse(npy(header, [0, 0, 0x80, 0x3F])) }
  }

  @Test func hostileArrays() throws {
    let bytes = NumPyArray([1, 2, 3, 4, 5, 6] as [Float], [2, 3]).npyBytes
    expectOnlyCompileErrors(bytes) { _ = try parse($0).floats }
    #expect(throws: CompileError.self) { try parse(bytes + [0]) }
  }

  @Test func typesThatNumPyLacks() throws {
    let array = NumPyArray([1, -2.5] as [Float], [2]).converted(to: .bf16)
    let back = try parse(array.npyBytes)
    #expect(back.type == .f32 && back.floats == [1, -2.5])
  }

  @Test func archives() throws {
    let folder = try TemporaryFolder()
    var archive = NumPyArchive()
    archive["logits"] = NumPyArray([1, .nan, -3] as [Float], [1, 3])
    archive["ids"] = NumPyArray([7, -1] as [Int64], [2])
    archive["scalar"] = NumPyArray([2.5] as [Float], [])
    archive["empty"] = NumPyArray(.f16, [0, 4], bytes: [])
    archive["gone"] = NumPyArray([1] as [Float], [1])
    archive["gone"] = nil
    try archive.write(to: folder.path("a.npz"))
    let back = try NumPyArchive(path: folder.path("a.npz"))
    #expect(back == archive && back.names == ["logits", "ids", "scalar", "empty"])
    #expect(
      throws: CompileError(.input, "no array 'x', found 'logits', 'ids', 'scalar', 'empty'", subject: .init(file: "f"))
    ) {
      try back.require("x", file: "f")
    }
    try NumPyArchive().write(to: folder.path("none.npz"))
    #expect(try NumPyArchive(path: folder.path("none.npz")).names == [])
    try NumPyArray([1, 2] as [Float], [2]).write(to: folder.path("one.npy"))
    #expect(try NumPyArchive(path: folder.path("one.npy"), defaultName: "x")["x"]?.floats == [1, 2])
    #expect(throws: CompileError.self) { try NumPyArchive(path: folder.path("a.npz"), limit: 100) }
  }

  @Test func hostileArchives() throws {
    let folder = try TemporaryFolder()
    var archive = NumPyArchive()
    archive["a"] = NumPyArray([1, 2, 3] as [Float], [3])
    archive["b"] = NumPyArray(.u8, [2], bytes: [1, 2])
    try archive.write(to: folder.path("a.npz"))
    let bytes = try MappedFile.contents(path: folder.path("a.npz"))
    try expectOnlyCompileErrors(bytes, fileName: "a.npz") { _ = try NumPyArchive(path: $0) }
    // One changed bit of the data shows in the checksum.
    let data = try #require(bytes.firstIndex(of: 0x93))
    var flipped = bytes
    flipped[data + 128] ^= 1
    #expect(throws: CompileError.self) { try NumPyArchive(path: folder.write("b.npz", flipped)) }
    for other in ["PK", "PK\u{3}\u{4}", "hello world", ""] {
      #expect(throws: CompileError.self) { try NumPyArchive(path: folder.write("c.npz", other)) }
    }
  }

  /// `numpy.savez_compressed(f, a=numpy.zeros(40, "f4"))`, compressed members being what NumPy's users send.
  @Test func compressedArchives() throws {
    let bytes: [UInt8] = [
      80, 75, 3, 4, 45, 0, 0, 0, 8, 0, 0, 0, 33, 0, 14, 72, 159, 199, 255, 255,
      255, 255, 255, 255, 255, 255, 5, 0, 20, 0, 97, 46, 110, 112, 121, 1, 0, 16, 0, 32,
      1, 0, 0, 0, 0, 0, 0, 72, 0, 0, 0, 0, 0, 0, 0, 155, 236, 23, 234, 27,
      16, 201, 200, 80, 198, 80, 173, 158, 146, 90, 156, 92, 164, 110, 165, 160, 110, 147, 102, 162,
      174, 163, 160, 158, 150, 95, 84, 82, 148, 152, 23, 159, 95, 148, 146, 10, 18, 119, 75, 204,
      41, 78, 5, 138, 23, 103, 36, 22, 164, 2, 249, 26, 38, 6, 58, 154, 58, 10, 181, 10,
      228, 3, 46, 134, 65, 14, 0, 80, 75, 1, 2, 45, 3, 45, 0, 0, 0, 8, 0, 0,
      0, 33, 0, 14, 72, 159, 199, 72, 0, 0, 0, 32, 1, 0, 0, 5, 0, 0, 0, 0,
      0, 0, 0, 0, 0, 0, 0, 128, 1, 0, 0, 0, 0, 97, 46, 110, 112, 121, 80, 75,
      5, 6, 0, 0, 0, 0, 1, 0, 1, 0, 51, 0, 0, 0, 127, 0, 0, 0, 0, 0,
    ]
    let folder = try TemporaryFolder()
    let archive = try NumPyArchive(path: folder.write("z.npz", bytes))
    #expect(archive["a"]?.floats == [Float](repeating: 0, count: 40) && archive["a"]?.shape == [40])
    try expectOnlyCompileErrors(bytes, fileName: "z.npz") { _ = try NumPyArchive(path: $0) }
  }

  /// Raw blocks and their values, recorded from another implementation.
  @Test func blockFormatsAgainstGGML() throws {
    guard let path = Fixtures.path("gguf_blocks.npz") else { return }
    let archive = try NumPyArchive(path: path)
    for (name, format) in [("Q8_0", BlockFormat.w8(32)), ("Q4_0", .w4(32))] {
      let blocks = try archive.require("\(name).bytes", file: path)
      let values = try archive.require("\(name).values", file: path)
      #expect(blocks.shape == [48, format.blockBytes(columns: 32)] && values.shape == [48, 32])
      var found = [Float](repeating: .nan, count: values.count)
      blocks.bytes.withUnsafeBytes { bytes in
        found.withUnsafeMutableBufferPointer { format.dequantize(bytes, columns: 32, into: $0) }
      }
      #expect(found == values.floats)
    }
  }

  /// Every archive of the fixtures reads.
  @Test func recordedArchives() throws {
    guard let path = Fixtures.path("stories260K/expected_logits.npz") else { return }
    let archive = try NumPyArchive(path: path)
    #expect(archive.names.isEmpty == false)
    #expect(archive.arrays.allSatisfy { $0.floats.allSatisfy(\.isFinite) })
  }
}
