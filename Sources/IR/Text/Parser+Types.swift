import Base
import Tensors

extension Parser {
  /// Reads `f32[T, 64]`, with `block<q4f16g32>` or `packed<name, rows, bytes, ...>` behind it.
  mutating func type(_ scope: inout FunctionScope) throws -> TensorType {
    let start = reader.token
    var type = try denseType(&scope)
    if reader.isNext(word: "block") {
      try reader.lexer.advance()
      type.encoding = .block(try blockFormat())
      try check(type, start)
    } else if reader.isNext(word: "packed") {
      try reader.lexer.advance()
      type.encoding = .packed(try packedLayout())
      try check(type, start)
    }
    return type
  }

  /// Reads `f32[T, 64]`; the same text gives the same type.
  private mutating func denseType(_ scope: inout FunctionScope) throws -> TensorType {
    let start = reader.token
    let end = start.kind == .word ? reader.lexer.closingEnd() : nil
    if let end, let known = scope.typeTexts.index(of: reader.lexer.bytes[start.start..<end]) {
      try reader.lexer.skip(to: end)
      return scope.types[known]
    }
    guard start.kind == .word, let element = DType(rawValue: reader.lexer.text(start)) else {
      let names = DType.allCases.map(\.rawValue).joined(separator: ", ")
      throw reader.unexpected("a type such as f32[1, 64] (element types are \(names))")
    }
    try reader.lexer.advance()
    try reader.expect("[")
    var dims: [Dim] = []
    while !reader.isNext("]") {
      dims.append(try dim(scope.symbols))
      guard try reader.take(",") else { break }
    }
    guard reader.isNext("]") else { throw reader.unexpected("',' or ']'") }
    try reader.lexer.advance()
    let type = TensorType(element, Shape(dims))
    try check(type, start)
    if let end, scope.typeTexts.insert(reader.lexer.bytes[start.start..<end]) { scope.types.append(type) }
    return type
  }

  /// Refuses types whose sizes leave the range in which sizes and bytes can be computed.
  func check(_ type: TensorType, _ token: Lexer.Token) throws {
    var sizes: [Int] = []
    for dim in type.shape.dims {
      guard let bounds = dim.checkedBounds, bounds.upperBound >= 0 else {
        throw reader.lexer.failure("the size \(dim) of \(type) is out of range", at: token.start)
      }
      sizes.append(bounds.upperBound)
    }
    var count = 1
    for size in sizes {
      // A size of 0 does not let the others grow without bounds.
      let (product, overflow) = count.multipliedReportingOverflow(by: max(size, 1))
      guard !overflow, product <= 1 << 56 else {
        throw reader.lexer.failure("the type \(type) is too large", at: token.start)
      }
      count = product
    }
    if case .packed(let layout) = type.encoding {
      let panels = ((sizes.first ?? 1) + layout.rows - 1) / layout.rows
      guard !panels.multipliedReportingOverflow(by: layout.panelBytes).overflow else {
        throw reader.lexer.failure("the type \(type) is too large", at: token.start)
      }
    }
  }

  private mutating func dim(_ symbols: [String: Symbol]) throws -> Dim {
    let start = reader.token
    if start.kind == .integer, let value = reader.lexer.integer(start) {
      try reader.lexer.advance()
      if reader.isNext(",") || reader.isNext("]") {
        guard value >= 0, value <= Dim.textLimit else {
          throw reader.lexer.failure("the size \(value) is out of range", at: start.start)
        }
        return .fixed(value)
      }
    }
    if start.kind == .punctuation, !reader.isNext("("), !reader.isNext("-") { throw reader.unexpected("a size") }
    while !reader.isNext(","), !reader.isNext("]") {
      switch reader.token.kind {
      case .word, .integer: break
      case .punctuation where reader.isNext("+") || reader.isNext("-") || reader.isNext("*") || reader.isNext("/"):
        break
      case .punctuation where reader.isNext("(") || reader.isNext(")"): break
      default: throw reader.unexpected("a size")
      }
      guard reader.token.end - start.start <= 1000 else {
        throw reader.lexer.failure("a size is too long", at: start.start)
      }
      try reader.lexer.advance()
    }
    let text = String(decoding: reader.lexer.bytes[start.start..<reader.lexer.previousEnd], as: UTF8.self)
    return try locate(start) { try Dim.parse(text, symbols: symbols) }
  }

  private mutating func blockFormat() throws -> BlockFormat {
    try reader.expect("<")
    let token = reader.token
    let name = try reader.word("a block format such as q4f16g32")
    guard let format = BlockFormat(name: name) else {
      throw reader.lexer.failure(
        "unknown block format '\(name)', expected one such as q4f16g32 or q8f32row", at: token.start)
    }
    try reader.expect(">")
    return format
  }

  private mutating func packedLayout() throws -> PackedLayout {
    try reader.expect("<")
    let name = try reader.wordOrString("the name of a layout")
    let token = reader.token
    var numbers: [Int] = []
    while try reader.take(",") { numbers.append(try reader.integer("a number")) }
    try reader.expect(">")
    guard numbers.count >= 2, numbers[0] > 0, numbers[0] <= Dim.textLimit, numbers[1] >= 0 else {
      throw reader.lexer.failure("a layout has a positive number of rows and a number of bytes", at: token.start)
    }
    return PackedLayout(name: name, rows: numbers[0], panelBytes: numbers[1], parameters: Array(numbers[2...]))
  }
}
