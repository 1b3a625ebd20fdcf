import Base
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A square matrix in f64, for the small factors of changes of basis.
struct SquareMatrix {
  let order: Int
  /// Row by row.
  var numbers: [Double]

  init(order: Int, numbers: [Double]) {
    precondition(numbers.count == order * order, "a square matrix")
    (self.order, self.numbers) = (order, numbers)
  }

  static func identity(_ order: Int) -> SquareMatrix {
    var result = SquareMatrix(order: order, numbers: [Double](repeating: 0, count: order * order))
    for i in 0..<order { result.numbers[i * order + i] = 1 }
    return result
  }

  static func * (left: SquareMatrix, right: SquareMatrix) -> SquareMatrix {
    var result = left
    MatrixProduct(rows: left.order, columns: left.order, depth: left.order)(
      left.numbers, right.numbers, into: &result.numbers)
    return result
  }

  static func * (left: SquareMatrix, right: Double) -> SquareMatrix {
    SquareMatrix(order: left.order, numbers: left.numbers.map { $0 * right })
  }

  var transposed: SquareMatrix {
    var result = self
    for row in 0..<order {
      for column in 0..<order { result.numbers[column * order + row] = numbers[row * order + column] }
    }
    return result
  }

  /// The sum of the diagonal.
  var trace: Double { (0..<order).reduce(0) { $0 + numbers[$1 * order + $1] } }

  /// The same with a number added to the diagonal.
  func damped(by number: Double) -> SquareMatrix {
    var result = self
    for i in 0..<order { result.numbers[i * order + i] += number }
    return result
  }

  /// A symmetric matrix as `V^T diag(values) V`, the unit eigenvectors being the rows of `vectors`.
  struct Eigen {
    var values: [Double]
    var vectors: SquareMatrix

    /// `V^T diag(function(value)) V`.
    func map(_ function: (Double) -> Double) -> SquareMatrix {
      let order = vectors.order
      var scaled = vectors, result = vectors
      for row in 0..<order {
        let factor = function(values[row])
        for column in 0..<order { scaled.numbers[row * order + column] *= factor }
      }
      MatrixProduct(rows: order, columns: order, depth: order, transposeA: true)(
        vectors.numbers, scaled.numbers, into: &result.numbers)
      return result
    }
  }

  /// The eigenvalues, in rising order, and vectors of a symmetric matrix.
  ///
  /// - Throws: `CompileError` if a number is not finite.
  func eigen() throws -> Eigen {
    let largest = numbers.reduce(0) { max($0, $1.magnitude) }
    let scale = largest > 0 ? largest : 1
    let found = try SymmetricEigen(numbers.map { Float($0 / scale) }, order: order)
    return Eigen(
      values: found.values.map { Double($0) * scale },
      vectors: SquareMatrix(order: order, numbers: found.vectors.map(Double.init)))
  }

  /// A power of a symmetric matrix with positive eigenvalues; those below a millionth of the largest count as that.
  func power(_ exponent: Double) throws -> SquareMatrix {
    let eigen = try eigen()
    let least = max((eigen.values.last ?? 1) * 1e-6, .leastNormalMagnitude)
    return eigen.map { eigenvalue in Self.power(max(eigenvalue, least), exponent) }
  }

  /// A power of a positive number.
  static func power(_ number: Double, _ exponent: Double) -> Double { pow(number, exponent) }

  /// The geometric mean of positive numbers.
  static func geometricMean(_ numbers: [Double]) -> Double {
    exp(numbers.reduce(0) { $0 + log($1) } / Double(max(numbers.count, 1)))
  }
}
