import Tensors

/// An operator with sizes among its attributes, which may name symbols of the graph.
///
/// Whoever gives symbols a value (evaluation, specialization) replaces them here as well as in the types.
package protocol DimensionAttributes: Operator {
  /// The operator with symbols replaced in all its attributes.
  func substituting(_ replacement: (Symbol) -> Dim?) -> Self
}

extension Operator {
  /// Whether sizes among the attributes name symbols: the result then depends on more than the inputs.
  package var namesSymbols: Bool {
    guard let op = self as? any DimensionAttributes else { return false }
    return !op.substituting { _ in 1 }.isEqual(to: op)
  }
}
