extension Graph {
  /// The operator that computes a value, if it is of the type `Op`.
  package func op<Op: Operator>(of id: ValueID, as type: Op.Type = Op.self) -> Op? {
    definingNode(of: id).flatMap { self[$0].op as? Op }
  }

  /// The value with that name; linear in the number of values.
  package func value(named name: String) -> ValueID? { valueIDs.first { self[$0].name == name } }

  /// Nodes that use a value, each once, in slot order.
  package func users(of id: ValueID) -> [NodeID] {
    var users: Set<NodeID> = []
    for use in self[id].uses {
      if case .operand(let node, _) = use { users.insert(node) }
    }
    return users.sorted()
  }
}
