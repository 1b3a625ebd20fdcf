import Base
import Tensors

/// A part of one axis: `size` elements from `start` on, `step` apart.
///
/// Takes quantized tensors along any axis but the last.
package struct Slice: DimensionAttributes, RowMapped {
  package static let name = "slice"

  package var axis: Int = 0
  package var start: Dim = 0
  package var size: Dim = 0
  package var step: Int = 1

  package init() {}

  package init(axis: Int, start: Dim, size: Dim, step: Int = 1) {
    self.axis = axis
    self.start = start
    self.size = size
    self.step = step
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    let index = try axisIndex(axis, of: x.shape)
    try expectRows(x, along: index)
    guard step >= 1, step <= 1 << 20 else {
      throw failure("attribute 'step' is \(step), expected 1 to \(1 << 20)")
    }
    guard start.bounds.upperBound >= 0, size.bounds.upperBound >= 0 else {
      throw failure("found start \(start) and size \(size), expected at least 0")
    }
    let end = start + (size - 1) * step + 1
    guard size == 0 || (end - x.shape[index]).bounds.lowerBound <= 0 else {
      throw failure("elements \(start) to \(end) lie outside of axis \(index) of shape \(x.shape)")
    }
    var shape = x.shape
    shape[index] = size
    return [x.with(shape: shape)]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> Slice {
    Slice(axis: axis, start: start.substituting(replacement), size: size.substituting(replacement), step: step)
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard !rows.isEmpty, inputs[0].shape.normalizedAxis(axis) == 0, let start = start.fixedValue else { return nil }
    return [(start + rows.lowerBound * step)..<(start + (rows.upperBound - 1) * step + 1)]
  }
}

extension Operator {
  /// Throws unless the tensor can be cut along `axis`: dense, or quantized and not along its rows.
  func expectRows(_ x: TensorType, along axis: Int) throws {
    switch x.encoding {
    case .dense: break
    case .block:
      guard axis < x.rank - 1 else { throw failure("a quantized tensor is not taken apart along its last axis") }
    case .packed: throw failure("found input of type \(x), expected a dense or block-quantized tensor")
    }
  }
}
