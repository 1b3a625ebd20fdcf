import Base

/// Rounds the weights of a linear layer to codes so that its results on samples change little: the error
/// `tr((W - Q) H (W - Q)^T)` of rows `W[N, K]` with `H = sum_t x_t x_t^T` over the inputs of the layer.
///
/// Columns are rounded one after the other, and what rounding one does to the results is made up for by the columns
/// that follow: with `H^-1 = U^T U`, `U` upper triangular, the error `e = (w_j - q_j) / U_jj` takes `e U_jk` from each
/// later `w_k` (Frantar and others, "GPTQ: accurate post-training quantization for generative pre-trained
/// transformers", 2023). A scale is the one of ``GroupGrid`` for which this, done for the group, gives the smallest sum
/// of `e^2`; it is rounded to the type it is stored in before codes are chosen. Afterwards scales and single codes are
/// improved in turn as long as the error falls (coordinate descent, as in Behdin and others, "QuantEase", 2023). A row
/// for which all of this is worse than rounding to nearest is rounded to nearest.
package struct GPTQ: Sendable {
  /// In what order columns are rounded.
  package enum Order: String, Hashable, Codable, Sendable, CaseIterable {
    /// From the first to the last.
    case none
    /// Groups by the largest `H_jj` in them, the columns of each by `H_jj`, largest first.
    case group
    /// All columns by `H_jj`, with scales that are chosen beforehand.
    case full
  }

  /// How codes are found before they are improved.
  package enum Rounding: String, Hashable, Codable, Sendable, CaseIterable {
    /// Column by column, what rounding one does to the results made up for by the later ones.
    case gptq
    /// Each to the nearest of a scale that is searched for by the diagonal of `H`; all that makes up for anything is
    /// improving single codes afterwards, until none moves: adaptive rounding (M. Nagel and others, "Up or down?",
    /// 2020) by coordinate descent, without gradients.
    case adaptive
  }

  package var rounding = Rounding.gptq
  /// What is added to the diagonal of `H`, as a share of its mean.
  package var damping = 0.01
  package var order = Order.group
  /// Whether scales are searched for; else they are those of rounding to nearest.
  package var searchesScales = true
  /// How often scales and codes are improved afterwards.
  package var refinements = 2

  package init() {}

  /// How a layer was quantized.
  package struct Report: Hashable, Sendable {
    /// The error of the codes, and that of rounding to nearest, both without damping.
    package var error: Double
    package var nearestError: Double
    /// The damping that was needed.
    package var damping: Double

    package init(error: Double = 0, nearestError: Double = 0, damping: Double = 0) {
      self.error = error
      self.nearestError = nearestError
      self.damping = damping
    }

    /// Adds the errors of other rows; of two dampings the larger one counts.
    package mutating func add(_ other: Report) {
      error += other.error
      nearestError += other.nearestError
      damping = max(damping, other.damping)
    }
  }

  /// What the inputs of a layer say of errors in its weights.
  package struct Metric: Sendable {
    /// The numbers of an input.
    let columns: Int
    /// `H` with damping.
    let hessian: [Float]
    /// What was added to the diagonal.
    let ridge: [Float]
    package let damping: Double
    /// The columns in the order in which they are rounded, and their `U`.
    let order: [Int]
    let factor: [Float]
  }

  /// Factors the sum of products `gram` of a layer's inputs for rounding to `format`.
  ///
  /// The damping is multiplied by ten until the matrix is positive definite; inputs that are always 0 get the mean.
  ///
  /// - Throws: `CompileError` of kind `.input` if the sums are not finite.
  package func metric(_ gram: [Double], columns: Int, _ format: BlockFormat) throws -> Metric {
    precondition(gram.count == columns * columns && damping >= 0, "a square matrix")
    guard gram.allSatisfy(\.isFinite) else {
      throw CompileError(.input, "the sums over the inputs have numbers that are not finite")
    }
    let diagonal = (0..<columns).map { gram[$0 * columns + $0] }
    var mean = columns == 0 ? 0 : diagonal.reduce(0, +) / Double(columns)
    // Without any input all errors count alike.
    if mean == 0 { mean = 1 }
    let order = self.order(diagonal, format)
    var share = damping
    while true {
      let ridge = share * mean
      let regular = diagonal.map { $0 > 0 ? ridge : ridge + mean }
      if let factor = Self.factor(gram, regular, order) {
        var hessian = gram.map { Float($0) }
        for column in 0..<columns { hessian[column * columns + column] += Float(regular[column]) }
        return Metric(
          columns: columns, hessian: hessian, ridge: regular.map { Float($0) }, damping: share, order: order,
          factor: factor)
      }
      guard share < 10 else { throw CompileError(.internal, "the sums over the inputs cannot be inverted") }
      share = share == 0 ? 1e-6 : share * 10
    }
  }

  /// `U` of the inverse of a matrix in another order of its columns; nil if it is not positive definite to rounding.
  private static func factor(_ gram: [Double], _ regular: [Double], _ order: [Int]) -> [Float]? {
    let n = order.count
    // With the order reversed H = L L^T; back in order L is upper triangular, and its inverse is U.
    var a = [Double](repeating: 0, count: n * n)
    for i in 0..<n {
      let row = order[n - 1 - i] * n
      for j in 0...i { a[i * n + j] = gram[row + order[n - 1 - j]] }
      a[i * n + i] += regular[order[n - 1 - i]]
    }
    let diagonal = (0..<n).map { a[$0 * n + $0] }
    do {
      try choleskyFactor(&a, order: n)
      for i in 0..<n where a[i * n + i] * a[i * n + i] <= 1e-12 * diagonal[i] {
        throw CompileError(.input, "the matrix is singular to rounding")
      }
      try invertTriangle(&a, order: n, .lower)
    } catch {
      return nil
    }
    var factor = [Float](repeating: 0, count: n * n)
    for i in 0..<n {
      for j in i..<n { factor[i * n + j] = Float(a[(n - 1 - i) * n + n - 1 - j]) }
    }
    return factor.allSatisfy(\.isFinite) ? factor : nil
  }

  /// The columns in the order in which they are rounded.
  private func order(_ diagonal: [Double], _ format: BlockFormat) -> [Int] {
    let columns = diagonal.count
    func byDiagonal(_ range: Range<Int>) -> [Int] {
      range.sorted { diagonal[$0] != diagonal[$1] ? diagonal[$0] > diagonal[$1] : $0 < $1 }
    }
    switch order {
    case .none: return Array(0..<columns)
    case .full: return byDiagonal(0..<columns)
    case .group:
      let groups = Self.groups(format, columns: columns)
      let largest = groups.map { group in group.map { diagonal[$0] }.max() ?? 0 }
      let places = groups.indices.sorted { largest[$0] != largest[$1] ? largest[$0] > largest[$1] : $0 < $1 }
      return places.flatMap { byDiagonal(groups[$0]) }
    }
  }

  /// The columns of each group.
  static func groups(_ format: BlockFormat, columns: Int) -> [Range<Int>] {
    let length = format.groupLength(columns: columns)
    return (0..<format.blocks(columns: columns)).map { $0 * length..<min(columns, ($0 + 1) * length) }
  }

  /// What makes up for other differences than those of the weights: the weights that are aimed at are
  /// `W + (W shift + offset) (H + damping)^-1`.
  package struct Correction: Sendable {
    /// `sum_t (x'_t - x_t) x_t^T`, of order `K`, for inputs `x'` that the layer would have in the original model.
    package var shift: [Float]
    /// `sum_t d_t x_t^T`, `[N, K]`, with what else its results are to gain; empty for nothing.
    package var offset: [Float]

    package init(shift: [Float], offset: [Float] = []) {
      self.shift = shift
      self.offset = offset
    }
  }

  /// Quantizes `rows` rows of weights into blocks lying one after the other.
  ///
  /// - Throws: `CompileError` of kind `.input` if a weight is not finite.
  package func quantize(
    _ weights: UnsafePointer<Float>, rows: Int, _ metric: Metric, _ format: BlockFormat,
    correction: Correction? = nil, into blocks: UnsafeMutableRawPointer
  ) throws -> Report {
    let columns = metric.columns
    guard isAllFinite(UnsafeBufferPointer(start: weights, count: rows * columns)) else {
      throw CompileError(.input, "a weight is not finite")
    }
    var report = Report(damping: metric.damping)
    guard rows > 0, columns > 0 else { return report }
    let step = RowChunk.rows
    let rowBytes = format.rowBytes(columns: columns)
    nonisolated(unsafe) let (weights, blocks) = (weights, blocks)
    let errors = parallelMap((rows + step - 1) / step) { index in
      let first = index * step
      let chunk = RowChunk(self, metric, format, count: min(step, rows - first))
      return chunk.run(weights + first * columns, correction, offsetRow: first, into: blocks + first * rowBytes)
    }
    for (error, nearest) in errors {
      report.error += error
      report.nearestError += nearest
    }
    return report
  }
}
