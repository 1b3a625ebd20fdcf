import Base
import Tensors

/// The point between two tensors, seen as vectors, at `t` of the arc from the first to the second (Shoemake, "Animating
/// rotation with quaternion curves", 1985): `(sin((1 - t) w) a + sin(t w) b) / sin(w)` with `w` the angle between them.
///
/// Inputs: two tensors of one type of floating-point numbers, which is that of the result. Where a tensor is zero or they
/// are parallel or opposite the result lies on the straight line, `(1 - t) a + t b`. Numbers are computed in f64 and
/// rounded once.
package struct SphericalInterpolation: Operator {
  package static let name = "spherical_interpolation"

  @Exact package var t: Double = 0.5

  package init() {}

  package init(t: Double) { self.t = t }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    try expectFloat(inputs[0], "first tensor")
    guard inputs[1] == inputs[0] else {
      throw failure("found tensors of types \(inputs[0]) and \(inputs[1]), expected equal ones")
    }
    guard t >= 0, t <= 1 else { throw failure("attribute 't' is \(t), expected a number from 0 to 1") }
    return [inputs[0]]
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    TensorMerge.sphericalInterpolation(inputs[0], inputs[1], at: t, into: outputs[0])
  }
}
