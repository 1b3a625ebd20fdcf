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
  /// Whether codes are places in a table of levels, which stands at the beginning of every panel.
  package var hasTable: Bool
  /// How scales are stored.
  package var scale: ScaleType

  /// Types of scales in panels.
  package enum ScaleType: String, Hashable, Codable, Sendable, CaseIterable {
    case f16
    /// Halves of powers of two: exponents plus 127 of one byte.
    case e8m0
    /// E4M3 without sign, times a factor at the beginning of every panel.
    case e4m3

    var byteCount: Int { self == .f16 ? 2 : 1 }
  }

  package init(
    bits: Int, group: Int, hasZeroPoints: Bool = false, hasTable: Bool = false, scale: ScaleType = .f16
  ) {
    self.bits = bits
    self.group = group
    self.hasZeroPoints = hasZeroPoints
    self.hasTable = hasTable
    self.scale = scale
  }

  /// Codes of a block format with fewer than eight bits in groups; nil if panels do not hold its scales.
  init?(_ format: BlockFormat) {
    guard let group = format.group else { return nil }
    let scale: ScaleType
    switch format.scale {
    case .f16: scale = .f16
    case .u8: scale = .e8m0
    case .f8e4m3: scale = .e4m3
    default: return nil
    }
    self.init(
      bits: format.bits, group: group, hasZeroPoints: format.codes == .zeroPoint, hasTable: format.levels != nil,
      scale: scale)
  }

  /// `w4g32`, `w4g128z`, `w4g64n` for a table of levels, `w4e8m0g32n`.
  var text: String {
    "w\(bits)\(scale == .f16 ? "" : scale.rawValue)g\(group)\(hasZeroPoints ? "z" : hasTable ? "n" : "")"
  }

  /// The codes of a spelling.
  init?(text: some StringProtocol) {
    guard text.first == "w", let bits = text.dropFirst().first?.wholeNumberValue else { return nil }
    var rest = text.dropFirst(2)
    var scale = ScaleType.f16
    for type in ScaleType.allCases where type != .f16 && rest.hasPrefix(type.rawValue) {
      scale = type
      rest = rest.dropFirst(type.rawValue.count)
    }
    let hasZeroPoints = rest.last == "z", hasTable = rest.last == "n"
    if hasZeroPoints || hasTable { rest = rest.dropLast() }
    guard rest.first == "g", let group = Int(rest.dropFirst()), group > 0, group <= 1 << 20,
      BlockFormat.planes(ofBits: bits) != nil, bits < 8, scale == .f16 || hasTable, !hasTable || bits == 3 || bits == 4
    else { return nil }
    self.init(bits: bits, group: group, hasZeroPoints: hasZeroPoints, hasTable: hasTable, scale: scale)
    guard fillsWords else { return nil }
  }

  /// Bytes at the beginning of a panel: 16 levels of one byte each, then the factor of scales in f32.
  var preambleBytes: Int { hasTable ? 64 : 0 }

  /// Where the factor of scales is in the preamble.
  static let factorOffset = 16

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
  /// Floats of eight bits (E4M3) with one f32 scale per row or group; for f32 activations.
  case float8(group: Int?)
  /// Codes of 2 to 6 bits with value (code - zero) * scale, one scale per group.
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
    case .float8(let group): "f8" + (group.map { "g\($0)" } ?? "")
    case .narrow(let codes): codes.text
    }
  }

  /// The type of a spelling.
  init?(text: some StringProtocol) {
    switch text {
    case "f32": self = .f32
    case "f16": self = .f16
    case "bf16": self = .bf16
    case "w8": self = .w8(group: nil)
    case "f8": self = .float8(group: nil)
    default:
      if text.hasPrefix("w8g") || text.hasPrefix("f8g") {
        guard let group = Int(text.dropFirst(3)), group > 0, group % 8 == 0, group <= 1 << 20 else { return nil }
        self = text.first == "w" ? .w8(group: group) : .float8(group: group)
      } else {
        guard let codes = NarrowCodes(text: text) else { return nil }
        self = .narrow(codes)
      }
    }
  }

  /// The weights that rows of a block format become; nil if no kernel reads them.
  init?(_ format: BlockFormat) {
    if format.codes == .float8 {
      guard format.group.map({ $0 % 8 == 0 }) ?? true else { return nil }
      self = .float8(group: format.group)
      return
    }
    switch (format.bits, format.group, format.scale) {
    case (8, nil, .f32): self = .w8(group: nil)
    case (8, let group?, .f16) where group % 8 == 0: self = .w8(group: group)
    case (2...6, _, _):
      guard let codes = NarrowCodes(format), codes.fillsWords else { return nil }
      self = .narrow(codes)
    default: return nil
    }
  }

  /// Whether products multiply signed bytes: codes, or the levels of a table.
  var hasBytes: Bool {
    switch self {
    case .w8: true
    case .narrow(let codes): codes.hasTable
    case .float8, .f32, .f16, .bf16: false
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
    case .w8, .float8, .narrow: nil
    }
  }
}
