import Base

/// Reads tokens one after the other and says what was expected where another one is found: the ground on which the
/// parsers of models, attributes and pipelines stand.
struct TokenReader {
  var lexer: Lexer
  /// How deep lists and dictionaries may be nested.
  static let depthLimit = 256

  init(_ text: String, file: String? = nil) throws { lexer = try Lexer(text, file: file) }

  /// The token that comes next.
  var token: Lexer.Token { lexer.token }

  /// Whether all tokens have been read.
  var isAtEnd: Bool { lexer.token.kind == .end }

  /// An error at the next token.
  func failure(_ message: String) -> CompileError { lexer.failure(message, at: lexer.token.start) }

  /// An error that names the next token and what should stand there.
  func unexpected(_ expected: String) -> CompileError {
    failure("found \(lexer.describe(lexer.token)), expected \(expected)")
  }

  func isNext(_ character: Unicode.Scalar) -> Bool {
    lexer.token.kind == .punctuation && lexer.token.detail == UInt8(ascii: character)
  }

  func isNext(_ kind: Lexer.Kind) -> Bool { lexer.token.kind == kind }

  func isNext(word: StaticString) -> Bool { lexer.isWord(lexer.token, word) }

  /// Passes over the next token if it is that character.
  mutating func take(_ character: Unicode.Scalar) throws -> Bool {
    guard isNext(character) else { return false }
    try lexer.advance()
    return true
  }

  /// Passes over the next token if it is of that kind.
  mutating func take(_ kind: Lexer.Kind) throws -> Bool {
    guard lexer.token.kind == kind else { return false }
    try lexer.advance()
    return true
  }

  /// Passes over the next token if it is that word.
  mutating func take(word: StaticString) throws -> Bool {
    guard isNext(word: word) else { return false }
    try lexer.advance()
    return true
  }

  /// Passes over the next token, which must be that character.
  mutating func expect(_ character: Unicode.Scalar) throws {
    guard isNext(character) else { throw unexpected("'\(character)'") }
    try lexer.advance()
  }

  /// Passes over the next token, which must be that word.
  mutating func expect(word: StaticString) throws {
    guard isNext(word: word) else { throw unexpected("'\(word)'") }
    try lexer.advance()
  }

  /// Reads a word as it stands.
  mutating func word(_ what: String) throws -> String {
    guard lexer.token.kind == .word else { throw unexpected(what) }
    let text = lexer.text(lexer.token)
    try lexer.advance()
    return text
  }

  /// Reads a word or a quoted string.
  mutating func wordOrString(_ what: String) throws -> String {
    switch lexer.token.kind {
    case .word, .string:
      let text = try lexer.content(lexer.token)
      try lexer.advance()
      return text
    default: throw unexpected(what)
    }
  }

  /// Reads a quoted string.
  mutating func string(_ what: String) throws -> String {
    guard lexer.token.kind == .string else { throw unexpected(what) }
    let text = try lexer.content(lexer.token)
    try lexer.advance()
    return text
  }

  /// Reads a name after `%` or `@`.
  mutating func name(_ kind: Lexer.Kind, _ what: String) throws -> String {
    guard lexer.token.kind == kind else { throw unexpected(what) }
    let text = try lexer.content(lexer.token)
    guard !text.isEmpty else { throw failure("a name is empty") }
    try lexer.advance()
    return text
  }

  /// Reads an integer.
  mutating func integer(_ what: String) throws -> Int {
    guard lexer.token.kind == .integer else { throw unexpected(what) }
    guard let value = lexer.integer(lexer.token) else {
      throw failure("the number \(lexer.describe(lexer.token)) is out of range")
    }
    try lexer.advance()
    return value
  }

  /// Reads an integer of 64 bits without a sign.
  mutating func unsigned(_ what: String) throws -> UInt64 {
    guard lexer.token.kind == .integer else { throw unexpected(what) }
    guard let value = lexer.unsigned(lexer.token) else {
      throw failure("the number \(lexer.describe(lexer.token)) is out of range")
    }
    try lexer.advance()
    return value
  }

  // MARK: Attributes

  /// Reads `{key = value, ...}`; a comma may stand before the brace.
  mutating func dictionary(depth: Int = 0) throws -> AttributeDictionary {
    try expect("{")
    var dictionary = AttributeDictionary()
    while !isNext("}") {
      let keyToken = lexer.token
      let key = try wordOrString("a key or '}'")
      try expect("=")
      guard dictionary.insert(key, try attribute(depth: depth + 1)) else {
        throw lexer.failure("the key '\(key)' stands twice", at: keyToken.start)
      }
      guard try take(",") else { break }
    }
    guard isNext("}") else { throw unexpected("',' or '}'") }
    try lexer.advance()
    return dictionary
  }

  /// Reads a value of an attribute.
  mutating func attribute(depth: Int = 0) throws -> AttributeValue {
    guard depth < Self.depthLimit else { throw failure("lists are nested too deeply") }
    let token = lexer.token
    switch token.kind {
    case .integer:
      let value: AttributeValue
      if let number = lexer.integer(token) {
        // A negative zero is a floating-point number.
        value = number == 0 && lexer.bytes[token.start] == UInt8(ascii: "-") ? .real("-0.0") : .integer(number)
      } else if let number = lexer.unsigned(token) {
        value = .unsigned(number)
      } else {
        value = .real(lexer.text(token))
      }
      try lexer.advance()
      return value
    case .real:
      let text = lexer.text(token)
      try lexer.advance()
      return .real(text)
    case .string:
      let text = try lexer.content(token)
      try lexer.advance()
      return .string(text)
    case .word:
      let text = lexer.text(token)
      try lexer.advance()
      switch text {
      case "true": return .bool(true)
      case "false": return .bool(false)
      case "null": return .null
      case "nan", "inf": return .real(text)
      default: return .string(text)
      }
    case .punctuation where isNext("["):
      try lexer.advance()
      var values: [AttributeValue] = []
      while !isNext("]") {
        values.append(try attribute(depth: depth + 1))
        guard try take(",") else { break }
      }
      guard isNext("]") else { throw unexpected("',' or ']'") }
      try lexer.advance()
      return .array(values)
    case .punctuation where isNext("{"): return .dictionary(try dictionary(depth: depth))
    case .punctuation where isNext("-"):
      try lexer.advance()
      if try take(word: "inf") { return .real("-inf") }
      if try take(word: "nan") { return .real("-nan") }
      throw unexpected("a number after '-'")
    default: throw unexpected("a value")
    }
  }
}

extension AttributeValue {
  /// Reads the text form of one value.
  ///
  /// - Throws: `CompileError` of kind `.input` with line and column.
  package init(parsing text: String, file: String? = nil) throws {
    var reader = try TokenReader(text, file: file)
    self = try reader.attribute()
    guard reader.isAtEnd else { throw reader.unexpected("the end of the value") }
  }
}

extension AttributeDictionary {
  /// Reads `{key = value, ...}`.
  ///
  /// - Throws: `CompileError` of kind `.input` with line and column.
  package init(parsing text: String, file: String? = nil) throws {
    var reader = try TokenReader(text, file: file)
    self = try reader.dictionary()
    guard reader.isAtEnd else { throw reader.unexpected("the end of the attributes") }
  }
}
