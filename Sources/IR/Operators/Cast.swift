import Base
import Tensors

/// Each number in another element type.
///
/// To a floating-point type: the nearest number, halves to even. Floating point to whole numbers: towards zero, out of
/// range to the nearest limit, NaN to 0. Between whole numbers: the low bits. To bool: whether it is not 0.
package struct Cast: RowMapped {
  package static let name = "cast"

  package var type: DType = .f32

  package init() {}

  package init(_ type: DType) { self.type = type }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectDense(inputs[0], "input")
    return [inputs[0].with(element: type)]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? { [rows] }
}
