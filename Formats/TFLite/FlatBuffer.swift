import Base

/// Reads FlatBuffers (flatbuffers.dev, "FlatBuffer Internals"): tables whose fields are found through vtables, vectors
/// and strings, all of them at offsets that a hostile file can choose freely.
///
/// Every offset and length is compared with the bytes of the file. The bytes of tables, vectors and strings that are
/// read add up to at most a few times the file, so that parts which overlap cannot make a small file large.
final class FlatBuffer {
  let bytes: UnsafeRawBufferPointer
  private let owner: MappedFile
  private var budget: Int

  /// The buffer that is a whole file.
  init(_ file: MappedFile) {
    bytes = file.bytes
    owner = file
    budget = 8 * file.bytes.count + 1 << 16
  }

  /// The name used in messages.
  var file: String { owner.path }

  /// An error at a byte of the file.
  func failure(_ message: String, at offset: Int) -> CompileError {
    CompileError(.input, message, subject: .init(file: file, offset: offset))
  }

  /// A number of the file.
  func load<Value: FixedWidthInteger & BitwiseCopyable>(
    _ type: Value.Type, at offset: Int, _ what: @autoclosure () -> String
  ) throws -> Value {
    guard offset >= 0, offset <= bytes.count - MemoryLayout<Value>.size else {
      throw failure(
        "\(what()) at byte \(offset) lies outside of the \(bytes.count) bytes", at: min(offset, bytes.count))
    }
    return Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: type))
  }

  /// Where an offset that stands at `position` leads to.
  func target(at position: Int, _ what: String) throws -> Int {
    let offset = Int(try load(UInt32.self, at: position, what))
    guard offset > 0, offset <= bytes.count - position else {
      throw failure("\(what) has the offset \(offset), which leads out of the file", at: position)
    }
    return position + offset
  }

  /// The table that the file begins with.
  func root(identifier: String) throws -> FlatTable {
    guard bytes.count >= 8 else { throw failure("the file ends before its root", at: bytes.count) }
    guard bytes[4..<8].elementsEqual(identifier.utf8) else {
      throw failure("the file is not marked '\(identifier)'", at: 4)
    }
    return try FlatTable(self, at: target(at: 0, "the root"), "the root")
  }

  /// Counts bytes that are read.
  func charge(_ count: Int, at offset: Int) throws {
    budget -= count
    guard budget >= 0 else { throw failure("parts of the file overlap too often", at: offset) }
  }
}

/// A table: fields by number, each of which may be left out.
struct FlatTable {
  let buffer: FlatBuffer
  /// Where the table begins.
  let position: Int
  private let fields: Int
  private let fieldsEnd: Int
  private let size: Int

  /// The table at a byte of the file.
  init(_ buffer: FlatBuffer, at position: Int, _ what: String) throws {
    let distance = Int(try buffer.load(Int32.self, at: position, what))
    let table = position - distance
    let count = Int(try buffer.load(UInt16.self, at: table, "the field list of \(what)"))
    let size = Int(try buffer.load(UInt16.self, at: table + 2, "the field list of \(what)"))
    guard count >= 4, count % 2 == 0, count <= buffer.bytes.count - table else {
      throw buffer.failure("\(what) has a field list of \(count) bytes", at: table)
    }
    guard size >= 4, size <= buffer.bytes.count - position else {
      throw buffer.failure("\(what) has \(size) bytes, of which not all lie in the file", at: position)
    }
    try buffer.charge(size, at: position)
    self.buffer = buffer
    self.position = position
    self.size = size
    fields = table + 4
    fieldsEnd = table + count
  }

  /// Where a field of `width` bytes lies; nil if it is left out.
  private func place(_ field: Int, width: Int) throws -> Int? {
    let entry = fields + 2 * field
    guard entry + 2 <= fieldsEnd else { return nil }
    let offset = Int(try buffer.load(UInt16.self, at: entry, "a field"))
    guard offset != 0 else { return nil }
    guard offset >= 4, offset <= size - width else {
      throw buffer.failure("field \(field) lies outside of its table", at: position)
    }
    return position + offset
  }

  /// A number.
  func integer<Value: FixedWidthInteger & BitwiseCopyable, Field: RawRepresentable<Int>>(
    _ field: Field, _ type: Value.Type, default value: Value
  ) throws -> Value {
    guard let place = try place(field.rawValue, width: MemoryLayout<Value>.size) else { return value }
    return try buffer.load(type, at: place, "field '\(field)'")
  }

  /// A number of 32 bits.
  func number<Field: RawRepresentable<Int>>(_ field: Field, default value: Float) throws -> Float {
    Float(bitPattern: try integer(field, UInt32.self, default: value.bitPattern))
  }

  /// A truth value.
  func flag<Field: RawRepresentable<Int>>(_ field: Field) throws -> Bool {
    try integer(field, UInt8.self, default: 0) != 0
  }

  /// A table; nil if it is left out.
  func table<Field: RawRepresentable<Int>>(_ field: Field) throws -> FlatTable? {
    guard let place = try place(field.rawValue, width: 4) else { return nil }
    return try FlatTable(buffer, at: buffer.target(at: place, "'\(field)'"), "'\(field)'")
  }

  /// A vector of elements of `width` bytes; one without elements if it is left out.
  func vector<Field: RawRepresentable<Int>>(_ field: Field, width: Int) throws -> FlatVector {
    guard let place = try place(field.rawValue, width: 4) else {
      return FlatVector(buffer: buffer, start: position, count: 0, width: width)
    }
    let start = try buffer.target(at: place, "'\(field)'")
    let count = Int(try buffer.load(UInt32.self, at: start, "the length of '\(field)'"))
    guard count <= (buffer.bytes.count - start - 4) / width else {
      throw buffer.failure(
        "'\(field)' has \(count) elements of \(width) bytes, which do not fit into the file", at: start)
    }
    return FlatVector(buffer: buffer, start: start + 4, count: count, width: width)
  }

  /// The tables of a vector.
  func tables<Field: RawRepresentable<Int>>(_ field: Field) throws -> FlatTables {
    FlatTables(vector: try vector(field, width: 4), what: "\(field)")
  }

  /// A text of at most `limit` bytes; empty if it is left out.
  func string<Field: RawRepresentable<Int>>(_ field: Field, limit: Int = 4096) throws -> String {
    let vector = try vector(field, width: 1)
    guard vector.count <= limit else {
      throw buffer.failure("'\(field)' is a text of \(vector.count) bytes, at most \(limit) are read", at: vector.start)
    }
    try buffer.charge(vector.count, at: vector.start)
    guard let text = String(validating: buffer.bytes[vector.range], as: UTF8.self) else {
      throw buffer.failure("'\(field)' is not valid UTF-8", at: vector.start)
    }
    return text
  }

  /// The whole numbers of a vector of at most `limit` elements.
  func integers<Value: FixedWidthInteger & BitwiseCopyable, Field: RawRepresentable<Int>>(
    _ field: Field, _ type: Value.Type, limit: Int
  ) throws -> [Int] {
    let vector = try vector(field, width: MemoryLayout<Value>.size)
    guard vector.count <= limit else {
      throw buffer.failure("'\(field)' has \(vector.count) elements, at most \(limit) are read", at: vector.start)
    }
    try buffer.charge(vector.count * vector.width, at: vector.start)
    return try (0..<vector.count).map { index in
      Int(clamping: try buffer.load(type, at: vector.start + index * vector.width, "'\(field)'"))
    }
  }
}

/// The elements of a vector, which lie in the file.
struct FlatVector {
  let buffer: FlatBuffer
  /// Where the first element lies.
  let start: Int
  let count: Int
  /// Bytes of an element.
  let width: Int

  /// The bytes of all elements.
  var range: Range<Int> { start..<start + count * width }
}

/// A vector of tables, each read when it is asked for.
struct FlatTables {
  let vector: FlatVector
  let what: String

  var count: Int { vector.count }

  /// The table of that number, which must exist.
  func table(_ index: Int, _ user: @autoclosure () -> String) throws -> FlatTable {
    guard index >= 0, index < count else {
      throw vector.buffer.failure("\(user()) names number \(index) of \(count) '\(what)'", at: vector.start)
    }
    let name = "'\(what)' \(index)"
    return try FlatTable(vector.buffer, at: vector.buffer.target(at: vector.start + 4 * index, name), name)
  }
}
