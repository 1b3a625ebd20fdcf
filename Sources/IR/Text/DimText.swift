import Base
import Tensors

extension Dim {
  /// The size a text such as `3`, `T`, `2*T+1`, `T-L` or `(T+1)/2` stands for; `*` binds less than `/`, as
  /// ``description`` prints it.
  ///
  /// - Throws: ``CompileError`` if the text is not a size, names a symbol that is not among `symbols`, or holds numbers
  ///   beyond 2^40.
  package static func parse(_ text: String, symbols: [String: Symbol]) throws -> Dim {
    var parser = DimParser(text: text, symbols: symbols)
    return try parser.parse()
  }
}

/// A recursive-descent parser of sizes: `sum = [-] term {(+|-) term}`, `term = [number *] atom {* atom} | number`,
/// `atom = (name | "(" sum ")") {/ number}`.
private struct DimParser {
  let text: String
  let symbols: [String: Symbol]
  let bytes: [UInt8]
  var index = 0
  var depth = 0

  static let limit = 1 << 40

  init(text: String, symbols: [String: Symbol]) {
    self.text = text
    self.symbols = symbols
    bytes = Array(text.utf8)
  }

  mutating func parse() throws -> Dim {
    let dim = try sum()
    guard peek() == nil else { throw failure("is not a size") }
    return dim
  }

  func failure(_ problem: String) -> CompileError { CompileError(.input, "'\(text)' \(problem)") }

  mutating func peek() -> UInt8? {
    while index < bytes.count, bytes[index] == UInt8(ascii: " ") { index += 1 }
    return index < bytes.count ? bytes[index] : nil
  }

  mutating func take(_ character: Unicode.Scalar) -> Bool {
    guard peek() == UInt8(ascii: character) else { return false }
    index += 1
    return true
  }

  mutating func sum() throws -> Dim {
    guard depth < 16 else { throw failure("is nested too deeply") }
    depth += 1
    defer { depth -= 1 }
    var result = take("-") ? try times(term(), -1) : try term()
    while true {
      if take("+") {
        result = try checked(result + term())
      } else if take("-") {
        result = try checked(result - term())
      } else {
        return result
      }
    }
  }

  mutating func term() throws -> Dim {
    guard let number = try number() else { return try product() }
    if take("*") { return try times(product(), number) }
    if take("/") { return .fixed(number) / (try divisor()) }
    return .fixed(number)
  }

  mutating func product() throws -> Dim {
    var result = try atom()
    while take("*") {
      let factor = try atom()
      // Bounds of what is not yet checked may overflow.
      guard result.checkedBounds != nil, factor.checkedBounds != nil, let product = Dim.product(result, factor),
        product.checkedBounds != nil
      else { throw failure("holds a product that is too large") }
      result = product
    }
    return result
  }

  mutating func atom() throws -> Dim {
    var result: Dim
    if take("(") {
      result = try sum()
      guard take(")") else { throw failure("lacks a closing parenthesis") }
    } else {
      let name = name()
      guard !name.isEmpty else { throw failure("is not a size") }
      guard let symbol = symbols[name] else {
        throw CompileError(
          .input, "unknown symbol '\(name)' in size '\(text)'",
          notes: symbols.isEmpty ? [] : ["known are \(symbols.keys.sorted().joined(separator: ", "))"])
      }
      result = .symbol(symbol)
    }
    while take("/") { result = result / (try divisor()) }
    return result
  }

  mutating func divisor() throws -> Int {
    guard let divisor = try number(), divisor > 0 else { throw failure("divides by something else than a number") }
    return divisor
  }

  mutating func number() throws -> Int? {
    guard let first = peek(), (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(first) else { return nil }
    var value = 0
    while index < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[index]) {
      value = value * 10 + Int(bytes[index] - UInt8(ascii: "0"))
      guard value <= Self.limit else { throw failure("holds a number that is too large") }
      index += 1
    }
    return value
  }

  mutating func name() -> String {
    _ = peek()
    let start = index
    while index < bytes.count, Self.isNameByte(bytes[index]) { index += 1 }
    return String(decoding: bytes[start..<index], as: UTF8.self)
  }

  static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."):
      true
    default: byte >= 0x80
    }
  }

  func times(_ dim: Dim, _ factor: Int) throws -> Dim {
    for value in [dim.offset] + dim.terms.map(\.coefficient) {
      let (product, overflow) = value.multipliedReportingOverflow(by: factor)
      guard !overflow, product.magnitude <= Self.limit else { throw failure("holds a number that is too large") }
    }
    return dim * factor
  }

  func checked(_ dim: Dim) throws -> Dim {
    for value in [dim.offset] + dim.terms.map(\.coefficient) where value.magnitude > Self.limit {
      throw failure("holds a number that is too large")
    }
    return dim
  }
}
