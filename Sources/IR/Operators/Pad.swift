import Base
import Tensors

/// The input with elements of one value before and after each axis.
package struct Pad: Operator {
  package static let name = "pad"

  /// Elements added before each axis.
  package var before: [Int] = []
  /// Elements added after each axis.
  package var after: [Int] = []
  @Exact package var value: Float = 0

  package init() {}

  package init(before: [Int], after: [Int], value: Float = 0) {
    self.before = before
    self.after = after
    self.value = value
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    try expectList(before, count: x.rank, minimum: 0, "before")
    try expectList(after, count: x.rank, minimum: 0, "after")
    guard x.element.isFloat || (value.isFinite && value == value.rounded()) else {
      throw failure("attribute 'value' is \(value), expected a whole number for elements \(x.element.rawValue)")
    }
    return [x.with(shape: Shape(x.shape.dims.indices.map { x.shape[$0] + .fixed(before[$0] + after[$0]) }))]
  }
}

/// The input broadcast to a shape, as in NumPy: axes of size 1 and missing leading axes repeat.
package struct Expand: DimensionAttributes {
  package static let name = "expand"

  package var shape: [Dim] = []

  package init() {}

  package init(_ shape: [Dim]) { self.shape = shape }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    guard shape.allSatisfy({ $0.bounds.upperBound >= 0 }), Shape.broadcast(x.shape, Shape(shape)) == Shape(shape) else {
      throw failure("shape \(x.shape) does not broadcast to \(Shape(shape))")
    }
    return [x.with(shape: Shape(shape))]
  }

  package func substituting(_ replacement: (Symbol) -> Dim?) -> Expand {
    Expand(shape.map { $0.substituting(replacement) })
  }
}
