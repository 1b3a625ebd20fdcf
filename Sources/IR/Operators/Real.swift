import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Numbers that operators are evaluated in: Float, Double, and Int64 for whole numbers and truth values.
protocol Computable: Comparable, Sendable {
  /// Its element type.
  static var dtype: DType { get }
  static var zero: Self { get }
  /// The nearest number.
  init(rounding value: Double)

  /// Replaces each number by the function of it.
  static func apply(_ function: UnaryFunction, to x: UnsafeMutablePointer<Self>, count: Int)
  /// Replaces each number of `x` by the function of it and the number of `y`; false if it is not defined for one.
  static func apply(
    _ function: BinaryFunction, to x: UnsafeMutablePointer<Self>, _ y: UnsafePointer<Self>, count: Int
  ) -> Bool
}

/// Floating-point numbers that operators are evaluated in, with the functions of libm.
protocol Real: Computable, BinaryFloatingPoint {
  static func exp(_ x: Self) -> Self
  static func log(_ x: Self) -> Self
  static func log1p(_ x: Self) -> Self
  static func sin(_ x: Self) -> Self
  static func cos(_ x: Self) -> Self
  static func tanh(_ x: Self) -> Self
  static func erf(_ x: Self) -> Self
  static func pow(_ x: Self, _ y: Self) -> Self

  /// Computes a matrix product.
  static func multiply(
    _ product: MatrixProduct, _ a: UnsafePointer<Self>, _ b: UnsafePointer<Self>, into c: UnsafeMutablePointer<Self>)
}

extension Float: Real {
  static func multiply(
    _ product: MatrixProduct, _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>
  ) {
    product(a, b, into: c)
  }

  static var dtype: DType { .f32 }
  init(rounding value: Double) { self.init(value) }

  static func exp(_ x: Float) -> Float { expf(x) }
  static func log(_ x: Float) -> Float { logf(x) }
  static func log1p(_ x: Float) -> Float { log1pf(x) }
  static func sin(_ x: Float) -> Float { sinf(x) }
  static func cos(_ x: Float) -> Float { cosf(x) }
  static func tanh(_ x: Float) -> Float { tanhf(x) }
  static func erf(_ x: Float) -> Float { erff(x) }
  static func pow(_ x: Float, _ y: Float) -> Float { powf(x, y) }
}

extension Double: Real {
  static func multiply(
    _ product: MatrixProduct, _ a: UnsafePointer<Double>, _ b: UnsafePointer<Double>,
    into c: UnsafeMutablePointer<Double>
  ) {
    product(a, b, into: c)
  }

  static var dtype: DType { .f64 }
  init(rounding value: Double) { self = value }

  // The module's name keeps these from calling themselves.
  #if canImport(Glibc)
    static func exp(_ x: Double) -> Double { Glibc.exp(x) }
    static func log(_ x: Double) -> Double { Glibc.log(x) }
    static func log1p(_ x: Double) -> Double { Glibc.log1p(x) }
    static func sin(_ x: Double) -> Double { Glibc.sin(x) }
    static func cos(_ x: Double) -> Double { Glibc.cos(x) }
    static func tanh(_ x: Double) -> Double { Glibc.tanh(x) }
    static func erf(_ x: Double) -> Double { Glibc.erf(x) }
    static func pow(_ x: Double, _ y: Double) -> Double { Glibc.pow(x, y) }
  #elseif canImport(Darwin)
    static func exp(_ x: Double) -> Double { Darwin.exp(x) }
    static func log(_ x: Double) -> Double { Darwin.log(x) }
    static func log1p(_ x: Double) -> Double { Darwin.log1p(x) }
    static func sin(_ x: Double) -> Double { Darwin.sin(x) }
    static func cos(_ x: Double) -> Double { Darwin.cos(x) }
    static func tanh(_ x: Double) -> Double { Darwin.tanh(x) }
    static func erf(_ x: Double) -> Double { Darwin.erf(x) }
    static func pow(_ x: Double, _ y: Double) -> Double { Darwin.pow(x, y) }
  #endif
}

extension Int64: Computable {
  static var dtype: DType { .i64 }

  init(rounding value: Double) {
    let nearest = value.rounded(.toNearestOrEven)
    self = Int64(exactly: nearest) ?? (nearest.isNaN ? 0 : (nearest < 0 ? .min : .max))
  }
}
