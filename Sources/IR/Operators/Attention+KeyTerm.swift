import Base
import Tensors

/// What is added to the keys of an attention by their position, see ``Attention``: for column `c` of the position `b B + r`
/// `m[c] cos a + m'[c] sin a`, with `a` the sum of the angles of `b B` and `r`.
///
/// The mean `x` of keys before rotary embedding turns into such a term: of the pair `(x1, x2)` the first column has
/// `m = x1`, `m' = -x2`, the second one `m = x2`, `m' = x1`.
struct KeyTerm<R: Real> {
  let means, angles: UnsafePointer<R>
  /// Columns of all heads, and of one.
  let width, headDim: Int
  let block: Int

  /// A copy of `rows` rows of keys, the first of position `first`, with the term; rows of negative positions stay out.
  func added(to keys: UnsafePointer<R>, rows: Int, from first: Int) -> Scratch<R> {
    let result = Scratch<R>(rows * width)
    for row in 0..<rows {
      let (from, to) = (keys + row * width, result.data + row * width)
      let position = first + row
      guard position >= 0 else {
        to.update(repeating: 0, count: width)
        continue
      }
      let early = angles + (block + position / block) * 2 * headDim
      let late = angles + position % block * 2 * headDim
      for column in 0..<width {
        let d = column % headDim
        let (m, n) = (means[column], means[width + column])
        let (x, y) = (m * early[d] + n * early[headDim + d], n * early[d] - m * early[headDim + d])
        to[column] = from[column] + (x * late[d] + y * late[headDim + d])
      }
    }
    return result
  }
}

extension Attention {
  /// Checks means and angles of the term of the keys.
  func checkTerm(_ block: Int, _ inputs: [TensorType], _ q: TensorType, _ k: TensorType) throws {
    guard block >= 2, block <= 1 << 20 else {
      throw failure("attribute 'angleBlock' is \(block), expected 2 to \(1 << 20)")
    }
    guard q.rank == 2 else { throw failure("attribute 'angleBlock' is for queries without a batch axis") }
    for (type, role) in zip(inputs, ["means", "angles"]) {
      try expectDense(type, role)
      try expectFloat(type, role)
    }
    let columns = try expectFixed(k.shape.last, "key columns")
    try expectShape(inputs[0], [2, .fixed(columns)], "means")
    let (rows, found) = (k.shape[0].maximum, inputs[1].shape)
    guard rows < 1 << 40 else { throw failure("found \(rows) keys, more than there are angles for") }
    guard inputs[1].rank == 3, found[1] == 2, found[2] == .fixed(columns / kvHeads),
      let count = found[0].fixedValue, count >= block + (rows + block - 1) / block
    else {
      throw failure(
        "found angles of shape \(found) for keys of shape \(k.shape), expected "
          + "[\(block + (rows + block - 1) / block), 2, \(columns / kvHeads)]")
    }
  }
}
