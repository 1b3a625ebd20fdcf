import Tensors

/// Functions of one number.
package enum UnaryFunction: String, Hashable, Codable, Sendable, CaseIterable {
  case negate, abs, sqrt, rsqrt, reciprocal, exp, log, sin, cos, tanh, sigmoid, relu, silu
  /// `x * Phi(x)` with the error function (Hendrycks and Gimpel, 2016).
  case gelu
  /// The approximation of `gelu` by tanh, same source.
  case geluTanh = "gelu_tanh"
  case erf, floor, ceil
  /// Rounds half to even.
  case round
  case sign, softplus
  case hardSigmoid = "hard_sigmoid"
  case hardSwish = "hard_swish"
  case not
}

/// Functions of two numbers; comparisons give 1 or 0.
package enum BinaryFunction: String, Hashable, Codable, Sendable, CaseIterable {
  case add, subtract, multiply, divide, minimum, maximum, power, modulo
  case less, lessOrEqual = "less_or_equal", greater, greaterOrEqual = "greater_or_equal", equal
  case notEqual = "not_equal", and, or
}

/// A computation on single numbers: what elementwise operators and the epilogues of kernels are made of.
package indirect enum ScalarExpression: Hashable, Sendable {
  /// The element of input `index`.
  case input(Int)
  /// A number, by its bit pattern.
  case constant(UInt32)
  case unary(UnaryFunction, ScalarExpression)
  case binary(BinaryFunction, ScalarExpression, ScalarExpression)
  /// The second operand where the first is not 0, else the third.
  case select(ScalarExpression, ScalarExpression, ScalarExpression)

  /// A number.
  package static func number(_ value: Float) -> ScalarExpression { .constant(value.bitPattern) }

  /// `min(max(x, low), high)`.
  package static func clamp(_ x: ScalarExpression, _ low: Float, _ high: Float) -> ScalarExpression {
    .binary(.minimum, .binary(.maximum, x, .number(low)), .number(high))
  }

  /// One more than the largest input index.
  package var inputCount: Int {
    switch self {
    case .input(let index): index + 1
    case .constant: 0
    case .unary(_, let x): x.inputCount
    case .binary(_, let x, let y): max(x.inputCount, y.inputCount)
    case .select(let c, let x, let y): max(c.inputCount, x.inputCount, y.inputCount)
    }
  }

  /// The expression with inputs replaced.
  package func substituting(_ replacement: (Int) -> ScalarExpression) -> ScalarExpression {
    switch self {
    case .input(let index): replacement(index)
    case .constant: self
    case .unary(let function, let x): .unary(function, x.substituting(replacement))
    case .binary(let function, let x, let y):
      .binary(function, x.substituting(replacement), y.substituting(replacement))
    case .select(let c, let x, let y):
      .select(c.substituting(replacement), x.substituting(replacement), y.substituting(replacement))
    }
  }
}
