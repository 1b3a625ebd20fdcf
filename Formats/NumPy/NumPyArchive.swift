import Base
import Tensors

/// Named arrays in order, as a .npz file holds them.
package struct NumPyArchive: Sendable, Equatable {
  /// The names, distinct, in order.
  package private(set) var names: [String] = []
  /// The arrays, in the order of the names.
  package private(set) var arrays: [NumPyArray] = []

  /// An archive without arrays.
  package init() {}

  /// The most bytes that the arrays of one archive may have, unless said otherwise.
  package static let defaultLimit = 16 << 30

  /// Reads a .npz file, stored or compressed; a .npy file gives one array called `defaultName`.
  ///
  /// - Throws: `CompileError` if it is damaged, or if its arrays have more than `limit` bytes.
  package init(path: String, defaultName: String = "input", limit: Int = defaultLimit) throws {
    let file = try MappedFile(path: path)
    if file.size >= 6, file.bytes[..<6].elementsEqual([0x93] + "NUMPY".utf8) {
      self[defaultName] = try withExtendedLifetime(file) { try NumPyArray(npy: file.bytes, file: path) }
      return
    }
    guard file.size >= 4, file.bytes[..<2].elementsEqual("PK".utf8) else {
      throw CompileError(.input, "this is neither a .npy nor a .npz file", subject: .init(file: path))
    }
    let archive = try ZipArchive(file)
    var total = 0
    for member in archive.members where member.name.hasSuffix(".npy") {
      let (sum, overflow) = total.addingReportingOverflow(member.size)
      guard !overflow, sum <= limit else {
        throw CompileError(.input, "the arrays have more than \(limit) bytes", subject: .init(file: path))
      }
      total = sum
      let bytes = try archive.read(member)
      // Members have distinct names.
      arrays.append(try bytes.withUnsafeBytes { try NumPyArray(npy: $0, file: "\(path): \(member.name)") })
      names.append(String(member.name.dropLast(4)))
    }
  }

  /// The array called `name`. Setting appends a new name; setting nil removes the array.
  package subscript(name: String) -> NumPyArray? {
    get { names.firstIndex(of: name).map { arrays[$0] } }
    set {
      switch (names.firstIndex(of: name), newValue) {
      case (let index?, let array?): arrays[index] = array
      case (let index?, nil):
        names.remove(at: index)
        arrays.remove(at: index)
      case (nil, let array?):
        names.append(name)
        arrays.append(array)
      case (nil, nil): break
      }
    }
  }

  /// The array called `name`, or an error that lists the names.
  package func require(_ name: String, file: String) throws -> NumPyArray {
    if let array = self[name] { return array }
    let list = names.map { "'\($0)'" }.joined(separator: ", ")
    throw CompileError(.input, "no array '\(name)', found \(list.isEmpty ? "none" : list)", subject: .init(file: file))
  }

  /// Writes a .npz file without compression; equal archives give equal bytes.
  ///
  /// - Throws: `CompileError` if the file cannot be written or would need the 64-bit form of zip.
  package func write(to path: String) throws {
    let file = try AtomicFile(path: path)
    var directory: [UInt8] = []
    func number<Value: FixedWidthInteger>(_ value: Value, to output: inout [UInt8]) {
      withUnsafeBytes(of: value.littleEndian) { output.append(contentsOf: $0) }
    }
    func fits(_ value: Int) throws -> UInt32 {
      guard value < 0xFFFF_FFFF else {
        throw CompileError(.unsupported, "archives above 4 GiB are not written", subject: .init(file: path))
      }
      return UInt32(value)
    }
    guard names.count < 0xFFFF else {
      throw CompileError(.unsupported, "archives of \(names.count) arrays are not written", subject: .init(file: path))
    }
    for (name, array) in zip(names, arrays) {
      let data = array.npyBytes
      let member = Array((name + ".npy").utf8)
      guard member.count <= 0xFFFF else {
        throw CompileError(.input, "an array name of \(member.count) bytes is too long", subject: .init(file: path))
      }
      let offset = try fits(file.offset), size = try fits(data.count)
      // Version 2.0, UTF-8 names, stored, 1 January 1980.
      var common: [UInt8] = [20, 0, 0, 8, 0, 0, 0, 0, 0x21, 0]
      number(data.withUnsafeBytes { Zlib.crc32($0) }, to: &common)
      number(size, to: &common)
      number(size, to: &common)
      number(UInt16(member.count), to: &common)
      number(UInt16(0), to: &common)
      try file.append([0x50, 0x4B, 3, 4] + common + member)
      try file.append(data)
      directory += [0x50, 0x4B, 1, 2, 20, 3] + common
      number(UInt16(0), to: &directory)
      number(UInt16(0), to: &directory)
      number(UInt16(0), to: &directory)
      number(UInt32(0o100644) << 16, to: &directory)
      number(offset, to: &directory)
      directory += member
    }
    let start = try fits(file.offset), size = try fits(directory.count)
    directory += [0x50, 0x4B, 5, 6, 0, 0, 0, 0]
    number(UInt16(names.count), to: &directory)
    number(UInt16(names.count), to: &directory)
    number(size, to: &directory)
    number(start, to: &directory)
    number(UInt16(0), to: &directory)
    try file.append(directory)
    try file.commit()
  }
}
