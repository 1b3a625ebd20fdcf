/// The function a matmul or convolution applies to its sums.
package enum Activation: String, Hashable, Codable, Sendable, CaseIterable {
  case none, relu, relu6, silu, gelu
  case geluTanh = "gelu_tanh"
  case sigmoid, tanh
  case hardSwish = "hard_swish"
  case hardSigmoid = "hard_sigmoid"

  /// The function applied to `x`.
  package func expression(of x: ScalarExpression) -> ScalarExpression {
    switch self {
    case .none: x
    case .relu: .unary(.relu, x)
    case .relu6: .clamp(x, 0, 6)
    case .silu: .unary(.silu, x)
    case .gelu: .unary(.gelu, x)
    case .geluTanh: .unary(.geluTanh, x)
    case .sigmoid: .unary(.sigmoid, x)
    case .tanh: .unary(.tanh, x)
    case .hardSwish: .unary(.hardSwish, x)
    case .hardSigmoid: .unary(.hardSigmoid, x)
    }
  }

  /// The function of input 0.
  package var function: ScalarExpression { expression(of: .input(0)) }
}
