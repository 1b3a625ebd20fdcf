import IR
import Tensors

/// An operation whose first operand is changed by other operators before, all in one kernel: `matmul(dequantize(quantize(
/// rms_norm(x, g))), w)`.
///
/// Inputs are `x`, the further operands of the operation, then those of each operator before it. The result is that of the
/// operation.
package struct Chained: Operator {
  package static let name = "chained"
  package static let level = OperatorLevel.target

  /// An operator on the first operand.
  package struct Link: Hashable, Codable, Sendable {
    package var operation: NestedOperator
    /// Operands beside the one that comes from before.
    package var operands: Int

    package init(_ operation: any Operator, operands: Int) {
      self.operation = NestedOperator(operation)
      self.operands = operands
    }
  }

  /// What happens to the first operand, in order.
  package var before: [Link] = []
  package var operation = NestedOperator(Reshape())

  package init() {}

  package init(before: [Link], operation: any Operator) {
    self.before = before
    self.operation = NestedOperator(operation)
  }

  /// The inputs of the operation itself beside the first, and those of each operator before it.
  private func split(_ count: Int) throws -> (own: Range<Int>, before: [Range<Int>]) {
    guard before.allSatisfy({ (0...8).contains($0.operands) }) else { throw failure("a link has too many operands") }
    var start = count - before.reduce(0) { $0 + $1.operands }
    guard start >= 1 else { throw failure("found \(count) inputs, expected more") }
    let own = 1..<start
    let ranges = before.map { link in
      defer { start += link.operands }
      return start..<start + link.operands
    }
    return (own, ranges)
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    let (own, ranges) = try split(inputs.count)
    var first = inputs[0]
    for (link, range) in zip(before, ranges) {
      guard let type = try link.operation.op.inferTypes([first] + inputs[range]).first else {
        throw failure("'\(link.operation.op.name)' has no result")
      }
      first = type
    }
    return try operation.op.inferTypes([first] + inputs[own])
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let (own, ranges) = try split(inputs.count)
    var kept: [Tensor] = []
    var first = inputs[0]
    for (link, range) in zip(before, ranges) {
      let operands = [first] + inputs[range]
      guard let type = try link.operation.op.inferTypes(operands.map(\.type)).first else {
        throw failure("'\(link.operation.op.name)' has no result")
      }
      let result = Tensor(type)
      try link.operation.op.evaluate(operands, into: [result.mutableView])
      kept.append(result)
      first = result.view
    }
    try withExtendedLifetime(kept) { try operation.op.evaluate([first] + inputs[own], into: outputs) }
  }
}

extension KernelSelection {
  /// Puts what rounds the input of a kernel, and the norm before that, into the kernel, where there is one that takes it.
  ///
  /// A product for one token does both for itself in every thread, which is less than to wait for one another; for more
  /// tokens a norm and the rounding behind it become one kernel.
  func chain(_ graph: inout Graph) throws {
    for id in graph.topologicalOrder().reversed() where graph.isLive(id) {
      let node = graph[id]
      if node.op is MatMul {
        guard let dequantize = source(of: node.inputs[0], Dequantize.self, in: graph),
          let quantize = source(of: dequantize.inputs[0], Quantize.self, in: graph)
        else { continue }
        let links = [Chained.Link(quantize.op, operands: 0), Chained.Link(dequantize.op, operands: 0)]
        let isReadByFew = readers(of: quantize.inputs[0], in: graph) <= 3
        if isReadByFew, let rotation = rotation(quantize.inputs[0], in: graph) {
          let rotated = [Chained.Link(rotation.op, operands: 0)] + links
          let norm = norm(rotation.inputs[0], in: graph)
          if let norm, try chain(id, after: norm, rotated, to: rotation, &graph) { continue }
          if try chain(id, after: nil, rotated, to: rotation, &graph) { continue }
        }
        if isReadByFew, let norm = norm(quantize.inputs[0], in: graph),
          try chain(id, after: norm, links, to: quantize, &graph)
        {
          continue
        }
        _ = try chain(id, after: nil, links, to: quantize, &graph)
      } else if node.op is Quantize {
        if let rotation = rotation(node.inputs[0], in: graph) {
          let links = [Chained.Link(rotation.op, operands: 0)]
          let norm = norm(rotation.inputs[0], in: graph)
          if let norm, try chain(id, after: norm, links, to: rotation, &graph) { continue }
          if try chain(id, after: nil, links, to: rotation, &graph) { continue }
        }
        if let norm = norm(node.inputs[0], in: graph) { _ = try chain(id, after: norm, [], to: node, &graph) }
      }
    }
    graph.eraseDeadNodes()
  }

  private func source<Op: Operator>(of value: ValueID, _: Op.Type, in graph: Graph) -> Node? {
    graph.definingNode(of: value).map { graph[$0] }.flatMap { $0.op is Op ? $0 : nil }
  }

  /// The norm that a value comes from, if the value has one use.
  private func norm(_ value: ValueID, in graph: Graph) -> Node? {
    guard let id = graph.definingNode(of: value), graph[id].op is RMSNorm || graph[id].op is LayerNorm,
      graph[value].uses.count == 1
    else { return nil }
    return graph[id]
  }

  /// The rotation that a value comes from, if the value has one use.
  private func rotation(_ value: ValueID, in graph: Graph) -> Node? {
    guard let id = graph.definingNode(of: value), graph[id].op is Hadamard, graph[value].uses.count == 1 else {
      return nil
    }
    return graph[id]
  }

  /// How many operators read the rounded numbers of a value that is only rounded.
  private func readers(of value: ValueID, in graph: Graph) -> Int {
    guard graph[value].uses.count == 1 else { return .max }
    func next(_ values: [ValueID]) -> [ValueID] {
      values.flatMap { graph.users(of: $0) }.flatMap { graph[$0].results }
    }
    return next(next([value])).reduce(0) { $0 + graph[$1].uses.count }
  }

  /// Replaces a node by a chain that starts before `norm`, or else before `first`; false if no kernel computes it.
  private func chain(
    _ id: NodeID, after norm: Node?, _ links: [Chained.Link], to first: Node, _ graph: inout Graph
  ) throws -> Bool {
    let node = graph[id]
    var before = links
    var inputs = [norm?.inputs[0] ?? first.inputs[0]] + node.inputs.dropFirst()
    if let norm {
      before.insert(Chained.Link(norm.op, operands: norm.inputs.count - 1), at: 0)
      inputs += norm.inputs.dropFirst()
    }
    guard !before.isEmpty else { return false }
    let op = Chained(before: before, operation: node.op)
    let new = try graph.addNode(op, inputs, names: node.results.map { graph[$0].name }, origin: node.origin)
    guard try hasKernel(new, in: graph) else {
      graph.erase(new)
      return false
    }
    let names = node.results.map { graph[$0].name }
    for (old, result) in zip(node.results, graph[new].results) { graph.replaceUses(of: old, with: result) }
    graph.erase(id)
    for (result, name) in zip(graph[new].results, names) { graph.rename(result, to: name) }
    return true
  }
}
