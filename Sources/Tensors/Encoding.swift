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
package struct BlockFormat: Hashable, Sendable {
  /// How codes are chosen and what they are counted from.
  package enum Codes: String, Hashable, Codable, Sendable {
    /// From the middle of the range.
    case signed
    /// From a zero point per group.
    case zeroPoint
    /// -1, 0 and 1 in two bits.
    case ternary
  }

  /// Bits of one code: 8, 6, 5, 4, 3 or 2.
  package var bits: Int
  /// Numbers of a group; nil stands for the whole row (one scale per row).
  package var group: Int?
  /// The type of the scale.
  package var scale: DType
  package var codes: Codes

  package init(bits: Int, group: Int?, scale: DType, codes: Codes = .signed) {
    precondition(Self.isValid(bits: bits, group: group, scale: scale, codes: codes))
    self.bits = bits
    self.group = group
    self.scale = scale
    self.codes = codes
  }

  /// Whether there is such a format: codes fill whole bytes, and only narrow ones have zero points.
  package static func isValid(bits: Int, group: Int?, scale: DType, codes: Codes) -> Bool {
    guard let planes = planes(ofBits: bits), let narrowest = planes.last, scale == .f16 || scale == .f32 else {
      return false
    }
    let unit = narrowest == 8 ? 2 : 8 / narrowest
    if let group, group <= 0 || group > 1 << 20 || group % unit != 0 { return false }
    switch codes {
    case .signed: return true
    case .zeroPoint: return bits < 8
    case .ternary: return bits == 2
    }
  }

  /// Eight bits, one f32 scale per row.
  package static let w8c = BlockFormat(bits: 8, group: nil, scale: .f32)

  /// Eight bits with an f16 scale per group; `w8(32)` is GGUF's Q8_0.
  package static func w8(_ group: Int) -> BlockFormat { BlockFormat(bits: 8, group: group, scale: .f16) }

  /// Four bits with an f16 scale per group; `w4(32)` is GGUF's Q4_0.
  package static func w4(_ group: Int) -> BlockFormat { BlockFormat(bits: 4, group: group, scale: .f16) }

  /// Activations: eight bits with an f32 scale per group of a token.
  package static func a8(_ group: Int) -> BlockFormat { BlockFormat(bits: 8, group: group, scale: .f32) }

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

  /// `q4f16g32`, `q8f32row`, `q4f16g128z`, `q2f16g32t`: bits, scale type, group, `z` for zero points or `t` for ternary.
  package var name: String {
    let suffix =
      switch codes {
      case .signed: ""
      case .zeroPoint: "z"
      case .ternary: "t"
      }
    return "q\(bits)\(scale.rawValue)" + (group.map { "g\($0)" } ?? "row") + suffix
  }

  /// The format with that name; nil if the text is not a name.
  package init?(name: String) {
    guard name.first == "q", let bits = name.dropFirst().first?.wholeNumberValue else { return nil }
    let rest = name.dropFirst(2)
    guard let scale = [DType.f16, .f32].first(where: { rest.hasPrefix($0.rawValue) }) else { return nil }
    var tail = rest.dropFirst(scale.rawValue.count)
    var codes = Codes.signed
    if tail.last == "z" || tail.last == "t" { codes = tail.removeLast() == "z" ? .zeroPoint : .ternary }
    let group: Int?
    if tail == "row" {
      group = nil
    } else {
      guard tail.first == "g", let length = Int(tail.dropFirst()) else { return nil }
      group = length
    }
    guard Self.isValid(bits: bits, group: group, scale: scale, codes: codes) else { return nil }
    self.init(bits: bits, group: group, scale: scale, codes: codes)
  }
}

extension BlockFormat: Codable {
  private enum Key: String, CodingKey {
    case bits, group, scale, codes
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: Key.self)
    bits = try container.decode(Int.self, forKey: .bits)
    group = try container.decodeIfPresent(Int.self, forKey: .group)
    scale = try container.decode(DType.self, forKey: .scale)
    codes = try container.decodeIfPresent(Codes.self, forKey: .codes) ?? .signed
    guard Self.isValid(bits: bits, group: group, scale: scale, codes: codes) else {
      throw CompileError(
        .input,
        "found a block format of \(bits) bits, scale \(scale.rawValue), group \(group ?? 0) and \(codes.rawValue) codes, "
          + "expected 8, 6, 5, 4, 3 or 2 bits, scale f16 or f32, and none or a group that fills whole bytes")
    }
  }

  /// Codes are said where they are not the usual ones.
  package func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Key.self)
    try container.encode(bits, forKey: .bits)
    try container.encodeIfPresent(group, forKey: .group)
    try container.encode(scale, forKey: .scale)
    if codes != .signed { try container.encode(codes, forKey: .codes) }
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
