import Tensors

/// An operator with sizes among its attributes, which may name symbols of the graph.
///
/// Whoever gives symbols a value (evaluation, specialization) replaces them here as well as in the types.
package protocol DimensionAttributes: Operator {
  /// The operator with symbols replaced in all its attributes.
  func substituting(_ replacement: (Symbol) -> Dim?) -> Self
}
