/// A block format as data: how a row of numbers is stored as groups of small codes with a scale each.
///
/// A row of `K` numbers is `ceil(K / group)` blocks; a block is the scale followed by the codes of the group, and the
/// last group of a row is padded with codes of value 0. Codes of 8 bits are two's complement; codes of 4 bits are
/// stored as `q + 8`, code `j` in the low and code `j + group/2` in the high half of byte `j`. The value of a code is
/// `q * scale`. With 32 numbers per group this is GGUF's Q8_0 and Q4_0 (ggml, `ggml-common.h`).
package struct BlockFormat: Hashable, Codable, Sendable {
  /// Bits of one code: 8 or 4.
  package var bits: Int
  /// Numbers of a group; nil stands for the whole row (one scale per row).
  package var group: Int?
  /// The type of the scale.
  package var scale: DType

  package init(bits: Int, group: Int?, scale: DType) {
    precondition(bits == 4 || bits == 8)
    precondition(group.map { $0 > 0 && $0 % 2 == 0 } ?? true)
    self.bits = bits
    self.group = group
    self.scale = scale
  }

  /// Eight bits, one f32 scale per row.
  package static let w8c = BlockFormat(bits: 8, group: nil, scale: .f32)

  /// Eight bits with an f16 scale per group; `w8(32)` is GGUF's Q8_0.
  package static func w8(_ group: Int) -> BlockFormat { BlockFormat(bits: 8, group: group, scale: .f16) }

  /// Four bits with an f16 scale per group; `w4(32)` is GGUF's Q4_0.
  package static func w4(_ group: Int) -> BlockFormat { BlockFormat(bits: 4, group: group, scale: .f16) }

  /// Activations: eight bits with an f32 scale per group of a token.
  package static func a8(_ group: Int) -> BlockFormat { BlockFormat(bits: 8, group: group, scale: .f32) }

  /// The group length in a row of `columns` numbers, rounded up to whole bytes.
  package func groupLength(columns: Int) -> Int { group ?? (bits == 4 ? (columns + 1) & ~1 : columns) }

  /// Blocks in a row of `columns` numbers.
  package func blocks(columns: Int) -> Int {
    guard let group else { return columns == 0 ? 0 : 1 }
    return (columns + group - 1) / group
  }

  /// Bytes of one block in a row of `columns` numbers.
  package func blockBytes(columns: Int) -> Int { scale.byteCount + groupLength(columns: columns) * bits / 8 }

  /// Bytes of a row of `columns` numbers.
  package func rowBytes(columns: Int) -> Int { blocks(columns: columns) * blockBytes(columns: columns) }

  /// `q4f16g32`, `q8f32row`: bits, scale type, group.
  package var name: String { "q\(bits)\(scale.rawValue)" + (group.map { "g\($0)" } ?? "row") }

  /// The format with that name; nil if the text is not a name.
  package init?(name: String) {
    guard name.first == "q", let bits = name.dropFirst().first?.wholeNumberValue, bits == 4 || bits == 8 else {
      return nil
    }
    let rest = name.dropFirst(2)
    guard let scale = [DType.f16, .f32].first(where: { rest.hasPrefix($0.rawValue) }) else { return nil }
    let tail = rest.dropFirst(scale.rawValue.count)
    if tail == "row" {
      self.init(bits: bits, group: nil, scale: scale)
    } else if tail.first == "g", let group = Int(tail.dropFirst()), group > 0, group <= 1 << 20, group % 2 == 0 {
      self.init(bits: bits, group: group, scale: scale)
    } else {
      return nil
    }
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
