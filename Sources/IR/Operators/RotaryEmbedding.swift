import Base
import Tensors

/// Cosines and sines of the angles by which rotary embedding turns (Su and others, 2021):
/// `result[i, 0, j] = cos((position + i) * f[j])`, `result[i, 1, j] = sin((position + i) * f[j])`.
///
/// Inputs: `position: i32[1]`, `inverse_frequencies: f32[W]`; result `f32[length, 2, W]`. Product and functions are
/// computed in the element type of the frequencies.
package struct RopeTable: DimensionAttributes {
  package static let name = "rope_table"

  /// The number of rows.
  package var length: Dim = 1

  package init() {}

  package init(length: Dim) { self.length = length }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    try expectPosition(inputs[0])
    try expectFloat(inputs[1], "frequencies")
    try expectRank(inputs[1], 1...1, "frequencies")
    guard length.bounds.upperBound >= 0 else { throw failure("attribute 'length' is \(length), expected 0 or more") }
    return [inputs[1].with(shape: [length, 2, inputs[1].shape[0]])]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> RopeTable {
    RopeTable(length: length.substituting(replacement))
  }
}

/// Rotary embedding: turns pairs of numbers of each head by the angles of a ``RopeTable``.
///
/// Inputs: `x[..., T, H * headDim]`, `table[T, 2, W]`. Of each head the first `2 * W` numbers turn, as pairs
/// `(j, j + W)`, or `(2j, 2j + 1)` if `interleaved`: `(a, b)` becomes `(a cos - b sin, b cos + a sin)`. The other
/// numbers of a head pass through.
package struct Rope: Operator {
  package static let name = "rope"

  /// Numbers per head.
  package var headDim: Int = 2
  /// Whether pairs are neighbours.
  package var interleaved: Bool = false

  package init() {}

  package init(headDim: Int, interleaved: Bool = false) {
    self.headDim = headDim
    self.interleaved = interleaved
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    let (x, table) = (inputs[0], inputs[1])
    try expectFloat(x, "input")
    try expectFloat(table, "table")
    guard x.rank >= 2 else { throw failure("found input of shape \(x.shape), expected rank 2 or more") }
    try expectRank(table, 3...3, "table")
    let width = try expectFixed(table.shape[2], "table width")
    let columns = try expectFixed(x.shape.last, "columns")
    guard headDim >= 1, columns % headDim == 0 else {
      throw failure("\(columns) columns do not divide into heads of \(headDim)")
    }
    guard table.shape[1] == 2, 2 * width <= headDim else {
      throw failure("found table of shape \(table.shape), expected [T, 2, W] with W at most \(headDim / 2)")
    }
    guard table.shape[0] == x.shape[x.rank - 2] else {
      throw failure("table of shape \(table.shape) has not one row per row of \(x.shape)")
    }
    return [x]
  }
}
