import Base
import Tensors

/// What a softmax over a vocabulary and the loss of given tokens need of logits, so that these need not exist all at once
/// (Wijmans and others, 2024, Cut Cross-Entropy).
///
/// The logits are `z[t, v] = f(sum over k of x[t, k] w[v, k] + bias[v])`. For part `p`, the rows from `p * rows` up to
/// `(p + 1) * rows` of `w`:
///
///     result[0, t, p] = the largest z[t, v]
///     result[1, t, p] = sum of exp(z[t, v] - result[0, t, p])
///     result[2, t, p] = z[t, ids[t]] if that row is in the part, else 0
///
/// so that the loss of token `ids[t]` is `m + log(sum over p of result[1, t, p] exp(result[0, t, p] - m)) - sum over p of
/// result[2, t, p]`, with `m` the largest of `result[0, t]`.
///
/// Inputs: `x[T, K]`, `w[V, K]`, `ids: i32[T]`, then optionally `bias[V]`. Result `[3, T, ceil(V / rows)]` with the element
/// type of `x`. Weights of another floating-point type are widened; an id outside of `0 ..< V` is an error.
package struct VocabularyStatistics: Operator {
  package static let name = "vocabulary_statistics"

  /// Rows of `w` in a part.
  package var rows: Int = 64
  /// What is done to the sums with their bias: an expression of `%0`.
  package var function: ScalarExpression = .input(0)

  package init() {}

  package init(rows: Int, function: ScalarExpression = .input(0)) {
    self.rows = rows
    self.function = function
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 3...4)
    let (x, w, ids) = (inputs[0], inputs[1], inputs[2])
    try expectFloat(x, "left factor")
    try expectFloat(w, "right factor")
    try expectRank(x, 2...2, "left factor")
    try expectRank(w, 2...2, "right factor")
    try expectDense(ids, "ids")
    guard ids.element == .i32 else {
      throw failure("found ids of element type \(ids.element.rawValue), expected i32")
    }
    try expectShape(ids, [x.shape[0]], "ids")
    guard x.shape[1] == w.shape[1] else {
      throw failure("left factor of shape \(x.shape) does not fit weights of shape \(w.shape)")
    }
    let vocabulary = try expectFixed(w.shape[0], "vocabulary")
    guard vocabulary >= 1 else { throw failure("found a vocabulary of \(vocabulary), expected at least 1") }
    guard rows >= 1 else { throw failure("attribute 'rows' is \(rows), expected at least 1") }
    guard function.inputCount <= 1 else {
      throw failure("the function names input %\(function.inputCount - 1), expected %0 alone")
    }
    if inputs.count > 3 {
      try expectFloat(inputs[3], "bias")
      try expectShape(inputs[3], [w.shape[0]], "bias")
    }
    return [x.with(shape: [3, x.shape[0], .fixed((vocabulary - 1) / rows + 1)])]
  }
}

extension VocabularyStatistics: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, w, result) = (inputs[0], inputs[1], results[0])
    let (tokens, depth, vocabulary) = (x.sizes[0], x.sizes[1], w.sizes[0])
    let ids = inputs[2].view.elements(as: Int32.self)
    if let id = ids.first(where: { !(0..<vocabulary).contains(Int($0)) }) {
      throw failure("the id \(id) lies outside of a vocabulary of \(vocabulary)")
    }
    let parts = (vocabulary - 1) / rows + 1
    let width = min(rows, vocabulary)
    let matrix = Scratch<R>(width * depth)
    let sums = Scratch<R>(tokens * width)
    for part in 0..<parts {
      let first = part * rows
      let count = min(rows, vocabulary - first)
      loadNumbers(w.view, (first * depth)..<((first + count) * depth), into: matrix.data)
      R.multiply(
        MatrixProduct(rows: tokens, columns: count, depth: depth, transposeB: true), x.data, matrix.data,
        into: sums.data)
      for token in 0..<tokens {
        let row = sums.data + token * count
        if inputs.count > 3 { for i in 0..<count { row[i] += inputs[3].data[first + i] } }
        function.replace(row, count: count)
        var largest = -R.infinity
        for i in 0..<count where row[i] > largest { largest = row[i] }
        let base = max(largest, -R.greatestFiniteMagnitude)
        var sum: R = 0
        for i in 0..<count { sum += R.exp(row[i] - base) }
        let place = token * parts + part
        let own = Int(ids[token]) - first
        result.data[place] = largest
        result.data[tokens * parts + place] = sum
        result.data[2 * tokens * parts + place] = (0..<count).contains(own) ? row[own] : 0
      }
    }
    withExtendedLifetime((matrix, sums)) {}
  }
}

extension ScalarExpression {
  /// Replaces each number by the expression of it.
  fileprivate func replace<R: Real>(_ x: UnsafeMutablePointer<R>, count: Int) {
    if self == .input(0) { return }
    let result = Scratch<R>(count)
    withExtendedLifetime(result) {
      compute(x, into: result.data, count: count)
      x.update(from: result.data, count: count)
    }
  }

  private func compute<R: Real>(
    _ x: UnsafeMutablePointer<R>, into y: UnsafeMutablePointer<R>, count: Int
  ) {
    switch self {
    case .input: y.update(from: x, count: count)
    case .constant(let bits): y.update(repeating: R(rounding: Double(Float(bitPattern: bits))), count: count)
    case .unary(let function, let a):
      a.compute(x, into: y, count: count)
      R.apply(function, to: y, count: count)
    case .binary(let function, let a, let b):
      let right = Scratch<R>(count)
      withExtendedLifetime(right) {
        a.compute(x, into: y, count: count)
        b.compute(x, into: right.data, count: count)
        _ = R.apply(function, to: y, right.data, count: count)
      }
    case .select(let condition, let a, let b):
      let (truth, other) = (Scratch<R>(count), Scratch<R>(count))
      withExtendedLifetime((truth, other)) {
        condition.compute(x, into: truth.data, count: count)
        a.compute(x, into: y, count: count)
        b.compute(x, into: other.data, count: count)
        for i in 0..<count where truth.data[i] == 0 { y[i] = other.data[i] }
      }
    }
  }
}
