import Base
import Tensors

/// Sums of the elements up to each place along one axis; `exclusive` leaves out the element at the place itself, `backward`
/// sums up from the other end.
package struct CumulativeSum: Operator {
  package static let name = "cumulative_sum"

  package var axis: Int = -1
  package var exclusive: Bool = false
  package var backward: Bool = false

  package init() {}

  package init(axis: Int, exclusive: Bool = false, backward: Bool = false) {
    self.axis = axis
    self.exclusive = exclusive
    self.backward = backward
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectDense(inputs[0], "input")
    guard inputs[0].element != .bool else { throw failure("does not take elements of type bool") }
    _ = try axisIndex(axis, of: inputs[0].shape)
    return inputs
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    switch inputs[0].type.element {
    case .f64: try sum(Double.self, inputs[0], outputs[0]) { $0 + $1 }
    case let element where element.isFloat: try sum(Float.self, inputs[0], outputs[0]) { $0 + $1 }
    default: try sum(Int64.self, inputs[0], outputs[0]) { $0 &+ $1 }
    }
  }

  private func sum<S: Computable>(
    _ type: S.Type, _ input: TensorView, _ output: MutableTensorView, _ add: (S, S) -> S
  ) throws {
    let axis = try axisIndex(axis, of: input.type.shape)
    let x = Numbers<S>(input), y = Results<S>(output)
    let count = input.sizes[axis], stride = input.sizes[(axis + 1)...].reduce(1, *)
    guard x.count > 0 else { return }
    let (source, target) = (x.data, y.data)
    for line in 0..<x.count / count {
      let first = line / stride * stride * count + line % stride
      var total = S.zero
      for step in 0..<count {
        let place = first + (backward ? count - 1 - step : step) * stride
        let next = add(total, source[place])
        target[place] = exclusive ? total : next
        total = next
      }
    }
    y.store()
    withExtendedLifetime((x, y)) {}
  }
}
