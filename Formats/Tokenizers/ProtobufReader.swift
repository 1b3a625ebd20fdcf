import Base

/// The fields of one protobuf message, in order (protobuf encoding specification, "Message Structure").
struct ProtobufReader {
  /// What a field holds.
  enum Value {
    case varint(UInt64)
    case fixed32(UInt32)
    case fixed64(UInt64)
    /// Where the bytes of a string or a message lie in the file.
    case bytes(Range<Int>)
  }

  private let bytes: UnsafeRawBufferPointer
  private let file: String
  private(set) var offset: Int
  private let end: Int

  /// A reader of the message in `range` of the bytes of `file`.
  init(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, file: String) {
    self.bytes = bytes
    self.file = file
    offset = range.lowerBound
    end = range.upperBound
  }

  func failure(_ message: String, at offset: Int) -> CompileError {
    CompileError(.input, message, subject: .init(file: file, offset: offset))
  }

  private mutating func varint() throws -> UInt64 {
    try Self.varint(bytes, at: &offset, end: end, of: "message", file: file)
  }

  /// The number of seven bits a byte, low bits first, at `offset`, which moves behind it; `whole` is what messages call the
  /// bytes that stop at `end`.
  static func varint(
    _ bytes: UnsafeRawBufferPointer, at offset: inout Int, end: Int, of whole: String, file: String
  ) throws -> UInt64 {
    var value: UInt64 = 0
    let start = offset
    func failure(_ message: String) -> CompileError {
      CompileError(.input, message, subject: .init(file: file, offset: start))
    }
    for shift in stride(from: UInt64(0), to: 70, by: 7) {
      guard offset < end else { throw failure("the \(whole) ends inside a number") }
      let byte = bytes[offset]
      offset += 1
      if shift == 63, byte > 1 { throw failure("a number has more than 64 bits") }
      value |= UInt64(byte & 0x7F) << shift
      if byte & 0x80 == 0 { return value }
    }
    throw failure("a number has more than ten bytes")
  }

  private mutating func fixed(_ count: Int) throws -> UInt64 {
    guard count <= end - offset else { throw failure("the message ends inside a number", at: offset) }
    let value = bytes[offset..<offset + count].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    offset += count
    return value
  }

  /// The next field; nil at the end of the message.
  mutating func next() throws -> (field: UInt64, value: Value)? {
    guard offset < end else { return nil }
    let start = offset
    let key = try varint()
    guard key >> 3 > 0 else { throw failure("a field has the number 0", at: start) }
    switch key & 7 {
    case 0: return (key >> 3, .varint(try varint()))
    case 1: return (key >> 3, .fixed64(try fixed(8)))
    case 5: return (key >> 3, .fixed32(UInt32(truncatingIfNeeded: try fixed(4))))
    case 2:
      let length = try varint()
      guard length <= UInt64(end - offset) else {
        throw failure("a field of \(length) bytes does not fit into the \(end - offset) bytes left", at: start)
      }
      let range = offset..<offset + Int(length)
      offset = range.upperBound
      return (key >> 3, .bytes(range))
    default: throw failure("a field has the unknown wire type \(key & 7)", at: start)
    }
  }
}
