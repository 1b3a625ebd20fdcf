/// The values of a function that depend on constants alone, not on symbols either: constants and recipes on them.
///
/// Values that are added to the function later count as others until they are noted.
package struct RecipeSet: Sendable {
  /// For each value slot, whether it is in the set.
  package private(set) var flags: [Bool]

  /// The constants of a function and, with `computed`, what is computed from them; without `outputs` no value that leaves the
  /// function and nothing that is computed from such.
  package init(_ graph: Graph, computed: Bool = true, outputs: Bool = true) {
    flags = [Bool](repeating: false, count: graph.valueSlots)
    for value in graph.valueIDs { flags[Int(value.index)] = graph.constant(of: value) != nil }
    guard computed else { return }
    for node in graph.topologicalOrder() where outputs || !graph.leaves(node) { note(node, in: graph) }
  }

  package func contains(_ value: ValueID) -> Bool { Int(value.index) < flags.count && flags[Int(value.index)] }

  /// Takes in the results of a node if all its operands, of which there is one at least, are in the set.
  package mutating func note(_ node: NodeID, in graph: Graph) {
    let inputs = graph[node].inputs
    let isRecipe = !inputs.isEmpty && inputs.allSatisfy { contains($0) } && !graph[node].op.namesSymbols
    for result in graph[node].results { note(result, isRecipe) }
  }

  /// Takes in a value, or takes it out.
  package mutating func note(_ value: ValueID, _ isRecipe: Bool) {
    let index = Int(value.index)
    while flags.count <= index { flags.append(false) }
    flags[index] = isRecipe
  }
}

extension Graph {
  /// Whether a result of the node is an output.
  fileprivate func leaves(_ node: NodeID) -> Bool {
    self[node].results.contains { self[$0].uses.contains { if case .output = $0 { true } else { false } } }
  }
}
