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

  /// The most operators of a recipe, each counted as often as something reads its result.
  private static let mostOperators = 256

  /// The identity of a value; nil if it depends on more than constants, or takes more than 256 operators.
  package init?(_ value: ValueID, in graph: Graph) {
    var left = Self.mostOperators
    self.init(value, in: graph, &left)
  }

  private init?(_ value: ValueID, in graph: Graph, _ left: inout Int) {
    switch graph[value].definition {
    case .constant(let id): self = .constant(id)
    case .result(let node, let index):
      left -= 1
      guard left >= 0, !graph[node].inputs.isEmpty, !graph[node].op.namesSymbols else { return nil }
      var inputs: [RecipeIdentity] = []
      // The first input that is no recipe ends it: ways back to it multiply with every sum of a graph.
      for input in graph[node].inputs {
        guard let identity = RecipeIdentity(input, in: graph, &left) else { return nil }
        inputs.append(identity)
      }
      self = .result(OperatorIdentity(op: graph[node].op), index, inputs)
    case .input, .state: return nil
    }
  }
}
