/// The scores of unigram models.
enum Score {
  /// The rounded powers of ten by exponent.
  private static let powers = (0...308).map { Double("1e\($0)") ?? .infinity }

  /// What the library `tokenizers` computes with where the file says `value`: the number made of its digits, divided or
  /// multiplied by a power of ten, which may be off by an ulp. Among paths that are nearly equal this decides which is the best.
  static func asPublished(_ value: Double) -> Double {
    var digits: UInt64 = 0
    var exponent = 0
    var isFraction = false
    let text = value.magnitude.description.utf8
    var rest = text[...]
    while let byte = rest.popFirst() {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"):
        digits = digits &* 10 &+ UInt64(byte - UInt8(ascii: "0"))
        if isFraction { exponent -= 1 }
      case UInt8(ascii: "."): isFraction = true
      case UInt8(ascii: "e"):
        guard let power = Int(String(decoding: rest, as: UTF8.self)) else { return value }
        exponent += power
        rest = rest[rest.endIndex...]
      default: return value
      }
    }
    guard exponent.magnitude < powers.count else { return value }
    let power = powers[Int(exponent.magnitude)]
    let magnitude = exponent < 0 ? Double(digits) / power : Double(digits) * power
    return magnitude.isFinite ? Double(signOf: value, magnitudeOf: magnitude) : value
  }
}
