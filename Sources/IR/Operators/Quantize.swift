import Base
import Tensors

/// Rounds rows of numbers to a block format: per group a scale, then codes (``BlockFormat``).
///
/// Weights and, at run time, activations. Rows run along the last axis. Eight bits: `scale = max|x| / 127`, codes
/// rounded half to even (half away from zero with an f16 scale, as GGUF does). Four bits: `scale = m / -8` with `m` the
/// number of largest magnitude, codes rounded half up to `-8 ... 7`; fewer or more bits, zero points and ternary codes as
/// the format says. Codes come from the scale before it is rounded to its type
/// (``BlockFormat/quantizeRow(_:columns:into:largestCode:)``). The result has the shape of the input and element type f32.
///
/// With `codeBits` (4 to 7, for formats of eight bits with an f32 scale) codes lie in `-m ... m`, `m = 2^(codeBits - 1) - 1`,
/// and `scale = max|x| / m`: activations of fewer bits, stored as bytes, which products of bytes take as they are.
package struct Quantize: RowMapped {
  package static let name = "quantize"

  package var format: BlockFormat = .w8c
  /// Bits of the codes, if they are fewer than those of the format.
  package var codeBits: Int?

  package init() {}

  package init(_ format: BlockFormat, codeBits: Int? = nil) {
    self.format = format
    self.codeBits = codeBits
  }

  /// The widths that codes of eight bits may be held to.
  package static let narrowCodeBits = 4...7

  /// The largest code of so many bits; the least is its opposite.
  package static func largestCode(bits: Int) -> Int { (1 << (bits - 1)) - 1 }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectFloat(x, "input")
    guard x.rank >= 1 else { throw failure("found a single number, expected rank 1 or more") }
    _ = try expectFixed(x.shape.last, "columns")
    if let codeBits {
      guard Self.narrowCodeBits.contains(codeBits), format.takesFewerCodes else {
        throw failure(
          "attribute 'codeBits' is \(codeBits) for the format '\(format.name)', expected 4 to 7 for eight bits with an f32 "
            + "scale")
      }
    }
    return [TensorType(.f32, x.shape, encoding: .block(format))]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    inputs[0].rank >= 2 ? [rows] : nil
  }
}

/// The numbers that the blocks of a quantized tensor stand for, as a dense tensor.
package struct Dequantize: RowMapped {
  package static let name = "dequantize"

  package var type: DType = .f32

  package init() {}

  package init(_ type: DType) { self.type = type }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    guard case .block = inputs[0].encoding else {
      throw failure("found input of type \(inputs[0]), expected a block format")
    }
    guard type.isFloat else {
      throw failure("attribute 'type' is \(type.rawValue), expected a floating-point type")
    }
    return [TensorType(type, inputs[0].shape)]
  }

  package func inputRows(for rows: Range<Int>, _ inputs: [TensorType]) -> [Range<Int>?]? {
    inputs[0].rank >= 2 ? [rows] : nil
  }
}
