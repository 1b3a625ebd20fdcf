import Base
import Tensors

/// Learned numbers by bucket of distance, one row per head and one column per distance (Raffel and others, 2020):
/// `result[h, d] = table[bucket(d - before), h]`, where the distance is the position of the key less that of the query.
///
/// Half of the buckets, of each sign if `bidirectional`, are for one distance each; the others grow with the logarithm
/// of the distance up to `maximum`, from which on there is one. Without `bidirectional` keys behind the query share the
/// bucket of distance 0. Input: `table[buckets, heads]`; result `[heads, before + after + 1]`.
package struct DistanceBias: Operator {
  package static let name = "distance_bias"

  /// The distances are `-before ... after`.
  package var before: Int = 0
  package var after: Int = 0
  package var bidirectional: Bool = true
  /// The distance from which on all share a bucket.
  package var maximum: Int = 128

  package init() {}

  package init(before: Int, after: Int, bidirectional: Bool, maximum: Int) {
    self.before = before
    self.after = after
    self.bidirectional = bidirectional
    self.maximum = maximum
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let table = inputs[0]
    try expectFloat(table, "table")
    try expectRank(table, 2...2, "table")
    let buckets = try expectFixed(table.shape[0], "buckets")
    guard (0...1 << 26).contains(before), (0...1 << 26).contains(after) else {
      throw failure("found distances -\(before) to \(after), expected at most \(1 << 26)")
    }
    let exact = buckets / (bidirectional ? 4 : 2)
    guard exact >= 1, maximum > exact else {
      throw failure("\(buckets) buckets do not reach to a distance of \(maximum)")
    }
    return [table.with(shape: [table.shape[1], .fixed(before + after + 1)])]
  }

  /// The bucket of a distance; the logarithm is computed in f32, as the networks were trained.
  package func bucket(of distance: Int, buckets: Int) -> Int {
    let count = bidirectional ? buckets / 2 : buckets
    let base = bidirectional && distance > 0 ? count : 0
    let length = bidirectional ? abs(distance) : max(0, -distance)
    let exact = count / 2
    if length < exact { return base + length }
    let ratio = Float.log(Float(length) / Float(exact)) / Float(Double.log(Double(maximum) / Double(exact)))
    return base + min(count - 1, exact + Int(ratio * Float(count - exact)))
  }
}

extension DistanceBias: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (table, result) = (inputs[0], results[0])
    let (buckets, heads, width) = (table.sizes[0], table.sizes[1], before + after + 1)
    let (x, y) = (table.data, result.data)
    for column in 0..<width {
      let row = bucket(of: column - before, buckets: buckets)
      for head in 0..<heads { y[head * width + column] = x[row * heads + head] }
    }
  }
}

/// A ``DistanceBias`` laid out for queries and keys, as a mask of attention:
/// `result[h, i, j] = bias[h, j - i - position + before]`.
///
/// Inputs: `bias[heads, W]`, then optionally `position: i32[1]`, the number of keys before the first query (0 if not
/// given); distances beyond the ends of `bias` take the number at the end. Result `[heads, rows, columns]`.
package struct RelativeBias: DimensionAttributes {
  package static let name = "relative_bias"

  /// The number of queries and that of keys.
  package var rows: Dim = 1
  package var columns: Dim = 1
  /// The column of `bias` with distance 0.
  package var before: Int = 0

  package init() {}

  package init(rows: Dim, columns: Dim, before: Int) {
    self.rows = rows
    self.columns = columns
    self.before = before
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...2)
    try expectFloat(inputs[0], "bias")
    try expectRank(inputs[0], 2...2, "bias")
    let width = try expectFixed(inputs[0].shape[1], "distances")
    guard (0..<width).contains(before) else {
      throw failure("attribute 'before' is \(before), expected 0 to \(width - 1)")
    }
    if inputs.count > 1 { try expectPosition(inputs[1]) }
    guard rows.bounds.upperBound >= 0, columns.bounds.upperBound >= 0 else {
      throw failure("found \(rows) rows and \(columns) columns, expected 0 or more")
    }
    return [inputs[0].with(shape: [inputs[0].shape[0], rows, columns])]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> RelativeBias {
    RelativeBias(rows: rows.substituting(replacement), columns: columns.substituting(replacement), before: before)
  }
}

extension RelativeBias: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (bias, result) = (inputs[0], results[0])
    let (heads, width) = (bias.sizes[0], bias.sizes[1])
    let (rows, columns) = (result.sizes[1], result.sizes[2])
    let position = inputs.count > 1 ? integer(inputs[1].view) : 0
    let (x, y) = (bias.data, result.data)
    for head in 0..<heads {
      for i in 0..<rows {
        let target = y + (head * rows + i) * columns
        for j in 0..<columns {
          target[j] = x[head * width + min(max(j - i - position + before, 0), width - 1)]
        }
      }
    }
  }
}
