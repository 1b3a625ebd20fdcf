import Base
import Tensors

/// A sum, mean, largest, smallest or product over some axes of one input; no axes means all.
///
/// Reduced axes keep size 1 with `keepDims`, else they are left out. Means are for floating-point elements.
package struct Reduce: Operator {
  package static let name = "reduce"

  package enum Function: String, Hashable, Codable, Sendable, CaseIterable {
    case sum, mean, max, min, product
  }

  package var function: Function = .sum
  package var axes: [Int] = []
  package var keepDims: Bool = false

  package init() {}

  package init(_ function: Function, axes: [Int], keepDims: Bool = false) {
    self.function = function
    self.axes = axes
    self.keepDims = keepDims
  }

  /// For each axis of `shape`, whether it is reduced.
  package func reducedAxes(of shape: Shape) throws -> [Bool] {
    var reduced = [Bool](repeating: axes.isEmpty, count: shape.rank)
    for axis in axes {
      let index = try axisIndex(axis, of: shape)
      guard !reduced[index] else { throw failure("axis \(axis) is given twice in \(axes)") }
      reduced[index] = true
    }
    return reduced
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    guard x.element.isFloat || (x.element.isInteger && function != .mean) else {
      throw failure("function '\(function.rawValue)' does not take elements of type \(x.element.rawValue)")
    }
    let reduced = try reducedAxes(of: x.shape)
    var dims: [Dim] = []
    for (axis, dim) in x.shape.dims.enumerated() {
      if !reduced[axis] {
        dims.append(dim)
      } else if keepDims {
        dims.append(1)
      }
    }
    return [x.with(shape: Shape(dims))]
  }
}
