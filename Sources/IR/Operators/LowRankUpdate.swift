import Base
import Tensors

/// A matrix with a product of few columns and rows added to it: `v = w + scale * left right`, what a low-rank adapter makes of
/// a weight (Hu and others, 2021). With magnitudes each row gets a given length: `magnitude[m] v[m] / |v[m]|`, what a
/// weight-decomposed adapter makes of it (DoRA; Liu and others, 2024).
///
/// Inputs: `w[M, N]`, `left[M, R]`, `right[R, N]`, then optionally `magnitude[M]`, of any floating-point types; the result
/// has the type of `w`. Each number is summed up over `R` in order and rounded once; lengths of rows are computed in f64.
/// A row of zeros has no direction, and stays.
package struct LowRankUpdate: RowMapped {
  package static let name = "low_rank_update"

  @Exact package var scale: Float = 1

  package init() {}

  package init(scale: Float) { self.scale = scale }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...4)
    for (input, role) in zip(inputs, ["matrix", "left factor", "right factor"]) {
      try expectFloat(input, role)
      try expectRank(input, 2...2, role)
    }
    let (w, left) = (inputs[0].shape, inputs[1].shape)
    try expectShape(inputs[1], [w[0], left[1]], "left factor")
    try expectShape(inputs[2], [left[1], w[1]], "right factor")
    if inputs.count > 3 {
      try expectFloat(inputs[3], "magnitude")
      try expectShape(inputs[3], [w[0]], "magnitude")
    }
    guard scale.isFinite else { throw failure("attribute 'scale' is \(scale), expected a finite number") }
    return [inputs[0]]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    inputs.count > 3 ? [rows, rows, nil, rows] : [rows, rows, nil]
  }
}

extension LowRankUpdate: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (rows, columns, rank) = (inputs[0].sizes[0], inputs[0].sizes[1], inputs[1].sizes[1])
    let (w, left, right, y) = (inputs[0].data, inputs[1].data, inputs[2].data, results[0].data)
    let factor = R(rounding: Double(scale))
    let sums = Scratch<R>(columns)
    for row in 0..<rows {
      sums.data.update(repeating: 0, count: columns)
      for k in 0..<rank {
        let a = left[row * rank + k], b = right + k * columns
        for column in 0..<columns { sums.data[column] += a * b[column] }
      }
      for column in 0..<columns { y[row * columns + column] = w[row * columns + column] + factor * sums.data[column] }
      if inputs.count > 3 { Self.lengthen(y + row * columns, columns, to: Double(inputs[3].data[row])) }
    }
    withExtendedLifetime(sums) {}
  }

  /// Gives a row the length `length`.
  private static func lengthen<R: Real>(_ row: UnsafeMutablePointer<R>, _ columns: Int, to length: Double) {
    var square = 0.0
    for column in 0..<columns { square += Double(row[column]) * Double(row[column]) }
    guard square != 0 else { return }
    let factor = length / square.squareRoot()
    for column in 0..<columns { row[column] = R(rounding: Double(row[column]) * factor) }
  }
}
