import Base
import IR
import Tensors

/// Writes one function of a scheduled model.
struct FunctionEmitter {
  private let function: Schedule.Function
  private let schedule: Schedule
  private let table: WeightTable
  /// For each buffer the one whose C variable stands for it.
  private var variable: [Int]
  private var names: [String]
  private var identifiers: Identifiers
  private let symbolNames: [String: String]
  /// What the names of the C function and of its tables begin with.
  private let prefix: String

  init(_ function: Schedule.Function, _ schedule: Schedule, _ table: WeightTable, _ targets: [Target]) {
    self.function = function
    self.schedule = schedule
    self.table = table
    variable = Array(function.buffers.indices)
    var reserved: Set<String> = ["t", "w", "weights", "arena", "symbols", "l", "layer", "mcc_model", "functions"]
    reserved.formUnion(schedule.functions.map { Self.prefix($0, targets) })
    prefix = Self.prefix(function, targets)
    identifiers = Identifiers(reserved: reserved)
    var symbolNames: [String: String] = [:]
    for symbol in function.symbols { symbolNames[symbol.name] = identifiers.unique(symbol.name) }
    self.symbolNames = symbolNames
    names = []
    uniteLoops()
    names = function.buffers.map { _ in "" }
    for index in function.buffers.indices where variable[index] == index {
      names[index] = identifiers.unique(bufferName(index))
    }
  }

  /// Buffers that take one another's part in the rounds of a loop have one variable.
  private mutating func uniteLoops() {
    func root(_ buffer: Int) -> Int {
      var buffer = buffer
      while variable[buffer] != buffer { buffer = variable[buffer] }
      return buffer
    }
    for loop in function.loops {
      for step in loop.start..<loop.start + loop.period {
        for argument in function.steps[step].arguments.indices {
          for round in 0..<loop.count {
            guard case .buffer(let first, _) = function.steps[step].arguments[argument],
              case .buffer(let other, _) = function.steps[step + round * loop.period].arguments[argument]
            else { continue }
            let (a, b) = (root(first), root(other))
            if a != b { variable[max(a, b)] = min(a, b) }
          }
        }
      }
    }
    for index in variable.indices { variable[index] = root(index) }
  }

  /// A name for the buffers that one variable stands for: their own if it says more than an operator, else that of the
  /// place in the model they come from.
  private func bufferName(_ index: Int) -> String {
    let all = variable.indices.filter { variable[$0] == index }.map { function.buffers[$0] }
    if let named = all.first(where: { $0.role != .temporary || !Identifiers.isGeneric($0.name) }) {
      let name = Identifiers.short(named.name)
      return all.count > 1 ? Identifiers.withoutNumbers(name) : name
    }
    let origins = all.compactMap { $0.origin?.text }
    let operation = Identifiers.withoutNumbers(all[0].name)
    guard origins.count == all.count, let first = origins.first else { return operation }
    let place = Set(origins).count > 1 ? Identifiers.common(origins).member : Identifiers.short(first)
    // A place with several buffers, such as an attention block, tells them apart by what computes them.
    let isShared = function.buffers.indices.contains {
      variable[$0] != index && function.buffers[$0].origin?.text == first
        && Identifiers.isGeneric(function.buffers[$0].name)
    }
    return isShared ? place + "_" + operation : place
  }

  // MARK: The function

  func source() -> String {
    var text = "/* "
    let list = { (entries: [(name: String, buffer: Int)]) in
      entries.map { "\(ModelEmitter.comment($0.name)): \(function.buffers[$0.buffer].type)" }.joined(separator: ", ")
    }
    text += "\(list(function.inputs)) -> \(list(function.outputs)) */\n"
    text += ModelEmitter.wrapped(
      "static void \(prefix)(",
      ["mcc_thread *t", "const uint8_t *weights", "uint8_t *arena", "const int64_t *symbols"], ") {\n")
    if usesWeights {
      text += "  const model_weights w = find_weights(weights);\n"
    } else {
      text += "  (void)weights;\n"
    }
    let used = usedSymbols
    for (index, symbol) in function.symbols.enumerated() where used.contains(symbol.name) {
      text += "  const int64_t \(symbolNames[symbol.name] ?? symbol.name) = symbols[\(index)];\n"
    }
    if used.isEmpty { text += "  (void)symbols;\n" }
    if function.steps.isEmpty { text += "  (void)t, (void)arena;\n" }
    text += "\n"
    for (index, buffer) in function.buffers.enumerated() where variable[index] == index && isUsed(index) {
      let type = Self.cType(buffer.type)
      let declaration = "  \(type) *\(names[index]) = \(Self.cast(type, "arena + \(buffer.offset)"));"
      let padding = String(repeating: " ", count: max(1, 60 - declaration.count))
      text += declaration + padding + "/* \(ModelEmitter.describe(buffer.type)) */\n"
    }
    for state in outsideStates {
      let type = Self.cType(schedule.states[state].type)
      let declaration =
        "  \(type) *\(stateName(state)) = \(Self.cast(type, "arena + \(schedule.states[state].offset)"));"
      let padding = String(repeating: " ", count: max(1, 60 - declaration.count))
      text += declaration + padding + "/* \(schedule.states[state].type), kept */\n"
    }
    text += "\n"
    var index = 0
    while index < function.steps.count {
      if let loop = function.loops.first(where: { $0.start == index }) {
        text += self.loop(loop)
        index = loop.steps.upperBound
      } else {
        text += call(index, indent: "  ", loop: nil)
        index += 1
      }
    }
    return text + "}\n\n"
  }

  private var usesWeights: Bool {
    function.steps.contains { $0.arguments.contains { if case .weight = $0 { true } else { false } } }
  }

  private var usedSymbols: Set<String> {
    var used: Set<String> = []
    for step in function.steps {
      for argument in step.arguments {
        switch argument {
        case .size(let dim), .buffer(_, let dim), .state(_, let dim): used.formUnion(dim.symbols.map(\.name))
        case .weight: continue
        }
      }
    }
    return used
  }

  private func isUsed(_ buffer: Int) -> Bool {
    function.steps.contains { step in
      step.arguments.contains { if case .buffer(let other, _) = $0 { variable[other] == buffer } else { false } }
    }
  }

  // MARK: States

  /// States that are used outside of loops, or by every round of one.
  private var outsideStates: [Int] {
    var states: Set<Int> = []
    for (index, step) in function.steps.enumerated() {
      let loop = function.loops.first { $0.steps.contains(index) }
      for (position, argument) in step.arguments.enumerated() {
        guard case .state(let state, _) = argument else { continue }
        if let loop {
          if Set(statesOfRounds(loop, index, position)).count == 1 { states.insert(state) }
        } else {
          states.insert(state)
        }
      }
    }
    return states.sorted()
  }

  private func stateName(_ state: Int) -> String { "state_" + Identifiers.sanitized(schedule.states[state].name) }

  private func statesOfRounds(_ loop: Schedule.Loop, _ step: Int, _ argument: Int) -> [Int] {
    (0..<loop.count).compactMap { round in
      let step = function.steps[loop.start + round * loop.period + (step - loop.start) % loop.period]
      if case .state(let state, _) = step.arguments[argument] { return state }
      return nil
    }
  }

  // MARK: Loops and calls

  private func loop(_ loop: Schedule.Loop) -> String {
    var rows: [String] = []
    var states: [[Int]] = []
    for step in loop.start..<loop.start + loop.period {
      for (position, argument) in function.steps[step].arguments.enumerated() {
        switch argument {
        case .weight:
          let weights = WeightTable.weights(function, loop, step: step, argument: position)
          if Set(weights).count > 1, let row = table.member(weights)?.row.name, !rows.contains(row) { rows.append(row) }
        case .state:
          let rounds = statesOfRounds(loop, step, position)
          if Set(rounds).count > 1, !states.contains(rounds) { states.append(rounds) }
        case .buffer, .size: continue
        }
      }
    }
    var text = "\n"
    var setup = ""
    for row in rows {
      guard let type = table.rows.first(where: { $0.name == row })?.type else { continue }
      setup += "    const \(type) *\(layerName(row, rows)) = &w.\(row)[l];\n"
    }
    for rounds in states {
      let type = schedule.states[rounds[0]].type
      let offsets = rounds.map { schedule.states[$0].offset }
      let stride = offsets[1] - offsets[0]
      let isRegular = zip(offsets, offsets.dropFirst()).allSatisfy { $1 - $0 == stride }
      let name = roundStateName(rounds, among: states)
      if !isRegular {
        text += ModelEmitter.wrapped("  static const int64_t \(name)_offsets[] = {", offsets.map(String.init), "};\n")
      }
      let place =
        isRegular
        ? "arena + " + (offsets[0] == 0 ? "" : "\(offsets[0]) + ") + "l * (int64_t)\(stride)"
        : "arena + \(name)_offsets[l]"
      let declaration = "    \(Self.cType(type)) *\(name) = \(Self.cast(Self.cType(type), place));"
      setup += declaration + " /* \(type), kept */\n"
    }
    text += "  for (int l = 0; l < \(loop.count); l++) {\n" + setup
    for step in loop.start..<loop.start + loop.period {
      text += call(step, indent: "    ", loop: (loop, rows, states))
    }
    return text + "  }\n\n"
  }

  private func layerName(_ row: String, _ rows: [String]) -> String {
    rows.count == 1 ? "layer" : "layer_" + row
  }

  /// The name of what is another state in each round; those whose states are called alike (`k0`, `k2` and `k1`, `k3`) are
  /// numbered.
  private func roundStateName(_ rounds: [Int], among all: [[Int]]) -> String {
    func common(_ rounds: [Int]) -> String {
      "state_" + Identifiers.sanitized(Identifiers.common(rounds.map { schedule.states[$0].name }).member)
    }
    let name = common(rounds)
    let alike = all.filter { common($0) == name }
    guard alike.count > 1, let place = alike.firstIndex(of: rounds) else { return name }
    return "\(name)_\(place)"
  }

  /// A loop over layers: the rows of the weight table that it walks, and what are other states in each round.
  private typealias EmittedLoop = (loop: Schedule.Loop, rows: [String], states: [[Int]])

  private func call(_ index: Int, indent: String, loop: EmittedLoop?) -> String {
    let step = function.steps[index]
    let kernel = schedule.kernels[step.kernel]
    var arguments: [String] = ["t"]
    for (position, argument) in step.arguments.enumerated() {
      var pointer: Pointer?
      if case .pointer(let parameter) = kernel.parameters[position] { pointer = parameter }
      switch argument {
      case .size(let dim): arguments.append(expression(dim))
      case .weight(let weight):
        arguments.append(self.weight(weight, step: index, position, to: pointer, loop: loop))
      case .state(let state, let offset):
        var name = stateName(state)
        if let loop {
          let rounds = statesOfRounds(loop.loop, index, position)
          if Set(rounds).count > 1 { name = roundStateName(rounds, among: loop.states) }
        }
        arguments.append(cast(name, Self.element(schedule.states[state].type), to: pointer, dim: offset))
      case .buffer(let buffer, let offset):
        let buffer = variable[buffer]
        arguments.append(
          cast(names[buffer], Self.element(function.buffers[buffer].type), to: pointer, dim: offset))
      }
    }
    let barrier = step.barrier ? self.barrier(before: index, indent: indent, loop: loop) : ""
    let number = loop.map { $0.loop.period > 1 ? "\(index) + \($0.loop.period) * l" : "\(index) + l" } ?? "\(index)"
    return barrier + ModelEmitter.wrapped("\(indent)\(kernel.name)(", arguments, ");\n")
      + "\(indent)mcc_mark(t, \(number));\n"
  }

  /// A weight as an argument of a step.
  private func weight(
    _ weight: Int, step: Int, _ position: Int, to pointer: Pointer?, loop: EmittedLoop?
  ) -> String {
    let weights = loop.map { WeightTable.weights(function, $0.loop, step: step, argument: position) } ?? []
    if let loop, Set(weights).count > 1, let (row, member) = table.member(weights) {
      return cast("\(layerName(row.name, loop.rows))->\(member)", table.elements[weight], to: pointer, dim: 0)
    }
    return cast("w.\(table.single(weight))", table.elements[weight], to: pointer, dim: 0)
  }

  /// The barrier before a step, at which waiting threads ask for the weights of the next step that streams some.
  private func barrier(before index: Int, indent: String, loop: EmittedLoop?) -> String {
    let end =
      loop.map { $0.loop.start + $0.loop.period }
      ?? function.loops.map(\.start).filter { $0 > index }.min() ?? function.steps.count
    for next in index..<end {
      let kernel = schedule.kernels[function.steps[next].kernel]
      guard let stream = kernel.stream, let position = kernel.parameters.firstIndex(where: { $0.name == stream.name })
      else { continue }
      guard case .weight(let weight) = function.steps[next].arguments[position] else { break }
      let start = self.weight(weight, step: next, position, to: Pointer("start", .u8), loop: loop)
      return ModelEmitter.wrapped(
        "\(indent)mcc_barrier_ahead(", ["t", start, "\(stream.units)", "\(stream.unitBytes)"], ");\n")
    }
    return "\(indent)mcc_barrier(t);\n"
  }

  /// A pointer moved by `dim` bytes, as the type of the parameter.
  private func cast(_ name: String, _ element: ScalarType, to parameter: Pointer?, dim: Dim) -> String {
    var text = name
    if dim != 0 {
      let size = element.byteCount
      let divides = dim.offset % size == 0 && dim.terms.allSatisfy { $0.coefficient % size == 0 }
      text =
        divides
        ? "\(name) + \(factor(dim / size))"
        : "(\(CRenderer.cType(element)) *)((uint8_t *)\(name) + \(factor(dim)))"
    }
    guard let parameter, CRenderer.cType(parameter.element) != CRenderer.cType(element) else { return text }
    let type = CRenderer.cType(parameter.element)
    return "(\(parameter.isMutable ? "" : "const ")\(type) *)\(text == name ? text : "(\(text))")"
  }

  // MARK: Sizes

  /// A size in C as an operand of an addition.
  private func factor(_ dim: Dim) -> String {
    let text = expression(dim)
    return text.hasPrefix("(") || dim.terms.count + (dim.offset == 0 ? 0 : 1) < 2 ? text : "(\(text))"
  }

  /// A size in C.
  private func expression(_ dim: Dim) -> String {
    Self.expression(dim) { symbolNames[$0.name] ?? $0.name }
  }

  static func expression(_ dim: Dim, _ name: (Symbol) -> String) -> String {
    // What the terms have in common is written once: (T - L) * 64.
    let numbers = dim.terms.map(\.coefficient) + (dim.offset == 0 ? [] : [dim.offset])
    let divisor = numbers.reduce(0) { gcd($0, $1) }
    if numbers.count > 1, divisor > 1 { return "(\(expression(dim / divisor, name))) * \(divisor)" }
    var text = ""
    for term in dim.terms.filter({ $0.coefficient > 0 }) + dim.terms.filter({ $0.coefficient <= 0 }) {
      let atom = expression(term.atom, name)
      let magnitude = term.coefficient.magnitude
      let needsParentheses = magnitude != 1 && atom.contains("/")
      let product = magnitude == 1 ? atom : (needsParentheses ? "(\(atom))" : atom) + " * \(magnitude)"
      if text.isEmpty {
        text = term.coefficient < 0 ? "-\(product)" : product
      } else {
        text += (term.coefficient < 0 ? " - " : " + ") + product
      }
    }
    if text.isEmpty { return "\(dim.offset)" }
    if dim.offset != 0 { text += dim.offset < 0 ? " - \(-dim.offset)" : " + \(dim.offset)" }
    return text
  }

  private static func expression(_ atom: Dim.Atom, _ name: (Symbol) -> String) -> String {
    switch atom {
    case .symbol(let symbol): name(symbol)
    case .quotient(let inner, let divisor): "(\(expression(inner, name))) / \(divisor)"
    case .product(let factors):
      factors.map { factor in
        let text = expression(factor, name)
        return text.contains("/") ? "(\(text))" : text
      }.joined(separator: " * ")
    }
  }

  private static func gcd(_ a: Int, _ b: Int) -> Int {
    var (a, b) = (abs(a), abs(b))
    while b != 0 { (a, b) = (b, a % b) }
    return a
  }

  // MARK: Types

  /// The element type in memory.
  static func element(_ type: TensorType) -> ScalarType {
    guard type.isDense else { return .u8 }
    switch type.element {
    case .f64: return .f64
    case .f32: return .f32
    case .f16: return .f16
    case .bf16: return .bf16
    case .i64: return .i64
    case .i32: return .i32
    case .i16: return .i16
    case .i8: return .i8
    case .u8, .bool, .f8e4m3, .f8e5m2: return .u8
    }
  }

  static func cType(_ type: TensorType) -> String { CRenderer.cType(element(type)) }

  private static func cast(_ type: String, _ place: String) -> String {
    type == "uint8_t" ? place : "(\(type) *)(\(place))"
  }

  // MARK: Descriptors

  /// `decode`; with several targets `decode_avx2`.
  private static func prefix(_ function: Schedule.Function, _ targets: [Target]) -> String {
    let role = function.role == "main" ? "forward" : Identifiers.sanitized(function.role)
    return targets.count == 1 ? role : role + "_" + targets[function.level].suffix
  }

  /// The tables of symbols, inputs and outputs.
  func descriptor() throws -> String {
    var text = ""
    var extents = ""
    func table(_ kind: String, _ entries: [(name: String, buffer: Int)]) throws -> String {
      var text = "static const mcc_tensor \(prefix)_\(kind)[] = {\n"
      for (name, buffer) in entries {
        let buffer = function.buffers[buffer]
        guard ![.f8e4m3, .f8e5m2].contains(buffer.type.element) else {
          throw CompileError(
            .unsupported, "'\(name)' has elements of type \(buffer.type.element.rawValue), which no .npy file holds")
        }
        guard buffer.type.rank <= 8 else {
          throw CompileError(.unsupported, "'\(name)' of type \(buffer.type) has more than 8 axes")
        }
        let dims = buffer.type.shape.dims.enumerated().map { axis, dim -> String in
          if let value = dim.fixedValue { return "{.offset = \(value)}" }
          if dim.terms.count == 1, case .symbol(let symbol) = dim.terms[0].atom,
            let index = function.symbols.firstIndex(where: { $0.name == symbol.name })
          {
            let offset = dim.offset == 0 ? "" : ".offset = \(dim.offset), "
            return "{\(offset).multiplier = \(dim.terms[0].coefficient), .symbol = \(index)}"
          }
          let extent = "\(prefix)_\(Identifiers.sanitized(name))_extent_\(axis)"
          let value = Self.expression(dim) { symbol in
            "symbols[\(function.symbols.firstIndex { $0.name == symbol.name } ?? 0)]"
          }
          extents += "static int64_t \(extent)(const int64_t *symbols) {\n  return \(value);\n}\n\n"
          return "{.extent = \(extent)}"
        }
        let type = "MCC_" + buffer.type.element.rawValue.uppercased()
        text += ModelEmitter.wrapped(
          "    {",
          [ModelEmitter.quoted(name), type, "\(buffer.type.rank)"] + [
            dims.isEmpty ? "{{0}}" : "{" + dims.joined(separator: ", ") + "}", "\(buffer.offset)",
          ],
          "},\n")
      }
      return text + "};\n"
    }
    if !function.symbols.isEmpty {
      text += "static const mcc_symbol \(prefix)_symbols[] = {\n"
      for symbol in function.symbols {
        text += "    {\(ModelEmitter.quoted(symbol.name)), \(symbol.minimum), \(symbol.maximum)},\n"
      }
      text += "};\n"
    }
    if !function.inputs.isEmpty { text += try table("inputs", function.inputs) }
    if !function.outputs.isEmpty { text += try table("outputs", function.outputs) }
    return extents + text + "\n"
  }

  /// The function's entry in the table of functions.
  func entry() -> String {
    let symbols = function.symbols.isEmpty ? "NULL" : "\(prefix)_symbols"
    let inputs = function.inputs.isEmpty ? "NULL" : "\(prefix)_inputs"
    let outputs = function.outputs.isEmpty ? "NULL" : "\(prefix)_outputs"
    return ModelEmitter.wrapped(
      "    {",
      [
        ModelEmitter.quoted(function.role), "\(function.symbols.count)", "\(function.inputs.count)",
        "\(function.outputs.count)", symbols, inputs, outputs, prefix, "\(function.steps.count)",
        "\(function.level)",
      ], "},\n")
  }
}
