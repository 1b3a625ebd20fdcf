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
/// Each sample is multiplied in f32 and added in f64. The matrix is cut into panels by its size alone, so that the result
/// does not depend on the number of threads.
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

  private static func sum(
    _ left: [SampleRows], columns height: Int, _ right: [SampleRows], columns width: Int, isLower: Bool
  ) -> [Double] {
    precondition(left.count == right.count && zip(left, right).allSatisfy { $0.rows == $1.rows }, "equal rows")
    var result = [Double](repeating: 0, count: height * width)
    guard height > 0, width > 0 else { return result }
    let step = panelRows(height)
    let panels = (height + step - 1) / step
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
          defer { part.deallocate() }
          let product = { (depth: Int) in
            MatrixProduct(
              rows: end - first, columns: columns, depth: depth, transposeA: true, strideA: height, strideB: width)
          }
          for (a, b) in zip(left, right) where a.rows > 0 {
            product(a.rows)(a.numbers + first, b.numbers, into: part)
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
}
