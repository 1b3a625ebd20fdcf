import Base
import Tensors

/// Inputs of one type as the entries of a new outermost axis: the weights of experts as `[E, N, K]`.
///
/// Takes quantized tensors.
package struct Stack: RowMapped {
  package static let name = "stack"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    guard let first = inputs.first else { throw failure("found 0 inputs, expected at least 1") }
    guard first.rank >= 1 else { throw failure("found a single number, expected rank 1 or more") }
    if case .packed = first.encoding {
      throw failure("found input of type \(first), expected a dense or block-quantized tensor")
    }
    for input in inputs where input != first {
      throw failure("found inputs of types \(first) and \(input), expected equal ones")
    }
    return [first.with(shape: Shape([.fixed(inputs.count)] + first.shape.dims))]
  }

  /// A row of the result is all of one input.
  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard let count = inputs.first?.shape[0].fixedValue else { return nil }
    return inputs.indices.map { rows.contains($0) ? 0..<count : 0..<0 }
  }

  package func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    var offset = 0
    let target = outputs[0].bytes
    for input in inputs where !input.bytes.isEmpty {
      UnsafeMutableRawBufferPointer(rebasing: target[offset..<(offset + input.bytes.count)])
        .copyMemory(from: input.bytes)
      offset += input.bytes.count
    }
  }
}
