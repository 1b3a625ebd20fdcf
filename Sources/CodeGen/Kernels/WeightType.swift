import Tensors

/// Codes of fewer than eight bits in groups, as panels hold them.
///
/// The bits of a code lie in planes (`BlockFormat.planes`), of which a word of 32 bits holds those of `32 / width` codes of
/// one row: byte `b`, from bit `width * s` on, those of column `4 * s + b`. So a shift and a mask give the four codes of a
/// step of a byte dot product.
package struct NarrowCodes: Hashable, Codable, Sendable {
  package var bits: Int
  package var group: Int
  /// Whether each row and group has a zero point of one byte; otherwise codes count from `2^(bits - 1)`.
  package var hasZeroPoints: Bool

  package init(bits: Int, group: Int, hasZeroPoints: Bool = false) {
    self.bits = bits
    self.group = group
    self.hasZeroPoints = hasZeroPoints
  }

  /// A plane of a group of one row.
  struct Plane {
    /// Bits of a code that it holds, the lowest of which is bit `shift` of the code.
    var width: Int
    var shift: Int
    /// Its first word, counted from the first word of the group.
    var word: Int

    /// The low `width` bits of each byte.
    var mask: Int { (1 << width - 1) * 0x0101_0101 }
    /// Steps of four codes in a word.
    var steps: Int { 8 / width }
  }

  /// The planes, lowest bits first.
  var planes: [Plane] {
    var planes: [Plane] = []
    var (shift, word) = (0, 0)
    for width in BlockFormat.planes(ofBits: bits) ?? [] {
      planes.append(Plane(width: width, shift: shift, word: word))
      shift += width
      word += group * width / 32
    }
    return planes
  }

  /// Steps of four codes after which every plane begins a new word.
  var stepsPerUnit: Int { planes.map(\.steps).max() ?? 1 }

  /// The code of value 0 without zero points.
  var middle: Int { 1 << (bits - 1) }

  /// Whether groups consist of whole words in every plane.
  var fillsWords: Bool { group > 0 && group % (4 * stepsPerUnit) == 0 }
}

/// How the weights of a matmul are stored.
package enum WeightType: Hashable, Codable, Sendable {
  case f32, f16, bf16
  /// Signed bytes with one f32 scale per row, or one f16 scale per group.
  case w8(group: Int?)
  /// Codes of 2 to 6 bits with value (code - zero) * scale, one f16 scale per group.
  case narrow(NarrowCodes)

  /// Codes of four bits without zero points.
  package static func w4(group: Int) -> WeightType { .narrow(NarrowCodes(bits: 4, group: group)) }

  /// The spelling in kernel names: `w4g32`, `w4g128z`.
  package var text: String {
    switch self {
    case .f32: "f32"
    case .f16: "f16"
    case .bf16: "bf16"
    case .w8(let group): "w8" + (group.map { "g\($0)" } ?? "")
    case .narrow(let codes): "w\(codes.bits)g\(codes.group)\(codes.hasZeroPoints ? "z" : "")"
    }
  }

  /// The type of a spelling.
  init?(text: some StringProtocol) {
    switch text {
    case "f32": self = .f32
    case "f16": self = .f16
    case "bf16": self = .bf16
    case "w8": self = .w8(group: nil)
    default:
      let hasZeroPoints = text.last == "z"
      let parts = (hasZeroPoints ? text.dropLast() : text[...]).split(separator: "g", omittingEmptySubsequences: false)
      guard parts.count == 2, parts[0].first == "w", let bits = Int(parts[0].dropFirst()), let group = Int(parts[1]),
        group > 0, group % 8 == 0, group <= 1 << 20
      else { return nil }
      if bits == 8 {
        guard !hasZeroPoints else { return nil }
        self = .w8(group: group)
      } else {
        let codes = NarrowCodes(bits: bits, group: group, hasZeroPoints: hasZeroPoints)
        guard BlockFormat.planes(ofBits: bits) != nil, codes.fillsWords else { return nil }
        self = .narrow(codes)
      }
    }
  }

  /// The weights that rows of a block format become; nil if no kernel reads them.
  init?(_ format: BlockFormat) {
    switch (format.bits, format.group, format.scale) {
    case (8, nil, .f32): self = .w8(group: nil)
    case (8, let group?, .f16) where group % 8 == 0: self = .w8(group: group)
    case (2...6, let group?, .f16):
      let codes = NarrowCodes(bits: format.bits, group: group, hasZeroPoints: format.codes == .zeroPoint)
      guard codes.fillsWords else { return nil }
      self = .narrow(codes)
    default: return nil
    }
  }

  /// Whether weights are codes with scales.
  package var isQuantized: Bool { element == nil }

  /// The element type in memory of weights that are not quantized.
  var element: ScalarType? {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .w8, .narrow: nil
    }
  }
}
