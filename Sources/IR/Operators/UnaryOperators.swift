import Tensors

/// `-x`.
package struct Negate: UnaryOperator {
  package static let function: UnaryFunction = .negate
  package init() {}
}

/// `|x|`.
package struct Abs: UnaryOperator {
  package static let function: UnaryFunction = .abs
  package init() {}
}

/// The square root.
package struct Sqrt: UnaryOperator {
  package static let function: UnaryFunction = .sqrt
  package init() {}
}

/// `1 / sqrt(x)`.
package struct Rsqrt: UnaryOperator {
  package static let function: UnaryFunction = .rsqrt
  package init() {}
}

/// `1 / x`.
package struct Reciprocal: UnaryOperator {
  package static let function: UnaryFunction = .reciprocal
  package init() {}
}

/// The exponential function.
package struct Exp: UnaryOperator {
  package static let function: UnaryFunction = .exp
  package init() {}
}

/// The natural logarithm.
package struct Log: UnaryOperator {
  package static let function: UnaryFunction = .log
  package init() {}
}

/// The sine.
package struct Sin: UnaryOperator {
  package static let function: UnaryFunction = .sin
  package init() {}
}

/// The cosine.
package struct Cos: UnaryOperator {
  package static let function: UnaryFunction = .cos
  package init() {}
}

/// The hyperbolic tangent.
package struct Tanh: UnaryOperator {
  package static let function: UnaryFunction = .tanh
  package init() {}
}

/// `1 / (1 + exp(-x))`.
package struct Sigmoid: UnaryOperator {
  package static let function: UnaryFunction = .sigmoid
  package init() {}
}

/// `x` where positive, else 0; NaN stays.
package struct ReLU: UnaryOperator {
  package static let function: UnaryFunction = .relu
  package init() {}
}

/// `x * sigmoid(x)` (Hendrycks and Gimpel, 2016; "swish" of Ramachandran and others, 2017).
package struct SiLU: UnaryOperator {
  package static let function: UnaryFunction = .silu
  package init() {}
}

/// `x * Phi(x) = x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel, 2016).
package struct GELU: UnaryOperator {
  package static let function: UnaryFunction = .gelu
  package init() {}
}

/// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`, the approximation of ``GELU`` by tanh.
package struct GELUTanh: UnaryOperator {
  package static let function: UnaryFunction = .geluTanh
  package init() {}
}

/// The error function.
package struct Erf: UnaryOperator {
  package static let function: UnaryFunction = .erf
  package init() {}
}

/// The largest whole number that is not above `x`.
package struct Floor: UnaryOperator {
  package static let function: UnaryFunction = .floor
  package init() {}
}

/// The smallest whole number that is not below `x`.
package struct Ceil: UnaryOperator {
  package static let function: UnaryFunction = .ceil
  package init() {}
}

/// The nearest whole number, halves to the even one.
package struct Round: UnaryOperator {
  package static let function: UnaryFunction = .round
  package init() {}
}

/// -1, 0 or 1; NaN stays.
package struct Sign: UnaryOperator {
  package static let function: UnaryFunction = .sign
  package init() {}
}

/// `log(1 + exp(x))`.
package struct Softplus: UnaryOperator {
  package static let function: UnaryFunction = .softplus
  package init() {}
}

/// `min(max(x / 6 + 1/2, 0), 1)` (Howard and others, 2019).
package struct HardSigmoid: UnaryOperator {
  package static let function: UnaryFunction = .hardSigmoid
  package init() {}
}

/// `x * hard_sigmoid(x)` (Howard and others, 2019).
package struct HardSwish: UnaryOperator {
  package static let function: UnaryFunction = .hardSwish
  package init() {}
}

/// True where `x` is false; for bool.
package struct Not: UnaryOperator {
  package static let function: UnaryFunction = .not
  package init() {}
}
