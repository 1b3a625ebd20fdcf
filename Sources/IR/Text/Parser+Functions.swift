import Base
import Tensors

/// What is known while a function is read.
struct FunctionScope {
  var graph: Graph
  var symbols: [String: Symbol] = [:]
  /// The names of values in the text; `values` has the value of each.
  var names = ByteTable()
  var values: [ValueID] = []
  var states: [String: Int] = [:]
  var updated: Set<Int> = []
  var outputs: [(name: String, type: TensorType?, token: Lexer.Token)] = []
  /// Dense types that were read before, by their text.
  var typeTexts = ByteTable()
  var types: [TensorType] = []
  /// Operators that were read before, by their text.
  var mnemonics = ByteTable()
  var operators: [OperatorTexts] = []
}

/// The operators of one type that were read before, by the text of their attributes.
struct OperatorTexts {
  let type: any Operator.Type
  var attributeTexts = ByteTable()
  var operators: [any Operator] = []

  init(_ type: any Operator.Type) { self.type = type }
}

extension Parser {
  mutating func function() throws {
    try reader.expect(word: "func")
    let nameToken = reader.token
    let name = try reader.name(.symbol, "the name of a function")
    guard !model.functions.contains(where: { $0.name == name }) else {
      throw reader.lexer.failure("two functions are named '@\(name)'", at: nameToken.start)
    }
    var role: String?
    if try reader.take(word: "role") {
      try reader.expect("=")
      role = try reader.wordOrString("a role")
    }
    var target: String?
    if try reader.take(word: "target") {
      try reader.expect("=")
      target = try reader.wordOrString("a target")
    }
    let (list, symbols) = try symbols()
    var scope = FunctionScope(graph: Graph(name: name, role: role, symbols: list), symbols: symbols)
    scope.graph.target = target
    // A statement has about so many bytes; a wrong guess costs little.
    let statements = min((reader.lexer.bytes.count - nameToken.start) / 120, 1 << 16)
    scope.graph.reserve(nodes: statements * 2 / 3)
    model.constants.reserveCapacity(model.constants.count + statements / 3)
    try parameters(&scope) { scope, name, type in scope.graph.addInput(name, type) }
    if try reader.take(word: "state") {
      try parameters(&scope) { scope, name, type in
        scope.states[name] = scope.graph.states.count
        return scope.graph.addState(name, type)
      }
    }
    try outputs(&scope)
    try reader.expect("{")
    while !reader.isNext(word: "return") {
      if reader.isNext(.value) {
        try statement(&scope)
      } else if reader.isNext(word: "update") {
        try update(&scope)
      } else {
        throw reader.unexpected("'%name = ...', 'update' or 'return'")
      }
    }
    try results(&scope)
    try reader.expect("}")
    model.functions.append(scope.graph)
  }

  private mutating func symbols() throws -> ([Symbol], [String: Symbol]) {
    var list: [Symbol] = []
    var byName: [String: Symbol] = [:]
    guard try reader.take("<") else { return ([], [:]) }
    while !reader.isNext(">") {
      let token = reader.token
      let name = try reader.isNext(.value) ? reader.name(.value, "a symbol") : reader.word("a symbol")
      guard AttributeValue.isBareWord(name) else {
        throw reader.lexer.failure("the symbol '\(name)' is no word", at: token.start)
      }
      guard byName[name] == nil else {
        throw reader.lexer.failure("the symbol '\(name)' is declared twice", at: token.start)
      }
      try reader.expect(word: "in")
      let minimum = try reader.integer("the smallest value of '\(name)'")
      guard try reader.take(.ellipsis) else { throw reader.unexpected("'...'") }
      let maximum = try reader.integer("the largest value of '\(name)'")
      guard minimum >= 0, minimum <= maximum, maximum <= Dim.textLimit else {
        throw reader.lexer.failure(
          "the range \(minimum)...\(maximum) of the symbol '\(name)' is no range of sizes", at: token.start)
      }
      let symbol = Symbol(name, in: minimum...maximum)
      list.append(symbol)
      byName[name] = symbol
      guard try reader.take(",") else { break }
    }
    try reader.expect(">")
    return (list, byName)
  }

  /// Reads `(%name: type, ...)`.
  private mutating func parameters(
    _ scope: inout FunctionScope, _ add: (inout FunctionScope, String, TensorType) -> ValueID
  ) throws {
    try reader.expect("(")
    while !reader.isNext(")") {
      let (name, token) = try newName(scope)
      try reader.expect(":")
      try enter(token, add(&scope, name, try type(&scope)), &scope)
      guard try reader.take(",") else { break }
    }
    try reader.expect(")")
  }

  /// Reads `-> (name: type, ...)`; types may be left out.
  private mutating func outputs(_ scope: inout FunctionScope) throws {
    guard try reader.take(.arrow) else { throw reader.unexpected("'->' and the outputs") }
    try reader.expect("(")
    var names: Set<String> = []
    while !reader.isNext(")") {
      let token = reader.token
      let name =
        try reader.isNext(.value) ? reader.name(.value, "an output") : reader.wordOrString("the name of an output")
      guard names.insert(name).inserted else {
        throw reader.lexer.failure("two outputs are named '\(name)'", at: token.start)
      }
      let type = try reader.take(":") ? type(&scope) : nil
      scope.outputs.append((name, type, token))
      guard try reader.take(",") else { break }
    }
    try reader.expect(")")
  }

  // MARK: Statements

  private mutating func newName(_ scope: FunctionScope) throws -> (name: String, token: Lexer.Token) {
    let token = reader.token
    let name = try reader.name(.value, "'%name'")
    guard scope.names.index(of: try reader.lexer.contentBytes(token)) == nil else {
      throw reader.lexer.failure("'%\(name)' is defined twice", at: token.start)
    }
    return (name, token)
  }

  /// Notes a value under the name in `token`.
  private func enter(_ token: Lexer.Token, _ id: ValueID, _ scope: inout FunctionScope) throws {
    guard scope.names.insert(try reader.lexer.contentBytes(token)) else {
      throw reader.lexer.failure("\(reader.lexer.describe(token)) is defined twice", at: token.start)
    }
    scope.values.append(id)
  }

  private mutating func operand(_ scope: FunctionScope) throws -> ValueID {
    let token = reader.token
    guard token.kind == .value else { throw reader.unexpected("'%name'") }
    let bytes = try reader.lexer.contentBytes(token)
    guard let index = scope.names.index(of: bytes) else {
      let name = String(decoding: bytes, as: UTF8.self)
      let suggestion = Base.suggestion(for: name, in: scope.names.strings, sigil: "%")
      throw reader.lexer.failure("'%\(name)' is not defined before it is used\(suggestion)", at: token.start)
    }
    try reader.lexer.advance()
    return scope.values[index]
  }

  /// Reads a mnemonic and gives the position of its type in the scope.
  private mutating func mnemonic(_ scope: inout FunctionScope) throws -> Int {
    let token = reader.token
    guard token.kind == .word else { throw reader.unexpected("an operator") }
    let bytes = reader.lexer.bytes[token.start..<token.end]
    if let index = scope.mnemonics.index(of: bytes) {
      try reader.lexer.advance()
      return index
    }
    let name = try reader.word("an operator")
    guard let type = operators[name] else {
      let suggestion = Base.suggestion(for: name, in: operators.names)
      throw reader.lexer.failure("unknown operator '\(name)'\(suggestion)", at: token.start)
    }
    guard type.level == .core || model.stage >= .lower else {
      throw reader.lexer.failure(
        "the operator '\(name)' stands in a model of the stage '\(model.stage.rawValue)'", at: token.start)
    }
    _ = scope.mnemonics.insert(bytes)
    scope.operators.append(OperatorTexts(type))
    return scope.operators.count - 1
  }

  private mutating func statement(_ scope: inout FunctionScope) throws {
    let first = reader.token
    var names = [try newName(scope)]
    while try reader.take(",") { names.append(try newName(scope)) }
    try reader.expect("=")
    if reader.isNext(word: "constant") {
      guard names.count == 1 else { throw reader.failure("a constant has one name") }
      try reader.lexer.advance()
      return try constant(names[0].name, first, &scope)
    }
    let opToken = reader.token
    let type = try mnemonic(&scope)
    try reader.expect("(")
    var inputs: [ValueID] = []
    while !reader.isNext(")") {
      inputs.append(try operand(scope))
      guard try reader.take(",") else { break }
    }
    try reader.expect(")")
    let op = reader.isNext("{") ? try attributedOperator(type, &scope) : scope.operators[type].type.init()
    let node = try locate(opToken) { try scope.graph.addNode(op, inputs, names: names.map(\.name)) }
    let results = scope.graph[node].results
    guard results.count == names.count else {
      throw reader.lexer.failure(
        "'\(op.name)' has \(results.count) results, found \(names.count) names", at: first.start)
    }
    for (name, result) in zip(names, results) { try enter(name.token, result, &scope) }
    if try reader.take(":") {
      for (index, result) in results.enumerated() {
        if index > 0 { try reader.expect(",") }
        let typeToken = reader.token
        let written = try self.type(&scope)
        let inferred = scope.graph.type(of: result)
        guard written == inferred else {
          throw reader.lexer.failure(
            "'%\(names[index].name)' is written as \(written), but '\(op.name)' gives \(inferred)",
            at: typeToken.start)
        }
      }
    } else {
      for result in results { try check(scope.graph.type(of: result), opToken) }
    }
    if let origin = reader.lexer.trailingComment() { scope.graph.setOrigin(Origin(origin), of: node) }
  }

  /// Reads attributes; the same text gives an operator that was read before.
  private mutating func attributedOperator(_ type: Int, _ scope: inout FunctionScope) throws -> any Operator {
    let token = reader.token
    let end = reader.lexer.closingEnd()
    if let end, let known = scope.operators[type].attributeTexts.index(of: reader.lexer.bytes[token.start..<end]) {
      try reader.lexer.skip(to: end)
      return scope.operators[type].operators[known]
    }
    let attributes = try reader.dictionary()
    let opType = scope.operators[type].type
    let symbols = scope.symbols
    let op = try locate(token, mutating: { try $0.decode(opType, attributes, symbols) })
    if let end, scope.operators[type].attributeTexts.insert(reader.lexer.bytes[token.start..<end]) {
      scope.operators[type].operators.append(op)
    }
    return op
  }

  private mutating func decode<Op: Operator>(
    _ type: Op.Type, _ attributes: AttributeDictionary, _ symbols: [String: Symbol]
  ) throws -> any Operator {
    if attributes.isEmpty { return Op() }
    let standard: AttributeValue
    if let known = defaults[Op.name] {
      standard = known
    } else {
      standard = try AttributeCoder.encode(Op())
      defaults[Op.name] = standard
    }
    return try AttributeCoder.decode(
      type, from: .dictionary(attributes), defaults: standard, of: Op.name, symbols: symbols)
  }

  private mutating func update(_ scope: inout FunctionScope) throws {
    try reader.expect(word: "update")
    let token = reader.token
    let name = try reader.name(.value, "the name of a state")
    guard let state = scope.states[name] else {
      throw reader.lexer.failure("'%\(name)' is no state", at: token.start)
    }
    guard scope.updated.insert(state).inserted else {
      throw reader.lexer.failure("the state '%\(name)' is updated twice", at: token.start)
    }
    try reader.expect("=")
    let value = try operand(scope)
    let (old, new) = (scope.graph.type(of: scope.graph.states[state].value), scope.graph.type(of: value))
    guard old == new else {
      throw reader.lexer.failure("the state '%\(name)' of type \(old) is updated with \(new)", at: token.start)
    }
    scope.graph.setUpdate(ofState: state, to: value)
  }

  private mutating func results(_ scope: inout FunctionScope) throws {
    let token = reader.token
    try reader.expect(word: "return")
    var values: [ValueID] = []
    if reader.isNext(.value) {
      repeat { values.append(try operand(scope)) } while try reader.take(",")
    }
    guard values.count == scope.outputs.count else {
      throw reader.lexer.failure(
        "'@\(scope.graph.name)' returns \(values.count) values, but declares \(scope.outputs.count) outputs",
        at: token.start)
    }
    for (value, output) in zip(values, scope.outputs) {
      let type = scope.graph.type(of: value)
      if let declared = output.type, declared != type {
        throw reader.lexer.failure(
          "the output '\(output.name)' is declared as \(declared), but is \(type)", at: output.token.start)
      }
      scope.graph.addOutput(output.name, value)
    }
  }

  // MARK: Constants

  private mutating func constant(_ name: String, _ first: Lexer.Token, _ scope: inout FunctionScope) throws {
    let token = reader.token
    var constantName = name
    var archived: (archive: Int, range: Range<Int>)?
    var literal: ConstantLiteral?
    if reader.isNext(.symbol) {
      let archive = try reader.name(.symbol, "an archive")
      guard let index = model.archives.firstIndex(where: { $0.name == archive }) else {
        throw reader.lexer.failure("the archive '@\(archive)' is not declared", at: token.start)
      }
      try reader.expect("[")
      constantName = try reader.string("the name of a constant in quotes")
      try reader.expect(",")
      let lower = try reader.integer("the first byte")
      guard try reader.take(.halfOpen) else { throw reader.unexpected("'..<'") }
      let upper = try reader.integer("the end of the bytes")
      let size = model.archives[index].file.size
      guard lower >= 0, lower <= upper, upper <= size else {
        throw reader.lexer.failure(
          "the bytes \(lower)..<\(upper) do not lie in the archive '@\(archive)' of \(size) bytes", at: token.start)
      }
      try reader.expect("]")
      archived = (index, lower..<upper)
    } else {
      if reader.isNext(.string) { constantName = try reader.string("a name") }
      literal = try constantLiteral()
    }
    try reader.expect(":")
    let typeToken = reader.token
    let type = try type(&scope)
    guard let sizes = type.shape.fixedSizes else {
      throw reader.lexer.failure("a constant has fixed sizes", at: typeToken.start)
    }
    let need = TensorType.byteCount(sizes: sizes, element: type.element, encoding: type.encoding)
    let source: ConstantSource
    if let archived {
      guard archived.range.count == need else {
        throw reader.lexer.failure(
          "'\(constantName)' has \(archived.range.count) bytes, but \(type) needs \(need)", at: typeToken.start)
      }
      source = .archive(archived.archive, archived.range)
    } else {
      source = try self.source(literal, type, need, token)
    }
    let id = model.constants.insert(Constant(name: constantName, type: type, source: source))
    let value = scope.graph.addConstant(id, name, type)
    try enter(first, value, &scope)
  }

  private enum ConstantLiteral {
    case elements([AttributeValue])
    case hex(String)
    case splat(UInt64)
    case random(seed: UInt64, deviation: UInt64)
  }

  private mutating func constantLiteral() throws -> ConstantLiteral {
    if reader.isNext("[") {
      guard case .array(let values) = try reader.attribute() else { throw reader.unexpected("a list of elements") }
      return .elements(values)
    }
    let kind = try reader.word("'@archive[...]', a list, 'splat', 'random' or 'hex'")
    try reader.expect("(")
    let literal: ConstantLiteral
    switch kind {
    case "hex": literal = .hex(try reader.string("hexadecimal digits in quotes"))
    case "splat": literal = .splat(try number())
    case "random":
      try reader.expect(word: "seed")
      try reader.expect("=")
      let seed = try reader.unsigned("a seed")
      try reader.expect(",")
      try reader.expect(word: "deviation")
      try reader.expect("=")
      literal = .random(seed: seed, deviation: try number())
    default:
      throw reader.failure(
        "found the constant kind '\(kind)', expected '@archive[...]', a list, 'splat', 'random' or 'hex'")
    }
    try reader.expect(")")
    return literal
  }

  /// Reads a double with all its bits, see ``ConstantText/number(_:)``.
  private mutating func number() throws -> UInt64 {
    let token = reader.token
    let value = try reader.attribute()
    if value == .real("nan"), try reader.take("(") {
      let digitsToken = reader.token
      let digits = try reader.string("the bits of a NaN in quotes")
      guard let bits = UInt64(digits, radix: 16), Double(bitPattern: bits).isNaN else {
        throw reader.lexer.failure("'\(digits)' are not the bits of a NaN", at: digitsToken.start)
      }
      try reader.expect(")")
      return bits
    }
    guard let number = ConstantText.double(value) else {
      throw reader.lexer.failure("found \(value.kind), expected a number", at: token.start)
    }
    return number.bitPattern
  }

  private func source(
    _ literal: ConstantLiteral?, _ type: TensorType, _ need: Int, _ token: Lexer.Token
  ) throws -> ConstantSource {
    func fail(_ message: String) -> CompileError { reader.lexer.failure(message, at: token.start) }
    switch literal {
    case .elements(let values):
      guard type.isDense else { throw fail("the elements of \(type) are written as hex(\"...\")") }
      let size = type.element.byteCount
      guard values.count * size == need else {
        throw fail("found \(values.count) elements, but \(type) has \(need / size)")
      }
      var bytes: [UInt8] = []
      bytes.reserveCapacity(need)
      for (index, value) in values.enumerated() {
        guard let element = ConstantText.bytes(value, type.element) else {
          throw fail("element \(index) is \(value.kind), which is no \(type.element.rawValue)")
        }
        bytes += element
      }
      return .inline(bytes)
    case .hex(let digits):
      guard let bytes = ConstantText.bytes(hex: digits) else {
        throw fail("found something else than pairs of hexadecimal digits")
      }
      guard bytes.count == need else { throw fail("found \(bytes.count) bytes, but \(type) needs \(need)") }
      return .inline(bytes)
    case .splat(let bits):
      guard type.isDense else { throw fail("a made-up constant is dense, found \(type)") }
      return .splat(bits)
    case .random(let seed, let deviation):
      guard type.isDense else { throw fail("a made-up constant is dense, found \(type)") }
      return .random(seed: seed, deviation: deviation)
    case nil: throw fail("a constant has no source")
    }
  }
}
