/// Where an array or object lies that was left as text when its document was parsed.
package struct JSONPart: Sendable {
  /// The bytes from the opening to the closing bracket.
  package let range: Range<Int>
  /// How many elements or members it has, as its commas say; at most half of its bytes.
  package let count: Int
}

/// Reads an array or object that was left as text, one value after the other, without building a tree.
///
/// Values are read in the order of the text: `enter` goes into an array or object, `nextElement` and `nextKey` lead to its
/// values and out of it again. What is asked for but not there gives nil and stays where it is; what is no JSON is an error
/// with its byte. Strings and numbers are bytes of the cursor, which must be kept while they are used.
package struct JSONCursor {
  /// What holds values.
  package enum Container: Sendable { case array, object }

  /// Room for strings that contain escapes.
  private final class Scratch {
    var room = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    func reserve(_ count: Int) {
      guard room.count < count else { return }
      room.deallocate()
      room = UnsafeMutableRawBufferPointer.allocate(byteCount: max(256, 2 * count), alignment: 1)
    }

    deinit { room.deallocate() }
  }

  /// How many elements or members the array or object has, as its commas say.
  package let count: Int
  /// The place of the next byte in the document.
  package private(set) var offset: Int
  private let file: MappedFile
  private let bytes: UnsafeRawBufferPointer
  private let end: Int
  private let scratch = Scratch()
  /// Whether nothing has been read since an array or object was entered.
  private var isFirst = false

  /// A cursor before a part of a file that was scanned.
  init(_ file: MappedFile, _ part: JSONPart) {
    self.file = file
    bytes = file.bytes
    count = part.count
    offset = part.range.lowerBound
    end = part.range.upperBound
  }

  /// An error about the bytes at `offset`.
  package func failure(_ message: String, at offset: Int) -> CompileError {
    CompileError(.input, message, subject: .init(file: file.path, offset: offset))
  }

  /// The next byte that is no white space; nil at the end.
  private mutating func peek() -> UInt8? {
    while offset < end {
      let byte = bytes[offset]
      if !JSONScan.isSpace(byte) { return byte }
      offset += 1
    }
    return nil
  }

  private func expected(_ what: String) -> CompileError { failure("invalid JSON (expected \(what))", at: offset) }

  /// Goes into the array or object that comes next.
  ///
  /// - Returns: false if something else comes next.
  package mutating func enter(_ container: Container) -> Bool {
    guard peek() == (container == .array ? UInt8(ascii: "[") : UInt8(ascii: "{")) else { return false }
    offset += 1
    isFirst = true
    return true
  }

  /// Goes to the next value of the array or object; leaves it at its `bracket`.
  ///
  /// - Returns: whether there is one.
  private mutating func next(_ bracket: UInt8) throws -> Bool {
    let byte = peek()
    if byte == bracket {
      offset += 1
      isFirst = false
      return false
    }
    if isFirst {
      isFirst = false
    } else {
      guard byte == UInt8(ascii: ",") else {
        throw expected("',' or '\(Character(Unicode.Scalar(bracket)))'")
      }
      offset += 1
    }
    return true
  }

  /// Goes to the next element of the array that was entered last; leaves the array if there is none.
  package mutating func nextElement() throws -> Bool {
    guard try next(UInt8(ascii: "]")) else { return false }
    // A comma must be followed by a value.
    if peek() == UInt8(ascii: "]") { throw expected("a value") }
    return true
  }

  /// Goes to the next member of the object that was entered last, whose value comes next; nil if there is none, and the
  /// object is left.
  ///
  /// The key is valid until the next string is read.
  package mutating func nextKey() throws -> UnsafeRawBufferPointer? {
    guard try next(UInt8(ascii: "}")) else { return nil }
    guard let key = try string() else { throw expected("a key in double quotes") }
    guard peek() == UInt8(ascii: ":") else { throw expected("':'") }
    offset += 1
    return key
  }

  /// The string that comes next, in UTF-8; nil if something else does.
  ///
  /// It is valid until the next string is read.
  package mutating func string() throws -> UnsafeRawBufferPointer? {
    guard peek() == UInt8(ascii: "\"") else { return nil }
    let start = offset + 1
    var position = start
    var hasEscapes = false
    while position < end, bytes[position] != UInt8(ascii: "\"") {
      if bytes[position] == UInt8(ascii: "\\") {
        hasEscapes = true
        position += 1
      }
      position += 1
    }
    guard position < end else { throw failure("the JSON text ends inside a string", at: end) }
    offset = position + 1
    let text = UnsafeRawBufferPointer(rebasing: bytes[start..<position])
    guard hasEscapes else { return text }
    scratch.reserve(text.count)
    do {
      let count = try JSONScan.unescape(text, into: scratch.room)
      return UnsafeRawBufferPointer(rebasing: scratch.room[..<count])
    } catch {
      throw failure(error.message, at: start + error.offset)
    }
  }

  /// The number that comes next as it is written; nil if something else does, NaN and infinities among it.
  package mutating func number() throws -> UnsafeRawBufferPointer? {
    guard let byte = peek(), byte == UInt8(ascii: "-") || (UInt8(ascii: "0")...UInt8(ascii: "9")) ~= byte else {
      return nil
    }
    if byte == UInt8(ascii: "-"), offset + 1 < end, bytes[offset + 1] == UInt8(ascii: "I") { return nil }
    let start = offset
    do {
      offset = try JSONScan.number(bytes, start).end
    } catch {
      throw failure(error.message, at: error.offset)
    }
    return UnsafeRawBufferPointer(rebasing: bytes[start..<offset])
  }

  /// The integer that comes next; nil if something else does. A number with a fraction or out of range gives nil, too, and is
  /// passed over.
  package mutating func integer() throws -> Int? {
    guard let number = try number() else { return nil }
    if number.count < 19 {
      var value = 0
      for byte in number {
        guard (UInt8(ascii: "0")...UInt8(ascii: "9")) ~= byte else { return Self.integer(number) }
        value = value * 10 + Int(byte - UInt8(ascii: "0"))
      }
      return value
    }
    return Self.integer(number)
  }

  private static func integer(_ number: UnsafeRawBufferPointer) -> Int? {
    let text = String(decoding: number, as: UTF8.self)
    return Int(text) ?? Double(text).flatMap { JSON.number($0).int }
  }
}
