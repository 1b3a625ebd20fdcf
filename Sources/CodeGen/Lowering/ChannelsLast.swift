import Base
import IR
import Tensors

/// Brings images into the order in which convolution kernels read them: channels innermost.
///
///     %y = conv2d(%x, %w) {layout = first}
///     ->
///     %a = transpose(%x) {permutation = [0, 2, 3, 1]}
///     %b = conv2d(%a, %w) {layout = last}
///     %y = transpose(%b) {permutation = [0, 3, 1, 2]}
///
/// for convolutions, pools and resized images; then the transpositions move down through elementwise operators, reductions,
/// concatenations and paddings, and cancel. Weights stay as they are.
package struct ChannelsLast: Pass {
  package static let name = "channels-last"
  package static let summary = "compute convolutions and pools on images with channels innermost"
  package static let legality =
    "where a convolution or pool stands; transpositions move through operators that treat all places alike "
    + "until they cancel"
  package static let source = "mcc"

  package init() {}

  package var fidelity: Fidelity { .exact }

  private static let toLast = [0, 2, 3, 1]
  private static let toFirst = [0, 3, 1, 2]

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      let converted = try convert(&model.functions[index])
      context.count("converted", by: converted)
      guard converted > 0 else { continue }
      context.count("moved", by: try sink(&model.functions[index]))
      model.functions[index].eraseDeadNodes()
    }
  }

  // MARK: Converting

  private func convert(_ graph: inout Graph) throws -> Int {
    let isRecipe = graph.recipeFlags()
    var count = 0
    for id in graph.topologicalOrder() {
      let node = graph[id]
      guard !node.results.allSatisfy({ isRecipe[Int($0.index)] }) else { continue }
      let op: any Operator
      var images = [0]
      switch node.op {
      case var conv as Conv2D where conv.layout == .first:
        conv.layout = .last
        op = conv
        if let residual = conv.epilogue.residualIndex { images.append(residual) }
      case var conv as QuantizedConv2D where conv.layout == .first:
        conv.layout = .last
        op = conv
        if let residual = conv.epilogue.residualIndex { images.append(residual) }
      case var pool as MaxPool2D where pool.layout == .first:
        pool.layout = .last
        op = pool
      case var pool as AveragePool2D where pool.layout == .first:
        pool.layout = .last
        op = pool
      case var resize as Resize2D where resize.layout == .first:
        resize.layout = .last
        op = resize
      default: continue
      }
      var inputs = node.inputs
      for image in images { inputs[image] = try transpose(inputs[image], Self.toLast, node.origin, in: &graph) }
      try replace(id, with: op, inputs, in: &graph)
      count += 1
    }
    return count
  }

  private func transpose(
    _ value: ValueID, _ permutation: [Int], _ origin: Origin?, in graph: inout Graph
  ) throws -> ValueID {
    let node = try graph.addNode(
      Transpose(permutation), [value], names: [graph[value].name], origin: origin)
    return graph[node].results[0]
  }

  /// Puts `op` on channels-last inputs in the place of a node.
  private func replace(_ id: NodeID, with op: any Operator, _ inputs: [ValueID], in graph: inout Graph) throws {
    let node = graph[id]
    let name = graph[node.results[0]].name
    let new = try graph.addNode(op, inputs, names: [name], origin: node.origin)
    let back = try transpose(graph[new].results[0], Self.toFirst, node.origin, in: &graph)
    graph.replaceUses(of: node.results[0], with: back)
    graph.erase(id)
    graph.rename(graph[new].results[0], to: name)
  }

  // MARK: Moving transpositions down

  /// The channels-last value that a value is a transposition of.
  private func source(of value: ValueID, in graph: Graph) -> ValueID? {
    guard let id = graph.definingNode(of: value), let op = graph[id].op as? Transpose,
      op.permutation == Self.toFirst
    else { return nil }
    return graph[id].inputs[0]
  }

  private func sink(_ graph: inout Graph) throws -> Int {
    var count = 0
    var hasChanged = true
    while hasChanged {
      hasChanged = false
      for id in graph.topologicalOrder() where graph.isLive(id) {
        if try cancel(id, in: &graph) {
          hasChanged = true
        } else if try moveDown(id, in: &graph) {
          hasChanged = true
          count += 1
        }
      }
    }
    return count
  }

  /// transpose(transpose(x)) -> x or one transposition.
  private func cancel(_ id: NodeID, in graph: inout Graph) throws -> Bool {
    let node = graph[id]
    guard let outer = node.op as? Transpose else { return false }
    if graph[node.results[0]].uses.isEmpty {
      graph.erase(id)
      return true
    }
    guard let inner = graph.op(of: node.inputs[0], as: Transpose.self),
      let innerID = graph.definingNode(of: node.inputs[0])
    else { return false }
    let source = graph[innerID].inputs[0]
    let permutation = outer.permutation.map { inner.permutation[$0] }
    if permutation == Array(permutation.indices) {
      graph.replaceUses(of: node.results[0], with: source)
    } else {
      let merged = try transpose(source, permutation, node.origin, in: &graph)
      graph.replaceUses(of: node.results[0], with: merged)
    }
    graph.erase(id)
    return true
  }

  private func moveDown(_ id: NodeID, in graph: inout Graph) throws -> Bool {
    let node = graph[id]
    guard node.results.count == 1, node.inputs.contains(where: { source(of: $0, in: graph) != nil }) else {
      return false
    }
    switch node.op {
    case is any Elementwise: return try moveThroughElementwise(id, in: &graph)
    case var op as Reduce:
      guard let x = source(of: node.inputs[0], in: graph) else { return false }
      let axes = op.axes.isEmpty ? [0, 1, 2, 3] : op.axes.map { $0 < 0 ? $0 + 4 : $0 }
      op.axes = axes.map { Self.toFirst[$0] }.sorted()
      if op.keepDims {
        try replace(id, with: op, [x], in: &graph)
        return true
      }
      // Without the reduced axes the others keep their order unless channels and pixels both stay.
      guard axes.contains(1) || (axes.contains(2) && axes.contains(3)) else { return false }
      let new = try graph.addNode(op, [x], names: [graph[node.results[0]].name], origin: node.origin)
      graph.replaceUses(of: node.results[0], with: graph[new].results[0])
      graph.erase(id)
      return true
    case var op as Concat:
      let inputs = node.inputs.compactMap { source(of: $0, in: graph) }
      guard inputs.count == node.inputs.count else { return false }
      op.axis = Self.toFirst[op.axis < 0 ? op.axis + 4 : op.axis]
      try replace(id, with: op, inputs, in: &graph)
      return true
    case var op as Slice:
      guard let x = source(of: node.inputs[0], in: graph) else { return false }
      op.axis = Self.toFirst[op.axis < 0 ? op.axis + 4 : op.axis]
      try replace(id, with: op, [x], in: &graph)
      return true
    case var op as Pad:
      guard let x = source(of: node.inputs[0], in: graph) else { return false }
      op.before = Self.toLast.map { op.before[$0] }
      op.after = Self.toLast.map { op.after[$0] }
      try replace(id, with: op, [x], in: &graph)
      return true
    default: return false
    }
  }

  /// Whether an operand has its channels last already, or costs nothing to transpose: it is broadcast over pixels, or
  /// known at compile time.
  private func isMovable(_ value: ValueID, in graph: Graph) -> Bool {
    let shape = graph.type(of: value).shape
    if source(of: value, in: graph) != nil || shape.dims.allSatisfy({ $0 == 1 }) { return true }
    guard shape.rank <= 4 else { return false }
    return ConstantEvaluator.isRecipe(value, in: graph) || (shape.rank == 4 && shape[2] == 1 && shape[3] == 1)
  }

  private func moveThroughElementwise(_ id: NodeID, in graph: inout Graph) throws -> Bool {
    let node = graph[id]
    guard graph.type(of: node.results[0]).rank == 4, node.inputs.allSatisfy({ isMovable($0, in: graph) }) else {
      return false
    }
    var inputs: [ValueID] = []
    for input in node.inputs {
      if let x = source(of: input, in: graph) {
        inputs.append(x)
        continue
      }
      let shape = graph.type(of: input).shape
      if shape.dims.allSatisfy({ $0 == 1 }) {
        inputs.append(input)
        continue
      }
      var value = input
      if shape.rank < 4 {
        let full = [Dim](repeating: 1, count: 4 - shape.rank) + shape.dims
        let node = try graph.addNode(Reshape(full), [value], names: [graph[value].name], origin: node.origin)
        value = graph[node].results[0]
      }
      inputs.append(try transpose(value, Self.toLast, node.origin, in: &graph))
    }
    try replace(id, with: node.op, inputs, in: &graph)
    return true
  }
}
