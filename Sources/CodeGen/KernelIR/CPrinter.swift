/// Prints statements and collects the helper functions they need.
struct CPrinter {
  let target: Target
  /// Texts of the helpers used so far, each after those it calls.
  private(set) var helpers: [String] = []
  private var known: Set<String> = []

  init(target: Target) { self.target = target }

  // MARK: Helpers

  /// Adds the vocabulary's helper functions whose names occur in a text.
  private mutating func require(namesIn text: String) {
    for name in CPrinter.names(in: text) where !known.contains(name) {
      guard let function = target.vocabulary.functions[name] else { continue }
      known.insert(name)
      require(namesIn: function)
      helpers.append(function)
    }
  }

  /// Words that start with `mcc_`, in order.
  private static func names(in text: String) -> [String] {
    guard text.contains("mcc_") else { return [] }
    return text.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init).filter { $0.hasPrefix("mcc_") }
  }

  private mutating func require(_ function: MathFunction, vector: Bool) {
    let name = vector ? function.vectorName : function.scalarName
    guard known.insert(name).inserted else { return }
    guard vector else {
      if function == .sigmoid {
        helpers.append("static inline float mcc_sigmoid(float x) {\n  return 1.0f / (1.0f + expf(-x));\n}")
      }
      return
    }
    let type = target.vocabulary.f32
    let names = function.arity == 2 ? ["x", "y"] : ["x"]
    let head = "static inline \(type) \(name)(\(names.map { "\(type) \($0)" }.joined(separator: ", "))) {\n"
    if let definition = function.definition(target: target) {
      let body = block(definition.body, indent: "  ")
      helpers.append(head + body + "  return \(expression(definition.result));\n}")
    } else {
      let lanes = target.lanes
      var body = "  float lanes[\(lanes)];\n"
      if function.arity == 2 {
        body += "  float others[\(lanes)];\n"
        body += "  " + verb("store.f32", ["others", "y"]) + ";\n"
      }
      body += "  " + verb("store.f32", ["lanes", "x"]) + ";\n"
      let arguments = function.arity == 2 ? "lanes[i], others[i]" : "lanes[i]"
      body += "  for (int i = 0; i < \(lanes); i++) lanes[i] = \(function.scalarName)(\(arguments));\n"
      helpers.append(head + body + "  return \(verb("load.f32", ["lanes"]));\n}")
    }
  }

  /// The template of a verb with operands filled in.
  mutating func verb(_ name: String, _ operands: [String]) -> String {
    guard let template = target.vocabulary.verbs[name] else {
      preconditionFailure("target \(target.name) has no verb \(name)")
    }
    require(namesIn: template)
    return Vocabulary.fill(template, operands)
  }

  private mutating func verb(_ use: VerbUse) -> String {
    let operands = use.operands.map { operand -> String in
      switch operand {
      // Those that are no primary expression are put in parentheses, as a template may be an infix form.
      case .value(let value): expression(value, precedence: 14)
      case .argument(let value): expression(value)
      case .address(let pointer, let index): address(pointer, index)
      case .element(let pointer, let index): "\(pointer.name)[\(expression(index))]"
      case .literal(-0x8000_0000): "INT32_MIN"
      case .literal(let value): value >= 1 << 16 ? "0x" + String(value, radix: 16) : "\(value)"
      }
    }
    return verb(use.name, operands)
  }

  // MARK: Functions and statements

  mutating func function(_ kernel: KernelFunction) -> String {
    var text = ""
    if !kernel.comment.isEmpty {
      text += "/*\n" + kernel.comment.map { $0.isEmpty ? " *\n" : " * \($0)\n" }.joined() + " */\n"
    }
    text += CRenderer(target: target).prototype(kernel) + " {\n"
    let body = block(kernel.body, indent: "  ")
    let used = Set(body.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init))
    for name in ["t"] + kernel.parameters.map(\.name) where !used.contains(name) { text += "  (void)\(name);\n" }
    return text + body + "}\n"
  }

  mutating func block(_ statements: [Statement], indent: String) -> String {
    var text = ""
    for statement in statements { text += self.statement(statement, indent: indent) }
    return text
  }

  private func cType(_ type: ValueType) -> String {
    switch type {
    case .scalar(let scalar): CRenderer.cType(scalar)
    case .vector(.f32): target.vocabulary.f32
    case .vector(.i32): target.vocabulary.i32
    case .mask: target.vocabulary.mask
    case .condition: "int"
    }
  }

  private mutating func statement(_ statement: Statement, indent: String) -> String {
    switch statement {
    case .comment(let text): return "\(indent)/* \(text) */\n"
    case .declare(let name, let value, let isMutable):
      return "\(indent)\(isMutable ? "" : "const ")\(cType(value.type)) \(name) = \(expression(value));\n"
    case .assign(let name, _, let value): return assignment(name, value, indent: indent)
    case .array(let pointer, let count):
      return "\(indent)\(CRenderer.cType(pointer.element)) \(pointer.name)[\(count)] __attribute__((aligned(64)));\n"
    case .derive(let pointer, let base, let offset):
      let address = self.address(base, offset)
      let cast =
        pointer.element == base.element
        ? "" : "(\(pointer.isMutable ? "" : "const ")\(CRenderer.cType(pointer.element)) *)"
      let place = cast.isEmpty || !address.contains(" ") ? address : "(\(address))"
      return "\(indent)\(CRenderer.declaration(pointer)) = \(cast)\(place);\n"
    case .store(let pointer, let index, let value, let count):
      return indent + store(pointer, index, value, count) + ";\n"
    case .loop(let name, let from, let to, let step, let body):
      let advance = step == 1 ? "\(name)++" : "\(name) += \(step)"
      let limit = expression(to, precedence: 6)
      return "\(indent)for (int64_t \(name) = \(expression(from)); \(name) < \(limit); \(advance)) {\n"
        + block(body, indent: indent + "  ") + "\(indent)}\n"
    case .condition(let condition, let then, let otherwise):
      var text = "\(indent)if (\(expression(condition))) {\n" + block(then, indent: indent + "  ") + "\(indent)}"
      if !otherwise.isEmpty { text += " else {\n" + block(otherwise, indent: indent + "  ") + "\(indent)}" }
      return text + "\n"
    case .prefetch(let pointer, let index): return "\(indent)__builtin_prefetch(\(address(pointer, index)));\n"
    case .partition(let begin, let end, let units):
      let name = "\(begin)_\(end)"
      return "\(indent)const mcc_range \(name) = mcc_partition(t, \(expression(units)));\n"
        + "\(indent)const int64_t \(begin) = \(name).begin, \(end) = \(name).end;\n"
    case .share(let name, let units, let body):
      let work = "\(name)_work"
      return "\(indent)for (mcc_work \(work) = mcc_share(t, \(expression(units))); mcc_next(t, &\(work));) {\n"
        + "\(indent)  const int64_t \(name) = \(work).unit;\n" + block(body, indent: indent + "  ") + "\(indent)}\n"
    case .meet: return "\(indent)mcc_meet(t);\n"
    }
  }

  private mutating func assignment(_ name: String, _ value: Expression, indent: String) -> String {
    if case .binary(let operation, .variable(let left, let type), let right) = value, left == name, !type.isVector {
      let symbol: String? =
        switch operation {
        case .add: "+="
        case .subtract: "-="
        case .multiply: "*="
        default: nil
        }
      if let symbol { return "\(indent)\(name) \(symbol) \(expression(right));\n" }
    }
    return "\(indent)\(name) = \(expression(value));\n"
  }

  private mutating func store(_ pointer: Pointer, _ index: Expression, _ value: Expression, _ count: Expression?)
    -> String
  {
    let use = VerbUse(storing: value, at: pointer, index, count: count)
    if let use, use.result == nil { return verb(use) }
    let place = "\(pointer.name)[\(expression(index))]"
    if let use { return "\(place) = \(verb(use))" }
    let text = expression(value)
    if value.type == .scalar(pointer.element) || value.type == .condition { return "\(place) = \(text)" }
    return "\(place) = (\(CRenderer.cType(pointer.element)))\(expression(value, precedence: 14))"
  }

  private mutating func address(_ pointer: Pointer, _ index: Expression) -> String {
    if index == .integer(0) { return pointer.name }
    return "\(pointer.name) + \(expression(index, precedence: 12))"
  }

  // MARK: Expressions

  /// The C text of an expression, in parentheses if it binds less than `precedence` (C's levels, 15 binds most).
  mutating func expression(_ value: Expression, precedence: Int = 0) -> String {
    let (text, own) = render(value)
    return own < precedence ? "(\(text))" : text
  }

  private func literal(_ value: Float) -> String {
    if value.isNaN { return "NAN" }
    if value.isInfinite { return value < 0 ? "-INFINITY" : "INFINITY" }
    return "\(value)f"
  }

  private mutating func render(_ value: Expression) -> (String, Int) {
    if let use = VerbUse(value) {
      let isScalar = !value.type.isVector
      return (verb(use), isScalar ? 15 : 14)
    }
    switch value {
    case .integer(let value): return (value == .min ? "INT64_MIN" : "\(value)", value < 0 ? 14 : 15)
    case .real(let value): return (literal(value), value < 0 ? 14 : 15)
    case .variable(let name, _): return (name, 15)
    case .element(let pointer, let index): return ("\(pointer.name)[\(expression(index))]", 15)
    case .unary(let operation, let operand): return unary(operation, operand)
    case .binary(let operation, let left, let right): return binary(operation, left, right)
    case .compare(let comparison, let a, let b):
      let (symbol, own) = CPrinter.symbols[comparison] ?? ("<", 10)
      return ("\(expression(a, precedence: 11)) \(symbol) \(expression(b, precedence: 11))", own)
    case .select(let condition, let a, let b):
      return (
        "\(expression(condition, precedence: 4)) ? \(expression(a, precedence: 4)) : \(expression(b, precedence: 3))", 3
      )
    case .convert(let operand, let type):
      return ("(\(CRenderer.cType(type)))\(expression(operand, precedence: 14))", 14)
    case .reinterpret(let operand, _): return render(operand)
    case .call(let function, let arguments):
      let vector = value.type.isVector
      require(function, vector: vector)
      let texts = arguments.map { expression($0) }.joined(separator: ", ")
      return ("\(vector ? function.vectorName : function.scalarName)(\(texts))", 15)
    case .load, .broadcast, .repeated, .exchanged, .laneNumbers, .fma, .reduce, .lookup, .dotStep, .dotFlush,
      .dotArrange, .dotTokens:
      preconditionFailure("\(value) is a verb")
    }
  }

  private static let symbols: [Comparison: (String, Int)] = [
    .less: ("<", 10), .lessEqual: ("<=", 10), .greater: (">", 10), .greaterEqual: (">=", 10), .equal: ("==", 9),
    .notEqual: ("!=", 9),
  ]

  private mutating func unary(_ operation: UnaryOperation, _ operand: Expression) -> (String, Int) {
    switch operation {
    case .negate: return ("-\(expression(operand, precedence: 15))", 14)
    case .not: return ("!\(expression(operand, precedence: 15))", 14)
    case .squareRoot where operand.type == .scalar(.f64): return ("sqrt(\(expression(operand)))", 15)
    case .absolute: return ("fabsf(\(expression(operand)))", 15)
    case .squareRoot: return ("sqrtf(\(expression(operand)))", 15)
    case .floor: return ("floorf(\(expression(operand)))", 15)
    case .round: return ("rintf(\(expression(operand)))", 15)
    }
  }

  private mutating func binary(_ operation: BinaryOperation, _ left: Expression, _ right: Expression) -> (String, Int) {
    func infix(_ symbol: String, _ own: Int) -> (String, Int) {
      ("\(expression(left, precedence: own)) \(symbol) \(expression(right, precedence: own + 1))", own)
    }
    /// Operands in parentheses wherever a compiler would suggest them.
    func careful(_ symbol: String, _ own: Int, operands: Int) -> (String, Int) {
      ("\(expression(left, precedence: operands)) \(symbol) \(expression(right, precedence: operands))", own)
    }
    let isCondition = left.type == .condition
    switch operation {
    case .add:
      if case .integer(let value) = right, value < 0 { return ("\(expression(left, precedence: 12)) - \(-value)", 12) }
      return infix("+", 12)
    case .subtract: return infix("-", 12)
    case .multiply: return infix("*", 13)
    case .divide: return infix("/", 13)
    case .remainder: return infix("%", 13)
    case .and: return isCondition ? careful("&&", 5, operands: 9) : careful("&", 8, operands: 14)
    case .or: return isCondition ? careful("||", 4, operands: 9) : careful("|", 6, operands: 14)
    case .exclusiveOr: return careful("^", 7, operands: 14)
    case .shiftLeft: return careful("<<", 11, operands: 14)
    case .shiftRight, .shiftRightArithmetic: return careful(">>", 11, operands: 14)
    case .minimum, .maximum:
      let a = expression(left, precedence: 11), b = expression(right, precedence: 11)
      let symbol = operation == .minimum ? "<" : ">"
      return ("\(a) \(symbol) \(b) ? \(a) : \(b)", 3)
    }
  }
}
