import Base

/// Cuts the text form into tokens, one token ahead.
///
/// White space, line ends and comments (`// ...`) separate tokens. The text is UTF-8; outside of strings and comments
/// it is ASCII.
struct Lexer {
  /// What a token is.
  enum Kind: UInt8 {
    /// A word that starts with a letter or an underscore.
    case word
    /// `%name` or `%"any name"`.
    case value
    /// `@name` or `@"any name"`.
    case symbol
    case string
    case integer
    /// A number with a fraction or an exponent.
    case real
    case punctuation
    /// `->`
    case arrow
    /// `...`
    case ellipsis
    /// `..<`
    case halfOpen
    case end
  }

  /// A token as a range of bytes.
  struct Token {
    var kind: Kind
    /// For punctuation: the byte; for names and strings: whether there are quotes and escapes.
    var detail: UInt8
    var start: Int
    var end: Int

    static let quoted: UInt8 = 1
    static let escaped: UInt8 = 2
  }

  let bytes: [UInt8]
  /// The name used in messages.
  let file: String?
  /// The token that comes next.
  private(set) var token: Token
  /// Where the token before that one ended.
  private(set) var previousEnd = 0

  /// A lexer before the first token of `text`.
  init(_ text: String, file: String?) throws {
    bytes = Array(text.utf8)
    self.file = file
    token = Token(kind: .end, detail: 0, start: 0, end: 0)
    try advance()
  }

  // MARK: Errors

  /// An error at a byte of the text.
  func failure(_ message: String, at offset: Int) -> CompileError {
    CompileError(.input, message, subject: place(at: offset))
  }

  /// The line and column of a byte, from 1; columns count characters.
  func place(at offset: Int) -> CompileError.Subject {
    var line = 1
    var column = 1
    for byte in bytes[..<min(offset, bytes.count)] {
      if byte == 10 {
        line += 1
        column = 1
      } else if byte & 0xC0 != 0x80 {
        column += 1
      }
    }
    return CompileError.Subject(file: file, line: line, column: column)
  }

  /// What a token looks like in a message.
  func describe(_ token: Token) -> String {
    if token.kind == .end { return "the end of the text" }
    let length = token.end - token.start
    guard length <= 60 else { return "'\(String(decoding: bytes[token.start..<token.start + 40], as: UTF8.self))...'" }
    return "'\(String(decoding: bytes[token.start..<token.end], as: UTF8.self))'"
  }

  // MARK: Tokens

  private func byte(_ index: Int) -> UInt8 { index < bytes.count ? bytes[index] : 0 }

  /// Goes on to the next token.
  mutating func advance() throws {
    previousEnd = token.end
    var index = token.end
    skipping: while index < bytes.count {
      switch bytes[index] {
      case 0x20, 0x0A, 0x09, 0x0D: index += 1
      case UInt8(ascii: "/") where byte(index + 1) == UInt8(ascii: "/"):
        while index < bytes.count, bytes[index] != 0x0A { index += 1 }
      default: break skipping
      }
    }
    guard index < bytes.count else {
      token = Token(kind: .end, detail: 0, start: bytes.count, end: bytes.count)
      return
    }
    let start = index
    let first = bytes[index]
    switch first {
    case UInt8(ascii: "%"), UInt8(ascii: "@"):
      let kind: Kind = first == UInt8(ascii: "%") ? .value : .symbol
      if byte(index + 1) == UInt8(ascii: "\"") {
        let (end, isEscaped) = try scanString(from: index + 1)
        token = Token(kind: kind, detail: isEscaped ? Token.escaped : Token.quoted, start: start, end: end)
        return
      }
      index += 1
      while index < bytes.count, isNameByte(at: index) { index += 1 }
      guard index > start + 1 else {
        throw failure("expected a name after '\(Character(Unicode.Scalar(first)))'", at: start)
      }
      token = Token(kind: kind, detail: 0, start: start, end: index)
    case UInt8(ascii: "\""):
      let (end, isEscaped) = try scanString(from: index)
      token = Token(kind: .string, detail: isEscaped ? Token.escaped : Token.quoted, start: start, end: end)
    case UInt8(ascii: "-") where byte(index + 1) == UInt8(ascii: ">"):
      token = Token(kind: .arrow, detail: 0, start: start, end: index + 2)
    case UInt8(ascii: "-") where ByteClass.isDigit(byte(index + 1)):
      try scanNumber(from: start)
    case UInt8(ascii: ".") where byte(index + 1) == first && byte(index + 2) == first:
      token = Token(kind: .ellipsis, detail: 0, start: start, end: index + 3)
    case UInt8(ascii: ".") where byte(index + 1) == first && byte(index + 2) == UInt8(ascii: "<"):
      token = Token(kind: .halfOpen, detail: 0, start: start, end: index + 3)
    default:
      if ByteClass.isWordStart(first) {
        index += 1
        while index < bytes.count, ByteClass.isWord(bytes[index]) { index += 1 }
        token = Token(kind: .word, detail: 0, start: start, end: index)
      } else if ByteClass.isDigit(first) {
        try scanNumber(from: start)
      } else if first > 0x20 && first < 0x7F {
        token = Token(kind: .punctuation, detail: first, start: start, end: index + 1)
      } else {
        throw failure("unexpected \(describeCharacter(at: index))", at: start)
      }
    }
  }

  /// Whether the byte belongs to a bare name; a minus before `>` is an arrow.
  private func isNameByte(at index: Int) -> Bool {
    let value = bytes[index]
    if value == UInt8(ascii: "-") { return byte(index + 1) != UInt8(ascii: ">") }
    return ByteClass.isName(value)
  }

  private func describeCharacter(at index: Int) -> String {
    if bytes[index] < 0x80 { return "control character \(bytes[index])" }
    let text = String(decoding: bytes[index..<min(index + 4, bytes.count)], as: UTF8.self)
    return "character '\(text.unicodeScalars.first.map { String($0) } ?? "")'"
  }

  private mutating func scanNumber(from start: Int) throws {
    var index = start
    if byte(index) == UInt8(ascii: "-") { index += 1 }
    while ByteClass.isDigit(byte(index)) { index += 1 }
    var kind = Kind.integer
    if byte(index) == UInt8(ascii: "."), ByteClass.isDigit(byte(index + 1)) {
      kind = .real
      index += 1
      while ByteClass.isDigit(byte(index)) { index += 1 }
    }
    if byte(index) | 0x20 == UInt8(ascii: "e") {
      var next = index + 1
      if byte(next) == UInt8(ascii: "-") || byte(next) == UInt8(ascii: "+") { next += 1 }
      if ByteClass.isDigit(byte(next)) {
        kind = .real
        while ByteClass.isDigit(byte(next)) { next += 1 }
        index = next
      }
    }
    if ByteClass.isWord(byte(index)) {
      throw failure("a number is followed by '\(Character(Unicode.Scalar(byte(index))))'", at: index)
    }
    token = Token(kind: kind, detail: 0, start: start, end: index)
  }

  /// The end of the string whose opening quote is at `start`, and whether it has escapes.
  private func scanString(from start: Int) throws -> (end: Int, isEscaped: Bool) {
    var index = start + 1
    var isEscaped = false
    while index < bytes.count {
      switch bytes[index] {
      case UInt8(ascii: "\""): return (index + 1, isEscaped)
      case UInt8(ascii: "\\"):
        isEscaped = true
        index += 2
      case 0x0A, 0x0D: throw failure("a string does not end on its line", at: start)
      default: index += 1
      }
    }
    throw failure("a string does not end", at: start)
  }

  // MARK: Contents

  /// The bytes of a token as they stand.
  func text(_ token: Token) -> String { String(decoding: bytes[token.start..<token.end], as: UTF8.self) }

  /// Whether a token is the given word.
  func isWord(_ token: Token, _ word: StaticString) -> Bool {
    guard token.kind == .word, token.end - token.start == word.utf8CodeUnitCount else { return false }
    for offset in 0..<word.utf8CodeUnitCount where bytes[token.start + offset] != word.utf8Start[offset] {
      return false
    }
    return true
  }

  /// A name without its sign and quotes, or the content of a string.
  func content(_ token: Token) throws -> String {
    var start = token.start
    if token.kind == .value || token.kind == .symbol { start += 1 }
    switch token.detail {
    case Token.quoted: return String(decoding: bytes[start + 1..<token.end - 1], as: UTF8.self)
    case Token.escaped: return try unescape(start + 1, token.end - 1)
    default: return String(decoding: bytes[start..<token.end], as: UTF8.self)
    }
  }

  private func unescape(_ start: Int, _ end: Int) throws -> String {
    var result: [UInt8] = []
    result.reserveCapacity(end - start)
    var index = start
    while index < end {
      guard bytes[index] == UInt8(ascii: "\\") else {
        result.append(bytes[index])
        index += 1
        continue
      }
      switch byte(index + 1) {
      case UInt8(ascii: "n"): result.append(0x0A)
      case UInt8(ascii: "r"): result.append(0x0D)
      case UInt8(ascii: "t"): result.append(0x09)
      case UInt8(ascii: "\""): result.append(UInt8(ascii: "\""))
      case UInt8(ascii: "\\"): result.append(UInt8(ascii: "\\"))
      case UInt8(ascii: "u"):
        let (scalar, next) = try scalar(at: index)
        result.append(contentsOf: Array(String(Character(scalar)).utf8))
        index = next
        continue
      default: throw failure("unknown escape in a string, expected \\n, \\r, \\t, \\\", \\\\ or \\u{...}", at: index)
      }
      index += 2
    }
    return String(decoding: result, as: UTF8.self)
  }

  /// The character of a `\u{...}` at `index` and where it ends.
  private func scalar(at index: Int) throws -> (Unicode.Scalar, Int) {
    var next = index + 3
    var value: UInt32 = 0
    while next < bytes.count, next < index + 10, let digit = Self.hexDigit(bytes[next]) {
      value = value << 4 | UInt32(digit)
      next += 1
    }
    guard byte(index + 2) == UInt8(ascii: "{"), byte(next) == UInt8(ascii: "}"), next > index + 3,
      let scalar = Unicode.Scalar(value)
    else {
      throw failure("expected \\u{...} with the number of a Unicode character in hexadecimal", at: index)
    }
    return (scalar, next + 1)
  }

  /// The value of a hexadecimal digit.
  static func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x41...0x46: byte - 0x41 + 10
    case 0x61...0x66: byte - 0x61 + 10
    default: nil
    }
  }

  /// The bytes of the content of a name or string.
  func contentBytes(_ token: Token) throws -> ArraySlice<UInt8> {
    let sign = token.kind == .value || token.kind == .symbol ? 1 : 0
    if token.detail == 0 { return bytes[token.start + sign..<token.end] }
    return Array(try content(token).utf8)[...]
  }

  /// Where the braces or brackets that open with the next token close; nil if that is not on the same line, or far away.
  func closingEnd() -> Int? {
    var depth = 0
    var index = token.start
    let limit = min(bytes.count, index + 4096)
    while index < limit {
      switch bytes[index] {
      case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
      case UInt8(ascii: "}"), UInt8(ascii: "]"):
        depth -= 1
        if depth == 0 { return index + 1 }
      case UInt8(ascii: "\""), UInt8(ascii: "/"), 0x0A: return nil
      default: break
      }
      index += 1
    }
    return nil
  }

  /// Goes on to the token that follows the byte before `end`.
  mutating func skip(to end: Int) throws {
    token.end = end
    try advance()
  }

  /// The value of an integer token; nil if it does not fit.
  func integer(_ token: Token) -> Int? {
    var index = token.start
    let isNegative = bytes[index] == UInt8(ascii: "-")
    if isNegative { index += 1 }
    var value = 0
    while index < token.end {
      let (product, overflow) = value.multipliedReportingOverflow(by: 10)
      let digit = Int(bytes[index] - 0x30)
      let (sum, carry) = product.subtractingReportingOverflow(digit)
      guard !overflow, !carry else { return nil }
      value = sum
      index += 1
    }
    // Summed up as a negative number, whose range is larger by one.
    if isNegative { return value }
    return value == Int.min ? nil : -value
  }

  /// The value of an integer token above `Int.max`; nil if it does not fit.
  func unsigned(_ token: Token) -> UInt64? { UInt64(text(token)) }

  /// The comment that follows the last consumed token on its line, without slashes and surrounding spaces.
  func trailingComment() -> String? {
    var index = previousEnd
    while byte(index) == 0x20 || byte(index) == 0x09 { index += 1 }
    guard index + 1 < bytes.count, bytes[index] == UInt8(ascii: "/"), bytes[index + 1] == UInt8(ascii: "/") else {
      return nil
    }
    index += 2
    var end = index
    while end < bytes.count, bytes[end] != 0x0A { end += 1 }
    while index < end, bytes[index] <= 0x20 { index += 1 }
    while end > index, bytes[end - 1] <= 0x20 { end -= 1 }
    return index < end ? String(decoding: bytes[index..<end], as: UTF8.self) : nil
  }
}
