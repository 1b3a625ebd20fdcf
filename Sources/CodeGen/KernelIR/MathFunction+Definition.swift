extension MathFunction {
  /// The name of the vector helper in the generated program.
  var vectorName: String { "mcc_\(rawValue)_vector" }

  /// The vector helper's parameters, statements and result; nil for functions done lane by lane through libm.
  func definition(target: Target) -> (parameters: [Expression], body: [Statement], result: Expression)? {
    let builder = KernelBuilder(vectorName, target: target)
    let x = Expression.variable(builder.unique("x"), .vector(.f32))
    let result: Expression
    switch self {
    case .exp: result = MathFunction.exponential(x, builder)
    case .log: result = MathFunction.logarithm(x, builder)
    case .tanh: result = MathFunction.hyperbolicTangent(x, builder)
    case .erf: result = MathFunction.errorFunction(x, builder)
    case .sigmoid: result = MathFunction.logistic(x, builder)
    case .pow, .fmod, .sin, .cos: return nil
    }
    return ([x], builder.finish().body, result)
  }

  /// c[0] * x^(n-1) + ... + c[n-1] by Horner's rule.
  private static func polynomial(_ coefficients: [Float], _ x: Expression, _ k: KernelBuilder) -> Expression {
    let p = k.variable("p", .multiplyAdd(.real(coefficients[0]), x, .real(coefficients[1])))
    for coefficient in coefficients.dropFirst(2) { k.assign(p, .multiplyAdd(p, x, .real(coefficient))) }
    return p
  }

  /// x = n ln 2 + r with |r| <= ln 2 / 2 (two-part constant), e^r by a polynomial, 2^n in two factors so that the whole
  /// range down to the denormals comes out. Coefficients: S. L. Moshier, Cephes, expf.
  private static func exponential(_ x: Expression, _ k: KernelBuilder) -> Expression {
    let bounded = k.define("bounded", .minimum(89, .maximum(-104, x)))
    let n = k.define("n", .unary(.round, bounded * 1.44269504088896341))
    let high = Expression.multiplyAdd(n, -0.693359375, bounded)
    let r = k.define("r", .multiplyAdd(n, 2.12194440e-4, high))
    let p = polynomial(exponentialCoefficients, r, k)
    let y = k.define("y", .multiplyAdd(p, r * r, r) + 1)
    let i = k.define("i", n.asInt32)
    let half = k.define("half", i.shiftedRightArithmetically(by: 1))
    return y * powerOfTwo(half) * powerOfTwo(i - half)
  }

  /// e^x / (1 + e^x), for which e^x needs the normal numbers only: the result is 1 from 17 on, and 0 below -87.7, where n is
  /// -127 and 2^n comes out as 0. n = x / ln 2 is rounded by adding 1.5 * 2^23, whose last bits then are n; the rest is as in
  /// `exponential`.
  private static func logistic(_ x: Expression, _ k: KernelBuilder) -> Expression {
    let bounded = k.define("bounded", .minimum(88, .maximum(-88, x)))
    let shifted = k.define("shifted", .multiplyAdd(bounded, 1.44269504088896341, 12582912))
    let n = k.define("n", shifted - 12582912)
    let high = Expression.multiplyAdd(n, -0.693359375, bounded)
    let r = k.define("r", .multiplyAdd(n, 2.12194440e-4, high))
    let p = polynomial(exponentialCoefficients, r, k)
    let power = powerOfTwo(.reinterpret(shifted, .i32))
    let y = k.define("y", (.multiplyAdd(p, r * r, r) + 1) * power)
    return y / (1 + y)
  }

  /// (e^r - 1 - r) / r^2 for |r| <= ln 2 / 2.
  private static let exponentialCoefficients: [Float] = [
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
  ]

  private static func powerOfTwo(_ n: Expression) -> Expression { .reinterpret((n + 127) << 23, .f32) }

  /// x = 2^e m with m in [sqrt(1/2), sqrt(2)), log m by a polynomial in m - 1. Coefficients: Cephes, logf.
  private static func logarithm(_ x: Expression, _ k: KernelBuilder) -> Expression {
    let tiny = k.define("tiny", x < .real(.leastNormalMagnitude))
    let scaled = k.define("scaled", .choose(tiny, x * 8388608.0, x))
    let bits = k.define("bits", .reinterpret(scaled, .i32))
    let e = k.define("e", (bits - 0x3f35_04f3).shiftedRightArithmetically(by: 23))
    let f = k.define("f", .reinterpret(bits - (e << 23), .f32) - 1)
    let exponent = k.define("exponent", e.asFloat + .choose(tiny, -23.0, 0.0))
    let z = k.define("z", f * f)
    let p = polynomial(
      [
        7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
      ], f, k)
    let low = k.define("low", .multiplyAdd(exponent, -2.12194440e-4, p * f * z))
    let y = k.define("y", .multiplyAdd(z, -0.5, low) + f)
    let value = k.define("value", .multiplyAdd(exponent, 0.693359375, y))
    let positive = k.define("positive", .choose(x < .real(.infinity), value, x))
    let zero = k.define("zero", .choose(x.isEqual(to: 0.0), .real(-.infinity), .real(.nan)))
    return .choose(x > 0.0, positive, .choose(x.isNotEqual(to: x), x, zero))
  }

  private static func withSign(of x: Expression, _ magnitude: Expression) -> Expression {
    let sign = Expression.reinterpret(x, .i32) & .integer(-0x8000_0000)
    return .reinterpret(.reinterpret(magnitude, .i32) | sign, .f32)
  }

  /// x + x^3 P(x^2) below 0.625 (coefficients: Cephes, tanhf), 1 - 2 / (e^2|x| + 1) above.
  private static func hyperbolicTangent(_ x: Expression, _ k: KernelBuilder) -> Expression {
    let magnitude = k.define("magnitude", x.absolute)
    let z = k.define("z", x * x)
    let p = polynomial(
      [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1], z, k)
    let small = k.define("small", .multiplyAdd(p * z, x, x))
    let large = k.define("large", 1 - 2 / (Expression.call(.exp, magnitude * 2) + 1))
    return .choose(magnitude < 0.625, small, withSign(of: x, large))
  }

  /// x P(x^2) below 0.9375, 1 - e^-Q(|x|) up to 3.95, then 1. P and Q are minimax fits of erf(x) / x and -log(erfc(x)).
  private static func errorFunction(_ x: Expression, _ k: KernelBuilder) -> Expression {
    let magnitude = k.define("magnitude", .minimum(3.95, x.absolute))
    let z = k.define("z", x * x)
    let p = polynomial(
      [
        8.29661003081128e-05, -0.0008125806343741715, 0.005199600011110306, -0.026858851313591003, 0.11283686012029648,
        -0.37612631916999817, 1.128379225730896,
      ], z, k)
    let q = polynomial(
      [
        2.1362706320360303e-05, -0.0004375512944534421, 0.004186003934592009, -0.025158716365695, 0.1083407774567604,
        0.6332917809486389, 1.1295422315597534, -0.00018034959794022143,
      ], magnitude, k)
    let large = k.define("large", 1 - Expression.call(.exp, -q))
    return .choose(magnitude < 0.9375, x * p, withSign(of: x, large))
  }
}
