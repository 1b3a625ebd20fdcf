/// Collects the statements of one kernel. Kernels are Swift functions over a builder: Swift loops unroll, `loop` makes a
/// loop of the generated program.
package final class KernelBuilder {
  package let name: String
  /// Lines of the doc comment of the kernel.
  package var comment: [String] = []
  /// f32 lanes of one vector of the target.
  package let lanes: Int
  package let target: Target
  /// What the kernel mostly reads, if units of `share` follow each other in it.
  package var stream: WeightStream?
  private var parameters: [Parameter] = []
  private var blocks: [[Statement]] = [[]]
  private var names: [String: Int] = [:]

  /// Begins a kernel of a C name for a target.
  package init(_ name: String, target: Target, comment: [String] = []) {
    self.name = name
    self.target = target
    self.lanes = target.lanes
    self.comment = comment
    for reserved in ["t", "part", "int", "long", "float", "double", "if", "for", "else", "do", "auto", "union"] {
      names[reserved] = 1
    }
  }

  /// The finished kernel.
  package func finish() -> KernelFunction {
    precondition(blocks.count == 1, "a block of \(name) is still open")
    return KernelFunction(name: name, comment: comment, parameters: parameters, body: blocks[0], stream: stream)
  }

  /// The name itself, or with a number appended if it is taken.
  package func unique(_ name: String) -> String {
    let count = names[name, default: 0]
    names[name] = count + 1
    if count == 0 { return name }
    return unique("\(name)_\(count)")
  }

  package func append(_ statement: Statement) { blocks[blocks.count - 1].append(statement) }

  // MARK: Parameters

  package func input(_ name: String, _ element: ScalarType) -> Pointer {
    let pointer = Pointer(unique(name), element)
    parameters.append(.pointer(pointer))
    return pointer
  }

  package func output(_ name: String, _ element: ScalarType) -> Pointer {
    let pointer = Pointer(unique(name), element, isMutable: true)
    parameters.append(.pointer(pointer))
    return pointer
  }

  package func symbol(_ name: String) -> Expression {
    let name = unique(name)
    parameters.append(.symbol(name))
    return .variable(name, .index)
  }

  /// A symbol parameter that was added before.
  package func existingSymbol(_ name: String) -> Expression? {
    parameters.contains(.symbol(name)) ? .variable(name, .index) : nil
  }

  // MARK: Statements

  package func comment(_ text: String) { append(.comment(text)) }

  /// Names a value. Literals and variables are returned as they are.
  package func define(_ name: String, _ value: Expression) -> Expression {
    switch value {
    case .integer, .real, .variable: return value
    default:
      let name = unique(name)
      append(.declare(name, value, isMutable: false))
      return .variable(name, value.type)
    }
  }

  /// A variable that may be assigned again.
  package func variable(_ name: String, _ initial: Expression) -> Expression {
    let name = unique(name)
    append(.declare(name, initial, isMutable: true))
    return .variable(name, initial.type)
  }

  package func assign(_ variable: Expression, _ value: Expression) {
    guard case .variable(let name, let type) = variable else { preconditionFailure("only variables are assigned") }
    let value = value.adapted(to: type)
    precondition(value.type == type, "\(name) is \(type), assigned \(value.type)")
    append(.assign(name, type, value))
  }

  package func array(_ name: String, _ element: ScalarType, count: Int) -> Pointer {
    let pointer = Pointer(unique(name), element, isMutable: true)
    append(.array(pointer, count: count))
    return pointer
  }

  /// A pointer `offset` elements (of the base's type) behind `base`, optionally seen as another element type.
  package func pointer(_ name: String, _ base: Pointer, offset: Expression, as element: ScalarType? = nil) -> Pointer {
    let pointer = Pointer(unique(name), element ?? base.element, isMutable: base.isMutable)
    append(.derive(pointer, from: base, offset: offset))
    return pointer
  }

  package func store(_ pointer: Pointer, _ index: Expression, _ value: Expression, count: Expression? = nil) {
    precondition(pointer.isMutable, "\(pointer.name) is read-only")
    append(.store(pointer, index, value, count: count))
  }

  package func prefetch(_ pointer: Pointer, _ index: Expression) { append(.prefetch(pointer, index)) }

  /// The statements that `body` appends.
  package func block(_ body: () -> Void) -> [Statement] {
    blocks.append([])
    let outer = names
    body()
    names = outer
    return blocks.removeLast()
  }

  package func loop(
    _ name: String, from: Expression = 0, to: Expression, step: Int = 1, _ body: (Expression) -> Void
  ) {
    if let a = from.constant, let b = to.constant, b <= a + step {
      if a < b { body(from) }
      return
    }
    var variable = name
    let statements = block {
      variable = unique(name)
      body(.variable(variable, .index))
    }
    append(.loop(variable, from: from, to: to, step: step, statements))
  }

  /// A loop over 0..<count by whole vectors with a masked tail: the body gets the index and nil, or for the tail the index
  /// and the number of elements left (1..<lanes). A literal count leaves out what is never needed.
  package func vectorLoop(_ name: String, count: Expression, _ body: (Expression, Expression?) -> Void) {
    if let n = count.constant {
      let full = n / lanes * lanes
      loop(name, to: .integer(full), step: lanes) { body($0, nil) }
      if full < n { body(.integer(full), .integer(n - full)) }
      return
    }
    let full = define("full", count / .integer(lanes) * .integer(lanes))
    loop(name, to: full, step: lanes) { body($0, nil) }
    condition(full < count) { body(full, count - full) }
  }

  package func condition(_ condition: Expression, then: () -> Void, otherwise: (() -> Void)? = nil) {
    let then = block(then)
    let otherwise = otherwise.map { block($0) } ?? []
    append(.condition(condition, then, otherwise))
  }

  /// The calling thread's contiguous share of 0..<units; `body` receives begin and end.
  package func partition(_ units: Expression) -> (begin: Expression, end: Expression) {
    let begin = unique("begin"), end = unique("end")
    append(.partition(begin: begin, end: end, units: units))
    return (.variable(begin, .index), .variable(end, .index))
  }

  /// Runs the body for units of 0..<units, which threads take one by one: those of their own share first. For units of a
  /// microsecond and more, where threads would wait for the slowest one.
  package func share(_ name: String, of units: Expression, _ body: (Expression) -> Void) {
    var variable = name
    let statements = block {
      variable = unique(name)
      body(.variable(variable, .index))
    }
    append(.share(variable, units: units, statements))
  }

  /// Waits until all threads are here. For kernels whose steps need what other threads computed in the step before.
  package func meet() { append(.meet) }
}
