import Base

extension ScalarExpression: CustomStringConvertible {
  /// `add(multiply(%0, 0.5), relu(%1))`: functions by mnemonic, inputs as `%i`, numbers in their shortest form that
  /// reads back with the same bits (`bits(0x7fc00001)` where there is none).
  package var description: String {
    switch self {
    case .input(let index): "%\(index)"
    case .constant(let bits): Self.text(ofBits: bits)
    case .unary(let function, let x): "\(function.rawValue)(\(x))"
    case .binary(let function, let x, let y): "\(function.rawValue)(\(x), \(y))"
    case .select(let c, let x, let y): "select(\(c), \(x), \(y))"
    }
  }

  private static func text(ofBits bits: UInt32) -> String {
    let value = Float(bitPattern: bits)
    if value.isNaN, bits != Float.nan.bitPattern { return "bits(0x\(String(bits, radix: 16)))" }
    return "\(value)"
  }

  /// The expression that a text stands for.
  ///
  /// - Throws: ``CompileError`` if the text is not an expression or is nested more than 200 levels deep.
  package init(parsing text: String) throws {
    var parser = ScalarExpressionParser(text: text)
    self = try parser.parse()
  }
}

/// An expression is coded as its text.
extension ScalarExpression: Codable {
  package init(from decoder: any Decoder) throws {
    try self.init(parsing: try decoder.singleValueContainer().decode(String.self))
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

private struct ScalarExpressionParser {
  let text: String
  let bytes: [UInt8]
  var index = 0
  var depth = 0

  init(text: String) {
    self.text = text
    bytes = Array(text.utf8)
  }

  func failure(_ problem: String) -> CompileError {
    CompileError(.input, "\(problem) at character \(index + 1) of the expression '\(text)'")
  }

  mutating func parse() throws -> ScalarExpression {
    let result = try expression()
    guard peek() == nil else { throw failure("found more than one expression") }
    return result
  }

  mutating func peek() -> UInt8? {
    while index < bytes.count, bytes[index] == UInt8(ascii: " ") { index += 1 }
    return index < bytes.count ? bytes[index] : nil
  }

  mutating func expect(_ character: Unicode.Scalar) throws {
    guard peek() == UInt8(ascii: character) else { throw failure("expected '\(character)'") }
    index += 1
  }

  /// The characters up to a parenthesis, comma or space.
  mutating func word() -> String {
    _ = peek()
    let start = index
    while index < bytes.count, !" (),".utf8.contains(bytes[index]) { index += 1 }
    return String(decoding: bytes[start..<index], as: UTF8.self)
  }

  mutating func expression() throws -> ScalarExpression {
    guard depth < 200 else { throw failure("found more than 200 levels") }
    depth += 1
    defer { depth -= 1 }
    let word = word()
    guard peek() == UInt8(ascii: "(") else { return try leaf(word) }
    index += 1
    if word == "bits" { return try bits() }
    let result: ScalarExpression
    if let function = UnaryFunction(rawValue: word) {
      result = .unary(function, try expression())
    } else if let function = BinaryFunction(rawValue: word) {
      let x = try expression()
      try expect(",")
      result = .binary(function, x, try expression())
    } else if word == "select" {
      let condition = try expression()
      try expect(",")
      let x = try expression()
      try expect(",")
      result = .select(condition, x, try expression())
    } else {
      let names = UnaryFunction.allCases.map(\.rawValue) + BinaryFunction.allCases.map(\.rawValue) + ["select"]
      throw failure("unknown function '\(word)'").noting("functions are \(names.joined(separator: ", "))")
    }
    try expect(")")
    return result
  }

  func leaf(_ word: String) throws -> ScalarExpression {
    if word.first == "%" {
      guard let input = Int(word.dropFirst()), (0..<1024).contains(input) else {
        throw failure("'\(word)' is not an input")
      }
      return .input(input)
    }
    guard let value = Float(word) else { throw failure("'\(word)' is not a number, an input or a function") }
    return .number(value)
  }

  mutating func bits() throws -> ScalarExpression {
    let word = word()
    guard word.hasPrefix("0x"), let bits = UInt32(word.dropFirst(2), radix: 16) else {
      throw failure("'\(word)' are not the bits of a number")
    }
    try expect(")")
    return .constant(bits)
  }
}
