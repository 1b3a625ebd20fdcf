import IR
import Tensors

extension Rotate {
  /// The rotation of every one of `heads` heads of that width; nil if there is none but the identity.
  private func rotation(ofHeads heads: Int, width: Int, isOnline: Bool) -> Hadamard? {
    guard var rotation = rotation(width: width, isOnline: isOnline) else { return nil }
    guard rotation.blocks.count > 1 else { return rotation }
    guard rotation.blocks.count * heads <= Hadamard.blockLimit else { return nil }
    rotation.blocks = (0..<heads).flatMap { _ in rotation.blocks }
    return rotation
  }

  /// Calls `body` for every attention of a function; says why where that throws a refusal.
  private func forEachAttention(
    of index: Int, in model: inout Model, _ context: PassContext,
    _ body: (AttentionHeads, inout Model) throws -> Void
  ) throws {
    for id in model.functions[index].topologicalOrder() {
      let graph = model.functions[index]
      guard let attention = graph[id].op as? Attention else { continue }
      do {
        try body(AttentionHeads(node: id, op: attention, lookup: RecipeGraph(graph)), &model)
      } catch let refusal as AttentionHeads.Refusal {
        context.explain(Self.name, at: "%" + graph[graph[id].results[0]].name, refusal.reason)
      }
    }
    _ = model.functions[index].eraseDeadCode()
  }

  /// Notes that the rows of a state lie turned.
  private func note(_ rows: AttentionHeads.Rows, _ rotation: Hadamard, _ graph: Graph, in model: inout Model) throws {
    for state in rows.states {
      try model.setBasis(rotation, ofState: graph[graph.states[state].value].name, in: graph.name)
    }
  }

  /// Turns what every attention weighs: rows of the value projection and columns of the output projection, head by head.
  ///
  /// With `windows` reflections of the directions that stand out on them come before, in values that no cache keeps.
  func rotateValues(
    function index: Int, of model: inout Model, _ windows: [FunctionInputs], _ context: inout PassContext
  ) throws {
    var count = 0, reflected = 0
    let moments = try windows.isEmpty ? [:] : momentsOfValues(model, function: index, windows, context)
    try forEachAttention(of: index, in: &model, context) { heads, model in
      let graph = heads.lookup.graph
      guard let width = heads.width(of: 2),
        let writer = rotation(ofHeads: heads.op.kvHeads, width: width, isOnline: false),
        let reader = rotation(ofHeads: heads.op.heads, width: width, isOnline: false)
      else { throw AttentionHeads.Refusal(reason: "the heads have no Hadamard matrix") }
      let rows = try heads.rows(of: 2)
      let values = try heads.outputs(giving: rows)
      let output = try heads.outputProjection()
      for state in rows.states { try heads.check(state, of: model, function: index) }
      var (turned, read) = (Turning(writer), Turning(reader))
      if let moments = moments[rows.value] {
        if rows.states.isEmpty {
          (turned.reflections, read.reflections) = try self.reflections(
            moments, of: heads.op, width: width, rotation(width: width, isOnline: false) ?? writer)
        } else {
          context.explain(
            Self.name, at: "%" + graph[rows.value].name, "a cache keeps the values: a Hadamard matrix alone")
        }
      }
      reflected += turned.reflections.count
      var builder = GraphBuilder(graph: graph, constants: model.constants)
      try builder.change(values, suffix: "_turned") { try $0.emit(turned, $1, axis: $2, name: $3) }
      try builder.turn(output, by: read)
      (model.functions[index], model.constants) = (builder.graph, builder.constants)
      try note(rows, writer, graph, in: &model)
      count += 1
    }
    context.count("values turned", by: count)
    context.count("directions reflected", by: reflected)
  }

  /// The sums of products of the values of every attention, head by head, by the new rows of values.
  private func momentsOfValues(
    _ model: Model, function index: Int, _ windows: [FunctionInputs], _ context: PassContext
  ) throws -> [ValueID: [[Double]]] {
    let graph = model.functions[index]
    var parts: [ValueID: [Range<Int>]] = [:]
    for id in graph.nodeIDs {
      guard let op = graph[id].op as? Attention else { continue }
      let heads = AttentionHeads(node: id, op: op, lookup: RecipeGraph(graph))
      guard let rows = try? heads.rows(of: 2), let width = heads.width(of: 2) else { continue }
      parts[rows.value] = (0..<op.kvHeads).map { $0 * width..<($0 + 1) * width }
    }
    return try moments(of: parts, model, function: index, windows, context)
  }

  /// The reflections of the heads of values, and of those of what attention gives, which share them.
  private func reflections(
    _ moments: [[Double]], of op: Attention, width: Int, _ rotation: Hadamard
  ) throws -> (values: [[Float]], results: [[Float]]) {
    var (values, results): ([[Float]], [[Float]]) = ([], [])
    let shared = op.heads / op.kvHeads
    for (head, moment) in moments.enumerated() where moment.count == width * width {
      let directions = try OutlierDirections(moment: moment, width: width, limit: 1)
      for unit in directions.reflections(for: rotation, width: width) {
        func placed(_ place: Int, of count: Int) -> [Float] {
          var wide = [Float](repeating: 0, count: count * width)
          for (i, number) in unit.enumerated() { wide[place * width + i] = number }
          return wide
        }
        values.append(placed(head, of: op.kvHeads))
        results += (0..<shared).map { placed(head * shared + $0, of: op.heads) }
      }
    }
    return (values, results)
  }

  /// Turns queries and keys of every attention when the program runs, the keys before they go into the cache.
  func rotateQueries(function index: Int, of model: inout Model, _ context: inout PassContext) throws {
    var count = 0
    try forEachAttention(of: index, in: &model, context) { heads, model in
      let graph = heads.lookup.graph
      guard let width = heads.width(of: 0),
        let queries = rotation(ofHeads: heads.op.heads, width: width, isOnline: true),
        let keys = rotation(ofHeads: heads.op.kvHeads, width: width, isOnline: true)
      else { throw AttentionHeads.Refusal(reason: "the heads have no Hadamard matrix that a kernel computes") }
      guard heads.op.angleBlock == nil else {
        throw AttentionHeads.Refusal(
          reason: "the keys lie less their mean, which is added as rotary embedding turns it")
      }
      let rows = try heads.rows(of: 1)
      for state in rows.states { try heads.check(state, of: model, function: index) }
      var builder = GraphBuilder(graph: graph, constants: model.constants)
      builder.origin = graph[heads.node].origin
      try builder.turnInput(0, of: [heads.node], by: queries)
      try builder.turnInput(1, of: [rows.update ?? heads.node] + (rows.last.map { [$0] } ?? []), by: keys)
      (model.functions[index], model.constants) = (builder.graph, builder.constants)
      try note(rows, keys, graph, in: &model)
      count += 1
    }
    context.count("queries turned", by: count)
  }

  // MARK: Hidden units

  /// Turns what layers read of nonlinear ones when the program runs; the columns of their weights undo it.
  func rotateHidden(function index: Int, of model: inout Model, _ context: inout PassContext) throws {
    let graph = model.functions[index]
    let lookup = RecipeGraph(graph)
    var builder = GraphBuilder(graph: graph, constants: model.constants)
    for id in graph.topologicalOrder() {
      let node = graph[id]
      guard node.op is MatMul || node.op is ExpertMatMul, !lookup.isRecipe(node.inputs[0]),
        lookup.isRecipe(node.inputs[1]), isNonlinear(node.inputs[0], in: graph)
      else { continue }
      let place = "%" + graph[node.results[0]].name
      let axis: Int
      if node.op is ExpertMatMul {
        axis = 2
      } else {
        guard let layer = AffineLayer(id, in: lookup) else { continue }
        axis = layer.weightAxes.channels
      }
      if let reason = lookup.obstacle(toTurning: node.inputs[1]) {
        context.explain(Self.name, at: place, reason)
        continue
      }
      let type = graph.type(of: node.inputs[0])
      guard type.element == .f32, let width = type.shape.last.fixedValue,
        let rotation = rotation(width: width, isOnline: true)
      else {
        context.explain(Self.name, at: place, "what it reads has no Hadamard matrix that a kernel computes")
        continue
      }
      builder.origin = node.origin
      try builder.turnInput(0, of: [id], by: rotation)
      try builder.turn(ResidualStream.Recipe(node: id, operand: 1, axis: axis), by: Turning(rotation))
      context.count("hidden layers turned")
    }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }

  /// Whether a nonlinear layer or function computes a value.
  private func isNonlinear(_ value: ValueID, in graph: Graph) -> Bool {
    guard let id = graph.definingNode(of: value) else { return false }
    switch graph[id].op {
    case let op as MatMul: return op.epilogue.gated || op.epilogue.activation != .none
    case let op as ExpertMatMul: return op.gated || op.activation != .none
    case is Add, is Subtract, is Negate: return false
    default: return graph[id].op is any Elementwise
    }
  }
}

extension GraphBuilder {
  /// Turns what nodes read when the program runs, all of them the same value.
  fileprivate mutating func turnInput(_ operand: Int, of nodes: [NodeID], by rotation: Hadamard) throws {
    let value = graph[nodes[0]].inputs[operand]
    let turned = try emit(rotation, value, name: graph[value].name + "_turned")
    for node in nodes { graph.setInput(operand, of: node, to: turned) }
  }
}
