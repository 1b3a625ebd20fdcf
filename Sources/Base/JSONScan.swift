/// One pass over a JSON text before json-c sees it, for what json-c does not tell or does too loosely.
///
/// It counts members (json-c silently keeps the last of duplicate keys), checks the grammar of numbers, the absence of
/// control characters, UTF-8 and quotes, and finds what must be rewritten: integers outside 64 bits and escaped zero
/// characters.
struct JSONScan {
  struct Failure: Error {
    var message: String
    var offset: Int
  }

  /// How many members all objects together have.
  private(set) var keyCount = 0
  /// Where `.0` makes a number of an integer that fits no 64 bits.
  private(set) var insertions: [Int] = []
  /// Whether a string contains `\u0000`.
  private(set) var hasZeroEscape = false

  static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }

  init(_ bytes: UnsafeRawBufferPointer) throws(Failure) {
    var position = 0
    let end = bytes.count
    while position < end {
      let byte = bytes[position]
      switch byte {
      case UInt8(ascii: "\""): position = try scanString(bytes, position)
      case UInt8(ascii: ":"):
        keyCount += 1
        position += 1
      case UInt8(ascii: "-") where position + 1 < end && bytes[position + 1] == UInt8(ascii: "I"): position += 1
      case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): position = try scanNumber(bytes, position)
      case 0..<0x20 where !Self.isSpace(byte):
        throw Failure(message: "control character in the JSON text", offset: position)
      case UInt8(ascii: "'"): throw Failure(message: "single quote in the JSON text", offset: position)
      default: position += 1
      }
    }
  }

  /// - Returns: the position after the string that begins at `start`.
  private mutating func scanString(_ bytes: UnsafeRawBufferPointer, _ start: Int) throws(Failure) -> Int {
    var position = start + 1
    let end = bytes.count
    while position < end {
      let byte = bytes[position]
      if byte == UInt8(ascii: "\"") { return position + 1 }
      if byte == UInt8(ascii: "\\") {
        if position + 5 < end, bytes[position + 1] == UInt8(ascii: "u"),
          bytes[position + 2...position + 5].allSatisfy({ $0 == UInt8(ascii: "0") })
        {
          hasZeroEscape = true
        }
        position += 2
        continue
      }
      if byte < 0x20 { throw Failure(message: "control character in a JSON string", offset: position) }
      if byte < 0x80 {
        position += 1
      } else {
        let length = Self.sequenceLength(bytes, position)
        guard length > 0 else { throw Failure(message: "invalid UTF-8", offset: position) }
        position += length
      }
    }
    throw Failure(message: "the JSON text ends inside a string", offset: end)
  }

  /// The length of the well-formed UTF-8 sequence of several bytes at `start` (table 3-7 of the Unicode standard); 0 if
  /// there is none.
  private static func sequenceLength(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int {
    var second: ClosedRange<UInt8> = 0x80...0xBF
    let length: Int
    switch bytes[start] {
    case 0xC2...0xDF: length = 2
    case 0xE0...0xEF:
      length = 3
      if bytes[start] == 0xE0 { second = 0xA0...0xBF }
      if bytes[start] == 0xED { second = 0x80...0x9F }
    case 0xF0...0xF4:
      length = 4
      if bytes[start] == 0xF0 { second = 0x90...0xBF }
      if bytes[start] == 0xF4 { second = 0x80...0x8F }
    default: return 0
    }
    guard start + length <= bytes.count, second.contains(bytes[start + 1]) else { return 0 }
    for offset in 2..<max(length, 2) where !(0x80...0xBF).contains(bytes[start + offset]) { return 0 }
    return length
  }

  /// - Returns: the position after the number that begins at `start`.
  private mutating func scanNumber(_ bytes: UnsafeRawBufferPointer, _ start: Int) throws(Failure) -> Int {
    let end = bytes.count
    var position = start
    func isDigit(_ position: Int) -> Bool {
      position < end && bytes[position] >= UInt8(ascii: "0") && bytes[position] <= UInt8(ascii: "9")
    }
    func digits(_ position: inout Int) -> Int {
      let first = position
      while isDigit(position) { position += 1 }
      return position - first
    }
    let isNegative = bytes[position] == UInt8(ascii: "-")
    if isNegative { position += 1 }
    let firstDigit = position
    let integerDigits = digits(&position)
    var isValid = integerDigits == 1 || (integerDigits > 1 && bytes[firstDigit] != UInt8(ascii: "0"))
    var isInteger = true
    if position < end, bytes[position] == UInt8(ascii: ".") {
      position += 1
      isInteger = false
      if digits(&position) == 0 { isValid = false }
    }
    if position < end, bytes[position] | 0x20 == UInt8(ascii: "e") {
      position += 1
      isInteger = false
      if position < end, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") { position += 1 }
      if digits(&position) == 0 { isValid = false }
    }
    guard isValid else { throw Failure(message: "invalid number", offset: start) }
    if isInteger, integerDigits >= 19 {
      let text = String(decoding: bytes[start..<position], as: UTF8.self)
      if Int64(text) == nil, UInt64(text) == nil { insertions.append(position) }
    }
    return position
  }

  /// The text with long integers made into numbers and `\u0000` replaced by a noncharacter that occurs nowhere in it.
  func rewrite(_ bytes: UnsafeRawBufferPointer) -> (text: [UInt8], zeroReplacement: Character?) {
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count + 2 * insertions.count)
    let replacement = hasZeroEscape ? Self.unusedNoncharacter(bytes) : nil
    let escape = replacement.map { Array("\\u\(String($0.value, radix: 16))".utf8) }
    var pending = insertions[...]
    var position = 0
    while position < bytes.count {
      if pending.first == position {
        text += ".0".utf8
        pending.removeFirst()
      }
      guard bytes[position] == UInt8(ascii: "\\"), position + 1 < bytes.count else {
        text.append(bytes[position])
        position += 1
        continue
      }
      if let escape, position + 5 < bytes.count, bytes[position + 1] == UInt8(ascii: "u"),
        bytes[position + 2...position + 5].allSatisfy({ $0 == UInt8(ascii: "0") })
      {
        text += escape
        position += 6
      } else {
        text.append(bytes[position])
        text.append(bytes[position + 1])
        position += 2
      }
    }
    if pending.first == position { text += ".0".utf8 }
    return (text, replacement.map { Character($0) })
  }

  /// The offset in the original text of an offset in the rewritten one.
  func original(_ offset: Int) -> Int {
    var shift = 0
    for insertion in insertions where insertion + shift + 2 <= offset { shift += 2 }
    return offset - shift
  }

  private static func unusedNoncharacter(_ bytes: UnsafeRawBufferPointer) -> Unicode.Scalar? {
    let text = String(decoding: bytes, as: UTF8.self)
    let lowercased = text.lowercased()
    return (0xFDD0...0xFDEF as ClosedRange<UInt32>).lazy.compactMap { Unicode.Scalar($0) }.first { scalar in
      !text.unicodeScalars.contains(scalar) && !lowercased.contains("\\u\(String(scalar.value, radix: 16))")
    }
  }

  /// The first key that occurs twice in one object, quoted as in the text, and its offset. Only for a text that json-c
  /// accepts and that has duplicates.
  static func duplicateKey(_ bytes: UnsafeRawBufferPointer) -> (key: String, offset: Int) {
    var open: [Set<[UInt8]>] = []
    var lastString = 0..<0
    var position = 0
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "\""):
        let start = position
        position += 1
        while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
          position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
        }
        lastString = start..<min(position + 1, bytes.count)
      case UInt8(ascii: "{"), UInt8(ascii: "["): open.append([])
      case UInt8(ascii: "}"), UInt8(ascii: "]"): _ = open.popLast()
      case UInt8(ascii: ":"):
        if let last = open.indices.last, !open[last].insert(Array(bytes[lastString])).inserted {
          return (
            "'" + String(decoding: bytes[lastString].dropFirst().dropLast(), as: UTF8.self) + "'", lastString.lowerBound
          )
        }
      default: break
      }
      position += 1
    }
    return ("in an object, spelled in two ways", 0)
  }
}
