import Base

/// The linear layer whose results differ least, in the sum of squares, from those of several layers on the inputs of
/// each: with `X_i` the inputs of layer `i`, one row each, and `W_i[N, K]` its weights, the minimum of
/// `sum_i |X_i W^T - X_i W_i^T|^2` is at `W = (sum_i W_i G_i) (sum_i G_i)^-1`, `G_i = X_i^T X_i` (Jin and others,
/// "Dataless knowledge fusion by merging weights of language models", RegMean, 2023).
///
/// Everything is in f64. The numbers of `G_i` off the diagonal are multiplied by a scale up to 1, as in the paper. Where the
/// sum is singular (fewer rows than columns, inputs that are always 0), a share of the mean of its diagonal is added to the
/// diagonal, and as much times the mean of the weights to the other side: directions that no input has get the mean.
package struct RegressionMean: Sendable {
  /// The numbers of an input.
  package let order: Int
  /// `G_i`, by layer.
  private var grams: [[Double]]
  /// The rows seen of each layer's inputs.
  package private(set) var rows: [Int]
  /// What was added to the diagonal, as a share of its mean.
  package private(set) var damping = 0.0
  /// The inverse of the lower Cholesky factor of the sum; empty if all inputs were 0.
  private var inverseFactor: [Double] = []

  /// Statistics of `count` layers with inputs of `order` numbers.
  package init(order: Int, count: Int) {
    precondition(order > 0 && count > 0, "a layer has inputs")
    self.order = order
    grams = [[Double]](repeating: [Double](repeating: 0, count: order * order), count: count)
    rows = [Int](repeating: 0, count: count)
  }

  /// Adds inputs of a layer: the rows of a dense tensor of floating-point numbers, `[..., order]`.
  package mutating func add(_ inputs: TensorView, of layer: Int) {
    let count = inputs.count / order
    precondition(inputs.count == count * order && inputs.type.isDense, "rows of \(order) numbers")
    let rowBytes = order * inputs.type.element.byteCount
    let block = max(1, (1 << 22) / order)
    var numbers = [Double](repeating: 0, count: min(block, max(count, 1)) * order)
    for first in stride(from: 0, to: count, by: block) {
      let part = min(block, count - first)
      numbers.withUnsafeMutableBytes { target in
        convertRow(
          UnsafeRawBufferPointer(rebasing: inputs.bytes[first * rowBytes..<(first + part) * rowBytes]),
          inputs.type.element, into: target, .f64)
      }
      addGram(numbers, rows: part, columns: order, into: &grams[layer])
    }
    rows[layer] += count
  }

  /// Factors the sum of the statistics, with numbers off the diagonal times `scale`; nothing is added afterwards.
  ///
  /// - Throws: `CompileError` of kind `.input` if an input was not finite.
  package mutating func factor(scale: Double) throws {
    var total = [Double](repeating: 0, count: order * order)
    for layer in grams.indices {
      for row in 0..<order {
        for column in 0..<order {
          let place = row * order + column
          if row != column { grams[layer][place] *= scale }
          total[place] += grams[layer][place]
        }
      }
    }
    guard total.allSatisfy(\.isFinite) else {
      throw CompileError(.input, "the inputs have numbers that are not finite")
    }
    let mean = (0..<order).reduce(0) { $0 + total[$1 * order + $1] } / Double(order)
    guard mean > 0 else { return }
    while true {
      var sum = total
      let ridge = damping * mean
      for row in 0..<order { sum[row * order + row] += ridge }
      if try Self.isFactored(&sum, diagonal: total, ridge: ridge, order) {
        try invertTriangle(&sum, order: order, .lower)
        inverseFactor = sum
        return
      }
      guard damping < 1 else { throw CompileError(.internal, "the statistics cannot be inverted") }
      damping = damping == 0 ? 1e-10 : damping * 10
    }
  }

  /// Replaces a matrix by its Cholesky factor; false if it is singular to rounding.
  private static func isFactored(_ sum: inout [Double], diagonal: [Double], ridge: Double, _ order: Int) throws -> Bool
  {
    do {
      try choleskyFactor(&sum, order: order)
    } catch let error as CompileError where error.kind == .input {
      return false
    }
    // A pivot is what a column has beside those before it: less than this share of it is rounding.
    return (0..<order).allSatisfy { row in
      let pivot = sum[row * order + row]
      return pivot * pivot > 1e-12 * (diagonal[row * order + row] + ridge)
    }
  }

  /// The weights of some outputs of the merged layer.
  ///
  /// `weights` has for each layer the `count` rows of these outputs.
  package func merged(_ weights: [[Double]], count: Int) -> [Double] {
    precondition(weights.count == grams.count && weights.allSatisfy { $0.count == count * order }, "rows of each layer")
    var mean = [Double](repeating: 0, count: count * order)
    for weight in weights {
      for i in mean.indices { mean[i] += weight[i] }
    }
    for i in mean.indices { mean[i] /= Double(weights.count) }
    guard !inverseFactor.isEmpty, count > 0 else { return mean }
    // Solved for the difference from the mean, which is 0 where all agree, whatever the condition of the sum.
    var right = [Double](repeating: 0, count: count * order)
    for (weight, gram) in zip(weights, grams) {
      let difference = zip(weight, mean).map { $0 - $1 }
      MatrixProduct(rows: count, columns: order, depth: order, beta: 1)(difference, gram, into: &right)
    }
    var half = right
    MatrixProduct(rows: count, columns: order, depth: order, transposeB: true)(right, inverseFactor, into: &half)
    MatrixProduct(rows: count, columns: order, depth: order, beta: 1)(half, inverseFactor, into: &mean)
    return mean
  }
}
