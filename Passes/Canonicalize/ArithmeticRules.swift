import IR
import Tensors

/// Rules on sums, products and powers.
let arithmeticRules: [RewriteRule] = [
  constantsRight(Add.self), constantsRight(Multiply.self), constantsRight(Minimum.self), constantsRight(Maximum.self),
  addZero, subtractZero, multiplyByOne, divideByOne, subtractConstant, divideByPowerOfTwo, divideOne, divideByRoot,
  reciprocalOfRoot,
  simplifyPower, negateTwice, addNegated,
]

/// add(c, x) -> add(x, c), for constants and recipes c; likewise for the other commutative operators
func constantsRight<Op: BinaryOperator & Commutative>(_ type: Op.Type) -> RewriteRule {
  RewriteRule("\(Op.name)-constant-right", on: type, .shared) { op, node, rewriter in
    let inputs = rewriter.inputs(of: node)
    guard rewriter.isRecipe(inputs[0]), !rewriter.isRecipe(inputs[1]) else { return nil }
    return try rewriter.emit(op, inputs[1], inputs[0])
  }
}

/// add(x, 0) -> x
let addZero = RewriteRule("add-zero", on: Add.self, .shared) { _, node, rewriter in
  rewriter.left(of: node, ifRightIs: 0)
}

/// subtract(x, 0) -> x
let subtractZero = RewriteRule("subtract-zero", on: Subtract.self, .shared) { _, node, rewriter in
  rewriter.left(of: node, ifRightIs: 0)
}

/// multiply(x, 1) -> x
let multiplyByOne = RewriteRule("multiply-by-one", on: Multiply.self, .shared) { _, node, rewriter in
  rewriter.left(of: node, ifRightIs: 1)
}

/// divide(x, 1) -> x
let divideByOne = RewriteRule("divide-by-one", on: Divide.self, .shared) { _, node, rewriter in
  rewriter.left(of: node, ifRightIs: 1)
}

/// subtract(x, c) -> add(x, negate(c)), for constants and recipes c of floating-point numbers
let subtractConstant = RewriteRule("subtract-constant", on: Subtract.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard rewriter.isRecipe(inputs[1]), !rewriter.isRecipe(inputs[0]), rewriter.type(of: inputs[1]).element.isFloat else {
    return nil
  }
  if let number = rewriter.number(inputs[1]) {
    return try rewriter.emit(Add(), inputs[0], rewriter.constant(-number, rewriter.type(of: inputs[1])))
  }
  return try rewriter.emit(Add(), inputs[0], try rewriter.emit(Negate(), inputs[1]))
}

/// divide(x, 8) -> multiply(x, 0.125), where the reciprocal is exact: for powers of two
let divideByPowerOfTwo = RewriteRule("divide-by-power-of-two", on: Divide.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  let type = rewriter.type(of: inputs[1])
  guard type.element == .f32 || type.element == .f64, let number = rewriter.number(inputs[1]) else { return nil }
  guard number.isNormal, number.significand == 1, abs(number.exponent) < 126 else {
    return rewriter.refuse("the reciprocal of \(number) is not exact")
  }
  return try rewriter.emit(Multiply(), inputs[0], rewriter.constant(1 / number, type))
}

/// divide(1, x) -> reciprocal(x)
let divideOne = RewriteRule("divide-one", on: Divide.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  let type = rewriter.type(of: inputs[1])
  guard type.element.isFloat, rewriter.number(inputs[0]) == 1, type == rewriter.type(of: node) else { return nil }
  return try rewriter.emit(Reciprocal(), inputs[1])
}

/// divide(x, sqrt(y)) -> multiply(x, rsqrt(y)), for a root that nothing else uses
let divideByRoot = RewriteRule("divide-by-root", on: Divide.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard !rewriter.isRecipe(inputs[1]), let root = rewriter.matchAlone(inputs[1], Sqrt.self) else { return nil }
  return try rewriter.emit(Multiply(), inputs[0], try rewriter.emit(Rsqrt(), root.inputs[0]))
}

/// reciprocal(sqrt(x)) -> rsqrt(x)
let reciprocalOfRoot = RewriteRule("reciprocal-of-root", on: Reciprocal.self, .shared) { _, node, rewriter in
  guard let root = rewriter.matchAlone(rewriter.inputs(of: node)[0], Sqrt.self) else { return nil }
  return try rewriter.emit(Rsqrt(), root.inputs[0])
}

/// power(x, 2) -> multiply(x, x), and likewise 1, 0.5, -0.5 and -1
let simplifyPower = RewriteRule("simplify-power", on: Power.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  let type = rewriter.type(of: inputs[0])
  guard type == rewriter.type(of: node), type.element.isFloat, let exponent = rewriter.number(inputs[1]) else {
    return nil
  }
  switch exponent {
  case 1: return inputs[0]
  case 2: return try rewriter.emit(Multiply(), inputs[0], inputs[0])
  case 0.5: return try rewriter.emit(Sqrt(), inputs[0])
  case -0.5: return try rewriter.emit(Rsqrt(), inputs[0])
  case -1: return try rewriter.emit(Reciprocal(), inputs[0])
  default: return nil
  }
}

/// negate(negate(x)) -> x
let negateTwice = RewriteRule("negate-twice", on: Negate.self, .shared) { _, node, rewriter in
  rewriter.match(rewriter.inputs(of: node)[0], Negate.self, .shared)?.inputs[0]
}

/// add(x, negate(y)) -> subtract(x, y)
let addNegated = RewriteRule("add-negated", on: Add.self, .shared) { _, node, rewriter in
  guard let (negated, x) = rewriter.operands(of: node, where: { rewriter.isDefined($0, by: Negate.self) }),
    !rewriter.isRecipe(negated), let inner = rewriter.match(negated, Negate.self)
  else { return nil }
  return try rewriter.emit(Subtract(), x, inner.inputs[0])
}
