import Tensors

/// The block type of ggml that holds the codes of a ``BlockFormat`` as they are, with the same scales.
///
/// Groups of a multiple of 32 numbers become several blocks with one scale; codes counted from a zero point become
/// differences: `Q4_0` for differences of -8 to 7, `Q5_0` for -16 to 15, `Q8_0` for -128 to 127.
struct GGUFExactBlocks {
  let format: BlockFormat
  /// The name of the type of ggml.
  let typeName: String
  /// Bits of a code.
  private let bits: Int
  /// Bytes of a block of 32 numbers.
  let blockBytes: Int

  static let length = 32

  /// The type for rows of `columns` numbers; nil if none holds them exactly: scales of more than 16 bits, rows or groups
  /// that are not whole blocks.
  init?(_ format: BlockFormat, columns: Int) {
    guard format.scale == .f16, let group = format.group, group % Self.length == 0, columns % Self.length == 0 else {
      return nil
    }
    self.format = format
    bits = format.codes == .zeroPoint ? format.bits + 1 : format.bits
    switch bits {
    case ...4: (typeName, blockBytes) = ("Q4_0", 18)
    case 5: (typeName, blockBytes) = ("Q5_0", 22)
    default: (typeName, blockBytes) = ("Q8_0", 34)
    }
  }

  /// Bytes of a row of `columns` numbers.
  func rowBytes(columns: Int) -> Int { columns / Self.length * blockBytes }

  /// One row of the format as a row of blocks.
  func row(_ source: UnsafeRawPointer, columns: Int, into target: UnsafeMutableRawPointer) {
    var values = [Float](repeating: 0, count: columns)
    values.withUnsafeMutableBufferPointer { buffer in
      if let base = buffer.baseAddress { format.dequantizeRow(source, columns: columns, into: base) }
    }
    let group = format.groupLength(columns: columns), sourceBytes = format.blockBytes(columns: columns)
    for block in 0..<columns / Self.length {
      let first = block * Self.length
      let scale = (source + first / group * sourceBytes).loadUnaligned(as: Float16.self)
      let out = target + block * blockBytes
      out.storeBytes(of: scale, as: Float16.self)
      // A value is a small whole number times the scale, without rounding: the quotient is that number.
      let codes = (0..<Self.length).map { index -> Int in
        let quotient = values[first + index] / Float(scale)
        return quotient.isFinite ? Int(quotient.rounded()) : 0
      }
      switch typeName {
      case "Q4_0":
        for j in 0..<16 { out.storeBytes(of: UInt8(codes[j] + 8 | (codes[j + 16] + 8) << 4), toByteOffset: 2 + j, as: UInt8.self) }
      case "Q5_0":
        let shifted = codes.map { $0 + 16 }
        let high = shifted.enumerated().reduce(UInt32(0)) { $0 | UInt32($1.element >> 4) << UInt32($1.offset) }
        out.storeBytes(of: high.littleEndian, toByteOffset: 2, as: UInt32.self)
        for j in 0..<16 {
          out.storeBytes(of: UInt8(shifted[j] & 15 | (shifted[j + 16] & 15) << 4), toByteOffset: 6 + j, as: UInt8.self)
        }
      default:
        for (j, code) in codes.enumerated() { out.storeBytes(of: Int8(code), toByteOffset: 2 + j, as: Int8.self) }
      }
    }
  }
}
