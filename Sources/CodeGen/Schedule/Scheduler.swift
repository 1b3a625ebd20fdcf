import Base
import IR
import Tensors

/// Turns a lowered model into steps and places.
package struct Scheduler {
  private let levels: KernelLevels
  private var schedule = Schedule()
  private var constants = ConstantTable()
  private var kernelNumbers: [String: Int] = [:]
  private var recipes = RecipeTable()
  private var weightNumbers: [Int: Int] = [:]
  private var stateNumbers: [String: Int] = [:]
  private var inputPlaces: [String: (size: Int, offset: Int)] = [:]

  /// A scheduler that asks the targets for the functions of the kernels by name.
  package init(_ levels: KernelLevels) { self.levels = levels }

  /// The schedule of a lowered model.
  package func schedule(_ model: Model) throws -> Schedule {
    guard model.stage == .lower else {
      throw CompileError(
        .internal, "a model of the stage '\(model.stage.rawValue)' is scheduled, expected one of the stage 'lower'")
    }
    var copy = self
    return try copy.run(model)
  }

  private mutating func run(_ model: Model) throws -> Schedule {
    constants = model.constants
    try placeStates(model)
    for graph in model.functions {
      for input in graph.inputs {
        let name = graph[input].name
        let size = graph.type(of: input).maximumByteCount.aligned(to: 64)
        inputPlaces[name] = (max(inputPlaces[name]?.size ?? 0, size), 0)
      }
    }
    var next = schedule.stateBytes
    for name in inputPlaces.keys.sorted() {
      guard let size = inputPlaces[name]?.size else { continue }
      inputPlaces[name] = (size, next)
      next += size
    }
    for index in model.functions.indices {
      let function = try self.function(model.functions[index], index, temporaries: next)
      schedule.functions.append(function)
    }
    schedule.arenaBytes = next + (schedule.functions.map(\.temporaryBytes).max() ?? 0)
    return schedule
  }

  private mutating func placeStates(_ model: Model) throws {
    let caches = model.functions.first { $0.role == "decode" }.map { [$0] } ?? model.functions
    let growing = caches.reduce(into: Set<String>()) { $0.formUnion($1.caches) }
    for graph in model.functions {
      for state in graph.states {
        let name = graph[state.value].name, type = graph.type(of: state.value)
        guard let bytes = type.byteCount else {
          throw CompileError(.unsupported, "state '%\(name)' of type \(type) has no fixed size")
        }
        if let known = stateNumbers[name] {
          guard schedule.states[known].type == type else {
            throw CompileError(
              .internal, "state '%\(name)' is \(type) in '@\(graph.name)' and \(schedule.states[known].type) elsewhere")
          }
          continue
        }
        stateNumbers[name] = schedule.states.count
        schedule.states.append(
          .init(name: name, type: type, offset: schedule.stateBytes, isCache: growing.contains(name)))
        schedule.stateBytes += bytes.aligned(to: 64)
      }
    }
  }

  // MARK: Functions

  private mutating func function(_ graph: Graph, _ number: Int, temporaries: Int) throws -> Schedule.Function {
    let isRecipe = graph.recipeFlags()
    let order = Self.order(graph, isRecipe)
    var updates: [ValueID: ValueID] = [:]
    var drafts: [LoopDetection.Draft] = []
    for id in order {
      drafts.append(try draft(id, in: graph, number, isRecipe, &updates))
    }
    try checkStates(graph, updates, order)

    var live: [ValueID: ClosedRange<Int>] = [:]
    for (step, draft) in drafts.enumerated() {
      for case .value(let value, _) in draft.operands {
        live[value] = min(live[value]?.lowerBound ?? step, step)...max(live[value]?.upperBound ?? step, step)
      }
    }
    for input in graph.inputs { live[input] = -1...drafts.count }
    for output in graph.outputs {
      let root = graph.viewRoot(of: output)
      live[root] = (live[root]?.lowerBound ?? 0)...drafts.count
    }

    let inputs = Set(graph.inputs)
    let planned = live.filter { !inputs.contains($0.key) }.sorted {
      ($0.value.lowerBound, $0.key) < ($1.value.lowerBound, $1.key)
    }
    var plan = MemoryPlan(
      planned.map { .init(value: $0.key, byteCount: graph.type(of: $0.key).largestByteCount, live: $0.value) })
    let touching: (ValueID, ValueID, Int) -> Bool = { before, after, step in
      drafts.indices.contains(step)
        && drafts[step].inPlace.contains { pair in
          guard case .value(before, 0) = drafts[step].operands[pair.input],
            case .value(after, 0) = drafts[step].operands[pair.result]
          else { return false }
          return true
        }
    }
    var loops: [Schedule.Loop] = []
    for found in LoopDetection(drafts, fixed: inputs).loops() {
      if found.shared.allSatisfy({ plan.unite($0, touching: touching) }) { loops.append(found.loop) }
    }
    for (step, draft) in drafts.enumerated() {
      for pair in draft.inPlace {
        guard case .value(let before, 0) = draft.operands[pair.input],
          case .value(let after, 0) = draft.operands[pair.result], live[before]?.upperBound == step,
          graph.type(of: before).largestByteCount == graph.type(of: after).largestByteCount
        else { continue }
        if plan.unite([before, after], touching: touching) { break }
      }
    }
    let (offsets, bytes) = plan.placed()

    var function = Schedule.Function(
      name: graph.name, role: graph.role ?? "main", level: levels.level(of: graph), symbols: graph.symbols)
    function.temporaryBytes = bytes
    function.loops = loops
    var bufferNumbers: [ValueID: Int] = [:]
    let outputs = Set(graph.outputs.map { graph.viewRoot(of: $0) })
    let values = graph.inputs + planned.map(\.key)
    for value in values {
      let name = graph[value].name
      bufferNumbers[value] = function.buffers.count
      function.buffers.append(
        .init(
          name: name, type: graph.type(of: value),
          role: inputs.contains(value) ? .input : outputs.contains(value) ? .output : .temporary,
          offset: inputs.contains(value) ? inputPlaces[name]?.offset ?? 0 : temporaries + (offsets[value] ?? 0),
          byteCount: graph.type(of: value).largestByteCount, live: live[value] ?? 0...0,
          origin: graph.definingNode(of: value).flatMap { graph[$0].origin }))
    }
    func buffer(_ value: ValueID) throws -> Int {
      guard let number = bufferNumbers[value] else {
        throw CompileError(.internal, "'%\(graph[value].name)' has no place in memory")
      }
      return number
    }
    for draft in drafts {
      let arguments = try draft.operands.map { operand -> Schedule.Argument in
        switch operand {
        case .weight(let weight): .weight(weight)
        case .state(let state, let offset): .state(state, offset: offset)
        case .value(let value, let offset): .buffer(try buffer(value), offset: offset)
        case .size(let dim): .size(dim)
        }
      }
      function.steps.append(
        .init(
          kernel: draft.kernel, arguments: arguments, writes: draft.writes, inPlace: draft.inPlace, barrier: false,
          name: draft.name, origin: draft.origin, work: draft.work))
    }
    function.inputs = try graph.inputs.map { (graph[$0].name, try buffer($0)) }
    function.outputs = try zip(graph.outputNames, graph.outputs).map { name, value in
      (name, try buffer(graph.viewRoot(of: value)))
    }
    // An output may be a view of another shape: what the caller sees is the type of the output itself.
    for (output, value) in zip(function.outputs, graph.outputs) {
      function.buffers[output.buffer].type = graph.type(of: value)
    }
    setBarriers(&function)
    return function
  }

  /// The nodes that need a call, in an order of computation. What depends on inputs alone and is used more than once comes
  /// first, so that the steps of the first layer are those of the others; a chain, which reads the first layer's input
  /// through its norm, is part of that layer.
  private static func order(_ graph: Graph, _ isRecipe: [Bool]) -> [NodeID] {
    var early: [NodeID] = []
    var late: [NodeID] = []
    var isEarly: Set<ValueID> = Set(graph.inputs)
    for id in graph.topologicalOrder() {
      let node = graph[id]
      if node.results.allSatisfy({ isRecipe[Int($0.index)] }) { continue }
      let inputs = node.inputs.filter { !isRecipe[Int($0.index)] }
      if graph.isView(node) {
        if inputs.allSatisfy({ isEarly.contains($0) }) { isEarly.formUnion(node.results) }
        continue
      }
      let users = node.results.flatMap { graph.users(of: $0) }
      let isChain = (node.op as? KernelCall)?.operation.op is Chained
      if !isChain, inputs.allSatisfy({ isEarly.contains($0) }), Set(users).count > 1 {
        early.append(id)
        isEarly.formUnion(node.results)
      } else {
        late.append(id)
      }
    }
    return early + Self.updatedSoon(late, in: graph)
  }

  /// The order with writes to states that nothing else waits for moved up behind the last step that they need, so that what
  /// is written does not take memory until the end of the function, and layers stay alike.
  private static func updatedSoon(_ order: [NodeID], in graph: Graph) -> [NodeID] {
    func isLast(_ id: NodeID) -> Bool {
      graph.isCacheUpdate(graph[id]) && graph.users(of: graph.viewRoot(of: graph[id].inputs[0])).count > 1
        && graph[id].results.allSatisfy { result in
          graph[result].uses.allSatisfy { use in
            if case .update = use { return true }
            return false
          }
        }
    }
    let moved = order.filter(isLast)
    guard !moved.isEmpty else { return order }
    let rest = order.filter { !isLast($0) }
    var places: [NodeID: Int] = [:]
    for (place, id) in rest.enumerated() { places[id] = place }
    // Behind step -1 everything that comes before the first of the late steps.
    var behind: [Int: [NodeID]] = [:]
    for id in moved {
      var needed = -1
      for input in graph[id].inputs {
        let root = graph.viewRoot(of: input)
        if let writer = graph.definingNode(of: root) { needed = max(needed, places[writer] ?? -1) }
        // The old contents are read before they are overwritten.
        if case .state = graph[root].definition {
          for user in graph.users(of: root) { needed = max(needed, places[user] ?? -1) }
        }
      }
      behind[needed, default: []].append(id)
    }
    return (behind[-1] ?? []) + rest.enumerated().flatMap { [$1] + (behind[$0] ?? []) }
  }

  // MARK: Steps

  private mutating func draft(
    _ id: NodeID, in graph: Graph, _ number: Int, _ isRecipe: [Bool], _ updates: inout [ValueID: ValueID]
  ) throws -> LoopDetection.Draft {
    let node = graph[id]
    guard let call = node.op as? KernelCall else {
      throw CompileError(.internal, "'\(node.op.name)' is left after kernels were selected")
    }
    let query = try query(call, node, in: graph, isRecipe)
    let choice = try choice(call, query, node, in: graph)
    for (result, updated) in zip(node.results, choice.updates) { updates[result] = node.inputs[updated] }
    var operands: [LoopDetection.Operand] = []
    var types: [TensorType?] = []
    var writes: Set<Int> = []
    for argument in choice.arguments {
      switch argument {
      case .size(let dim):
        operands.append(.size(dim))
        types.append(nil)
      case .input(let input):
        let value = node.inputs[input]
        types.append(graph.type(of: value))
        var operand = try place(value, in: graph, number, isRecipe, updates)
        if let columns = call.operand(input)?.columns {
          operand = operand.moved(by: .fixed(columns.start * graph.type(of: value).element.byteCount))
        }
        operands.append(operand)
      case .result(let result):
        let value = node.results[result]
        writes.insert(operands.count)
        types.append(graph.type(of: value))
        operands.append(try place(value, in: graph, number, isRecipe, updates))
      }
    }
    var inPlace: [(input: Int, result: Int)] = []
    if let result = choice.arguments.firstIndex(of: .result(0)) {
      for input in choice.inPlace.sorted() {
        // What another operand reads as well must outlast the call.
        if let argument = choice.arguments.firstIndex(of: .input(input)),
          node.inputs.filter({ graph.viewRoot(of: $0) == graph.viewRoot(of: node.inputs[input]) }).count == 1
        {
          inPlace.append((argument, result))
        }
      }
    }
    let kernel: Int
    if let known = kernelNumbers[choice.name] {
      kernel = known
    } else {
      let function = choice.function()
      guard function.parameters.count == choice.arguments.count else {
        throw CompileError(
          .internal,
          "kernel '\(choice.name)' takes \(function.parameters.count) arguments, found \(choice.arguments.count)")
      }
      kernel = schedule.kernels.count
      kernelNumbers[choice.name] = kernel
      schedule.kernels.append(function)
      schedule.kernelLevels.append(levels.level(of: graph))
    }
    return .init(
      kernel: kernel, operands: operands, writes: writes, inPlace: inPlace, types: types,
      name: node.results.first.map { graph[$0].name } ?? "", origin: node.origin,
      work: StepWork(
        call.operation.op, query, stored: node.inputs.map { graph.type(of: $0) },
        results: node.results.map { graph.type(of: $0) }))
  }

  /// What the kernel of a call is asked for.
  private func query(
    _ call: KernelCall, _ node: Node, in graph: Graph, _ isRecipe: [Bool]
  ) throws -> KernelQuery {
    let operands = try node.inputs.enumerated().map { index, value in
      let type = graph.type(of: value)
      let columns = call.operand(index)?.columns
      return KernelQuery.Operand(
        try call.kernelType(index, type), isConstant: isRecipe[Int(value.index)],
        rowStride: columns == nil ? nil : type.shape.last.fixedValue, dequantized: call.operand(index)?.dequantized)
    }
    return KernelQuery(call.operation.op, operands)
  }

  private func choice(_ call: KernelCall, _ query: KernelQuery, _ node: Node, in graph: Graph) throws -> KernelChoice {
    let choices = try levels[graph].choices(for: query)
    if let choice = choices.first(where: { $0.name == call.kernel }) { return choice }
    throw CompileError(
      .input, "no kernel '\(call.kernel)' computes \(call.operation.op.name) on this target",
      subject: .init(object: "'%\(node.results.first.map { graph[$0].name } ?? "")'"),
      notes: choices.isEmpty ? [] : ["there is \(choices.map(\.name).joined(separator: ", "))"])
  }

  /// Where a value lies.
  private mutating func place(
    _ value: ValueID, in graph: Graph, _ number: Int, _ isRecipe: [Bool], _ updates: [ValueID: ValueID]
  ) throws -> LoopDetection.Operand {
    if isRecipe[Int(value.index)] { return .weight(try weight(value, in: graph, number)) }
    if let updated = updates[value] { return try place(updated, in: graph, number, isRecipe, updates) }
    switch graph[value].definition {
    case .state:
      guard let state = stateNumbers[graph[value].name] else {
        throw CompileError(.internal, "state '%\(graph[value].name)' has no place in memory")
      }
      return .state(state, offset: 0)
    case .result(let id, _):
      if let offset = graph.viewOffset(graph[id]) {
        let bytes = offset * graph.type(of: value).element.byteCount
        return try place(graph[id].inputs[0], in: graph, number, isRecipe, updates).moved(by: bytes)
      }
      return .value(value, offset: 0)
    case .input: return .value(value, offset: 0)
    case .constant: preconditionFailure("a constant is a recipe")
    }
  }

  private mutating func weight(_ value: ValueID, in graph: Graph, _ number: Int) throws -> Int {
    let recipe = recipes.number(of: value, in: graph, function: number)
    if let known = weightNumbers[recipe] { return known }
    let type = graph.type(of: value)
    guard let bytes = type.byteCount else {
      throw CompileError(.internal, "constant '%\(graph[value].name)' has no fixed size: \(type)")
    }
    let weight = schedule.weights.count
    weightNumbers[recipe] = weight
    schedule.weights.append(
      .init(
        name: name(ofRecipe: value, in: graph), type: type, offset: schedule.weightsBytes, byteCount: bytes,
        function: number,
        value: value))
    schedule.weightsBytes += bytes.aligned(to: 64)
    return weight
  }

  /// The name of the constant that a recipe changes; of several, what they have in common around what tells them apart:
  /// `layers.0.attn.{q,k,v}.weight`.
  private func name(ofRecipe value: ValueID, in graph: Graph) -> String {
    var names: [String] = []
    var pending = [value]
    while let id = pending.popLast() {
      switch graph[id].definition {
      case .constant(let constant):
        let name = constants[constant].name
        if !names.contains(name) { names.append(name) }
      case .result(let node, _): pending += graph[node].inputs.reversed()
      case .input, .state: continue
      }
    }
    guard names.count > 1 else { return names.first ?? graph[value].name }
    let parts = names.map { $0.split(separator: ".").map(String.init) }
    let shortest = parts.map(\.count).min() ?? 0
    var front = 0
    while front < shortest - 1, parts.allSatisfy({ $0[front] == parts[0][front] }) { front += 1 }
    var back = 0
    while back < shortest - front - 1,
      parts.allSatisfy({ $0[$0.count - 1 - back] == parts[0][parts[0].count - 1 - back] })
    {
      back += 1
    }
    let middle = parts.map { $0[front..<($0.count - back)].joined(separator: "_") }.joined(separator: ",")
    return (parts[0][..<front] + ["{\(middle)}"] + parts[0].suffix(back)).joined(separator: ".")
  }

  // MARK: Checks and barriers

  /// Updates must happen in place, after everything that reads the old contents.
  private func checkStates(
    _ graph: Graph, _ updates: [ValueID: ValueID], _ order: [NodeID]
  ) throws {
    var places: [NodeID: Int] = [:]
    for (place, id) in order.enumerated() { places[id] = place }
    for state in graph.states {
      var root = graph.viewRoot(of: state.update)
      while let updated = updates[root] {
        let last = graph.definingNode(of: root).flatMap { places[$0] } ?? 0
        let isReadBefore = graph[updated].uses.allSatisfy { use in
          guard case .operand(let user, _) = use, let place = places[user] else { return false }
          return place <= last
        }
        guard isReadBefore else {
          throw CompileError(
            .unsupported, "'%\(graph[updated].name)' of '@\(graph.name)' is read after it is updated in place")
        }
        root = graph.viewRoot(of: updated)
      }
      guard root == state.value else {
        throw CompileError(
          .unsupported, "state '%\(graph[state.value].name)' of '@\(graph.name)' is replaced, expected a cache_update")
      }
    }
  }

  /// Puts a barrier before each step that reads or writes what an earlier one, since the last barrier, wrote, or writes
  /// what one read.
  private func setBarriers(_ function: inout Schedule.Function) {
    var read: [Range<Int>] = []
    var written: [Range<Int>] = []
    for index in function.steps.indices {
      let step = function.steps[index]
      var reads: [Range<Int>] = []
      var writes: [Range<Int>] = []
      for (position, argument) in step.arguments.enumerated() {
        let range: Range<Int>
        switch argument {
        case .buffer(let buffer, _):
          let buffer = function.buffers[buffer]
          range = buffer.offset..<buffer.offset + max(buffer.byteCount, 1)
        case .state(let state, _):
          let state = schedule.states[state]
          range = state.offset..<state.offset + max(state.type.byteCount ?? 0, 1)
        case .weight, .size: continue
        }
        if step.writes.contains(position) { writes.append(range) } else { reads.append(range) }
      }
      let conflict =
        reads.contains { range in written.contains { $0.overlaps(range) } }
        || writes.contains { range in written.contains { $0.overlaps(range) } || read.contains { $0.overlaps(range) } }
      function.steps[index].barrier = conflict
      if conflict {
        read = []
        written = []
      }
      read += reads
      written += writes
    }
    for loop in function.loops {
      for position in 0..<loop.period {
        let rounds = (0..<loop.count).map { loop.start + $0 * loop.period + position }
        let needed = rounds.contains { function.steps[$0].barrier }
        for step in rounds { function.steps[step].barrier = needed }
      }
    }
  }
}

extension LoopDetection.Operand {
  /// The place `bytes` further on.
  func moved(by bytes: Dim) -> LoopDetection.Operand {
    switch self {
    case .state(let state, let offset): .state(state, offset: offset + bytes)
    case .value(let value, let offset): .value(value, offset: offset + bytes)
    case .weight, .size: self
    }
  }
}
