import Base
import Tensors

/// The axes in another order: axis `i` of the result is axis `permutation[i]` of the input.
package struct Transpose: RowMapped {
  package static let name = "transpose"

  package var permutation: [Int] = []

  package init() {}

  package init(_ permutation: [Int]) { self.permutation = permutation }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    guard permutation.sorted() == Array(0..<x.rank) else {
      throw failure("attribute 'permutation' is \(permutation), expected an order of the \(x.rank) axes of \(x.shape)")
    }
    return [x.with(shape: Shape(permutation.map { x.shape[$0] }))]
  }

  /// Rows stay rows where the outermost axis stays.
  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    permutation.first == 0 ? [rows] : nil
  }
}
