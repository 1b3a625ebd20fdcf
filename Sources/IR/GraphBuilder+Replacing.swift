extension GraphBuilder {
  /// Puts a node with another operator and other inputs in the place of one with the same result.
  package mutating func replace(_ node: NodeID, _ op: any Operator, _ inputs: [ValueID]) throws {
    let old = graph[node].results[0]
    let name = graph[old].name
    origin = graph[node].origin
    let new = try emit(op, inputs)
    graph.replaceUses(of: old, with: new)
    graph.erase(node)
    graph.rename(new, to: name)
  }
}
