/// Scales as blocks store them, and what is tried for those of a table of levels.
extension BlockFormat {
  /// What stored scales are multiplied by: the levels of E2M1 are doubled, and scales of eight bits are those of its
  /// numbers.
  private var unit: Float { scale.byteCount == 1 ? 0.5 : 1 }

  /// Stores the scale of a block, rounded to its type; the largest or the smallest number of types without infinity and 0.
  func store(scale d: Float, at output: UnsafeMutableRawPointer) {
    switch scale {
    case .f16: output.storeBytes(of: F16.bits(d), as: UInt16.self)
    case .u8: output.storeBytes(of: exponent(d), as: UInt8.self)
    case .f8e4m3: output.storeBytes(of: float8(d), as: UInt8.self)
    default: output.storeBytes(of: d, as: Float.self)
    }
  }

  /// What the codes of a block are multiplied by.
  package func scale(at input: UnsafeRawPointer) -> Float {
    switch scale {
    case .f16: F16.value(input.loadUnaligned(as: UInt16.self))
    case .u8: value(exponent: input.load(as: UInt8.self))
    case .f8e4m3: F8.e4m3Value(input.load(as: UInt8.self)) / divisor * unit
    default: input.loadUnaligned(as: Float.self)
    }
  }

  /// A scale as it is stored, the largest number of the type for larger ones.
  package func rounded(scale d: Float) -> Float {
    switch scale {
    case .f16:
      let bounded = d > 65504 ? 65504 : d < -65504 ? -65504 : d
      return F16.value(F16.bits(bounded))
    case .u8: return value(exponent: exponent(d))
    case .f8e4m3: return F8.e4m3Value(float8(d)) / divisor * unit
    default: return d
    }
  }

  /// The exponent, plus 127, of the power of two that is nearest by ratio; NaN gives that of NaN.
  private func exponent(_ d: Float) -> UInt8 {
    let stored = d / unit
    if stored.isNaN { return 255 }
    guard stored > 0 else { return 0 }
    if stored.isInfinite { return 254 }
    let above = stored.significand >= Float(2).squareRoot() ? 1 : 0
    return UInt8(min(max(Int(stored.exponent) + above + 127, 0), 254))
  }

  /// Half of a power of two, NaN for 255.
  private func value(exponent: UInt8) -> Float {
    switch exponent {
    case 255: .nan
    // Below the normal numbers.
    case 0, 1: Float(bitPattern: 0x20_0000 << UInt32(exponent))
    default: Float(bitPattern: UInt32(exponent - 1) << 23)
    }
  }

  private func float8(_ d: Float) -> UInt8 {
    let stored = d / unit * divisor
    return F8.e4m3Bits(stored < 0 ? 0 : stored > 448 ? 448 : stored)
  }

  /// Whether scales may be negative, so that the number of largest magnitude may become the level at either end.
  var hasSignedScales: Bool { scale == .f16 || scale == .f32 }

  /// What the number of largest magnitude, or its magnitude where scales are positive, is multiplied by for each scale that
  /// is tried, the first of them alone without `triesScales`; it makes it the largest level.
  func scaleFactors(_ levels: CodeLevels, triesScales: Bool = true) -> [Float] {
    let low = levels.ascending[0], high = levels.ascending[levels.ascending.count - 1]
    guard triesScales else { return [1 / high] }
    switch scale {
    case .u8: return [1, 2, 0.5].map { $0 / high }
    case .f8e4m3:
      return (0..<Self.shares).map { (1.3 - 0.06 * Float($0)) / high }.sorted { near($0, high) < near($1, high) }
    default:
      let shares = (0..<Self.shares).map { 1.12 - 0.05 * Float($0) }
      return [1 / high, 1 / low] + shares.flatMap { [$0 / high, $0 / low] }
    }
  }

  private static let shares = 12

  private func near(_ factor: Float, _ high: Float) -> Float { (factor * high - 1).magnitude }
}
