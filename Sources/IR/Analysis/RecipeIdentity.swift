/// A recipe by what it computes: equal for equal expressions of equal constants, in whatever function of a model.
package indirect enum RecipeIdentity: Hashable {
  case constant(ConstantID)
  /// A result of an operator.
  case result(OperatorIdentity, Int, [RecipeIdentity])

  /// An operator with its attributes.
  package struct OperatorIdentity: Hashable {
    let op: any Operator

    package static func == (left: Self, right: Self) -> Bool { left.op.isEqual(to: right.op) }

    package func hash(into hasher: inout Hasher) {
      hasher.combine(ObjectIdentifier(type(of: op)))
      op.hash(into: &hasher)
    }
  }

  /// The identity of a value; nil if it depends on more than constants.
  package init?(_ value: ValueID, in graph: Graph) {
    switch graph[value].definition {
    case .constant(let id): self = .constant(id)
    case .result(let node, let index):
      let inputs = graph[node].inputs.compactMap { RecipeIdentity($0, in: graph) }
      guard !inputs.isEmpty, inputs.count == graph[node].inputs.count, !graph[node].op.namesSymbols else { return nil }
      self = .result(OperatorIdentity(op: graph[node].op), index, inputs)
    case .input, .state: return nil
    }
  }
}
