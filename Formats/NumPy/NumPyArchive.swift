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
    if file.bytes.starts(with: NumPyArray.magic) {
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
  /// - Throws: `CompileError` if the file cannot be written.
  package func write(to path: String) throws {
    var writer = try NumPyArchiveWriter(path: path)
    for (name, array) in zip(names, arrays) {
      let stored = NumPyArray.holds(array.type) ? array : array.converted(to: .f32)
      try writer.add(name, header: stored.npyHeader, dataBytes: stored.bytes.count) { file in
        try file.append(stored.bytes)
        return stored.bytes.withUnsafeBytes { Zlib.crc32($0) }
      }
    }
    try writer.commit()
  }
}
