/// Replaces each number by the function of it.
@inline(__always)
private func replace<S>(_ x: UnsafeMutablePointer<S>, _ count: Int, _ function: (S) -> S) {
  for i in 0..<count { x[i] = function(x[i]) }
}

/// Replaces each number of `x` by the function of it and the number of `y`.
@inline(__always)
private func replace<S>(
  _ x: UnsafeMutablePointer<S>, _ y: UnsafePointer<S>, _ count: Int, _ function: (S, S) -> S
) {
  for i in 0..<count { x[i] = function(x[i], y[i]) }
}

extension Real {
  static func sigmoid(_ x: Self) -> Self { 1 / (1 + exp(-x)) }

  static func softplus(_ x: Self) -> Self { (x > 0 ? x : 0) + log1p(exp(-x.magnitude)) }

  static func gelu(_ x: Self) -> Self { x * (1 + erf(x * Self(rounding: 0.5.squareRoot()))) / 2 }

  static func geluTanh(_ x: Self) -> Self {
    x * (1 + tanh(Self(rounding: (2 / Double.pi).squareRoot()) * (x + Self(rounding: 0.044715) * x * x * x))) / 2
  }

  static func hardSigmoid(_ x: Self) -> Self {
    let y = x / 6 + Self(rounding: 0.5)
    return y < 0 ? 0 : (y > 1 ? 1 : y)
  }

  static func apply(_ function: UnaryFunction, to x: UnsafeMutablePointer<Self>, count: Int) {
    switch function {
    case .negate: replace(x, count) { -$0 }
    case .abs: replace(x, count) { $0.magnitude }
    case .sqrt: replace(x, count) { $0.squareRoot() }
    case .rsqrt: replace(x, count) { 1 / $0.squareRoot() }
    case .reciprocal: replace(x, count) { 1 / $0 }
    case .exp: replace(x, count) { exp($0) }
    case .log: replace(x, count) { log($0) }
    case .sin: replace(x, count) { sin($0) }
    case .cos: replace(x, count) { cos($0) }
    case .tanh: replace(x, count) { tanh($0) }
    case .sigmoid: replace(x, count) { sigmoid($0) }
    case .relu: replace(x, count) { $0 < 0 ? 0 : $0 }
    case .silu: replace(x, count) { $0 * sigmoid($0) }
    case .gelu: replace(x, count) { gelu($0) }
    case .geluTanh: replace(x, count) { geluTanh($0) }
    case .erf: replace(x, count) { erf($0) }
    case .floor: replace(x, count) { $0.rounded(.down) }
    case .ceil: replace(x, count) { $0.rounded(.up) }
    case .round: replace(x, count) { $0.rounded(.toNearestOrEven) }
    case .sign: replace(x, count) { $0 > 0 ? 1 : ($0 < 0 ? -1 : $0) }
    case .softplus: replace(x, count) { softplus($0) }
    case .hardSigmoid: replace(x, count) { hardSigmoid($0) }
    case .hardSwish: replace(x, count) { $0 * hardSigmoid($0) }
    case .not: replace(x, count) { $0 == 0 ? 1 : 0 }
    }
  }

  static func apply(
    _ function: BinaryFunction, to x: UnsafeMutablePointer<Self>, _ y: UnsafePointer<Self>, count: Int
  ) -> Bool {
    switch function {
    case .add: replace(x, y, count) { $0 + $1 }
    case .subtract: replace(x, y, count) { $0 - $1 }
    case .multiply: replace(x, y, count) { $0 * $1 }
    case .divide: replace(x, y, count) { $0 / $1 }
    case .minimum: replace(x, y, count) { $0 < $1 || $0.isNaN ? $0 : $1 }
    case .maximum: replace(x, y, count) { $0 > $1 || $0.isNaN ? $0 : $1 }
    case .power: replace(x, y, count) { pow($0, $1) }
    case .modulo:
      replace(x, y, count) { a, b in
        let rest = a.truncatingRemainder(dividingBy: b)
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest
      }
    case .less: replace(x, y, count) { $0 < $1 ? 1 : 0 }
    case .lessOrEqual: replace(x, y, count) { $0 <= $1 ? 1 : 0 }
    case .greater: replace(x, y, count) { $0 > $1 ? 1 : 0 }
    case .greaterOrEqual: replace(x, y, count) { $0 >= $1 ? 1 : 0 }
    case .equal: replace(x, y, count) { $0 == $1 ? 1 : 0 }
    case .notEqual: replace(x, y, count) { $0 != $1 ? 1 : 0 }
    case .and: replace(x, y, count) { $0 != 0 && $1 != 0 ? 1 : 0 }
    case .or: replace(x, y, count) { $0 != 0 || $1 != 0 ? 1 : 0 }
    }
    return true
  }
}

extension Int64 {
  static func apply(_ function: UnaryFunction, to x: UnsafeMutablePointer<Int64>, count: Int) {
    switch function {
    case .negate: replace(x, count) { 0 &- $0 }
    case .abs: replace(x, count) { $0 < 0 ? 0 &- $0 : $0 }
    case .relu: replace(x, count) { $0 < 0 ? 0 : $0 }
    case .sign: replace(x, count) { $0.signum() }
    case .not: replace(x, count) { $0 == 0 ? 1 : 0 }
    default: preconditionFailure("'\(function.rawValue)' of whole numbers")
    }
  }

  static func apply(
    _ function: BinaryFunction, to x: UnsafeMutablePointer<Int64>, _ y: UnsafePointer<Int64>, count: Int
  ) -> Bool {
    switch function {
    case .add: replace(x, y, count) { $0 &+ $1 }
    case .subtract: replace(x, y, count) { $0 &- $1 }
    case .multiply: replace(x, y, count) { $0 &* $1 }
    case .divide: replace(x, y, count) { $1 == 0 ? 0 : $0.dividedReportingOverflow(by: $1).partialValue }
    case .minimum: replace(x, y, count) { Swift.min($0, $1) }
    case .maximum: replace(x, y, count) { Swift.max($0, $1) }
    case .power:
      guard (0..<count).allSatisfy({ y[$0] >= 0 || x[$0] != 0 }) else { return false }
      replace(x, y, count) { power($0, $1) }
    case .modulo:
      replace(x, y, count) { a, b in
        if b == 0 { return 0 }
        let rest = a.remainderReportingOverflow(dividingBy: b).partialValue
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest
      }
    case .less: replace(x, y, count) { $0 < $1 ? 1 : 0 }
    case .lessOrEqual: replace(x, y, count) { $0 <= $1 ? 1 : 0 }
    case .greater: replace(x, y, count) { $0 > $1 ? 1 : 0 }
    case .greaterOrEqual: replace(x, y, count) { $0 >= $1 ? 1 : 0 }
    case .equal: replace(x, y, count) { $0 == $1 ? 1 : 0 }
    case .notEqual: replace(x, y, count) { $0 != $1 ? 1 : 0 }
    case .and: replace(x, y, count) { $0 != 0 && $1 != 0 ? 1 : 0 }
    case .or: replace(x, y, count) { $0 != 0 || $1 != 0 ? 1 : 0 }
    }
    return true
  }

  /// `base` to the power of `exponent`, low bits; negative exponents give the quotient towards zero.
  private static func power(_ base: Int64, _ exponent: Int64) -> Int64 {
    if exponent < 0 { return base == 1 ? 1 : (base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0) }
    var (result, square, rest): (Int64, Int64, Int64) = (1, base, exponent)
    while rest > 0 {
      if rest & 1 == 1 { result = result &* square }
      square = square &* square
      rest >>= 1
    }
    return result
  }
}
