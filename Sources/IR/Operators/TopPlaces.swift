import Base
import Tensors

/// Where the `count` largest (or smallest) elements of each line along an axis lie, in order, as i64; of equal elements the first
/// comes first. NaN is never among them before numbers.
package struct TopPlaces: Operator {
  package static let name = "top_places"

  package var axis: Int = -1
  package var count: Int = 1
  package var largest: Bool = true

  package init() {}

  package init(axis: Int, count: Int, largest: Bool = true) {
    self.axis = axis
    self.count = count
    self.largest = largest
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectDense(x, "input")
    let axis = try axisIndex(axis, of: x.shape)
    guard count >= 0, (x.shape[axis] - .fixed(count)).bounds.lowerBound >= 0 else {
      throw failure("found \(x.shape[axis]) elements along axis \(axis), expected at least \(count)")
    }
    var shape = x.shape
    shape[axis] = .fixed(count)
    return [TensorType(.i64, shape)]
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let axis = try axisIndex(axis, of: inputs[0].type.shape)
    let sizes = inputs[0].sizes
    let length = sizes[axis], stride = sizes[(axis + 1)...].reduce(1, *)
    let places = outputs[0].elements(as: Int64.self)
    guard places.count > 0 else { return }
    func choose<S: Computable>(_ type: S.Type) {
      let x = Numbers<S>(inputs[0])
      let source = x.data
      for line in 0..<x.count / length {
        let first = line / stride * stride * length + line % stride
        let order = (0..<length).sorted { a, b in
          let (left, right) = (source[first + a * stride], source[first + b * stride])
          let isNumber = (left == left, right == right)
          if isNumber.0 != isNumber.1 { return isNumber.0 }
          if left == right || !isNumber.0 { return a < b }
          return largest ? left > right : left < right
        }
        let target = line / stride * stride * count + line % stride
        for i in 0..<count { places[target + i * stride] = Int64(order[i]) }
      }
      withExtendedLifetime(x) {}
    }
    switch inputs[0].type.element {
    case .f64: choose(Double.self)
    case let element where element.isFloat: choose(Float.self)
    default: choose(Int64.self)
    }
  }
}
