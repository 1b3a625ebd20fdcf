/// Rows or columns of a matrix as rows of f64.
package enum MatrixRows {
  /// The rows `range` of a dense matrix, or its columns as rows.
  package static func load(_ matrix: TensorView, _ range: Range<Int>, areColumns: Bool) -> [Double] {
    let (height, width) = (matrix.sizes[0], matrix.sizes[1])
    let size = matrix.type.element.byteCount
    guard areColumns else {
      return doubles(matrix, range.lowerBound * width * size..<range.upperBound * width * size)
    }
    var rows = [Double](repeating: 0, count: range.count * height)
    for row in 0..<height {
      let line = doubles(
        matrix, (row * width + range.lowerBound) * size..<(row * width + range.upperBound) * size)
      for i in 0..<range.count { rows[i * height + row] = line[i] }
    }
    return rows
  }

  /// Rounds rows to the rows `range` of a dense matrix, or to its columns.
  package static func store(
    _ rows: [Double], _ range: Range<Int>, of matrix: MutableTensorView, areColumns: Bool
  ) {
    let (height, width) = (matrix.sizes[0], matrix.sizes[1])
    let (size, element) = (matrix.type.element.byteCount, matrix.type.element)
    func write(_ numbers: UnsafeRawBufferPointer, at first: Int) {
      let bytes = first * size..<first * size + numbers.count / 8 * size
      convertRow(numbers, .f64, into: UnsafeMutableRawBufferPointer(rebasing: matrix.bytes[bytes]), element)
    }
    guard areColumns else {
      rows.withUnsafeBytes { write($0, at: range.lowerBound * width) }
      return
    }
    var line = [Double](repeating: 0, count: range.count)
    for row in 0..<height {
      for i in 0..<range.count { line[i] = rows[i * height + row] }
      line.withUnsafeBytes { write($0, at: row * width + range.lowerBound) }
    }
  }

  private static func doubles(_ matrix: TensorView, _ bytes: Range<Int>) -> [Double] {
    let element = matrix.type.element
    let count = bytes.count / element.byteCount
    return [Double](unsafeUninitializedCapacity: count) { buffer, initialized in
      convertRow(
        UnsafeRawBufferPointer(rebasing: matrix.bytes[bytes]), element, into: UnsafeMutableRawBufferPointer(buffer),
        .f64)
      initialized = count
    }
  }
}
