import Base
import Tensors

/// Multiplies rows by a Kronecker product of two matrices without forming it: `y = x (A (x) B)`.
///
///     y[.., i * B_n + j] = sum over k, l of x[.., k * B_m + l] A[k, i] B[l, j]
///
/// Inputs: `x[..., A_m * B_m]` of rank 2 or more, `A[A_m, A_n]`, `B[B_m, B_n]`; the result `[..., A_n * B_n]` has the
/// element type of `x`. A row takes `A_m B_m B_n + A_m A_n B_n` products, summed up over the columns of `B` first. (Sun
/// and others, "FlatQuant", 2024.)
package struct KroneckerMatMul: RowMapped {
  package static let name = "kronecker_matmul"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...3)
    for (input, role) in zip(inputs, ["rows", "left factor", "right factor"]) { try expectFloat(input, role) }
    var factors = 1
    var columns = 1
    for (input, role) in zip(inputs[1...], ["left factor", "right factor"]) {
      try expectRank(input, 2...2, role)
      let rows = try expectFixed(input.shape[0], "rows of the \(role)")
      let own = try expectFixed(input.shape[1], "columns of the \(role)")
      let (product, others) = (
        factors.multipliedReportingOverflow(by: rows), columns.multipliedReportingOverflow(by: own)
      )
      guard !product.overflow, !others.overflow else { throw failure("the factors are too large") }
      (factors, columns) = (product.partialValue, others.partialValue)
    }
    guard inputs[0].rank >= 2 else { throw failure("found rows of shape \(inputs[0].shape), expected rank 2 or more") }
    let width = try expectFixed(inputs[0].shape.last, "columns")
    guard width == factors else {
      throw failure("factors of \(factors) rows in all do not fit rows of \(width) numbers")
    }
    var result = inputs[0]
    result.shape[result.rank - 1] = .fixed(columns)
    return [result]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? { [rows, nil, nil] }
}

extension KroneckerMatMul: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (a, b) = (inputs[1], inputs[2])
    let (aRows, aColumns, bRows, bColumns) = (a.sizes[0], a.sizes[1], b.sizes[0], b.sizes[1])
    let rows = inputs[0].sizes.dropLast().reduce(1, *)
    guard rows > 0, aRows > 0, aColumns > 0, bRows > 0, bColumns > 0 else { return }
    nonisolated(unsafe) let (x, left, right, y) = (inputs[0].data, a.data, b.data, results[0].data)
    parallelFor(rows, grain: max(1, 1 << 16 / (aRows * bColumns))) { range in
      let inner = Scratch<R>(aRows * bColumns)
      for row in range {
        R.multiply(
          MatrixProduct(rows: aRows, columns: bColumns, depth: bRows), x + row * aRows * bRows, right, into: inner.data)
        R.multiply(
          MatrixProduct(rows: aColumns, columns: bColumns, depth: aRows, transposeA: true), left, inner.data,
          into: y + row * aColumns * bColumns)
      }
      withExtendedLifetime(inner) {}
    }
  }
}
