import IR
import Tensors

/// One attention, with what writes its operands and reads its result.
struct AttentionHeads {
  let node: NodeID
  let op: Attention
  let lookup: RecipeGraph

  /// Why the basis of the heads may not change.
  struct Refusal: Error {
    var reason: String
  }

  /// Some outputs of a layer.
  struct Outputs {
    var node: NodeID
    var range: Range<Int>
    var layer: AffineLayer
  }

  /// Rows that an operand has in common with a cache: what is written there, by which node, and the state.
  struct Rows {
    var value: ValueID
    var update: NodeID?
    var state: Int?
    /// What puts the rows behind those of the last tokens, and the state of these, where they lie apart from the cache.
    var last: NodeID?
    var lastState: Int?

    /// The states that hold such rows.
    var states: [Int] { [state, lastState].compactMap { $0 } }
  }

  /// What `body` makes of each attention of a graph; where it refuses, its reason is what `pass` explains.
  static func places<Place>(
    in graph: Graph, _ pass: String, _ context: PassContext, _ body: (AttentionHeads) throws -> Place
  ) throws -> [Place] {
    let lookup = RecipeGraph(graph)
    return try graph.topologicalOrder().compactMap { id in
      guard let op = graph[id].op as? Attention else { return nil }
      do {
        return try body(AttentionHeads(node: id, op: op, lookup: lookup))
      } catch let refusal as Refusal {
        context.explain(pass, at: "%" + graph[graph[id].results[0]].name, refusal.reason)
        return nil
      }
    }
  }

  private var graph: Graph { lookup.graph }
  private var inputs: [ValueID] { graph[node].inputs }

  /// Numbers per head of an operand: queries, keys or values.
  func width(of operand: Int) -> Int? {
    let columns = graph.type(of: inputs[operand]).shape.last.fixedValue
    return columns.map { $0 / (operand == 0 ? op.heads : op.kvHeads) }
  }

  /// The new rows of keys (1) or values (2), which nothing but this attention reads, perhaps through a cache.
  func rows(of operand: Int) throws(Refusal) -> Rows {
    let value = inputs[operand]
    guard let id = graph.definingNode(of: value), graph[id].op is CacheUpdate else {
      guard graph[value].uses.count == 1 else {
        throw Refusal(reason: "'%\(graph[value].name)' has other users")
      }
      return Rows(value: value)
    }
    let cache = graph[id].inputs[0]
    guard case .state(let state) = graph[cache].definition, graph[cache].uses.count == 1,
      graph[value].uses.allSatisfy({ $0 == .operand(node, operand) || $0 == .update(state) }),
      graph[value].uses.count == 2
    else { throw Refusal(reason: "the cache '%\(graph[value].name)' has other users") }
    var rows = Rows(value: graph[id].inputs[1], update: id, state: state)
    if let range = op.recentInputs(inputs.count) {
      (rows.last, rows.lastState) = try last(inputs[range.lowerBound + operand - 1], rows.value)
    }
    return rows
  }

  /// The node that puts `rows` behind the rows of the last tokens, and their state, which is what becomes of both.
  private func last(_ joined: ValueID, _ rows: ValueID) throws(Refusal) -> (NodeID, Int) {
    let refusal = Refusal(reason: "the last rows '%\(graph[joined].name)' are not kept as the import does it")
    guard let id = graph.definingNode(of: joined), graph[id].op is Concat, graph[id].inputs.count == 2,
      graph[id].inputs[1] == rows, case .state(let state) = graph[graph[id].inputs[0]].definition
    else { throw refusal }
    for user in graph.users(of: joined) where user != node {
      guard graph[user].op is Slice, graph.users(of: graph[user].results[0]).count == 1,
        let update = graph.users(of: graph[user].results[0]).first, graph[update].op is CacheUpdate,
        graph[graph[update].results[0]].uses == [.update(state)]
      else { throw refusal }
    }
    return (id, state)
  }

  /// The outputs of the layer that computes rows, which nothing else reads.
  func outputs(giving rows: Rows) throws(Refusal) -> Outputs {
    let readers = rows.last == nil ? 1 : 2
    guard let width = graph.type(of: rows.value).shape.last.fixedValue else {
      throw Refusal(reason: "'%\(graph[rows.value].name)' has no fixed width")
    }
    var (value, range) = (rows.value, 0..<width)
    while let id = graph.definingNode(of: value), let slice = graph[id].op as? Slice {
      guard graph[value].uses.count == (value == rows.value ? readers : 1), let part = columns(of: slice, value) else {
        throw Refusal(reason: "'%\(graph[value].name)' is a part that has other users")
      }
      range = part.lowerBound + range.lowerBound..<part.lowerBound + range.upperBound
      value = graph[id].inputs[0]
    }
    guard let id = graph.definingNode(of: value), let layer = AffineLayer(id, in: lookup), layer.groups == 1,
      layer.channelAxis(rank: graph.type(of: value).rank) == graph.type(of: value).rank - 1
    else { throw Refusal(reason: "no layer with constant weights computes '%\(graph[value].name)'") }
    guard layer.hasPlainSums else {
      throw Refusal(reason: "an activation or a residual stands between '%\(graph[value].name)' and its sums")
    }
    if let reason = lookup.obstacle(toTurning: layer.weight) { throw Refusal(reason: reason) }
    if graph[value].uses.count > (value == rows.value ? readers : 1) {
      for use in graph[value].uses {
        guard case .operand(let user, _) = use, let slice = graph[user].op as? Slice,
          let part = columns(of: slice, graph[user].results[0])
        else { throw Refusal(reason: "'%\(graph[value].name)' has other users") }
        guard part == range || !part.overlaps(range) else {
          throw Refusal(reason: "'%\(graph[graph[user].results[0]].name)' reads some of the same numbers")
        }
      }
    }
    return Outputs(node: id, range: range, layer: layer)
  }

  /// The columns that a part along the last axis has; nil for other parts.
  private func columns(of slice: Slice, _ result: ValueID) -> Range<Int>? {
    let shape = graph.type(of: result).shape
    guard shape.normalizedAxis(slice.axis) == shape.rank - 1, slice.step == 1, let start = slice.start.fixedValue,
      let size = slice.size.fixedValue
    else { return nil }
    return start..<start + size
  }

  /// The weight of the layer that reads the result and nothing else.
  func outputProjection() throws(Refusal) -> ResidualStream.Recipe {
    let result = graph[node].results[0]
    guard graph[result].uses.count == 1, case .operand(let user, 0)? = graph[result].uses.first,
      let layer = AffineLayer(user, in: lookup), layer.groups == 1,
      layer.channelAxis(rank: graph.type(of: result).rank) == graph.type(of: result).rank - 1
    else { throw Refusal(reason: "what reads '%\(graph[result].name)' is not one layer with constant weights") }
    if let reason = lookup.obstacle(toTurning: layer.weight) { throw Refusal(reason: reason) }
    return ResidualStream.Recipe(node: user, operand: 1, axis: layer.weightAxes.channels)
  }

  /// Throws if a state is kept for others too, or lies turned already.
  func check(_ state: Int, of model: Model, function: Int) throws(Refusal) {
    let name = graph[graph.states[state].value].name
    for (index, other) in model.functions.enumerated() where index != function {
      guard !other.states.contains(where: { other[$0.value].name == name }) else {
        throw Refusal(reason: "the function '@\(other.name)' keeps the state '%\(name)' too")
      }
    }
    guard model.basis(ofState: name, in: graph.name) == nil else {
      throw Refusal(reason: "the state '%\(name)' lies turned already")
    }
  }
}

extension GraphBuilder {
  /// Changes some outputs of a layer: rows of its weight, and of its bias. `body` emits the change of a recipe along an
  /// axis, with a name.
  mutating func change(
    _ outputs: AttentionHeads.Outputs, suffix: String,
    _ body: (inout GraphBuilder, ValueID, Int, String) throws -> ValueID
  ) throws {
    let (layer, range) = (outputs.layer, outputs.range)
    var places = [ResidualStream.Recipe(node: outputs.node, operand: 1, axis: layer.weightAxes.outputs)]
    if layer.bias != nil { places.append(ResidualStream.Recipe(node: outputs.node, operand: 2, axis: 0)) }
    for place in places {
      origin = graph[outputs.node].origin
      let old = graph[outputs.node].inputs[place.operand]
      let name = graph[old].name
      let wide = try widened(old)
      guard range != 0..<layer.outputs else {
        graph.setInput(place.operand, of: outputs.node, to: try body(&self, wide, place.axis, name + suffix))
        continue
      }
      func part(_ range: Range<Int>, in builder: inout GraphBuilder) throws -> ValueID {
        try builder.emit(
          Slice(axis: place.axis, start: .fixed(range.lowerBound), size: .fixed(range.count)), wide)
      }
      var parts: [ValueID] = []
      if range.lowerBound > 0 { parts.append(try part(0..<range.lowerBound, in: &self)) }
      parts.append(try body(&self, part(range, in: &self), place.axis, name + "_part"))
      if range.upperBound < layer.outputs { parts.append(try part(range.upperBound..<layer.outputs, in: &self)) }
      graph.setInput(
        place.operand, of: outputs.node, to: try emit(Concat(axis: place.axis), parts, name: name + suffix))
    }
  }
}
