import Base

/// A block format as data: how a row of numbers is stored as groups of small codes with a scale each.
///
/// A row of `K` numbers is `ceil(K / group)` blocks; a block is the scale, the zero point as a byte if there are zero
/// points, then the codes of the group; the last group of a row is padded with codes of value 0. Codes of 8 bits are two's
/// complement, of value `q * scale`. Narrower ones are stored as `u = q + zero`, of value `(u - zero) * scale`, with
/// `zero = 2^(bits - 1)` unless the block says it. Their bits lie in planes of 4, 2 and 1 bits, lowest bits first
/// (``planes``): a plane of `w` bits has `group * w / 8` bytes, and byte `j` holds, from its low bits on, the bits of the
/// codes `j`, `j + bytes`, `j + 2 * bytes`, ... With 32 numbers per group, 8 and 4 bits are GGUF's Q8_0 and Q4_0 (ggml,
/// `ggml-common.h`).
///
/// Codes of 4 to 2 bits may instead be places in a table of levels, of value `level * scale` (``CodeLevels``), and
/// codes of 8 bits floats. Numbers of E2M1 have scales of eight bits as well: powers of two (E8M0, here of type `u8`),
/// by which they are multiplied as in MXFP4, or E4M3 over the format's `divisor`, as in NVFP4.
package struct BlockFormat: Hashable, Sendable {
  /// What codes stand for.
  package enum Codes: Hashable, Sendable {
    /// Numbers counted from the middle of the range.
    case signed
    /// Numbers counted from a zero point per group.
    case zeroPoint
    /// -1, 0 and 1 in two bits.
    case ternary
    /// Places in a table.
    case levels(CodeLevels)
    /// Floats of eight bits, E4M3 without infinities.
    case float8
  }

  /// Bits of one code: 8, 6, 5, 4, 3 or 2.
  package var bits: Int
  /// Numbers of a group; nil stands for the whole row (one scale per row).
  package var group: Int?
  /// The type of the scale: f16 or f32; for E2M1 also `u8`, a power of two with its exponent plus 127, and `f8e4m3`.
  package var scale: DType
  package var codes: Codes
  /// What scales of type `f8e4m3` are divided by; otherwise 1.
  package var divisor: Float

  package init(bits: Int, group: Int?, scale: DType, codes: Codes = .signed, divisor: Float = 1) {
    precondition(Self.isValid(bits: bits, group: group, scale: scale, codes: codes, divisor: divisor))
    self.bits = bits
    self.group = group
    self.scale = scale
    self.codes = codes
    self.divisor = divisor
  }

  /// Whether there is such a format: codes fill whole bytes, only narrow ones have zero points, and only E2M1 has scales of
  /// eight bits.
  package static func isValid(
    bits: Int, group: Int?, scale: DType, codes: Codes, divisor: Float = 1
  ) -> Bool {
    guard let planes = planes(ofBits: bits), let narrowest = planes.last else { return false }
    let unit = narrowest == 8 ? 2 : 8 / narrowest
    if let group, group <= 0 || group > 1 << 20 || group % unit != 0 { return false }
    switch scale {
    case .f16, .f32: guard divisor == 1 else { return false }
    case .u8: guard divisor == 1, codes == .levels(.e2m1), group != nil else { return false }
    case .f8e4m3:
      guard divisor.isNormal, divisor > 0, codes == .levels(.e2m1), group != nil else { return false }
    default: return false
    }
    switch codes {
    case .signed: return true
    case .zeroPoint: return bits < 8
    case .ternary: return bits == 2
    case .levels(let levels): return bits == levels.bits
    case .float8: return bits == 8 && scale == .f32
    }
  }

  /// Eight bits, one f32 scale per row.
  package static let w8c = BlockFormat(bits: 8, group: nil, scale: .f32)

  /// Eight bits with an f16 scale per group; `w8(32)` is GGUF's Q8_0.
  package static func w8(_ group: Int) -> BlockFormat { BlockFormat(bits: 8, group: group, scale: .f16) }

  /// Four bits with an f16 scale per group; `w4(32)` is GGUF's Q4_0.
  package static func w4(_ group: Int) -> BlockFormat { BlockFormat(bits: 4, group: group, scale: .f16) }

  /// Four bits that are places in a table, with an f16 scale per group; `levels(.iq4nl, 32)` is GGUF's IQ4_NL.
  package static func levels(_ levels: CodeLevels, _ group: Int) -> BlockFormat {
    BlockFormat(bits: levels.bits, group: group, scale: .f16, codes: .levels(levels))
  }

  /// E2M1 with a power of two per 32 numbers (OCP Microscaling Formats 1.0); GGUF's MXFP4.
  package static let mxfp4 = BlockFormat(bits: 4, group: 32, scale: .u8, codes: .levels(.e2m1))

  /// E2M1 with an E4M3 scale per 16 numbers, over a divisor of the tensor.
  package static func nvfp4(divisor: Float) -> BlockFormat {
    BlockFormat(bits: 4, group: 16, scale: .f8e4m3, codes: .levels(.e2m1), divisor: divisor)
  }

  /// E4M3 with an f32 scale per row, or per group of one.
  package static func float8(_ group: Int? = nil) -> BlockFormat {
    BlockFormat(bits: 8, group: group, scale: .f32, codes: .float8)
  }

  /// Activations: eight bits with an f32 scale per group of a token.
  package static func a8(_ group: Int) -> BlockFormat { BlockFormat(bits: 8, group: group, scale: .f32) }

  /// Whether codes may be held to fewer values than they have bits for: bytes with an f32 scale.
  package var takesFewerCodes: Bool { bits == 8 && scale == .f32 && codes == .signed }

  /// A cache of keys or values: eight bits with an f32 scale for each token and head of `headDim` numbers.
  package static func cache8(_ headDim: Int) -> BlockFormat { a8(headDim) }

  /// A cache of keys or values: four bits with an f16 scale and a zero point for each token and group of a head. Groups are
  /// equal, even and of at most 32 numbers; a head that has none such of at least 16 is one group.
  package static func cache4(_ headDim: Int) -> BlockFormat {
    let group = stride(from: 32, through: 16, by: -2).first { headDim % $0 == 0 } ?? headDim
    return BlockFormat(bits: 4, group: group, scale: .f16, codes: .zeroPoint)
  }

  /// A cache of keys or values: four bits with one f32 scale for each token and head of `headDim` numbers.
  package static func cache4PerToken(_ headDim: Int) -> BlockFormat {
    BlockFormat(bits: 4, group: headDim, scale: .f32)
  }

  /// The widths of the planes that codes are stored in, lowest bits first; nil for a width without format.
  package static func planes(ofBits bits: Int) -> [Int]? {
    switch bits {
    case 8: [8]
    case 6: [4, 2]
    case 5: [4, 1]
    case 4: [4]
    case 3: [2, 1]
    case 2: [2]
    default: nil
    }
  }

  /// The widths of the planes of this format.
  package var planes: [Int] { Self.planes(ofBits: bits) ?? [8] }

  /// Bytes before the codes of a block.
  package var headerBytes: Int { scale.byteCount + (codes == .zeroPoint ? 1 : 0) }

  /// The group length in a row of `columns` numbers, rounded up to whole bytes.
  package func groupLength(columns: Int) -> Int {
    if let group { return group }
    let unit = 8 / (planes.last ?? 8)
    return (columns + unit - 1) / unit * unit
  }

  /// Blocks in a row of `columns` numbers.
  package func blocks(columns: Int) -> Int {
    guard let group else { return columns == 0 ? 0 : 1 }
    return (columns + group - 1) / group
  }

  /// Bytes of one block in a row of `columns` numbers.
  package func blockBytes(columns: Int) -> Int { headerBytes + groupLength(columns: columns) * bits / 8 }

  /// Bytes of a row of `columns` numbers.
  package func rowBytes(columns: Int) -> Int { blocks(columns: columns) * blockBytes(columns: columns) }

  /// The table of levels that codes are places in.
  package var levels: CodeLevels? {
    if case .levels(let levels) = codes { levels } else { nil }
  }

  /// Types of scales and their names in those of formats.
  private static let scaleNames: [(type: DType, name: String)] = [
    (.f16, "f16"), (.f32, "f32"), (.u8, "e8m0"), (.f8e4m3, "e4m3"),
  ]

  /// `q4f16g32`, `q8f32row`, `q4f16g128z`, `q2f16g32t`, `q4f16g32_nf4`, `q4e4m3g16_e2m1_45800000`: bits, scale type,
  /// group, `z` for zero points or `t` for ternary, the table of levels or `e4m3`, and the bits of the divisor if there
  /// is one.
  package var name: String {
    let suffix =
      switch codes {
      case .signed: ""
      case .zeroPoint: "z"
      case .ternary: "t"
      case .levels(let levels): "_" + levels.name
      case .float8: "_e4m3"
      }
    let scaleName = Self.scaleNames.first { $0.type == scale }?.name ?? scale.rawValue
    let end = divisor == 1 ? "" : "_" + String(divisor.bitPattern, radix: 16)
    return "q\(bits)\(scaleName)" + (group.map { "g\($0)" } ?? "row") + suffix + end
  }

  /// The format with that name; nil if the text is not a name.
  package init?(name: String) {
    let words = name.split(separator: "_", omittingEmptySubsequences: false)
    guard words.count <= 3, words[0].first == "q", let bits = words[0].dropFirst().first?.wholeNumberValue else {
      return nil
    }
    let rest = words[0].dropFirst(2)
    guard let scale = Self.scaleNames.first(where: { rest.hasPrefix($0.name) }) else { return nil }
    var tail = rest.dropFirst(scale.name.count)
    var codes = Codes.signed
    if words.count > 1 {
      guard let named = Self.codes(named: words[1]) else { return nil }
      codes = named
    } else if tail.last == "z" || tail.last == "t" {
      codes = tail.removeLast() == "z" ? .zeroPoint : .ternary
    }
    var divisor: Float = 1
    if words.count > 2 {
      guard let pattern = UInt32(words[2], radix: 16) else { return nil }
      divisor = Float(bitPattern: pattern)
    }
    let group: Int?
    if tail == "row" {
      group = nil
    } else {
      guard tail.first == "g", let length = Int(tail.dropFirst()) else { return nil }
      group = length
    }
    guard Self.isValid(bits: bits, group: group, scale: scale.type, codes: codes, divisor: divisor) else { return nil }
    self.init(bits: bits, group: group, scale: scale.type, codes: codes, divisor: divisor)
    guard self.name == name else { return nil }
  }

  private static func codes(named word: some StringProtocol) -> Codes? {
    word == "e4m3" ? .float8 : CodeLevels(name: word).map { .levels($0) }
  }
}

extension BlockFormat.Codes: Codable {
  private var text: String {
    switch self {
    case .signed: "signed"
    case .zeroPoint: "zeroPoint"
    case .ternary: "ternary"
    case .levels(let levels): levels.name
    case .float8: "e4m3"
    }
  }

  package init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    let known: [BlockFormat.Codes] = [.signed, .zeroPoint, .ternary, .float8]
    if let codes = known.first(where: { $0.text == text }) {
      self = codes
    } else if let levels = CodeLevels(name: text) {
      self = .levels(levels)
    } else {
      throw CompileError(
        .input,
        "unknown codes '\(text)' of a block format (choices: signed, zeroPoint, ternary, e4m3, e2m1, nf4, iq4nl, twinlog, or "
          + "'x' and the levels in hexadecimal)")
    }
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(text)
  }
}

extension BlockFormat: Codable {
  private enum Key: String, CodingKey {
    case bits, group, scale, codes, divisor
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    bits = try container.decode(Int.self, forKey: .bits)
    group = try container.decodeIfPresent(Int.self, forKey: .group)
    scale = try container.decode(DType.self, forKey: .scale)
    codes = try container.decodeIfPresent(Codes.self, forKey: .codes) ?? .signed
    divisor = try container.decodeIfPresent(Float.self, forKey: .divisor) ?? 1
    guard Self.isValid(bits: bits, group: group, scale: scale, codes: codes, divisor: divisor) else {
      throw CompileError(
        .input,
        "found a block format of \(bits) bits, scale \(scale.rawValue), group \(group ?? 0) and codes of another kind, "
          + "expected 8, 6, 5, 4, 3 or 2 bits, scale f16 or f32 (u8 or f8e4m3 for E2M1), and none or a group that fills whole "
          + "bytes")
    }
  }

  /// Codes and divisor are said where they are not the usual ones.
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(bits, forKey: .bits)
    try container.encodeIfPresent(group, forKey: .group)
    try container.encode(scale, forKey: .scale)
    if codes != .signed { try container.encode(codes, forKey: .codes) }
    if divisor != 1 { try container.encode(divisor, forKey: .divisor) }
  }
}

/// How the numbers of a tensor are stored.
package enum Encoding: Hashable, Sendable {
  /// Row-major, each number in the element type.
  case dense
  /// Rows of quantized blocks; the element type is the type of the values they stand for.
  case block(BlockFormat)
  /// The layout of one kernel.
  case packed(PackedLayout)
}
