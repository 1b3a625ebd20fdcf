import Base
import IR
import Tensors

/// batch_norm(x, scale, bias, mean, variance) -> x * s + b with `s = scale / sqrt(variance + epsilon)` and
/// `b = bias - mean * s`, both known at compile time where the statistics are.
extension BatchNorm: Decomposable {
  package func decompose(_ inputs: [ValueID], in builder: inout GraphBuilder) throws -> [ValueID] {
    let x = builder.type(of: inputs[0])
    let parameters = try inputs.dropFirst().map { input in
      builder.type(of: input).element == x.element ? input : try builder.emit(Cast(x.element), input)
    }
    let (scale, bias, mean, variance) = (parameters[0], parameters[1], parameters[2], parameters[3])
    func deviation(_ index: Int) -> ScalarExpression { .unary(.sqrt, .binary(.add, .input(index), .number(epsilon))) }
    let factor = try builder.emit(
      FusedElementwise(.binary(.divide, .input(0), deviation(1))), scale, variance)
    let offset = try builder.emit(
      FusedElementwise(.binary(.subtract, .input(0), .binary(.multiply, .input(1), .input(2)))), bias, mean, factor)
    // One number per channel, broadcast over what follows the axis of channels.
    let shape = [x.shape[1]] + [Dim](repeating: 1, count: x.rank - 2)
    let columns = try [factor, offset].map { try builder.emit(Reshape(shape), $0) }
    return [
      try builder.emit(
        FusedElementwise(.binary(.add, .binary(.multiply, .input(0), .input(1)), .input(2))), inputs[0], columns[0],
        columns[1])
    ]
  }
}
