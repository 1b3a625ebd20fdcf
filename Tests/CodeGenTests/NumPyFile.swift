import Base

/// Writes and reads NumPy's files, as far as tests of the runtime need it.
enum NumPyFile {
  static func bytes<Number>(_ number: Number) -> [UInt8] { withUnsafeBytes(of: number) { Array($0) } }

  static func bytes<Number>(_ numbers: [Number]) -> [UInt8] { numbers.withUnsafeBytes { Array($0) } }

  /// A `.npy`.
  static func npy(
    _ descriptor: String, _ shape: [Int], _ data: [UInt8], version: UInt8 = 1, fortranOrder: Bool = false
  ) -> [UInt8] {
    let dims = shape.map { "\($0)," }.joined(separator: " ")
    let order = fortranOrder ? "True" : "False"
    var header = Array("{'descr': '\(descriptor)', 'fortran_order': \(order), 'shape': (\(dims)), }".utf8)
    let lengthBytes = version == 1 ? 2 : 4
    header += [UInt8](repeating: 0x20, count: 63 - (8 + lengthBytes + header.count) % 64) + [0x0A]
    let length = bytes(UInt32(header.count)).prefix(lengthBytes)
    return [0x93] + Array("NUMPY".utf8) + [version, 0] + length + header + data
  }

  /// A `.npz` whose members are stored; `method` lies about that.
  static func npz(_ members: [(name: String, npy: [UInt8])], method: UInt16 = 0) -> [UInt8] {
    var file: [UInt8] = [], directory: [UInt8] = []
    for (name, data) in members {
      let text = Array("\(name).npy".utf8)
      let checksum = data.withUnsafeBytes { Zlib.crc32($0) }
      let common =
        bytes([20, 0, method, 0, 0x21] as [UInt16]) + bytes([checksum, UInt32(data.count), UInt32(data.count)])
        + bytes([UInt16(text.count), 0])
      let offset = UInt32(file.count)
      file += Array("PK\u{3}\u{4}".utf8) + common + text + data
      directory += Array("PK\u{1}\u{2}".utf8) + bytes(UInt16(20)) + common + bytes([0, 0, 0] as [UInt16])
      directory += bytes([0, offset] as [UInt32]) + text
    }
    let end =
      Array("PK\u{5}\u{6}".utf8) + bytes([0, 0, UInt16(members.count), UInt16(members.count)])
      + bytes([UInt32(directory.count), UInt32(file.count)]) + bytes(UInt16(0))
    return file + directory + end
  }

  /// An array of an archive.
  struct Member {
    var name: String
    var header: String
    var data: [UInt8]

    func values<Number>(of type: Number.Type) -> [Number] {
      data.withUnsafeBytes { raw in
        (0..<raw.count / MemoryLayout<Number>.size).map {
          raw.loadUnaligned(fromByteOffset: $0 * MemoryLayout<Number>.size, as: type)
        }
      }
    }
  }

  /// The members of a `.npz` with stored members, in their order; checks their checksums.
  static func archive(path: String) throws -> [Member] {
    let file = try MappedFile.contents(path: path)
    func number(_ offset: Int, _ count: Int) throws -> Int {
      guard offset >= 0, offset + count <= file.count else { throw CompileError(.input, "'\(path)' is cut short") }
      return file[offset..<offset + count].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    let end = file.count - 22
    var entry = try number(end + 16, 4)
    return try (0..<number(end + 10, 2)).map { _ in
      let nameLength = try number(entry + 28, 2), size = try number(entry + 24, 4)
      let local = try number(entry + 42, 4)
      let name = String(decoding: file[entry + 46..<entry + 46 + nameLength], as: UTF8.self)
      let start = local + 30 + (try number(local + 26, 2)) + (try number(local + 28, 2))
      let data = Array(file[start..<start + size])
      guard data.withUnsafeBytes({ Zlib.crc32($0) }) == UInt32(try number(entry + 16, 4)),
        file[local..<local + 4].elementsEqual([0x50, 0x4B, 3, 4]), try number(local + 22, 4) == size
      else { throw CompileError(.input, "member '\(name)' of '\(path)' is damaged") }
      entry += 46 + nameLength
      return try member(String(name.dropLast(4)), data)
    }
  }

  /// The array in a `.npy` of version 1.
  static func member(_ name: String, _ npy: [UInt8]) throws -> Member {
    guard npy.count >= 10, npy.starts(with: [0x93] + Array("NUMPY".utf8)) else {
      throw CompileError(.input, "'\(name)' is no .npy")
    }
    let length = Int(npy[8]) | Int(npy[9]) << 8
    let header = String(decoding: npy[10..<10 + length], as: UTF8.self)
    guard (10 + length) % 64 == 0, header.hasSuffix("\n") else {
      throw CompileError(.input, "the header of '\(name)' is not padded to 64 bytes")
    }
    return Member(name: name, header: String(header.prefix { $0 != "}" }) + "}", data: Array(npy[(10 + length)...]))
  }
}
