import Base
import IR
import Tensors

/// A change of basis of each key and value head behind which the first numbers of a cached row carry the most.
///
/// For rows `x` of `D` numbers that a product `y . x` reads, with the second moments `C = E x x^T` and `R = E y y^T`,
///
///     R = L L^T,   L^T C L = U diag(s) U^T,   A = L U,   B = L^-T U,   A B^T = I,
///     x' = x A,    y' = y B,                  y' . x' = y . x
///
/// and `E (y . x - sum over i < r of y'_i x'_i)^2 = s_r + s_(r+1) + ...` for independent `x` and `y`, the least of all
/// approximations of rank `r` (C. Eckart and G. Young, 1936, in the metric of `R`). Keys are read by the queries of their
/// group. Values are summed with weights and then read by the output projection, `R` being the sum of `W_h^T W_h` over
/// the heads of the group, so that what is left out moves the result of the layer least. With `R = I` both are the
/// directions of the largest second moments, as a singular value decomposition of the rows gives them.
struct CacheBasis {
  let heads: Int
  /// Numbers of a head.
  let width: Int
  /// `A` and `B` for each head, row by row.
  private(set) var factors: [Float] = []
  private(set) var readers: [Float] = []
  /// The share of all `s` that ranks from 0 to the width leave out.
  let discarded: [Double]

  /// What is added to the diagonal of a metric, as a share of its mean.
  private static let damping = 1e-3

  /// The bases of heads with these moments of rows, in the metrics of what reads them; nil for the plain one.
  ///
  /// - Throws: `CompileError` if a number is not finite.
  init(moments: [SquareMatrix], metrics: [SquareMatrix]?, width: Int) throws {
    self.width = width
    heads = moments.count
    var energies = [Double](repeating: 0, count: width + 1)
    for (head, moment) in moments.enumerated() {
      let (factor, reader, energy) = try Self.basis(moment, metrics?[head])
      factors += factor.numbers.map { Float($0) }
      readers += reader.numbers.map { Float($0) }
      for rank in 0..<width { energies[rank] += energy[rank] }
    }
    for rank in (0..<width).reversed() { energies[rank] += energies[rank + 1] }
    let total = energies[0]
    discarded = energies.map { total > 0 ? $0 / total : 0 }
  }

  private static func basis(
    _ moment: SquareMatrix, _ metric: SquareMatrix?
  ) throws -> (factor: SquareMatrix, reader: SquareMatrix, energy: [Double]) {
    let order = moment.order
    var (root, inverse) = (SquareMatrix.identity(order), SquareMatrix.identity(order))
    if let metric {
      let mean = metric.trace / Double(max(order, 1))
      let damped = metric.damped(by: mean > 0 ? Self.damping * mean : 1)
      root = damped
      try choleskyFactor(&root.numbers, order: order, .lower)
      inverse = root
      try invertTriangle(&inverse.numbers, order: order, .lower)
    }
    let eigen = try (root.transposed * moment * root).eigen()
    // The eigenvectors are those of f32; one step of Newton's iteration for the nearest orthogonal matrix makes
    // `A B^T` the identity to the precision of f64.
    var rows = SquareMatrix(order: order, numbers: eigen.vectors.numbers.reversed(of: order))
    rows = (SquareMatrix.identity(order) * 1.5).minus(rows * rows.transposed * 0.5) * rows
    let columns = rows.transposed
    return (root * columns, inverse.transposed * columns, eigen.values.reversed().map { max($0, 0) })
  }
}

extension SquareMatrix {
  fileprivate func minus(_ other: SquareMatrix) -> SquareMatrix {
    SquareMatrix(order: order, numbers: zip(numbers, other.numbers).map { $0 - $1 })
  }
}

extension [Double] {
  /// Rows of that many numbers in the opposite order.
  fileprivate func reversed(of width: Int) -> [Double] {
    stride(from: count - width, through: 0, by: -width).flatMap { self[$0..<$0 + width] }
  }
}

extension SquareMatrix {
  /// The mean of `x x^T` over rows of samples, `part` of the columns of each being one or several such `x` side by side.
  ///
  /// - Throws: `CompileError` of kind `.input` if a number is not finite; `name` says where.
  init(secondMoment samples: [SampleRows], _ part: Range<Int>, of width: Int, order: Int, name: String) throws {
    let copies = part.count / max(order, 1)
    let parts = samples.part(part, of: width)
    let rows = parts.map { SampleRows($0.numbers, rows: $0.rows * copies) }
    let sums = withExtendedLifetime(parts) { ProductSums.gram(rows, columns: order) }
    guard sums.allSatisfy(\.isFinite) else {
      throw CompileError(.input, "'%\(name)' has numbers that are not finite on the samples")
    }
    let count = Double(max(1, rows.reduce(0) { $0 + $1.rows }))
    self.init(order: order, numbers: sums.map { $0 / count })
  }
}

extension GraphBuilder {
  /// Multiplies each group of numbers along an axis, of which there are `count` or several for each of `count` matrices of
  /// `[width, width]`, by its matrix: `x[g] -> x[g] M[g * count / groups]`.
  mutating func multiplyHeads(
    _ value: ValueID, by matrices: [Float], count: Int, width: Int, axis: Int = -1, name: String
  ) throws -> ValueID {
    let shape = type(of: value).shape
    let place = axis < 0 ? axis + shape.rank : axis
    guard place == shape.rank - 1 else {
      // Of a weight with one row for each output.
      let turned = try emit(Transpose([1, 0]), value)
      let product = try multiplyHeads(turned, by: matrices, count: count, width: width, name: name + "_columns")
      return try emit(Transpose([1, 0]), product, name: name)
    }
    let group = (shape.last.fixedValue ?? 0) / (count * width)
    let factor = constant(.inline(name + "_basis", .f32, [count, width, width], matrices))
    let heads = try emit(
      Reshape(Array(shape.dims.dropLast()) + [.fixed(count), .fixed(group), .fixed(width)]), value)
    return try emit(Reshape(shape.dims), emit(MatMul(transposeB: false), heads, factor), name: name)
  }

  /// The first numbers of each of `count` heads.
  mutating func firstOfHeads(_ value: ValueID, _ rank: Int, count: Int, width: Int, name: String) throws -> ValueID {
    guard rank < width else { return value }
    let tokens = type(of: value).shape[0]
    let heads = try emit(Reshape([tokens, .fixed(count), .fixed(width)]), value)
    let first = try emit(Slice(axis: 2, start: 0, size: .fixed(rank)), heads)
    return try emit(Reshape([tokens, .fixed(count * rank)]), first, name: name)
  }
}
