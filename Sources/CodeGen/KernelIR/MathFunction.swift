/// Functions of f32 values beyond the arithmetic verbs. In vector code each is a helper of the generated program built from
/// verbs (see `MathFunction+Definition.swift`), in scalar code a call of libm.
package enum MathFunction: String, Hashable, Sendable, CaseIterable {
  /// e^x, error at most 2 ulp where the result is normal.
  case exp
  /// Natural logarithm, error at most 2 ulp.
  case log
  /// Hyperbolic tangent, error at most 3 ulp.
  case tanh
  /// Gauss error function, error at most 3 ulp.
  case erf
  /// 1 / (1 + e^-x), error at most 4 ulp where the result is normal.
  case sigmoid
  /// x^y, lane by lane through libm.
  case pow
  /// Remainder with the sign of the first operand, exact, lane by lane through libm.
  case fmod
  case sin
  case cos

  /// Number of operands.
  package var arity: Int { self == .pow || self == .fmod ? 2 : 1 }

  /// The scalar C function.
  var scalarName: String { self == .sigmoid ? "mcc_sigmoid" : rawValue + "f" }
}

extension Expression {
  package static func call(_ function: MathFunction, _ argument: Expression) -> Expression {
    .call(function, [argument])
  }

  /// e^self.
  package var exponential: Expression { .call(.exp, [self]) }
}
