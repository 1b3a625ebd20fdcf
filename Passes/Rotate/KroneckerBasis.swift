import Base
import IR
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The two small factors of a change of basis `P = P_1 (x) P_2` of rows of `n_1 n_2` numbers: `x W = (x P) (P^-1 W)`.
///
/// With rounding steps that follow from the lengths of rows, the error that rounded rows and rounded weights leave is
/// about a multiple of `trace(H S) trace(G S^-1)` with `S = P P^T`, the sum `H` of `x x^T` over rows and the sum `G` of
/// `w w^T` over outputs. It is least for the geometric mean of `H^-1` and `G`,
///
///     S = H^-1 # G = H^(-1/2) (H^(1/2) G H^(1/2))^(1/2) H^(-1/2),
///
/// which for Kronecker products is the product of those of the factors. `H` and `G` are replaced by the nearest such
/// products (Van Loan and Pitsianis, 1993). The rest of `P` is orthogonal: a Hadamard matrix `U`, which spreads what is
/// large in single channels of single rows, perhaps behind the eigenvectors `V` of `S^(1/2) H S^(1/2)`, with which the
/// diagonal of `P^T H P` is one number for each factor; without them `V` is the identity.
///
///     P_i = S_i^(t_i / 2) V_i U_i^T,   P_i^-1 = U_i V_i^T S_i^(-t_i / 2)
///
/// `t_i` from 0 (a rotation) to 1 is the strength. (After Sun and others, "FlatQuant", 2024, which learns the factors.)
struct KroneckerBasis {
  /// `P_1` and `P_2`, row by row.
  var factors: [[Float]]
  /// `P_1^-T` and `P_2^-T`.
  var inverses: [[Float]]

  /// The orders of the two factors of a width: with Hadamard matrices where there are such, and of little work; nil for
  /// a prime number and for less than 4.
  static func orders(of width: Int) -> (left: Int, right: Int)? {
    var best: (orders: (Int, Int), work: Int)?
    var divisor = 2
    while divisor * divisor <= width {
      if width % divisor == 0 {
        let other = width / divisor
        let isWhole = HadamardMatrix(order: divisor) != nil && HadamardMatrix(order: other) != nil
        let work = (divisor + other) * (isWhole ? 1 : 2)
        if best.map({ work < $0.work }) ?? true { best = ((divisor, other), work) }
      }
      divisor += 1
    }
    return best.map { (left: $0.orders.0, right: $0.orders.1) }
  }

  /// What factors are made of, for each of the two.
  struct Moments {
    /// Of activations and of weights, each with the mean 1 on the diagonal.
    var activations: [SquareMatrix]
    var weights: [SquareMatrix]
    /// `H^-1 # G`, with the geometric mean 1 of its eigenvalues.
    private var means: [SquareMatrix.Eigen]

    /// The moments of `rows` and `weights`, rows of `left * right` numbers each.
    ///
    /// - Throws: `CompileError` if a number is not finite.
    init(rows: [Float], weights: [Float], left: Int, right: Int) throws {
      activations = KroneckerBasis.nearest(rows, left, right)
      self.weights = KroneckerBasis.nearest(weights, left, right)
      means = try zip(activations, self.weights).map { try Self.mean($0, $1) }
    }

    private static func mean(_ h: SquareMatrix, _ g: SquareMatrix) throws -> SquareMatrix.Eigen {
      // Few rows say nothing of some directions.
      let h = h.damped(by: 1e-3), g = g.damped(by: 1e-3)
      let (root, back) = (try h.power(0.5), try h.power(-0.5))
      let inner = try (root * g * root).power(0.5)
      var eigen = try (back * inner * back).eigen()
      // So that the inverse loses no more than a few bits.
      let most = eigen.values.last ?? 1
      let values = eigen.values.map { max($0, most / KroneckerBasis.largestRatio) }
      let mean = SquareMatrix.geometricMean(values)
      eigen.values = values.map { $0 / mean }
      return eigen
    }

    /// The basis with the strengths of the two factors, from 0 to 1, with eigenvectors or without.
    func basis(_ strengths: [Double], turnsAxes: Bool = false) throws -> KroneckerBasis {
      var basis = KroneckerBasis(factors: [], inverses: [])
      for (side, strength) in strengths.enumerated() {
        let root = means[side].map { SquareMatrix.power($0, strength / 2) }
        let back = means[side].map { SquareMatrix.power($0, -strength / 2) }
        var axes = SquareMatrix.identity(root.order)
        if turnsAxes { axes = try (root * activations[side] * root).eigen().vectors.transposed }
        basis.factors.append(try KroneckerBasis.even(root * axes))
        basis.inverses.append(try KroneckerBasis.even(back * axes))
      }
      return basis
    }
  }

  /// The largest ratio of the eigenvalues of `S_i`.
  private static let largestRatio = 256.0

  /// The rows of a matrix turned by a Hadamard matrix, or where there is none by Hartley's, `cos + sin` of
  /// `2 pi i j / n` over the root of `n`, whose numbers are of like magnitudes and which is orthogonal for every `n`.
  private static func even(_ matrix: SquareMatrix) throws -> [Float] {
    guard HadamardMatrix(order: matrix.order) != nil else {
      let order = matrix.order, scale = 1 / Double(order).squareRoot()
      let numbers = (0..<order * order).map { place -> Double in
        let angle = 2 * Double.pi * Double(place / order * (place % order) % order) / Double(order)
        return (cos(angle) + sin(angle)) * scale
      }
      return (matrix * SquareMatrix(order: order, numbers: numbers)).numbers.map { Float($0) }
    }
    let source = Tensor(.f64, [matrix.order, matrix.order], matrix.numbers)
    let result = Tensor(source.type)
    try Hadamard(blocks: [matrix.order]).evaluate(
      [source.view], into: [result.mutableView])
    return result.array(of: Double.self).map { Float($0) }
  }

  /// The factors of the Kronecker product next to the sum of `x x^T` over rows of `left * right` numbers, each with the
  /// mean 1 on its diagonal: with a row as a matrix `X`, the sums of `X B X^T` and of `X^T A X` by turns, which is the
  /// power iteration for the first singular vectors of the rearranged sum.
  private static func nearest(_ rows: [Float], _ left: Int, _ right: Int) -> [SquareMatrix] {
    let width = left * right, count = rows.count / width
    // The numbers of all rows with the index of the left factor outermost, and with that of the right one.
    var byLeft = [Double](repeating: 0, count: rows.count)
    var byRight = byLeft
    for row in 0..<count {
      for i in 0..<left {
        for j in 0..<right {
          let number = Double(rows[row * width + i * right + j])
          byLeft[(i * count + row) * right + j] = number
          byRight[(j * count + row) * left + i] = number
        }
      }
    }
    var (a, b) = (SquareMatrix.identity(left), SquareMatrix.identity(right))
    for _ in 0..<8 {
      a = sum(byLeft, times: b, order: left)
      b = sum(byRight, times: a, order: right)
    }
    return [a, b]
  }

  /// The sum of `X M X^T`, divided by the mean of its diagonal; the rows of each `X` lie apart, by their index first.
  private static func sum(_ numbers: [Double], times matrix: SquareMatrix, order: Int) -> SquareMatrix {
    var product = numbers
    let depth = numbers.count / max(order, 1)
    MatrixProduct(rows: numbers.count / matrix.order, columns: matrix.order, depth: matrix.order)(
      numbers, matrix.numbers, into: &product)
    var result = SquareMatrix.identity(order)
    MatrixProduct(rows: order, columns: order, depth: depth, transposeB: true)(
      product, numbers, into: &result.numbers)
    let mean = result.trace / Double(order)
    return mean > 0 ? result * (1 / mean) : SquareMatrix.identity(order)
  }
}
