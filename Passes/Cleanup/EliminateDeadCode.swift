import IR

/// Erases nodes whose results nobody uses, and constants that nobody refers to.
///
///     %a = exp(%x)            // no use
///     %b = tanh(%x)           // -> %b = tanh(%x)
///
/// Inputs and states stay: they are the interface of the function.
package struct EliminateDeadCode: Pass {
  package static let name = "eliminate-dead-code"
  package static let summary = "erases nodes and constants that nothing uses"
  package static let legality = "where no output and no state depends on a node; inputs and states stay"
  package static let source = "mcc"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      context.count("nodes erased", by: model.functions[index].eraseDeadCode())
    }
  }
}

extension Graph {
  /// Erases what no output and no state needs.
  ///
  /// - Returns: the number of erased nodes.
  mutating func eraseDeadCode() -> Int {
    var erased = 0
    for id in topologicalOrder().reversed() where self[id].results.allSatisfy({ self[$0].uses.isEmpty }) {
      erase(id)
      erased += 1
    }
    for id in valueIDs where constant(of: id) != nil && self[id].uses.isEmpty { eraseConstant(id) }
    return erased
  }
}
