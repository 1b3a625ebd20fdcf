import IR
import Tensors

/// Weights on both sides of a value whose channels may be divided by numbers on the one side and multiplied by them on
/// the other, without a change of the function.
struct SmoothingPair {
  /// A recipe that is divided along an axis, or a range of it. Where it is `interleaved` only every second number is:
  /// rows of a gate and of what it gates alternate.
  struct Divided {
    var recipe: ResidualStream.Recipe
    var range: Range<Int>?
    var interleaved = false
  }

  /// The value between.
  var value: ValueID
  var width: Int
  var divided: [Divided]
  var multiplied: [ResidualStream.Recipe]
  /// How often each number stands in the channels of the readers, one after the other in blocks of `block`: heads that
  /// share values.
  var repeats = 1
  var block = 1

  /// All pairs of a function, and of what looks like one the reason why it is none.
  static func all(
    in lookup: RecipeGraph, at sites: [Smooth.Site], explain: (ValueID, String) -> Void
  ) -> [SmoothingPair] {
    let graph = lookup.graph
    var pairs: [SmoothingPair] = []
    for id in graph.topologicalOrder() {
      let node = graph[id]
      guard let result = node.results.first, !lookup.isRecipe(result) else { continue }
      let found: Result<SmoothingPair, AttentionHeads.Refusal>?
      switch node.op {
      case is RMSNorm where sites.contains(.norms), is LayerNorm where sites.contains(.norms):
        found = Result { () throws(AttentionHeads.Refusal) in try norm(id, lookup) }
      case let op as Attention where sites.contains(.values):
        found = Result { () throws(AttentionHeads.Refusal) in
          try values(AttentionHeads(node: id, op: op, lookup: lookup))
        }
      case let op as MatMul where sites.contains(.down) && op.epilogue.gated && op.epilogue.residual == .none:
        found = Result { () throws(AttentionHeads.Refusal) in try gated(id, lookup) }
      default: found = nil
      }
      switch found {
      case .success(let pair): pairs.append(pair)
      case .failure(let refusal): explain(result, refusal.reason)
      case nil: break
      }
    }
    return pairs
  }

  /// A norm with its gain and bias, and the layers behind.
  private static func norm(_ id: NodeID, _ lookup: RecipeGraph) throws(AttentionHeads.Refusal) -> SmoothingPair {
    let graph = lookup.graph, node = graph[id], result = node.results[0]
    guard graph.type(of: result).element == .f32, graph.type(of: node.inputs[1]).rank == 1,
      node.inputs.dropFirst().allSatisfy({ lookup.isRecipe($0) }),
      let width = graph.type(of: result).shape.last.fixedValue
    else { throw AttentionHeads.Refusal(reason: "gain and bias are no vectors of constants") }
    return SmoothingPair(
      value: result, width: width,
      divided: node.inputs.indices.dropFirst().map {
        Divided(recipe: ResidualStream.Recipe(node: id, operand: $0, axis: 0))
      },
      multiplied: try readers(of: result, lookup))
  }

  /// What is gated, and the layers behind.
  private static func gated(_ id: NodeID, _ lookup: RecipeGraph) throws(AttentionHeads.Refusal) -> SmoothingPair {
    let graph = lookup.graph, result = graph[id].results[0]
    guard let layer = AffineLayer(id, in: lookup), let width = graph.type(of: result).shape.last.fixedValue,
      graph.type(of: result).element == .f32
    else { throw AttentionHeads.Refusal(reason: "weights are computed") }
    if let reason = lookup.obstacle(toTurning: layer.weight) { throw AttentionHeads.Refusal(reason: reason) }
    var divided = [
      Divided(
        recipe: ResidualStream.Recipe(node: id, operand: 1, axis: layer.weightAxes.outputs), interleaved: true)
    ]
    if layer.bias != nil {
      divided.append(Divided(recipe: ResidualStream.Recipe(node: id, operand: 2, axis: 0), interleaved: true))
    }
    return SmoothingPair(
      value: result, width: width, divided: divided, multiplied: try readers(of: result, lookup))
  }

  /// The value projection of an attention, and its output projection.
  private static func values(_ heads: AttentionHeads) throws(AttentionHeads.Refusal) -> SmoothingPair {
    let rows = try heads.rows(of: 2)
    guard rows.state == nil else { throw AttentionHeads.Refusal(reason: "the cache would hold scaled values") }
    let outputs = try heads.outputs(giving: rows)
    let reader = try heads.outputProjection()
    guard let width = heads.width(of: 2) else { throw AttentionHeads.Refusal(reason: "the heads have no fixed width") }
    let range = outputs.range == 0..<outputs.layer.outputs ? nil : outputs.range
    var divided = [
      Divided(
        recipe: ResidualStream.Recipe(node: outputs.node, operand: 1, axis: outputs.layer.weightAxes.outputs),
        range: range)
    ]
    if outputs.layer.bias != nil {
      divided.append(Divided(recipe: ResidualStream.Recipe(node: outputs.node, operand: 2, axis: 0), range: range))
    }
    return SmoothingPair(
      value: heads.lookup.graph[heads.node].results[0], width: outputs.range.count, divided: divided,
      multiplied: [reader], repeats: heads.op.heads / heads.op.kvHeads, block: width)
  }

  /// The weights of all layers that read a value.
  private static func readers(
    of value: ValueID, _ lookup: RecipeGraph
  ) throws(AttentionHeads.Refusal) -> [ResidualStream.Recipe] {
    let graph = lookup.graph
    var recipes: [ResidualStream.Recipe] = []
    for use in graph[value].uses {
      guard case .operand(let id, 0) = use else {
        throw AttentionHeads.Refusal(reason: "'%\(graph[value].name)' is an output, or is used as it is")
      }
      let node = graph[id], weight: ValueID, axis: Int
      if node.op is ExpertMatMul, lookup.isRecipe(node.inputs[1]) {
        (weight, axis) = (node.inputs[1], 2)
      } else if node.op is MatMul, let layer = AffineLayer(id, in: lookup) {
        (weight, axis) = (layer.weight, layer.weightAxes.channels)
      } else {
        throw AttentionHeads.Refusal(reason: "'\(node.op.name)' uses '%\(graph[value].name)' as it is")
      }
      if let reason = lookup.obstacle(toTurning: weight) { throw AttentionHeads.Refusal(reason: reason) }
      recipes.append(ResidualStream.Recipe(node: id, operand: 1, axis: axis))
    }
    guard !recipes.isEmpty else { throw AttentionHeads.Refusal(reason: "nothing reads '%\(graph[value].name)'") }
    return recipes
  }
}
