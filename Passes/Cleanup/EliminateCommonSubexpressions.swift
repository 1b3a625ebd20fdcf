import IR

/// Computes equal expressions once: nodes with equal operators, attributes and inputs become one.
///
///     %a = exp(%x)
///     %b = exp(%x)
///     %c = add(%a, %b)        // -> %c = add(%a, %a)
///
/// The operands of commutative operators are compared in any order. Constants are equal if their sources are.
package struct EliminateCommonSubexpressions: Pass {
  package static let name = "eliminate-common-subexpressions"
  package static let summary = "computes equal expressions once"
  package static let legality =
    "where operators, attributes and operands are equal; constants are compared by source, never by content"
  package static let source = "J. Cocke, Global common subexpression elimination, 1970"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      context.count("nodes merged", by: Self.run(&model.functions[index]))
    }
  }

  /// What two nodes have in common if they compute the same.
  private struct Key: Hashable {
    var op: AnyHashable
    var inputs: [ValueID]
  }

  private static func run(_ graph: inout Graph) -> Int {
    var constants: [ConstantID: ValueID] = [:]
    for value in graph.valueIDs {
      guard let id = graph.constant(of: value) else { continue }
      if let first = constants[id] {
        graph.replaceUses(of: value, with: first)
        graph.eraseConstant(value)
      } else {
        constants[id] = value
      }
    }
    var merged = 0
    var seen: [Key: NodeID] = [:]
    for id in graph.topologicalOrder() {
      let op = graph[id].op
      let inputs = graph[id].inputs
      let key = Key(op: AnyHashable(op), inputs: op is any Commutative ? inputs.sorted() : inputs)
      guard let first = seen[key] else {
        seen[key] = id
        continue
      }
      let results = zip(graph[id].results, graph[first].results).map { ($0, $1) }
      for (old, new) in results { graph.replaceUses(of: old, with: new) }
      graph.erase(id)
      merged += 1
    }
    return merged
  }
}
