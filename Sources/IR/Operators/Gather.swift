import Base
import Tensors

/// Rows of a table: `result[..., i, ...] = data[..., indices[i], ...]` along one axis, in place of which the result has
/// the axes of `indices`.
///
/// Negative indices count from the end; an index outside is an error. With a `type` the elements are converted; a
/// quantized table gives f32 unless said otherwise and is gathered along any axis but the last.
package struct Gather: Operator {
  package static let name = "gather"

  package var axis: Int = 0
  /// The element type of the result; nil for that of the data.
  package var type: DType?

  package init() {}

  package init(axis: Int = 0, type: DType? = nil) {
    self.axis = axis
    self.type = type
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    let (data, indices) = (inputs[0], inputs[1])
    let index = try axisIndex(axis, of: data.shape)
    switch data.encoding {
    case .dense:
      guard type == nil || type == data.element || (data.element.isFloat && type?.isFloat == true) else {
        throw failure("does not convert \(data.element.rawValue) to \(type?.rawValue ?? "")")
      }
    case .block:
      guard index < data.rank - 1 else { throw failure("a quantized table is not gathered along its last axis") }
      guard type?.isFloat ?? true else {
        throw failure("attribute 'type' is \(type?.rawValue ?? ""), expected a floating-point type")
      }
    case .packed: throw failure("found data of type \(data), expected a dense or block-quantized tensor")
    }
    try expectDense(indices, "indices")
    guard indices.element == .i32 || indices.element == .i64 else {
      throw failure("found indices of element type \(indices.element.rawValue), expected i32 or i64")
    }
    let dims = Array(data.shape.dims[..<index]) + indices.shape.dims + Array(data.shape.dims[(index + 1)...])
    return [TensorType(type ?? (data.isDense ? data.element : .f32), Shape(dims))]
  }
}
