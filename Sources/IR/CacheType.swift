import Tensors

/// How a KV cache keeps keys and values.
///
/// | spelling | a row of a head |
/// |---|---|
/// | `32`, `16` | numbers in f32 or f16 |
/// | `8` | int8 codes and one f32 scale |
/// | `4` | 4-bit codes with an f16 scale and a zero point per group of about 32; the last tokens in f32 beside it |
/// | `4t` | 4-bit codes and one f32 scale: the plain scheme that `4` is held against |
///
/// Rounding of the tokens just before the one that reads them costs most, as attention goes to them first. With `4` a
/// token therefore sees itself and the ``recent`` - 1 tokens before it in f32, whatever the calls that they came in.
package enum CacheType: String, Hashable, Sendable, CaseIterable {
  case f32, f16, i8
  case i4
  case i4t

  /// The spelling behind `kv` and `--kv`.
  package var spelling: String {
    switch self {
    case .f32: "32"
    case .f16: "16"
    case .i8: "8"
    case .i4: "4"
    case .i4t: "4t"
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
    case .i8, .i4, .i4t: nil
    }
  }

  /// How heads of `headDim` numbers become codes; nil for numbers, and for heads that do not fit: int8 needs a multiple
  /// of 4, 4 bits an even number.
  package func format(headDim: Int) -> BlockFormat? {
    switch self {
    case .f32, .f16: nil
    case .i8: headDim % 4 == 0 ? .cache8(headDim) : nil
    case .i4: headDim % 2 == 0 ? .cache4(headDim) : nil
    case .i4t: headDim % 2 == 0 ? .cache4PerToken(headDim) : nil
    }
  }

  /// The cache type whose heads of `headDim` numbers become such codes; nil if there is none.
  package init?(_ format: BlockFormat, headDim: Int) {
    guard let type = Self.allCases.first(where: { $0.format(headDim: headDim) == format }) else { return nil }
    self = type
  }

  /// The tokens, each its own included, that are seen in f32; nil if all are seen as the cache holds them.
  package var recent: Int? { self == .i4 ? 32 : nil }
}
