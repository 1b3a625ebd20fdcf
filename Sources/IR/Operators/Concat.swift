import Base
import Tensors

/// Inputs one after the other along one axis; the other sizes are equal.
///
/// Takes quantized tensors along any axis but the last.
package struct Concat: RowMapped {
  package static let name = "concat"

  package var axis: Int = 0

  package init() {}

  package init(axis: Int) { self.axis = axis }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    guard let first = inputs.first else { throw failure("found 0 inputs, expected at least 1") }
    let index = try axisIndex(axis, of: first.shape)
    try expectRows(first, along: index)
    var sum = first.shape[index]
    for input in inputs.dropFirst() {
      var shape = input.shape
      if shape.rank == first.rank {
        sum = sum + shape[index]
        shape[index] = first.shape[index]
      }
      guard input.with(shape: shape) == first else {
        throw failure("found inputs of types \(first) and \(input), expected them equal but for axis \(index)")
      }
    }
    var shape = first.shape
    shape[index] = sum
    return [first.with(shape: shape)]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    guard let first = inputs.first, first.shape.normalizedAxis(axis) == 0 else { return nil }
    var offset = 0
    var result: [Range<Int>?] = []
    for input in inputs {
      guard let size = input.shape[0].fixedValue else { return nil }
      let low = min(max(rows.lowerBound - offset, 0), size)
      let high = min(max(rows.upperBound - offset, low), size)
      result.append(low..<high)
      offset += size
    }
    return result
  }
}

/// Rows of `n` inputs of one type in turn: row `n * j + i` of the result is row `j` of input `i`.
///
/// With the rows of a gate and an up projection this gives the weight of a gated epilogue.
package struct Interleave: RowMapped {
  package static let name = "interleave"

  package init() {}

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    guard let first = inputs.first else { throw failure("found 0 inputs, expected at least 1") }
    guard first.rank >= 1 else { throw failure("found a single number, expected rank 1 or more") }
    try expectRows(first, along: 0)
    for input in inputs where input != first {
      throw failure("found inputs of types \(first) and \(input), expected equal ones")
    }
    var shape = first.shape
    shape[0] = shape[0] * inputs.count
    return [first.with(shape: shape)]
  }

  package func rowGranularity(_ inputs: [TensorType]) -> Int { max(inputs.count, 1) }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    let count = max(inputs.count, 1)
    return inputs.map { _ in (rows.lowerBound / count)..<((rows.upperBound + count - 1) / count) }
  }
}
