/// Prints statements as Swift and collects the helper functions they need, in Swift and in C.
struct SwiftPrinter {
  let target: Target
  let vocabulary: Vocabulary
  /// Texts of the Swift helpers used so far, each after those it calls.
  private(set) var helpers: [String] = []
  /// What comes from C.
  private(set) var bridge: CBridge
  private var known: Set<String> = []
  /// Local arrays of the kernel so far.
  private var arrays = 0

  init(target: Target) {
    self.target = target
    vocabulary = .swift(for: target, fused: target.fuses)
    bridge = CBridge(target: target)
  }

  // MARK: Helpers

  private mutating func require(namesIn text: String) {
    let name = String(text.prefix { $0 != "(" })
    guard let function = vocabulary.functions[name], known.insert(name).inserted else { return }
    helpers.append(function)
  }

  private mutating func require(_ function: MathFunction, vector: Bool) {
    let name = vector ? function.vectorName : function.scalarName
    guard known.insert(name).inserted else { return }
    guard vector else {
      if function == .sigmoid {
        helpers.append(
          "@inline(__always) private func mcc_sigmoid(_ x: Float) -> Float {\n  return 1 / (1 + expf(-x))\n}")
      }
      return
    }
    let names = function.arity == 2 ? ["x", "y"] : ["x"]
    let list = names.map { "_ \($0): Floats" }.joined(separator: ", ")
    let head = "@_transparent private func \(name)(\(list)) -> Floats {\n"
    if let definition = function.definition(target: target) {
      let body = block(definition.body, indent: "  ")
      helpers.append(head + body + "  return \(expression(definition.result))\n}")
    } else {
      let arguments = names.map { "\($0)[i]" }.joined(separator: ", ")
      helpers.append(
        head
          + "  var lanes = Floats()\n  for i in 0..<\(target.lanes) { lanes[i] = \(function.scalarName)(\(arguments)) }\n"
          + "  return lanes\n}")
    }
  }

  /// The call of a verb: of the Swift vocabulary where it has it, else of the C one.
  private mutating func verb(_ use: VerbUse) -> String {
    let template = vocabulary.verbs[use.name]
    let operands = use.operands.map { operand -> String in
      switch operand {
      case .value(let value), .argument(let value):
        // Masks go to C as lanes.
        value.type == .mask && template == nil
          ? "unsafeBitCast(\(expression(value)), to: Ints.self)" : expression(value)
      case .address(let pointer, let index): "\(name(pointer.name)), \(expression(index))"
      case .element(let pointer, let index): "\(name(pointer.name))[\(expression(index))]"
      case .literal(let value): "\(Int32(truncatingIfNeeded: value))"
      }
    }
    if let template {
      require(namesIn: template)
      return Vocabulary.fill(template, operands)
    }
    let arguments = zip(use.operands, operands).filter { if case .literal = $0.0 { false } else { true } }.map(\.1)
    let call = "\(bridge.function(use))(\(arguments.joined(separator: ", ")))"
    return use.result == .mask ? "unsafeBitCast(\(call), to: Mask.self)" : call
  }

  // MARK: Functions and statements

  mutating func function(_ kernel: KernelFunction) -> String {
    arrays = 0
    let parameters = kernel.parameters.map { parameter -> String in
      switch parameter {
      case .pointer(let pointer): "_ \(name(pointer.name)): \(SwiftRenderer.pointerType(pointer))"
      case .symbol(let symbol): "_ \(name(symbol)): Int"
      }
    }
    let list = ["_ t: UnsafePointer<mcc_thread>"] + parameters
    return kernel.comment.map { $0.isEmpty ? "///\n" : "/// \($0)\n" }.joined()
      + "@_cdecl(\"\(kernel.name)\") @inline(never)\n"
      + CRenderer.wrapped("public func \(kernel.name)(", list) + " {\n" + block(kernel.body, indent: "  ") + "}\n"
  }

  private mutating func block(_ statements: [Statement], indent: String) -> String {
    var text = ""
    for statement in statements { text += self.statement(statement, indent: indent) }
    return text
  }

  private func swiftType(_ type: ValueType) -> String {
    switch type {
    case .scalar(let scalar): SwiftRenderer.swiftType(scalar)
    case .vector(.f32): vocabulary.f32
    case .vector(.i32): vocabulary.i32
    case .mask: vocabulary.mask
    case .condition: "Bool"
    }
  }

  private mutating func statement(_ statement: Statement, indent: String) -> String {
    let inner = indent + "  "
    switch statement {
    case .comment(let text): return "\(indent)// \(text)\n"
    case .declare(let variable, let value, let isMutable):
      let word = isMutable ? "var" : "let"
      return "\(indent)\(word) \(name(variable)): \(swiftType(value.type)) = \(expression(value))\n"
    case .assign(let variable, _, let value): return "\(indent)\(name(variable)) = \(expression(value))\n"
    case .array(let pointer, let count):
      let memory = bridge.array(arrays, bytes: count * pointer.element.byteCount)
      arrays += 1
      return "\(indent)let \(name(pointer.name)) = \(memory)()"
        + ".assumingMemoryBound(to: \(SwiftRenderer.swiftType(pointer.element)).self)\n"
    case .derive(let pointer, let base, let offset):
      let address = "\(name(base.name)) + \(expression(offset, precedence: 15))"
      if pointer.element == base.element { return "\(indent)let \(name(pointer.name)) = \(address)\n" }
      return "\(indent)let \(name(pointer.name)) = Unsafe\(pointer.isMutable ? "Mutable" : "")RawPointer(\(address))"
        + ".assumingMemoryBound(to: \(SwiftRenderer.swiftType(pointer.element)).self)\n"
    case .store(let pointer, let index, let value, let count):
      return indent + store(pointer, index, value, count) + "\n"
    case .loop(let variable, let from, let to, let step, let body):
      let name = name(variable)
      return "\(indent)do {\n\(inner)var \(name): Int = \(expression(from))\n"
        + "\(inner)while \(name) < \(expression(to, precedence: 6)) {\n" + block(body, indent: inner + "  ")
        + "\(inner)  \(name) += \(step)\n\(inner)}\n\(indent)}\n"
    case .condition(let condition, let then, let otherwise):
      var text = "\(indent)if \(truth(condition)) {\n" + block(then, indent: inner) + "\(indent)}"
      if !otherwise.isEmpty { text += " else {\n" + block(otherwise, indent: inner) + "\(indent)}" }
      return text + "\n"
    case .prefetch(let pointer, let index):
      return "\(indent)mcc_prefetch(\(name(pointer.name)) + \(expression(index, precedence: 15)))\n"
    case .partition(let begin, let end, let units):
      let range = "\(begin)_\(end)"
      return "\(indent)let \(range) = mcc_partition(t, Int64(\(expression(units))))\n"
        + "\(indent)let \(name(begin)) = Int(\(range).begin), \(name(end)) = Int(\(range).end)\n"
    case .share(let unit, let units, let body):
      let work = "\(unit)_work"
      return "\(indent)var \(work) = mcc_share(t, Int64(\(expression(units))))\n"
        + "\(indent)while mcc_next(t, &\(work)) {\n\(inner)let \(name(unit)) = Int(\(work).unit)\n"
        + block(body, indent: inner) + "\(indent)}\n"
    case .meet: return "\(indent)mcc_meet(t)\n"
    }
  }

  private mutating func store(_ pointer: Pointer, _ index: Expression, _ value: Expression, _ count: Expression?)
    -> String
  {
    let use = VerbUse(storing: value, at: pointer, index, count: count)
    if let use, use.result == nil { return verb(use) }
    let place = "\(name(pointer.name))[\(expression(index))]"
    if let use { return "\(place) = \(verb(use))" }
    if value.type == .condition { return "\(place) = \(expression(value, precedence: 2)) ? 1 : 0" }
    return "\(place) = \(converted(value, to: pointer.element))"
  }

  private static let keywords: Set<String> = [
    "as", "break", "case", "catch", "class", "continue", "default", "defer", "deinit", "do", "else", "enum",
    "extension",
    "fallthrough", "false", "for", "func", "guard", "if", "import", "in", "init", "inout", "internal", "is", "let",
    "nil",
    "operator", "precedencegroup", "private", "protocol", "public", "repeat", "rethrows", "return", "self", "static",
    "struct", "subscript", "super", "switch", "throw", "throws", "true", "try", "typealias", "var", "where", "while",
  ]

  /// A name as Swift takes it.
  private func name(_ name: String) -> String { Self.keywords.contains(name) ? "`\(name)`" : name }

  // MARK: Expressions

  /// The Swift text of an expression, in parentheses if it binds less than `precedence`: 1 ternary, 2 or, 3 and,
  /// 4 comparison, 6 addition, 7 multiplication, 8 shift, 14 prefix, 15 primary.
  private mutating func expression(_ value: Expression, precedence: Int = 0) -> String {
    let (text, own) = render(value)
    return own < precedence ? "(\(text))" : text
  }

  private mutating func truth(_ value: Expression) -> String {
    value.type == .condition ? expression(value) : "\(expression(value, precedence: 5)) != 0"
  }

  private func literal(_ value: Float) -> String {
    if value.isNaN { return "Float.nan" }
    if value.isInfinite { return value < 0 ? "-Float.infinity" : "Float.infinity" }
    return "\(value)"
  }

  private mutating func render(_ value: Expression) -> (String, Int) {
    if let use = VerbUse(value) { return (verb(use), 15) }
    switch value {
    case .integer(let value): return ("\(value)", value < 0 ? 14 : 15)
    case .real(let value): return (literal(value), value < 0 ? 14 : 15)
    case .variable(let variable, _): return (name(variable), 15)
    case .element(let pointer, let index): return ("\(name(pointer.name))[\(expression(index))]", 15)
    case .unary(let operation, let operand): return unary(operation, operand)
    case .binary(let operation, let left, let right): return binary(operation, left, right)
    case .compare(let comparison, let a, let b):
      return ("\(expression(a, precedence: 5)) \(Self.symbols[comparison] ?? "<") \(expression(b, precedence: 5))", 4)
    case .select(let condition, let a, let b):
      let test = condition.type == .condition ? expression(condition, precedence: 2) : "(\(truth(condition)))"
      return ("\(test) ? \(expression(a, precedence: 2)) : \(expression(b, precedence: 2))", 1)
    case .convert(let operand, let type): return (converted(operand, to: type), 15)
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

  /// The receiver of a method on f32.
  private mutating func scalar(_ value: Expression) -> String {
    if case .real = value { return "Float(\(expression(value)))" }
    return expression(value, precedence: 15)
  }

  /// The C conversion of a scalar.
  private mutating func converted(_ value: Expression, to type: ScalarType) -> String {
    let name = SwiftRenderer.swiftType(type)
    switch value.type {
    case .scalar(type) where type != .f16 && type != .bf16: return expression(value)
    case .condition: return "\(name)(\(expression(value, precedence: 2)) ? 1 : 0)"
    case .scalar(let from) where !from.isFloat && !type.isFloat:
      return "\(name)(truncatingIfNeeded: \(expression(value)))"
    default: return "\(name)(\(expression(value)))"
    }
  }

  private static let symbols: [Comparison: String] = [
    .less: "<", .lessEqual: "<=", .greater: ">", .greaterEqual: ">=", .equal: "==", .notEqual: "!=",
  ]

  private mutating func unary(_ operation: UnaryOperation, _ operand: Expression) -> (String, Int) {
    switch operation {
    case .negate: return ("-\(expression(operand, precedence: 15))", 14)
    case .not: return ("!\(expression(operand, precedence: 15))", 14)
    case .absolute: return ("\(scalar(operand)).magnitude", 15)
    case .squareRoot: return ("\(scalar(operand)).squareRoot()", 15)
    case .floor: return ("floorf(\(expression(operand)))", 15)
    case .round: return ("rintf(\(expression(operand)))", 15)
    }
  }

  /// Operations on i32 wrap around; those on indices never overflow.
  private mutating func binary(_ operation: BinaryOperation, _ left: Expression, _ right: Expression) -> (String, Int) {
    let wraps = left.type == .scalar(.i32) ? "&" : ""
    func infix(_ symbol: String, _ own: Int, operands: Int? = nil) -> (String, Int) {
      let a = expression(left, precedence: operands ?? own), b = expression(right, precedence: operands ?? own + 1)
      return ("\(a) \(symbol) \(b)", own)
    }
    let isCondition = left.type == .condition
    switch operation {
    case .add:
      if case .integer(let value) = right, value < 0 { return ("\(expression(left, precedence: 6)) - \(-value)", 6) }
      return infix(wraps + "+", 6)
    case .subtract: return infix(wraps + "-", 6)
    case .multiply: return infix(wraps + "*", 7)
    case .divide: return infix("/", 7)
    case .remainder: return infix("%", 7)
    case .and: return isCondition ? infix("&&", 3, operands: 4) : infix("&", 7, operands: 15)
    case .or: return isCondition ? infix("||", 2, operands: 4) : infix("|", 6, operands: 15)
    case .exclusiveOr: return infix("^", 6, operands: 15)
    case .shiftLeft: return infix("&<<", 8, operands: 15)
    case .shiftRight, .shiftRightArithmetic: return infix("&>>", 8, operands: 15)
    case .minimum, .maximum:
      let a = expression(left, precedence: 5), b = expression(right, precedence: 5)
      return ("\(a) \(operation == .minimum ? "<" : ">") \(b) ? \(a) : \(b)", 1)
    }
  }
}
