/// How attention computes its products in bytes, after SageAttention2 (J. Zhang and others, 2024, arXiv:2411.10958).
///
/// It holds for calls with more than one query; one alone is computed with the numbers as they are. Keys and values are
/// taken in blocks of `block` rows, counted from row 0, the last one as long as there are rows. `code(x; m)` is `127 x / m`
/// rounded to nearest even, and `m` the largest magnitude of
///
/// - a query of a head: `q[i]`;
/// - a key of a head, less the mean of its block: `k[j] - c`, `c` by column. The mean is given back exactly, as
///   `q[i] . c` in each score of the block. Keys that are int8 codes already stay as they are;
/// - a column of the values of a block, less its mean, which is given back as well;
///
/// and the weights of the keys of a block, `exp(s[j] - max s)` by its own largest score, are `255` times as much, rounded.
/// Sums of products of codes are integers; softmax joins blocks in f32. The sum of the weights is that of their codes.
package struct ByteAttention: Hashable, Codable, Sendable {
  /// Keys that have a mean, and values that have means and scales, in common.
  package var block: Int = 64
  /// Whether means are taken off. Without them a bias of a channel of keys or values takes part in the scales.
  package var smooth: Bool = true

  package init() {}

  package init(block: Int = 64, smooth: Bool = true) {
    self.block = block
    self.smooth = smooth
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    block = try container.decodeIfPresent(Int.self, forKey: .block) ?? block
    smooth = try container.decodeIfPresent(Bool.self, forKey: .smooth) ?? smooth
  }

  /// The block lengths that there are.
  package static let blocks = stride(from: 16, through: 256, by: 16)

  /// The largest code of queries, keys and values, and of weights.
  package static let largestCode = 127
  package static let largestWeight = 255
  /// The least magnitude whose reciprocal, times the largest code, is a number; what is below it becomes 0.
  package static let leastMagnitude: Float = 1e-30
}
