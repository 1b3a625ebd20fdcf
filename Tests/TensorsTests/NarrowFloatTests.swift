import Base
import Tensors
import TestSupport
import Testing

/// The narrow types against their definitions: the value of every code from its fields, and for every pair of neighbours
/// what lies just below, at and just above the middle.
@Suite struct NarrowFloatTests {
  struct Format: Sendable, CustomTestStringConvertible {
    var name: String
    var exponentBits: Int
    var mantissaBits: Int
    var hasInfinity: Bool
    var value: @Sendable (Int) -> Float
    var bits: @Sendable (Float) -> Int
    var testDescription: String { name }

    var codes: Int { 1 << (exponentBits + mantissaBits) }
    var largestFinite: Int { hasInfinity ? codes - (1 << mantissaBits) - 1 : codes - 2 }

    /// The value of a code without sign, from the definition.
    func defined(_ code: Int) -> Double {
      let bias = (1 << (exponentBits - 1)) - 1
      let exponent = code >> mantissaBits
      let fraction = Double(code & ((1 << mantissaBits) - 1)) / Double(1 << mantissaBits)
      func power(_ n: Int) -> Double { Double(sign: .plus, exponent: n, significand: 1) }
      return exponent == 0 ? fraction * power(1 - bias) : (1 + fraction) * power(exponent - bias)
    }
  }

  static let formats = [
    Format(
      name: "f16", exponentBits: 5, mantissaBits: 10, hasInfinity: true, value: { F16.value(UInt16($0)) },
      bits: { Int(F16.bits($0)) }),
    Format(
      name: "bf16", exponentBits: 8, mantissaBits: 7, hasInfinity: true, value: { BF16.value(UInt16($0)) },
      bits: { Int(BF16.bits($0)) }),
    Format(
      name: "f8e4m3", exponentBits: 4, mantissaBits: 3, hasInfinity: false, value: { F8.e4m3Value(UInt8($0)) },
      bits: { Int(F8.e4m3Bits($0)) }),
    Format(
      name: "f8e5m2", exponentBits: 5, mantissaBits: 2, hasInfinity: true, value: { F8.e5m2Value(UInt8($0)) },
      bits: { Int(F8.e5m2Bits($0)) }),
  ]

  @Test(arguments: formats) func everyCode(_ format: Format) {
    for code in 0..<format.codes {
      let value = format.value(code), negative = format.value(code | format.codes)
      if code <= format.largestFinite {
        #expect(Double(value) == format.defined(code) && negative == -value && negative.sign == .minus, "code \(code)")
        #expect(format.bits(value) == code && format.bits(negative) == code | format.codes, "code \(code)")
      } else if format.hasInfinity && code == format.largestFinite + 1 {
        #expect(value == .infinity && negative == -.infinity)
        #expect(format.bits(value) == code && format.bits(negative) == code | format.codes)
      } else {
        #expect(value.isNaN && negative.isNaN, "code \(code)")
        #expect(format.value(format.bits(value)).isNaN && format.value(format.bits(negative)).isNaN)
      }
    }
  }

  @Test(arguments: formats) func roundingBetweenNeighbours(_ format: Format) {
    for code in 0...format.largestFinite {
      let low = format.defined(code)
      // The successor of the largest number, had the format one more exponent.
      let high = format.defined(code + 1)
      let middle = Float((low + high) / 2)
      guard Double(middle) == (low + high) / 2 else { continue }
      let above = code == format.largestFinite && !format.hasInfinity ? format.codes - 1 : code + 1
      let even = code % 2 == 0 ? code : above
      #expect(format.bits(middle.nextDown) == code, "below the middle of \(code)")
      #expect(format.bits(middle) == even, "middle of \(code)")
      #expect(format.bits(middle.nextUp) == above, "above the middle of \(code)")
      #expect(format.bits(-middle) == even | format.codes, "negative middle of \(code)")
    }
  }

  @Test(arguments: formats) func extremes(_ format: Format) {
    let overflow = format.hasInfinity ? format.largestFinite + 1 : format.codes - 1
    #expect(format.bits(.infinity) == overflow && format.bits(-.infinity) == overflow | format.codes)
    if format.exponentBits < 8 {
      #expect(format.bits(.greatestFiniteMagnitude) == overflow)
      #expect(format.bits(.leastNonzeroMagnitude) == 0 && format.bits(-.leastNonzeroMagnitude) == format.codes)
    }
    for pattern: UInt32 in [0x7F80_0001, 0x7FC0_0000, 0x7FFF_FFFF, 0xFF80_0001, 0xFFFF_FFFF] {
      #expect(format.value(format.bits(Float(bitPattern: pattern))).isNaN)
    }
  }

  @Test func f16AgreesWithTheCompiler() {
    for bits in UInt16.min ... .max {
      let expected = Float(Float16(bitPattern: bits)), found = F16.value(bits)
      #expect(found == expected || (found.isNaN && expected.isNaN))
    }
    var random = SplitMix64(seed: 1)
    for _ in 0..<1_000_000 {
      let value = Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
      if !value.isNaN, F16.bits(value) != Float16(value).bitPattern { Issue.record("f16 of \(value)") }
    }
  }

  @Test func roundingToOddAvoidsDoubleRounding() {
    // Above the middle of two f16 neighbours by less than f32 can tell: rounding twice would give the even one below.
    let tie = 1 + 0x1p-11, above = tie + 0x1p-40
    #expect(F16.bits(Float(above)) == F16.bits(1))
    #expect(F16.value(F16.bits(Float(roundingToOdd: above))) == 1 + 0x1p-10)
    #expect(F16.value(F16.bits(Float(roundingToOdd: tie))) == 1)
    #expect(F16.value(F16.bits(Float(roundingToOdd: -above))) == -1 - 0x1p-10)
    #expect(F16.bits(Float(roundingToOdd: .infinity)) == 0x7C00)
    #expect(F16.bits(Float(roundingToOdd: -.greatestFiniteMagnitude)) == 0xFC00)
    #expect(Float(roundingToOdd: .nan).isNaN)
    #expect(BF16.bits(Float(roundingToOdd: .leastNonzeroMagnitude)) == 0)
    var random = SplitMix64(seed: 2)
    for _ in 0..<200_000 {
      let value = Double(bitPattern: random.next())
      // Float16(Double) rounds once.
      if !value.isNaN, F16.bits(Float(roundingToOdd: value)) != Float16(value).bitPattern {
        Issue.record("f16 of \(value)")
      }
      let small = Double(Int64(truncatingIfNeeded: random.next())) * 0x1p-50
      if F16.bits(Float(roundingToOdd: small)) != Float16(small).bitPattern { Issue.record("f16 of \(small)") }
    }
    for value: Int64 in [
      .max, .min, 0, 1 << 53, (1 << 62) + (1 << 54) + 1, (1 << 62) + (1 << 54), -(1 << 62) - (1 << 54) - 1,
    ] {
      let once = Float(value)
      #expect(Float(Double(roundingToOdd: value)) == once)
    }
    // bf16 keeps 8 bits: 2^62 + 2^54 is the middle of two neighbours.
    #expect(
      BF16.value(BF16.bits(Float(roundingToOdd: Double(roundingToOdd: (1 << 62) + (1 << 54) + 1)))) == 0x1p62 + 0x1p55)
    #expect(BF16.value(BF16.bits(Float(roundingToOdd: Double(roundingToOdd: (1 << 62) + (1 << 54))))) == 0x1p62)
  }
}
