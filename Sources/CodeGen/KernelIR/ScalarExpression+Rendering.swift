import IR

extension ScalarExpression {
  /// Number of operations, for cost estimates; a transcendental function counts 10.
  package var operationCount: Int {
    switch self {
    case .input, .constant: 0
    case .unary(let function, let a): (function.isTranscendental ? 10 : 1) + a.operationCount
    case .binary(let function, let a, let b):
      (function == .power ? 40 : 1) + a.operationCount + b.operationCount
    case .select(let a, let b, let c): 1 + a.operationCount + b.operationCount + c.operationCount
    }
  }

  /// The tree over given f32 operands, all vectors or all scalars. Operands of functions are named in the builder, so that
  /// nothing is computed twice.
  package func render(_ inputs: [Expression], in builder: KernelBuilder) -> Expression {
    let type = inputs.first?.type ?? .vector(.f32)
    func operand(_ tree: ScalarExpression) -> Expression {
      builder.define("x", tree.render(inputs, in: builder)).adapted(to: type)
    }
    switch self {
    case .input(let index): return inputs[index]
    case .constant(let bits): return .real(Float(bitPattern: bits))
    case .unary(let function, let a): return function.render(operand(a))
    case .binary(let function, let a, let b): return function.render(operand(a), operand(b))
    case .select(let condition, let a, let b):
      let truth: Expression
      if case .binary(let function, let x, let y) = condition, let comparison = function.comparison {
        truth = Expression.comparison(comparison, operand(x), operand(y))
      } else {
        truth = operand(condition).isNotEqual(to: 0.0)
      }
      return .choose(truth, operand(a), operand(b))
    }
  }
}

extension UnaryFunction {
  var isTranscendental: Bool {
    switch self {
    case .exp, .log, .tanh, .erf, .sin, .cos, .sigmoid, .silu, .gelu, .geluTanh, .softplus: true
    default: false
    }
  }

  func render(_ x: Expression) -> Expression {
    switch self {
    case .negate: return -x
    case .abs: return x.absolute
    case .reciprocal: return 1 / x
    case .exp: return .call(.exp, x)
    case .log: return .call(.log, x)
    case .sqrt: return x.squareRoot
    case .rsqrt: return 1 / x.squareRoot
    case .tanh: return .call(.tanh, x)
    case .erf: return .call(.erf, x)
    case .sin: return .call(.sin, x)
    case .cos: return .call(.cos, x)
    case .sigmoid: return .call(.sigmoid, x)
    case .silu: return x * Expression.call(.sigmoid, x)
    case .gelu: return (x * 0.5) * (1 + Expression.call(.erf, x * 0.70710678118654752))
    case .geluTanh:
      let cubic = Expression.multiplyAdd(x * x * 0.044715, x, x)
      return (x * 0.5) * (1 + Expression.call(.tanh, cubic * 0.79788456080286536))
    case .relu: return .maximum(0.0, x)
    case .hardSigmoid: return Expression.minimum(6.0, .maximum(0.0, x + 3)) * 0.16666667
    case .hardSwish: return x * (Expression.minimum(6.0, .maximum(0.0, x + 3)) * 0.16666667)
    case .floor: return .unary(.floor, x)
    case .ceil: return -Expression.unary(.floor, -x)
    case .round: return .unary(.round, x)
    case .not: return .choose(x.isEqual(to: 0.0), 1.0, 0.0)
    case .sign: return .choose(x > 0.0, 1.0, .choose(x < 0.0, -1.0, x))
    case .softplus: return Expression.maximum(0.0, x) + .call(.log, 1 + Expression.call(.exp, -x.absolute))
    }
  }
}

extension BinaryFunction {
  var comparison: Comparison? {
    switch self {
    case .less: .less
    case .lessOrEqual: .lessEqual
    case .greater: .greater
    case .greaterOrEqual: .greaterEqual
    case .equal: .equal
    case .notEqual: .notEqual
    default: nil
    }
  }

  func render(_ a: Expression, _ b: Expression) -> Expression {
    if let comparison { return .choose(Expression.comparison(comparison, a, b), 1.0, 0.0) }
    switch self {
    case .add: return a + b
    case .subtract: return a - b
    case .multiply: return a * b
    case .divide: return a / b
    case .minimum: return BinaryFunction.extremum(a, b, Expression.minimum)
    case .maximum: return BinaryFunction.extremum(a, b, Expression.maximum)
    case .power:
      let (x, y) = Expression.matched(a, b)
      return .call(.pow, [x, y])
    case .modulo:
      let (x, y) = Expression.matched(a, b)
      let rest = Expression.call(.fmod, [x, y])
      let isOpposite = ((rest < 0.0) & .unary(.not, y < 0.0)) | (.unary(.not, rest < 0.0) & (y < 0.0))
      return .choose(rest.isNotEqual(to: 0.0) & isOpposite, rest + y, rest)
    case .and: return .choose(a.isNotEqual(to: 0.0) & b.isNotEqual(to: 0.0), 1.0, 0.0)
    default: return .choose(a.isNotEqual(to: 0.0) | b.isNotEqual(to: 0.0), 1.0, 0.0)
    }
  }

  /// Minimum or maximum that is NaN when an operand is: the verb gives its second operand then.
  private static func extremum(
    _ a: Expression, _ b: Expression, _ verb: (Expression, Expression) -> Expression
  ) -> Expression {
    if a.isLiteral { return verb(a, b) }
    if b.isLiteral { return verb(b, a) }
    return .choose(a.isNotEqual(to: a), a, verb(a, b))
  }
}

extension Expression {
  var isLiteral: Bool {
    switch self {
    case .real, .integer: true
    case .broadcast(let value): value.isLiteral
    default: false
    }
  }
}
