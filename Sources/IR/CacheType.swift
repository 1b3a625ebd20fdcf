import Tensors

/// How a KV cache keeps keys and values.
///
/// | spelling | a row of a head |
/// |---|---|
/// | `32`, `16` | numbers in f32 or f16 |
/// | `8` | int8 codes and one f32 scale |
/// | `4` | 4-bit codes with an f16 scale and a zero point per group of about 32; the last tokens in f32 beside it |
/// | `4t` | 4-bit codes and one f32 scale: the plain scheme that `4` is held against |
/// | `4n`, `3n`, `2n` | codes that are places in a table of levels, and one f16 scale; the last tokens in f32 beside it |
///
/// Rounding of the tokens just before the one that reads them costs most, as attention goes to them first. With `4` and
/// tables a token therefore sees itself and the ``recent`` - 1 tokens before it in f32, whatever the calls that they came in.
package enum CacheType: String, Hashable, Sendable, CaseIterable {
  case f32, f16, i8
  case i4
  case i4t
  case n4, n3, n2

  /// The spelling behind `kv` and `--kv`.
  package var spelling: String {
    switch self {
    case .f32: "32"
    case .f16: "16"
    case .i8: "8"
    case .i4: "4"
    case .i4t: "4t"
    case .n4: "4n"
    case .n3: "3n"
    case .n2: "2n"
    }
  }

  /// The cache type of a spelling; nil if there is none.
  package init?(spelling: String) {
    guard let type = Self.allCases.first(where: { $0.spelling == spelling }) else { return nil }
    self = type
  }

  /// The element type of a cache without codes; nil for one with codes.
  package var element: DType? {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .i8, .i4, .i4t, .n4, .n3, .n2: nil
    }
  }

  /// The table of levels that codes are places in before one is fitted; nil for other codes.
  package var levels: CodeLevels? {
    switch self {
    case .n4: .nf4
    case .n3: .nf3
    case .n2: .nf2
    default: nil
    }
  }

  /// How heads of `headDim` numbers become codes; nil for numbers, and for heads that do not fit: int8 and 2 bits need a
  /// multiple of 4, 3 bits one of 8, 4 bits an even number.
  package func format(headDim: Int) -> BlockFormat? {
    switch self {
    case .f32, .f16: nil
    case .i8: headDim % 4 == 0 ? .cache8(headDim) : nil
    case .i4: headDim % 2 == 0 ? .cache4(headDim) : nil
    case .i4t: headDim % 2 == 0 ? .cache4PerToken(headDim) : nil
    case .n4, .n3, .n2: levels.flatMap { Self.format($0, headDim: headDim) }
    }
  }

  /// The cache type whose heads of `headDim` numbers become such codes; nil if there is none.
  package init?(_ format: BlockFormat, headDim: Int) {
    if let levels = format.levels {
      guard let type = Self.allCases.first(where: { $0.levels?.bits == levels.bits }),
        Self.format(levels, headDim: headDim) == format
      else { return nil }
      self = type
      return
    }
    guard let type = Self.allCases.first(where: { $0.format(headDim: headDim) == format }) else { return nil }
    self = type
  }

  /// Codes that are places in a table for heads of `headDim` numbers; nil for heads that do not fill whole bytes.
  private static func format(_ levels: CodeLevels, headDim: Int) -> BlockFormat? {
    let unit = levels.bits == 4 ? 2 : levels.bits == 3 ? 8 : 4
    return headDim % unit == 0 ? .levels(levels, headDim) : nil
  }

  /// Whether a text may say how keys and values lie best in it.
  package var isMeasured: Bool { self == .i4 || levels != nil }

  /// The tokens, each its own included, that are seen in f32; nil if all are seen as the cache holds them.
  package var recent: Int? { isMeasured ? 32 : nil }
}
