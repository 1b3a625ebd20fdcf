import Base
import Tensors

/// Elements of a line that lie `strides` apart: `result[i, j, ...] = line[i * strides[0] + j * strides[1] + ...]`.
///
/// A tensor of a PyTorch checkpoint that is a transposed, cut out or repeated view of its storage. The line begins at the
/// first element and ends with the last one that is used.
package struct StridedView: RowMapped {
  package static let name = "strided_view"

  package var shape: [Int] = []
  package var strides: [Int] = []

  package init() {}

  package init(_ shape: [Int], strides: [Int]) {
    self.shape = shape
    self.strides = strides
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectDense(inputs[0], "input")
    try expectRank(inputs[0], 1...1, "input")
    let count = try expectFixed(inputs[0].shape[0], "elements")
    try expectList(strides, count: shape.count, minimum: 0, "strides")
    _ = try TensorType.checkedByteCount(sizes: shape, element: inputs[0].element, of: "the result")
    let need = try span(rows: shape.first ?? 1)
    guard need == count else { throw failure("found a line of \(count) elements, expected \(need)") }
    return [inputs[0].with(shape: Shape(shape))]
  }

  /// Elements from the first to the last one of so many outermost rows.
  private func span(rows: Int) throws -> Int {
    guard rows > 0, !shape.dropFirst().contains(0) else { return 0 }
    var span = 1
    for (size, stride) in zip([rows] + shape.dropFirst(), strides) {
      let (reach, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
      let (sum, above) = span.addingReportingOverflow(reach)
      guard !overflow, !above else { throw failure("the strides \(strides) are out of range") }
      span = sum
    }
    return span
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard let stride = strides.first, let count = try? span(rows: rows.count) else { return nil }
    return [rows.lowerBound * stride..<rows.lowerBound * stride + count]
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    copyElements(inputs[0], strides: strides, into: outputs[0])
  }
}
