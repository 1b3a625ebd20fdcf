/// One pass over a JSON text before json-c sees it, for what json-c does not tell or does too loosely.
///
/// It counts members (json-c silently keeps the last of duplicate keys), checks the grammar of numbers, the absence of
/// control characters, UTF-8 and quotes, and finds what must be rewritten: integers outside 64 bits, escaped zero
/// characters, and the arrays and objects that are left as text.
struct JSONScan {
  struct Failure: Error {
    var message: String
    var offset: Int
  }

  /// How many members all objects together have, apart from those inside of `parts`.
  private(set) var keyCount = 0
  /// How many arrays, objects and commas there are outside of `parts`.
  private var (arrayCount, objectCount, commaCount) = (0, 0, 0)
  /// What json-c does not get, in order; at an empty range it gets `.0`, which makes a number of an integer that fits no 64
  /// bits.
  private(set) var edits: [Range<Int>] = []
  /// Whether a string contains `\u0000`, apart from those inside of `parts`.
  private(set) var hasZeroEscape = false
  /// The arrays and objects that are left as text, one for each path; nil where there is none.
  private(set) var parts: [JSONPart?]

  static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 }

  /// Scans a text. The array or object under each of `paths`, keys from the root, becomes one of `parts`.
  init(_ bytes: UnsafeRawBufferPointer, leaving paths: [[String]] = []) throws(Failure) {
    parts = Array(repeating: nil, count: paths.count)
    let deepest = paths.map(\.count).max() ?? 0
    // How many keys of each path lead to the current place.
    var reached = Array(repeating: 0, count: paths.count)
    var lastString = 0..<0
    var depth = 0
    var position = 0
    while position < bytes.count {
      switch bytes[position] {
      case UInt8(ascii: "\""):
        let start = position
        position = try scanString(bytes, start)
        lastString = start..<position
      case UInt8(ascii: ":"):
        keyCount += 1
        position += 1
        if depth >= 1, depth <= deepest {
          for (index, path) in paths.enumerated() {
            reached[index] = min(reached[index], depth - 1)
            if reached[index] == depth - 1, depth <= path.count, Self.isKey(bytes, lastString, path[depth - 1]) {
              reached[index] = depth
            }
          }
        }
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        let found = paths.indices.first { depth == paths[$0].count && reached[$0] == depth && parts[$0] == nil }
        if let found {
          let part = try scanPart(bytes, position)
          parts[found] = part
          let inside = part.range.lowerBound + 1..<part.range.upperBound - 1
          if !inside.isEmpty { edits.append(inside) }
          position = part.range.upperBound
        } else {
          if bytes[position] == UInt8(ascii: "{") { objectCount += 1 } else { arrayCount += 1 }
          depth += 1
          position += 1
        }
      case UInt8(ascii: ","):
        commaCount += 1
        position += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        depth -= 1
        for index in reached.indices { reached[index] = max(0, min(reached[index], depth)) }
        position += 1
      default: position = try scanOther(bytes, position)
      }
    }
  }

  /// About how many bytes the tree of json-c and that of `JSON` take for a while, without the texts of strings: json-c gives
  /// an object room for sixteen members at once, an array for 32 elements.
  var treeBytes: Int { objectCount << 10 + arrayCount << 9 + keyCount << 7 + commaCount << 7 }

  /// Whether the string in `range`, with its quotes, is `key`.
  private static func isKey(_ bytes: UnsafeRawBufferPointer, _ range: Range<Int>, _ key: String) -> Bool {
    let text = UnsafeRawBufferPointer(rebasing: bytes[range].dropFirst().dropLast())
    if !text.contains(UInt8(ascii: "\\")) { return text.elementsEqual(key.utf8) }
    let unescaped = [UInt8](unsafeUninitializedCapacity: text.count) { buffer, count in
      count = (try? unescape(text, into: UnsafeMutableRawBufferPointer(buffer))) ?? 0
    }
    return unescaped.elementsEqual(key.utf8)
  }

  /// Scans the array or object that begins at `start`.
  private mutating func scanPart(_ bytes: UnsafeRawBufferPointer, _ start: Int) throws(Failure) -> JSONPart {
    let (editCount, hadZeroEscape) = (edits.count, hasZeroEscape)
    var depth = 0
    var commas = 0
    var isEmpty = true
    var position = start
    repeat {
      guard position < bytes.count else { throw Failure(message: "the JSON text ends too early", offset: position) }
      let byte = bytes[position]
      switch byte {
      case UInt8(ascii: "\""):
        position = try scanString(bytes, position)
        isEmpty = false
      case UInt8(ascii: "{"), UInt8(ascii: "["):
        if depth > 0 { isEmpty = false }
        depth += 1
        position += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        depth -= 1
        position += 1
      case UInt8(ascii: ","):
        if depth == 1 { commas += 1 }
        position += 1
      case _ where Self.isSpace(byte): position += 1
      default:
        position = try scanOther(bytes, position)
        isEmpty = false
      }
    } while depth > 0
    edits.removeLast(edits.count - editCount)
    hasZeroEscape = hadZeroEscape
    return JSONPart(range: start..<position, count: isEmpty ? 0 : min(commas + 1, (position - start) / 2))
  }

  /// - Returns: the position after the number or the byte at `position`, which begins neither a string nor an array or object.
  private mutating func scanOther(_ bytes: UnsafeRawBufferPointer, _ position: Int) throws(Failure) -> Int {
    let byte = bytes[position]
    switch byte {
    case UInt8(ascii: "-") where position + 1 < bytes.count && bytes[position + 1] == UInt8(ascii: "I"): break
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try scanNumber(bytes, position)
    case 0..<0x20 where !Self.isSpace(byte):
      throw Failure(message: "control character in the JSON text", offset: position)
    case UInt8(ascii: "'"): throw Failure(message: "single quote in the JSON text", offset: position)
    default: break
    }
    return position + 1
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

  /// Writes what a string says, given without its quotes and well formed apart from its escapes, into `output`, which has as
  /// many bytes as `text`. Half a surrogate pair becomes U+FFFD.
  ///
  /// - Returns: how many bytes that are.
  static func unescape(
    _ text: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
  ) throws(Failure) -> Int {
    precondition(output.count >= text.count, "room for all of the text")
    var position = 0
    var count = 0
    while position < text.count {
      var byte = text[position]
      position += 1
      if byte == UInt8(ascii: "\\") {
        guard position < text.count else { throw Failure(message: "invalid escape in a string", offset: position - 1) }
        byte = text[position]
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): break
        case UInt8(ascii: "b"): byte = 0x08
        case UInt8(ascii: "f"): byte = 0x0C
        case UInt8(ascii: "n"): byte = 0x0A
        case UInt8(ascii: "r"): byte = 0x0D
        case UInt8(ascii: "t"): byte = 0x09
        case UInt8(ascii: "u"):
          guard var value = unit(text, position) else {
            throw Failure(message: "invalid escape in a string", offset: position - 2)
          }
          position += 4
          if 0xD800..<0xDC00 ~= value, position + 1 < text.count, text[position] == UInt8(ascii: "\\"),
            text[position + 1] == UInt8(ascii: "u"), let low = unit(text, position + 2), 0xDC00..<0xE000 ~= low
          {
            value = 0x10000 + (value - 0xD800) << 10 + (low - 0xDC00)
            position += 6
          }
          for byte in UTF8.encode(Unicode.Scalar(value) ?? "\u{FFFD}") ?? UTF8.encodedReplacementCharacter {
            output[count] = byte
            count += 1
          }
          continue
        default: throw Failure(message: "invalid escape in a string", offset: position - 2)
        }
      }
      output[count] = byte
      count += 1
    }
    return count
  }

  /// The number that four hexadecimal digits at `start` say; nil if there are none.
  private static func unit(_ text: UnsafeRawBufferPointer, _ start: Int) -> UInt32? {
    guard start + 4 <= text.count else { return nil }
    var value: UInt32 = 0
    for byte in text[start..<start + 4] {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt32(byte - UInt8(ascii: "0"))
      case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt32(byte - UInt8(ascii: "a") + 10)
      case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | UInt32(byte - UInt8(ascii: "A") + 10)
      default: return nil
      }
    }
    return value
  }

  /// The length of the well-formed UTF-8 sequence of several bytes at `start` (table 3-7 of the Unicode standard); 0 if
  /// there is none.
  static func sequenceLength(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int {
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
    let number = try Self.number(bytes, start)
    if number.integerDigits >= 19 {
      let text = String(decoding: bytes[start..<number.end], as: UTF8.self)
      if Int64(text) == nil, UInt64(text) == nil { edits.append(number.end..<number.end) }
    }
    return number.end
  }

  /// The end of the number that begins at `start`, and how many digits it has as an integer, 0 with a fraction or an
  /// exponent.
  static func number(
    _ bytes: UnsafeRawBufferPointer, _ start: Int
  ) throws(Failure) -> (end: Int, integerDigits: Int) {
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
    if bytes[position] == UInt8(ascii: "-") { position += 1 }
    let firstDigit = position
    var integerDigits = digits(&position)
    var isValid = integerDigits == 1 || (integerDigits > 1 && bytes[firstDigit] != UInt8(ascii: "0"))
    if position < end, bytes[position] == UInt8(ascii: ".") {
      position += 1
      integerDigits = 0
      if digits(&position) == 0 { isValid = false }
    }
    if position < end, bytes[position] | 0x20 == UInt8(ascii: "e") {
      position += 1
      integerDigits = 0
      if position < end, bytes[position] == UInt8(ascii: "+") || bytes[position] == UInt8(ascii: "-") { position += 1 }
      if digits(&position) == 0 { isValid = false }
    }
    guard isValid else { throw Failure(message: "invalid number", offset: start) }
    return (position, integerDigits)
  }

  /// The text with its edits made and `\u0000` replaced by a noncharacter that occurs nowhere in it.
  func rewrite(_ bytes: UnsafeRawBufferPointer) -> (text: [UInt8], zeroReplacement: Character?) {
    var text: [UInt8] = []
    text.reserveCapacity(bytes.count + edits.reduce(0) { $0 + Self.growth($1) })
    var position = 0
    for edit in edits {
      text += bytes[position..<edit.lowerBound]
      if edit.isEmpty { text += ".0".utf8 }
      position = edit.upperBound
    }
    text += bytes[position...]
    guard hasZeroEscape, let replacement = Self.unusedNoncharacter(text) else { return (text, nil) }
    let escape = Array("\\u\(String(replacement.value, radix: 16))".utf8)
    position = 0
    while let backslash = text[position...].firstIndex(of: UInt8(ascii: "\\")) {
      position = min(backslash + 2, text.count)
      guard text[position - 1] == UInt8(ascii: "u"), backslash + 6 <= text.count,
        text[position..<backslash + 6].allSatisfy({ $0 == UInt8(ascii: "0") })
      else { continue }
      text.replaceSubrange(backslash..<backslash + 6, with: escape)
    }
    return (text, Character(replacement))
  }

  /// The offset in the original text of an offset in the rewritten one.
  func original(_ offset: Int) -> Int {
    var shift = 0
    for edit in edits {
      guard edit.lowerBound + shift + max(0, Self.growth(edit)) <= offset else { break }
      shift += Self.growth(edit)
    }
    return offset - shift
  }

  /// By how many bytes an edit makes the text longer.
  private static func growth(_ edit: Range<Int>) -> Int { edit.isEmpty ? 2 : -edit.count }

  private static func unusedNoncharacter(_ bytes: [UInt8]) -> Unicode.Scalar? {
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
