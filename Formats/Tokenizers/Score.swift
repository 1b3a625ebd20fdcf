/// The scores of unigram models.
enum Score {
  /// The rounded powers of ten by exponent.
  private static let powers = (0...308).map { Double("1e\($0)") ?? .infinity }

  /// What the library `tokenizers` computes with where the file says `number`, a number of JSON: the number made of its first
  /// digits that fit 64 bits, divided or multiplied by a power of ten, which may be off by an ulp. Among paths that are
  /// nearly equal this decides which is the best.
  ///
  /// - Returns: nil if that is not finite.
  static func asPublished(_ number: UnsafeRawBufferPointer) -> Double? {
    var digits: UInt64 = 0
    var exponent = 0
    var isFraction = false
    var isFull = false
    for (position, byte) in number.enumerated() {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"):
        let (tenfold, overflow) = digits.multipliedReportingOverflow(by: 10)
        let (sum, carry) = tenfold.addingReportingOverflow(UInt64(byte - UInt8(ascii: "0")))
        isFull = isFull || overflow || carry
        if !isFull { digits = sum }
        // A digit that is left out still tells the place of those before it.
        exponent += (isFull ? 1 : 0) - (isFraction ? 1 : 0)
      case UInt8(ascii: "."): isFraction = true
      case UInt8(ascii: "e"), UInt8(ascii: "E"):
        let text = String(decoding: number[(position + 1)...], as: UTF8.self)
        let most = 1 << 20
        exponent += max(-most, min(most, Int(text) ?? (text.hasPrefix("-") ? -most : most)))
        return value(digits, exponent, isNegative: number.first == UInt8(ascii: "-"))
      default: break
      }
    }
    return value(digits, exponent, isNegative: number.first == UInt8(ascii: "-"))
  }

  private static func value(_ digits: UInt64, _ exponent: Int, isNegative: Bool) -> Double? {
    var magnitude = Double(digits)
    var exponent = exponent
    while exponent < -308, magnitude > 0 {
      magnitude /= 1e308
      exponent += 308
    }
    if magnitude > 0 {
      guard exponent <= 308 else { return nil }
      magnitude = exponent < 0 ? magnitude / powers[-exponent] : magnitude * powers[exponent]
    }
    return magnitude.isFinite ? (isNegative ? -magnitude : magnitude) : nil
  }
}
