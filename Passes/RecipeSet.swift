import IR

/// The values of a function that depend on constants alone (not on symbols either), at one time: values added later count as others.
struct RecipeSet {
  private var flags: [Bool]

  init(_ graph: Graph) {
    flags = [Bool](repeating: false, count: graph.valueSlots)
    for value in graph.valueIDs { flags[Int(value.index)] = graph.constant(of: value) != nil }
    for id in graph.topologicalOrder() {
      let node = graph[id]
      guard !node.inputs.isEmpty, node.inputs.allSatisfy({ flags[Int($0.index)] }), !node.op.namesSymbols else {
        continue
      }
      for result in node.results { flags[Int(result.index)] = true }
    }
  }

  func contains(_ value: ValueID) -> Bool { Int(value.index) < flags.count && flags[Int(value.index)] }
}
