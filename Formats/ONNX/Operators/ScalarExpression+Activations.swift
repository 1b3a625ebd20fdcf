import IR

/// Activations of ONNX that have no operator of their own in the IR, as functions of one number `x`: those of nodes and
/// those inside of recurrent layers.
extension ScalarExpression {
  private static let x = ScalarExpression.input(0)

  /// `gamma * (x where it is not negative, else alpha * (exp(x) - 1))`
  static func elu(alpha: Float, gamma: Float = 1) -> ScalarExpression {
    let curve = ScalarExpression.binary(.multiply, .number(alpha), .binary(.subtract, .unary(.exp, x), .number(1)))
    let y = ScalarExpression.select(.binary(.less, x, .number(0)), curve, x)
    return gamma == 1 ? y : .binary(.multiply, .number(gamma), y)
  }

  /// `x / (1 + |x|)`
  static let softsign = ScalarExpression.binary(.divide, x, .binary(.add, .number(1), .unary(.abs, x)))

  /// `alpha x + beta`, at least 0 and at most 1
  static func hardSigmoid(alpha: Float, beta: Float) -> ScalarExpression {
    .clamp(.binary(.add, .binary(.multiply, .number(alpha), x), .number(beta)), 0, 1)
  }
}
