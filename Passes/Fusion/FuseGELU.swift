import IR
import Tensors

/// multiply(multiply(x, add(erf(divide(x, 1.414...)), 1)), 0.5) -> gelu(x), with the factors in any order and the
/// division written as a product or not
let fuseGELU = RewriteRule("fuse-gelu", on: Multiply.self, .shared) { _, node, rewriter in
  guard let (x, erf) = rewriter.halfOfProduct(node, withOnePlus: Erf.self),
    let scaled = rewriter.scaled(erf), scaled.value == x, isNear(scaled.factor, 0.5.squareRoot())
  else { return nil }
  return try rewriter.emit(GELU(), x)
}

/// multiply(multiply(x, add(tanh(multiply(add(x, multiply(power(x, 3), 0.044715)), 0.797...)), 1)), 0.5) ->
/// gelu_tanh(x), with the factors in any order and the cube written as a power or as products
let fuseGELUTanh = RewriteRule("fuse-gelu-tanh", on: Multiply.self, .shared) { _, node, rewriter in
  guard let (x, inner) = rewriter.halfOfProduct(node, withOnePlus: Tanh.self) else { return nil }
  var factors = rewriter.factors(of: inner)
  guard factors.takeNumber(near: (2 / Double.pi).squareRoot(), rewriter), let sum = factors.first else { return nil }
  if factors.count == 1, let add = rewriter.match(sum, Add.self), let cubic = add.inputs.first(where: { $0 != x }),
    add.inputs.contains(x)
  {
    var cube = rewriter.factors(of: cubic)
    guard cube.takeNumber(near: 0.044715, rewriter) else { return nil }
    if cube == [x, x, x] { return try rewriter.emit(GELUTanh(), x) }
    guard cube.count == 1, let power = rewriter.match(cube[0], Power.self, .shared), power.inputs[0] == x,
      rewriter.number(power.inputs[1]) == 3
    else { return nil }
    return try rewriter.emit(GELUTanh(), x)
  }
  // x * (1 + 0.044715 x^2)
  guard factors.count == 2, let index = factors.firstIndex(of: x) else { return nil }
  factors.remove(at: index)
  guard let add = rewriter.match(factors[0], Add.self), rewriter.number(add.inputs[1]) == 1 else { return nil }
  var square = rewriter.factors(of: add.inputs[0])
  guard square.takeNumber(near: 0.044715, rewriter), square == [x, x] else { return nil }
  return try rewriter.emit(GELUTanh(), x)
}

/// Whether a number of a checkpoint is `wanted`, as far as f32 tells.
func isNear(_ number: Double, _ wanted: Double) -> Bool { abs(number - wanted) <= 1e-6 * abs(wanted) }

extension [ValueID] {
  /// Removes a factor that is about `wanted`; false if there is none.
  fileprivate mutating func takeNumber(near wanted: Double, _ rewriter: borrowing Rewriter) -> Bool {
    for (index, value) in enumerated() {
      if let number = rewriter.number(value), isNear(number, wanted) {
        remove(at: index)
        return true
      }
    }
    return false
  }
}

extension Rewriter {
  /// The factors of a product, through nested products that nothing else uses.
  func factors(of value: ValueID) -> [ValueID] {
    guard let product = match(value, Multiply.self) else { return [value] }
    return product.inputs.flatMap { factors(of: $0) }
  }

  /// `value` as a factor times another value.
  func scaled(_ value: ValueID) -> (value: ValueID, factor: Double)? {
    if let product = match(value, Multiply.self), let factor = number(product.inputs[1]) {
      return (product.inputs[0], factor)
    }
    if let quotient = match(value, Divide.self), let divisor = number(quotient.inputs[1]), divisor != 0 {
      return (quotient.inputs[0], 1 / divisor)
    }
    return nil
  }

  /// For a node `0.5 * x * (1 + f(y))` with the factors in any order: `x` and `y`.
  fileprivate func halfOfProduct<Function: UnaryOperator>(
    _ node: NodeID, withOnePlus function: Function.Type
  ) -> (x: ValueID, argument: ValueID)? {
    var factors = inputs(of: node).flatMap { self.factors(of: $0) }
    guard factors.count == 3, factors.takeNumber(near: 0.5, self) else { return nil }
    for index in 0..<2 {
      guard let sum = match(factors[index], Add.self), number(sum.inputs[1]) == 1,
        let inner = match(sum.inputs[0], function), type(of: factors[1 - index]) == type(of: node)
      else { continue }
      return (factors[1 - index], inner.inputs[0])
    }
    return nil
  }
}
