/// The bits of IEEE binary16 numbers, without the processor's instructions so that loops of them vectorise anywhere.
package enum F16 {
  /// The exact value. A NaN keeps its payload.
  @inlinable @inline(__always)
  package static func value(_ bits: UInt16) -> Float {
    let magnitude = UInt32(bits & 0x7FFF) &<< 13
    // The multiplication rebiases the exponent and normalizes subnormal numbers; both are exact.
    let finite = (Float(bitPattern: magnitude) * 0x1p112).bitPattern
    let special = magnitude | 0x7F80_0000
    let sign = UInt32(bits & 0x8000) &<< 16
    return Float(bitPattern: (magnitude >= 0x0F80_0000 ? special : finite) | sign)
  }

  /// The nearest number, ties to even; overflow gives an infinity, NaN a quiet NaN of the same leading payload.
  @inlinable @inline(__always)
  package static func bits(_ value: Float) -> UInt16 {
    let sign = value.bitPattern & 0x8000_0000
    let magnitude = value.bitPattern ^ sign
    let normal = (magnitude &+ 0xC800_0FFF &+ ((magnitude &>> 13) & 1)) &>> 13
    // Adding 0.5 shifts the significand of a subnormal result to the end of the word, rounding as it does.
    let subnormal = (Float(bitPattern: magnitude) + 0.5).bitPattern &- 0x3F00_0000
    let special: UInt32 = magnitude > 0x7F80_0000 ? 0x7E00 | ((magnitude &>> 13) & 0x3FF) : 0x7C00
    let finite = magnitude < 0x3880_0000 ? subnormal : normal
    return UInt16(truncatingIfNeeded: (magnitude >= 0x4780_0000 ? special : finite) | sign &>> 16)
  }
}

/// The bits of bfloat16 numbers: the upper half of binary32.
package enum BF16 {
  /// The exact value.
  @inlinable @inline(__always)
  package static func value(_ bits: UInt16) -> Float { Float(bitPattern: UInt32(bits) &<< 16) }

  /// The nearest number, ties to even; overflow gives an infinity, NaN a quiet NaN.
  @inlinable @inline(__always)
  package static func bits(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    let rounded = (bits &+ 0x7FFF &+ ((bits &>> 16) & 1)) &>> 16
    let quiet = bits &>> 16 | 0x40
    return UInt16(truncatingIfNeeded: (bits & 0x7FFF_FFFF) > 0x7F80_0000 ? quiet : rounded)
  }
}

/// The bits of the eight-bit floats of the OCP proposal ("FP8 Formats for Deep Learning", Micikevicius et al., 2022).
package enum F8 {
  /// The exact value of an E4M3FN number: bias 7, no infinities, NaN is 0x7F and 0xFF.
  @inlinable @inline(__always)
  package static func e4m3Value(_ bits: UInt8) -> Float {
    let magnitude = UInt32(bits & 0x7F) &<< 20
    let finite = (Float(bitPattern: magnitude) * 0x1p120).bitPattern
    let sign = UInt32(bits & 0x80) &<< 24
    return Float(bitPattern: (bits & 0x7F == 0x7F ? 0x7FC0_0000 : finite) | sign)
  }

  /// The nearest E4M3FN number, ties to even; what rounds beyond 448, infinities and NaN give NaN.
  @inlinable @inline(__always)
  package static func e4m3Bits(_ value: Float) -> UInt8 {
    let sign = value.bitPattern & 0x8000_0000
    let magnitude = value.bitPattern ^ sign
    let normal = (magnitude &+ 0xC407_FFFF &+ ((magnitude &>> 20) & 1)) &>> 20
    let subnormal = (Float(bitPattern: magnitude) + 0x1p14).bitPattern &- 0x4680_0000
    let finite = magnitude < 0x3C80_0000 ? subnormal : normal
    // 464 lies half way between 448 and the code of NaN.
    return UInt8(truncatingIfNeeded: (magnitude > 0x43E8_0000 ? 0x7F : finite) | sign &>> 24)
  }

  /// The exact value of an E5M2 number: binary16 without its lower byte.
  @inlinable @inline(__always)
  package static func e5m2Value(_ bits: UInt8) -> Float { F16.value(UInt16(bits) &<< 8) }

  /// The nearest E5M2 number, ties to even; overflow gives an infinity, NaN 0x7F or 0xFF.
  @inlinable @inline(__always)
  package static func e5m2Bits(_ value: Float) -> UInt8 {
    let sign = value.bitPattern & 0x8000_0000
    let magnitude = value.bitPattern ^ sign
    let normal = (magnitude &+ 0xC80F_FFFF &+ ((magnitude &>> 21) & 1)) &>> 21
    let subnormal = (Float(bitPattern: magnitude) + 0x1p7).bitPattern &- 0x4300_0000
    let special: UInt32 = magnitude > 0x7F80_0000 ? 0x7F : 0x7C
    let finite = magnitude < 0x3880_0000 ? subnormal : normal
    return UInt8(truncatingIfNeeded: (magnitude >= 0x4780_0000 ? special : finite) | sign &>> 24)
  }
}

extension Float {
  /// The number rounded to odd: truncated, with the last bit set if anything was lost. A later rounding to a type of at
  /// most 22 bits then gives what one rounding of `value` would have given.
  @inlinable @inline(__always)
  package init(roundingToOdd value: Double) {
    let nearest = Float(value)
    let back = Double(nearest)
    let away: UInt32 = back.magnitude > value.magnitude ? 1 : 0
    let odd = (nearest.bitPattern &- away) | 1
    self.init(bitPattern: back == value || value.isNaN ? nearest.bitPattern : odd)
  }
}

extension Double {
  /// The integer, rounded so that a later rounding to a narrower type gives what one rounding of `value` would have given.
  @inlinable @inline(__always)
  package init(roundingToOdd value: Int64) {
    let isLarge = value > 1 &<< 53 || value < -(1 &<< 53)
    let sticky: Int64 = value & 0x7FF == 0 ? 0 : 0x400
    self.init(isLarge ? (value & ~0x7FF) | sticky : value)
  }
}
