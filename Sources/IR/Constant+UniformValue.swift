import Tensors

extension Constant {
  /// The number that all elements equal; nil if they differ, lie in a file or are none. Numbers of 64 bits that a double
  /// does not hold exactly give nil.
  package var uniformValue: Double? {
    guard type.isDense else { return nil }
    switch source {
    case .splat(let bits): return Double(bitPattern: bits)
    case .inline(let bytes):
      let width = type.element.byteCount
      guard bytes.count >= width, bytes.count % width == 0 else { return nil }
      let first = bytes[..<width]
      guard stride(from: width, to: bytes.count, by: width).allSatisfy({ bytes[$0..<$0 + width] == first }) else {
        return nil
      }
      return bytes.withUnsafeBytes { Self.number($0, type.element) }
    case .archive, .random: return nil
    }
  }

  private static func number(_ bytes: UnsafeRawBufferPointer, _ element: DType) -> Double? {
    switch element {
    case .f64: return bytes.loadUnaligned(as: Double.self)
    case .f32: return Double(bytes.loadUnaligned(as: Float.self))
    case .bf16: return Double(BF16.value(bytes.loadUnaligned(as: UInt16.self)))
    case .i64: return Double(exactly: bytes.loadUnaligned(as: Int64.self))
    case .i32: return Double(bytes.loadUnaligned(as: Int32.self))
    case .i16: return Double(bytes.loadUnaligned(as: Int16.self))
    case .i8: return Double(bytes.loadUnaligned(as: Int8.self))
    case .u8, .bool: return Double(bytes.loadUnaligned(as: UInt8.self))
    case .f16: return Double(F16.value(bytes.loadUnaligned(as: UInt16.self)))
    case .f8e4m3, .f8e5m2: return nil
    }
  }
}
