import Base
import Tensors

/// Rows of a cache from which all heads of one or several attentions take their keys and values, see ``Attention``: features
/// that are multiplied out where they are read (L. Wang and others, CSKV, 2024, arXiv:2409.10593; for layers that have rows in
/// common C. Chang and others, xKV, 2025, arXiv:2503.18893).
///
/// The key of position `b B + r` is what the product gives, turned by the sum of the angles of `b B` and `r`, `B` being the
/// `angleBlock`: the input `angles: f32[N, 2, 2 W]` has cosines and sines of each column, first of the positions `0 ... B - 1`, then
/// of `0, B, 2 B, ...`, and the first `2 W` numbers of a head turn as pairs `(j, j + W)`, or `(2j, 2j + 1)` if `interleaved`.
package struct LatentRows: Hashable, Codable, Sendable {
  /// The positions of a block of angles; nil if keys do not turn.
  package var angleBlock: Int?
  package var interleaved: Bool = false
  /// Whether all queries of a call take the keys from the last rows that the first one takes from there: rows of latent
  /// features that a later layer completes are not known before the call ends. Else each query has its own last ones.
  package var wholeCalls: Bool = false

  package init() {}

  package init(angleBlock: Int?, interleaved: Bool = false, wholeCalls: Bool = false) {
    self.angleBlock = angleBlock
    self.interleaved = interleaved
    self.wholeCalls = wholeCalls
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    angleBlock = try container.decodeIfPresent(Int.self, forKey: .angleBlock)
    interleaved = try container.decodeIfPresent(Bool.self, forKey: .interleaved) ?? interleaved
    wholeCalls = try container.decodeIfPresent(Bool.self, forKey: .wholeCalls) ?? wholeCalls
  }

  /// Inputs that follow from it.
  var inputs: Int { angleBlock == nil ? 2 : 3 }

  /// The rows of angles that `positions` positions take.
  package static func angleRows(block: Int, positions: Int) -> Int { block + (positions + block - 1) / block }
}

extension Attention {
  /// Checks what latent rows are expanded by, and gives the columns of the values.
  func checkLatent(
    _ latent: LatentRows, _ inputs: [TensorType], _ k: TensorType, _ v: TensorType, headDim: Int
  ) throws -> Int {
    for (type, role) in zip(inputs, ["factors of keys", "factors of values", "angles"]) {
      try expectDense(type, role)
      try expectFloat(type, role)
      try expectRank(type, 3...3, role)
    }
    guard k.rank == 2 else { throw failure("attribute 'latent' is for queries without a batch axis") }
    let valueDim = try expectFixed(inputs[1].shape[2], "value columns")
    guard valueDim >= 1, valueDim <= 1 << 20 else { throw failure("found heads of \(valueDim) numbers of values") }
    try expectShape(inputs[0], [.fixed(kvHeads), k.shape[1], .fixed(headDim)], "factors of keys")
    try expectShape(inputs[1], [.fixed(kvHeads), v.shape[1], .fixed(valueDim)], "factors of values")
    if let block = latent.angleBlock { try checkAngles(inputs[2], block: block, rows: k.shape[0], headDim: headDim) }
    return valueDim * kvHeads
  }
}

/// What latent rows are expanded by.
struct LatentFactors<R: Real> {
  let heads, headDim, valueDim: Int
  let keys, values: UnsafePointer<R>
  let angles: KeyAngles<R>?

  /// Keys of the first `count` of `all` positions with their heads side by side, and zeros for the others.
  func expandedKeys(_ rows: UnsafePointer<R>, count: Int, of all: Int, rank: Int) -> Scratch<R> {
    let result = expanded(rows, by: keys, count: count, of: all, rank: rank, width: headDim)
    angles?.turn(result.data, count: count, heads: heads, headDim: headDim)
    return result
  }

  /// Values of the first `count` of `all` rows with their heads side by side, and zeros for the others.
  func expandedValues(_ rows: UnsafePointer<R>, count: Int, of all: Int, rank: Int) -> Scratch<R> {
    expanded(rows, by: values, count: count, of: all, rank: rank, width: valueDim)
  }

  private func expanded(
    _ rows: UnsafePointer<R>, by factors: UnsafePointer<R>, count: Int, of all: Int, rank: Int, width: Int
  ) -> Scratch<R> {
    let result = Scratch<R>(all * heads * width)
    (result.data + count * heads * width).update(repeating: 0, count: (all - count) * heads * width)
    for head in 0..<heads {
      R.multiply(
        MatrixProduct(
          rows: count, columns: width, depth: rank, strideA: rank, strideB: width, strideC: heads * width),
        rows, factors + head * rank * width, into: result.data + head * width)
    }
    return result
  }
}
