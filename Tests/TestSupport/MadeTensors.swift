import Base
import IR
import Tensors

extension Tensor {
  /// A tensor of f32 that follow from `seed`, evenly spread over `range`.
  package static func random(_ sizes: [Int], seed: UInt64, in range: ClosedRange<Float> = -1...1) -> Tensor {
    var generator = SplitMix64(seed: seed)
    return Tensor(.f32, sizes, generator.floats(sizes.reduce(1, *), in: range))
  }

  /// The tensor in the codes of a format, rounded to the nearest.
  package func quantized(_ format: BlockFormat) throws -> Tensor {
    let op = Quantize(format)
    let result = Tensor(try op.inferTypes([type])[0])
    try op.evaluate([view], into: [result.mutableView])
    return result
  }
}

extension Operator {
  /// The results of the evaluator for such inputs.
  package func results(of inputs: [Tensor]) throws -> [Tensor] {
    let results = try inferTypes(inputs.map(\.type)).map { Tensor($0) }
    try evaluate(inputs.map(\.view), into: results.map(\.mutableView))
    return results
  }
}

/// The bytes of a row of numbers in a format, rounded to the nearest.
package func quantize(_ format: BlockFormat, _ row: [Float]) -> [UInt8] {
  var bytes = [UInt8](repeating: 0xAA, count: format.rowBytes(columns: row.count))
  bytes.withUnsafeMutableBytes { buffer in
    if let base = buffer.baseAddress { format.quantizeRow(row, columns: row.count, into: base) }
  }
  return bytes
}

/// The numbers that the bytes of a row of a format stand for.
package func dequantize(_ format: BlockFormat, _ bytes: [UInt8], _ columns: Int) -> [Float] {
  var values = [Float](repeating: .nan, count: columns)
  bytes.withUnsafeBytes { buffer in
    if let base = buffer.baseAddress { format.dequantizeRow(base, columns: columns, into: &values) }
  }
  return values
}
