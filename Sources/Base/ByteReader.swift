/// Reads little-endian values one after the other from bytes that may be truncated or hostile.
///
/// Every length is compared with the bytes that remain before anything is allocated or read; a failure names the file
/// and the byte offset.
package struct ByteReader {
  /// The bytes read from.
  package let bytes: UnsafeRawBufferPointer
  /// The name used in messages.
  package let file: String
  /// The position in `bytes` of what is read next.
  package private(set) var offset = 0
  /// The offset in the file of the first of `bytes`, added to offsets in messages.
  package let base: Int
  private let owner: MappedFile?

  /// A reader of bytes that the caller keeps alive.
  package init(_ bytes: UnsafeRawBufferPointer, file: String, base: Int = 0) {
    self.bytes = bytes
    self.file = file
    self.base = base
    owner = nil
  }

  /// A reader of a whole file, which stays mapped as long as the reader exists.
  package init(_ file: MappedFile) {
    bytes = file.bytes
    self.file = file.path
    base = 0
    owner = file
  }

  /// How many bytes are left.
  package var remaining: Int { bytes.count - offset }

  /// Whether all bytes have been read.
  package var isAtEnd: Bool { remaining == 0 }

  /// An error about the bytes at the current position.
  package func failure(_ message: String) -> CompileError { failure(message, at: offset) }

  /// An error about the bytes at `offset`.
  package func failure(_ message: String, at offset: Int) -> CompileError {
    CompileError(.input, message, subject: .init(file: file, offset: base + offset))
  }

  private func require(_ count: Int, _ what: @autoclosure () -> String) throws {
    guard count >= 0, count <= remaining else {
      throw failure("\(what()) needs \(count) bytes, but \(remaining) are left")
    }
  }

  private mutating func load<Value: BitwiseCopyable>(_ type: Value.Type, _ what: String) throws -> Value {
    try require(MemoryLayout<Value>.size, what)
    let value = bytes.loadUnaligned(fromByteOffset: offset, as: type)
    offset += MemoryLayout<Value>.size
    return value
  }

  /// Reads an unsigned byte.
  package mutating func u8() throws -> UInt8 { try load(UInt8.self, "a byte") }
  /// Reads a signed byte.
  package mutating func i8() throws -> Int8 { try load(Int8.self, "a byte") }
  /// Reads an unsigned 16-bit integer.
  package mutating func u16() throws -> UInt16 { UInt16(littleEndian: try load(UInt16.self, "a 16-bit integer")) }
  /// Reads a signed 16-bit integer.
  package mutating func i16() throws -> Int16 { Int16(littleEndian: try load(Int16.self, "a 16-bit integer")) }
  /// Reads an unsigned 32-bit integer.
  package mutating func u32() throws -> UInt32 { UInt32(littleEndian: try load(UInt32.self, "a 32-bit integer")) }
  /// Reads a signed 32-bit integer.
  package mutating func i32() throws -> Int32 { Int32(littleEndian: try load(Int32.self, "a 32-bit integer")) }
  /// Reads an unsigned 64-bit integer.
  package mutating func u64() throws -> UInt64 { UInt64(littleEndian: try load(UInt64.self, "a 64-bit integer")) }
  /// Reads a signed 64-bit integer.
  package mutating func i64() throws -> Int64 { Int64(littleEndian: try load(Int64.self, "a 64-bit integer")) }
  /// Reads a 32-bit floating-point number.
  package mutating func f32() throws -> Float { Float(bitPattern: try u32()) }
  /// Reads a 64-bit floating-point number.
  package mutating func f64() throws -> Double { Double(bitPattern: try u64()) }

  /// Reads an unsigned 64-bit integer that counts things of at least `elementSize` bytes each, all of which must fit into
  /// the bytes that remain.
  package mutating func count(elementSize: Int = 1, _ what: String = "a count") throws -> Int {
    precondition(elementSize > 0, "an element has at least one byte")
    let start = offset
    let value = try u64()
    guard value <= UInt64(remaining / elementSize) else {
      throw failure("\(what) of \(value) does not fit into the \(remaining) bytes left", at: start)
    }
    return Int(value)
  }

  /// Reads an unsigned 64-bit integer that must be representable as `Int`.
  package mutating func size(_ what: String = "a size") throws -> Int {
    let start = offset
    let value = try u64()
    guard let size = Int(exactly: value) else { throw failure("\(what) of \(value) is too large", at: start) }
    return size
  }

  /// Reads the next `count` bytes without copying them.
  package mutating func bytes(_ count: Int, _ what: String = "a block of bytes") throws -> UnsafeRawBufferPointer {
    try require(count, what)
    let slice = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
    offset += count
    return slice
  }

  /// Reads `count` bytes of valid UTF-8.
  package mutating func string(_ count: Int, _ what: String = "a string") throws -> String {
    let start = offset
    let slice = try bytes(count, what)
    guard let text = String(validating: slice, as: UTF8.self) else {
      throw failure("\(what) is not valid UTF-8", at: start)
    }
    return text
  }

  /// Passes over `count` bytes.
  package mutating func skip(_ count: Int, _ what: String = "a block of bytes") throws {
    try require(count, what)
    offset += count
  }

  /// Continues at `offset`, which must lie inside the bytes or at their end.
  package mutating func seek(to offset: Int, _ what: String = "an offset") throws {
    guard offset >= 0, offset <= bytes.count else {
      throw failure("\(what) of \(offset) lies outside the \(bytes.count) bytes")
    }
    self.offset = offset
  }

  /// Continues at the next multiple of `alignment`, counted from the first byte.
  package mutating func align(to alignment: Int) throws {
    precondition(alignment > 0, "an alignment is positive")
    let rest = offset % alignment
    if rest != 0 { try skip(alignment - rest, "padding") }
  }
}
