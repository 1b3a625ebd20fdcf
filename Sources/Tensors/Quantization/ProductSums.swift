import Base

/// Rows of numbers of several samples, one row per token.
package struct SampleRows: @unchecked Sendable {
  package let numbers: UnsafePointer<Float>
  package let rows: Int
  private let owner: AnyObject?

  /// Rows that `owner` keeps, if there is one.
  package init(_ numbers: UnsafePointer<Float>, rows: Int, owner: AnyObject? = nil) {
    self.numbers = numbers
    self.rows = rows
    self.owner = owner
  }
}

/// Sums of products over the rows of samples, `sum_t a_t b_t^T`, as the normal equations of least squares need them.
///
/// Each sample is multiplied in f32, short ones together, and added in f64. The matrix is cut into panels by its size
/// alone, so that the result does not depend on the number of threads.
package enum ProductSums {
  /// The rows of a panel of a matrix of that many rows.
  private static func panelRows(_ rows: Int) -> Int { max(32, (rows + 127) / 128 * 16) }

  /// `sum_t x_t x_t^T`, row-major of order `columns`, both triangles.
  package static func gram(_ samples: [SampleRows], columns: Int) -> [Double] {
    var result = sum(samples, columns: columns, samples, columns: columns, isLower: true)
    for row in 0..<columns {
      for column in 0..<row { result[column * columns + row] = result[row * columns + column] }
    }
    return result
  }

  /// `sum_t a_t b_t^T`, row-major; samples have equally many rows on both sides.
  package static func cross(
    _ left: [SampleRows], columns leftColumns: Int, _ right: [SampleRows], columns rightColumns: Int
  ) -> [Double] {
    sum(left, columns: leftColumns, right, columns: rightColumns, isLower: false)
  }

  /// `sum_t (a_t - a'_t) b_t^T`, row-major, with `a'` in `others`; the differences exist for a panel of a sample at a time.
  package static func cross(
    _ left: [SampleRows], minus others: [SampleRows], columns leftColumns: Int, _ right: [SampleRows],
    columns rightColumns: Int
  ) -> [Double] {
    precondition(zip(left, others).allSatisfy { $0.rows == $1.rows } && left.count == others.count, "equal rows")
    return sum(left, minus: others, columns: leftColumns, right, columns: rightColumns, isLower: false)
  }

  /// Samples of fewer rows are joined with the next ones.
  private static let leastRows = 256

  /// Samples of `leastRows` rows or more, the last ones perhaps fewer, with the same rows in the same order.
  private static func joined(_ samples: [SampleRows], _ columns: Int) -> [SampleRows] {
    var result: [SampleRows] = [], waiting: [SampleRows] = []
    func flush() {
      guard waiting.count > 1 else {
        result += waiting
        waiting = []
        return
      }
      let count = waiting.reduce(0) { $0 + $1.rows }
      let tensor = Tensor(TensorType(.f32, [max(count, 1), max(columns, 1)]))
      guard var target = tensor.mutableView.elements(as: Float.self).baseAddress else {
        preconditionFailure("a tensor of a number or more has an address")
      }
      let start = UnsafePointer(target)
      for sample in waiting {
        target.update(from: sample.numbers, count: sample.rows * columns)
        target += sample.rows * columns
      }
      result.append(SampleRows(start, rows: count, owner: tensor))
      waiting = []
    }
    for sample in samples {
      waiting.append(sample)
      if waiting.reduce(0, { $0 + $1.rows }) >= leastRows { flush() }
    }
    flush()
    return result
  }

  private static func sum(
    _ left: [SampleRows], minus others: [SampleRows]? = nil, columns height: Int, _ right: [SampleRows],
    columns width: Int, isLower: Bool
  ) -> [Double] {
    precondition(left.count == right.count && zip(left, right).allSatisfy { $0.rows == $1.rows }, "equal rows")
    let (left, right) = (joined(left, height), joined(right, width))
    let others = others.map { joined($0, height) }
    var result = [Double](repeating: 0, count: height * width)
    guard height > 0, width > 0 else { return result }
    let step = panelRows(height)
    let panels = (height + step - 1) / step
    let tokens = left.map(\.rows).max() ?? 0
    result.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress else { return }
      nonisolated(unsafe) let target = base
      parallelFor(panels) { range in
        for index in range {
          // Panels further down a triangle are longer and come first.
          let first = (panels - 1 - index) * step
          let end = min(height, first + step)
          let columns = isLower ? end : width
          let part = UnsafeMutablePointer<Float>.allocate(capacity: (end - first) * columns)
          let differences = others.map { _ in
            UnsafeMutablePointer<Float>.allocate(capacity: max(1, tokens * (end - first)))
          }
          defer {
            part.deallocate()
            differences?.deallocate()
          }
          for (sample, (a, b)) in zip(left, right).enumerated() where a.rows > 0 {
            let product = MatrixProduct(
              rows: end - first, columns: columns, depth: a.rows, transposeA: true,
              strideA: differences == nil ? height : end - first, strideB: width)
            if let differences, let other = others?[sample] {
              subtract(a, other, first..<end, of: height, into: differences)
              product(differences, b.numbers, into: part)
            } else {
              product(a.numbers + first, b.numbers, into: part)
            }
            for row in first..<end {
              let source = part + (row - first) * columns, line = target + row * width
              for column in 0..<columns { line[column] += Double(source[column]) }
            }
          }
        }
      }
    }
    return result
  }

  /// Some columns of `a - b`, rows without gaps.
  private static func subtract(
    _ a: SampleRows, _ b: SampleRows, _ range: Range<Int>, of columns: Int, into result: UnsafeMutablePointer<Float>
  ) {
    for row in 0..<a.rows {
      let (x, y) = (a.numbers + row * columns + range.lowerBound, b.numbers + row * columns + range.lowerBound)
      let line = result + row * range.count
      for column in 0..<range.count { line[column] = x[column] - y[column] }
    }
  }
}
