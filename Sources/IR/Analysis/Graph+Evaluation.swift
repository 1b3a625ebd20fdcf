import Base
import Tensors

extension Graph {
  /// Computes the results of a node from its operands, with `binding` the sizes of the symbols.
  ///
  /// - Throws: `CompileError` with the place if the operator refuses its operands.
  package func evaluate(_ id: NodeID, _ operands: [Tensor], _ binding: [String: Int]) throws -> [Tensor] {
    let node = self[id]
    let op = (node.op as? any DimensionAttributes)?.substituting { binding[$0.name].map { .fixed($0) } } ?? node.op
    do {
      let results = try op.inferTypes(operands.map(\.type)).map { Tensor($0) }
      try op.evaluate(operands.map(\.view), into: results.map(\.mutableView))
      return results
    } catch let error as CompileError {
      throw error.located(.init(object: "'%\(node.results.first.map { self[$0].name } ?? node.op.name)'"))
    }
  }

  /// For each value slot the last of the nodes `order` that reads it, as a position; -1 for none.
  package func lastUses(in order: [NodeID]) -> [Int] {
    var last = [Int](repeating: -1, count: valueSlots)
    for (step, node) in order.enumerated() {
      for input in self[node].inputs { last[Int(input.index)] = step }
    }
    return last
  }
}
