import Tensors

/// Keys and values of an attention with ``ByteAttention`` as their codes stand for them.
final class RoundedRows<R: Real>: @unchecked Sendable {
  /// Rows of a batch: the first number, and the distances between batches and rows.
  typealias Rows = (data: UnsafePointer<R>, batch: Int, row: Int)

  private let form: ByteAttention
  /// Rows of keys and values of a batch, and the blocks that they are.
  private let count: Int
  private let blocks: Int
  /// Keys less the means of their blocks `[batch, row, column]`, and these `[batch, block, column]`.
  private let keys: Scratch<R>
  private let centers: Scratch<R>
  private let keyWidth: Int
  /// Values with their means `[batch, row, column]`.
  let values: Scratch<R>

  /// Rounds `rows` rows of each batch, keys head by head; they stay as they are where `keepsKeys` says that they are codes
  /// already.
  init(
    _ form: ByteAttention, batches: Int, rows: Int, keys: Rows, values: Rows, heads: Int, keepsKeys: Bool
  ) {
    self.form = form
    count = rows
    blocks = (rows + form.block - 1) / form.block
    keyWidth = keys.row
    self.keys = Scratch(batches * rows * keys.row)
    centers = Scratch(batches * blocks * keys.row)
    self.values = Scratch(batches * rows * values.row)
    for batch in 0..<batches {
      for block in 0..<blocks {
        let first = block * form.block
        let range = first..<min(first + form.block, rows)
        roundKeys(keys, batch, block, range, heads, keepsKeys)
        roundValues(values, batch, range)
      }
    }
  }

  /// The means of the columns of some rows; zeros if none are taken off.
  private func means(_ rows: Rows, _ batch: Int, _ range: Range<Int>, into means: UnsafeMutablePointer<R>) {
    means.update(repeating: 0, count: rows.row)
    guard form.smooth else { return }
    for j in range {
      let row = rows.data + batch * rows.batch + j * rows.row
      for d in 0..<rows.row { means[d] += row[d] }
    }
    let factor = 1 / R(range.count)
    for d in 0..<rows.row { means[d] *= factor }
  }

  private func roundKeys(
    _ rows: Rows, _ batch: Int, _ block: Int, _ range: Range<Int>, _ heads: Int, _ keepsKeys: Bool
  ) {
    let center = centers.data + (batch * blocks + block) * rows.row
    if keepsKeys {
      center.update(repeating: 0, count: rows.row)
    } else {
      means(rows, batch, range, into: center)
    }
    let depth = rows.row / heads
    for j in range {
      let row = rows.data + batch * rows.batch + j * rows.row
      let result = keys.data + (batch * count + j) * rows.row
      for d in 0..<rows.row { result[d] = row[d] - center[d] }
      guard !keepsKeys else { continue }
      for head in 0..<heads { Self.round(result + head * depth, count: depth) }
    }
  }

  private func roundValues(_ rows: Rows, _ batch: Int, _ range: Range<Int>) {
    let center = Scratch<R>(rows.row)
    means(rows, batch, range, into: center.data)
    let (first, n) = (range.lowerBound, range.count)
    let column = Scratch<R>(n)
    for d in 0..<rows.row {
      for j in 0..<n { column.data[j] = rows.data[batch * rows.batch + (first + j) * rows.row + d] - center.data[d] }
      Self.round(column.data, count: n)
      for j in 0..<n { values.data[(batch * count + first + j) * rows.row + d] = center.data[d] + column.data[j] }
    }
    withExtendedLifetime((center, column)) {}
  }

  /// Replaces numbers by those that their codes stand for. A number that is none leaves the others as they are.
  private static func round(_ x: UnsafeMutablePointer<R>, count: Int) {
    var largest = R.zero
    for i in 0..<count where x[i].magnitude > largest { largest = x[i].magnitude }
    let top = R(ByteAttention.largestCode)
    let factor = largest > R(ByteAttention.leastMagnitude) ? top / largest : 0
    let scale = largest / top
    for i in 0..<count { x[i] = (x[i] * factor).rounded(.toNearestOrEven) * scale }
  }

  /// scores[i, j] = scale * (rounded q[i] . rounded k[j] + q[i] . mean of the block of j).
  func score(
    _ q: UnsafePointer<R>, queries: Int, stride: Int, batch: Int, column: Int, depth: Int, scale: Double,
    into scores: UnsafeMutablePointer<R>
  ) {
    let rounded = Scratch<R>(queries * depth)
    for i in 0..<queries {
      let row = rounded.data + i * depth
      row.update(from: q + i * stride, count: depth)
      Self.round(row, count: depth)
    }
    R.multiply(
      MatrixProduct(
        rows: queries, columns: count, depth: depth, transposeB: true, strideA: depth, strideB: keyWidth,
        strideC: count, alpha: scale),
      rounded.data, keys.data + batch * count * keyWidth + column, into: scores)
    let terms = Scratch<R>(queries * blocks)
    R.multiply(
      MatrixProduct(
        rows: queries, columns: blocks, depth: depth, transposeB: true, strideA: stride, strideB: keyWidth,
        strideC: blocks, alpha: scale),
      q, centers.data + batch * blocks * keyWidth + column, into: terms.data)
    for i in 0..<queries {
      for j in 0..<count { scores[i * count + j] += terms.data[i * blocks + j / form.block] }
    }
    withExtendedLifetime((rounded, terms)) {}
  }

  /// Turns the scores of the keys that a query sees into weights with rounded exponentials.
  func weigh(_ scores: UnsafeMutablePointer<R>, _ seen: Range<Int>) {
    var largest = -R.infinity
    for j in seen where scores[j] > largest || scores[j].isNaN { largest = scores[j] }
    var sum = 0.0
    var first = seen.lowerBound
    while first < seen.upperBound {
      let end = min((first / form.block + 1) * form.block, seen.upperBound)
      var top = -R.infinity
      for j in first..<end where scores[j] > top || scores[j].isNaN { top = scores[j] }
      let factor = top == -R.infinity ? 0 : R.exp(top - largest)
      for j in first..<end {
        let weight = top == -R.infinity ? 0 : R.exp(scores[j] - top)
        scores[j] = factor * (R(ByteAttention.largestWeight) * weight).rounded(.toNearestOrEven)
        sum += Double(scores[j])
      }
      first = end
    }
    let factor = R(rounding: sum == 0 ? 0 : 1 / sum)
    for j in seen { scores[j] *= factor }
  }
}
