import Base
import Tensors

/// `exp(x - max) / sum(exp(x - max))` along one axis.
package struct Softmax: Operator {
  package static let name = "softmax"

  package var axis: Int = -1

  package init() {}

  package init(axis: Int) { self.axis = axis }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectFloat(inputs[0], "input")
    _ = try axisIndex(axis, of: inputs[0].shape)
    return inputs
  }
}

/// `x - max - log(sum(exp(x - max)))` along one axis.
package struct LogSoftmax: Operator {
  package static let name = "log_softmax"

  package var axis: Int = -1

  package init() {}

  package init(axis: Int) { self.axis = axis }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    try expectFloat(inputs[0], "input")
    _ = try axisIndex(axis, of: inputs[0].shape)
    return inputs
  }
}
