import IR
import Tensors

/// Rules of this target are `.shared` and say at each look-up whether the value may have other uses.
extension Rewriter {
  /// A node that was looked up through its result.
  struct Match<Op: Operator> {
    var op: Op
    var node: NodeID
    var inputs: [ValueID]
  }

  /// The node that computes `value`, if its operator is an `Op` and nothing else uses the value, or it is `.shared`.
  func match<Op: Operator>(
    _ value: ValueID, _ type: Op.Type, _ sharing: RewriteRule.Sharing = .single
  ) -> Match<Op>? {
    guard sharing == .shared || useCount(of: value) == 1, let (op, node) = definition(of: value, as: type) else {
      return nil
    }
    return Match(op: op, node: node, inputs: inputs(of: node))
  }

  /// As ``match``, for a value that nothing else may use; says so where only that stands in the way.
  mutating func matchAlone<Op: Operator>(_ value: ValueID, _ type: Op.Type) -> Match<Op>? {
    guard let found = match(value, type, .shared) else { return nil }
    guard useCount(of: value) == 1 else {
      let name = self.name(of: value)
      return refuse("'%\(name)' has another user")
    }
    return found
  }

  /// The number that all elements of a constant equal.
  func number(_ value: ValueID) -> Double? { constant(of: value)?.uniformValue }

  /// A constant that is one number throughout.
  mutating func constant(_ number: Double, _ type: TensorType) -> ValueID {
    constant(Constant(name: "number", type: type, source: .splat(number)))
  }

  /// The left operand of a node, if the right one is `number` throughout and the result has the type of the left.
  func left(of node: NodeID, ifRightIs number: Double) -> ValueID? {
    let inputs = inputs(of: node)
    guard self.number(inputs[1]) == number, type(of: inputs[0]) == type(of: node) else { return nil }
    return inputs[0]
  }

  /// The input of a node, if it has the type of the result.
  func inputIfUnchanged(of node: NodeID) -> ValueID? {
    let input = inputs(of: node)[0]
    return type(of: input) == type(of: node) ? input : nil
  }

  /// The two operands of a node in both orders.
  func orders(of node: NodeID) -> [(ValueID, ValueID)] {
    let inputs = inputs(of: node)
    return [(inputs[0], inputs[1]), (inputs[1], inputs[0])]
  }
}
