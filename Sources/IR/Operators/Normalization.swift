import Base
import Tensors

/// `x / sqrt(mean(x^2) + epsilon) * weight` over the axes from `axis` to the last (Zhang and Sennrich, 2019).
///
/// Inputs: `x` and `weight`, which has the shape of these axes.
package struct RMSNorm: Operator {
  package static let name = "rms_norm"

  package var axis: Int = -1
  @Exact package var epsilon: Float = 1e-5

  package init() {}

  package init(axis: Int = -1, epsilon: Float) {
    self.axis = axis
    self.epsilon = epsilon
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    try expectNormalization(inputs, axis: axis, epsilon: epsilon)
    return [inputs[0]]
  }
}

/// `(x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias` over the axes from `axis` to the last
/// (Ba, Kiros and Hinton, 2016).
///
/// Inputs: `x`, `weight` and optionally `bias`, which have the shape of these axes.
package struct LayerNorm: Operator {
  package static let name = "layer_norm"

  package var axis: Int = -1
  @Exact package var epsilon: Float = 1e-5

  package init() {}

  package init(axis: Int = -1, epsilon: Float) {
    self.axis = axis
    self.epsilon = epsilon
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...3)
    try expectNormalization(inputs, axis: axis, epsilon: epsilon)
    return [inputs[0]]
  }
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias` with given statistics per channel
/// (Ioffe and Szegedy, 2015).
///
/// Inputs: `x[N, C, ...]`; `scale`, `bias`, `mean` and `variance`, each `[C]`.
package struct BatchNorm: Operator {
  package static let name = "batch_norm"

  @Exact package var epsilon: Float = 1e-5

  package init() {}

  package init(epsilon: Float) { self.epsilon = epsilon }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 5...5)
    let x = inputs[0]
    try expectFloat(x, "input")
    guard x.rank >= 2 else { throw failure("found input of shape \(x.shape), expected rank 2 or more") }
    for (input, role) in zip(inputs.dropFirst(), ["scale", "bias", "mean", "variance"]) {
      try expectFloat(input, role)
      try expectShape(input, Shape([x.shape[1]]), role)
    }
    try expectEpsilon(epsilon)
    return [x]
  }
}

extension Operator {
  fileprivate func expectEpsilon(_ epsilon: Float) throws {
    guard epsilon >= 0, epsilon.isFinite else {
      throw failure("attribute 'epsilon' is \(epsilon), expected a number of at least 0")
    }
  }

  fileprivate func expectNormalization(_ inputs: [TensorType], axis: Int, epsilon: Float) throws {
    let x = inputs[0]
    try expectFloat(x, "input")
    let first = try axisIndex(axis, of: x.shape)
    let shape = Shape(Array(x.shape.dims[first...]))
    for (input, role) in zip(inputs.dropFirst(), ["weight", "bias"]) {
      try expectFloat(input, role)
      try expectShape(input, shape, role)
    }
    try expectEpsilon(epsilon)
  }
}
