import Base
import Tensors

extension Quantize {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    let numbers = Numbers<Float>(inputs[0])
    withExtendedLifetime(numbers) {
      format.quantize(
        UnsafeBufferPointer(start: numbers.data, count: numbers.count), columns: inputs[0].sizes.last ?? 0,
        into: outputs[0].bytes, largestCode: codeBits.map(Self.largestCode) ?? 127)
    }
  }
}

extension Dequantize {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    try widenRows(
      inputs[0].bytes, inputs[0].type, columns: inputs[0].sizes.last ?? 0, into: outputs[0].bytes, type)
  }
}

extension Cast {
  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    parallelConvert(inputs[0].bytes, inputs[0].type.element, into: outputs[0].bytes, type, count: inputs[0].count)
  }
}
