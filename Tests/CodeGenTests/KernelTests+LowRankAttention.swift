import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Attention over old rows with the first numbers of a head alone.
extension KernelTests {
  /// Attention over queries, keys, values and a position with seeded last rows; of several tokens for any number of them.
  private func recentCase(
    _ name: String, _ op: Attention, _ inputs: [Tensor], valueDim: Int, _ others: [Tensor] = [], tolerance: Double
  ) -> KernelCase {
    let recent = op.recent ?? 0, sizes = inputs[0].view.sizes
    let last = [(sizes[1] / op.heads, 94), (valueDim, 95)].map { size, seed in
      Tensor.random([recent + sizes[0], op.kvHeads * size], seed: UInt64(seed))
    }
    let all = inputs + last + others
    var types = all.map(\.type)
    if sizes[0] > 1 {
      types[0] = symbolic(types[0])
      for index in 4...5 { types[index].shape[0] = types[0].shape[0] + .fixed(recent) }
    }
    return KernelCase(
      "attention \(op.heads)/\(op.kvHeads) \(name) recent \(recent)", op, all, types: types,
      symbols: sizes[0] > 1 ? ["T": sizes[0]] : [:], tolerance: tolerance)
  }

  /// Ranks that fill vectors and that do not, one of keys or values whole, heads of other values; caches of all types; one
  /// token, whose lanes take several keys where ranks fill vectors, and many; positions before the last rows are full and
  /// behind; windows longer and shorter than they. Sums of up to 90 products in f32, 1e-5.
  private func lowRankAttention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, valueDim, keyRank, valueRank, type) in [
      (4, 2, 32, 32, 16, 16, CacheType.f32), (4, 2, 32, 32, 8, 24, .f16), (16, 2, 64, 64, 32, 32, .f16),
      (16, 1, 64, 64, 16, 4, .f32), (6, 2, 20, 12, 4, 12, .f32), (3, 1, 5, 7, 1, 3, .f32), (2, 2, 40, 40, 40, 4, .f16),
      (1, 1, 130, 130, 36, 68, .f32), (2, 1, 80, 80, 20, 44, .i8), (8, 2, 64, 64, 32, 48, .i8),
      (4, 2, 64, 64, 36, 20, .i4), (16, 2, 128, 128, 64, 64, .i4), (2, 2, 32, 32, 4, 28, .i4),
      (2, 1, 20, 20, 8, 12, .i4t), (8, 8, 8, 8, 4, 4, .f16),
    ] {
      let k = try cache(type, 90, heads: kvHeads, dim: keyRank, seed: 91)
      let v = try cache(type, 90, heads: kvHeads, dim: valueRank, seed: 92)
      for (tokens, position) in [(1, 6), (1, 64), (37, 53), (5, 0)] {
        let q = Tensor.random([tokens, heads * dim], seed: 93, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        for (recent, window) in [(tokens == 1 ? 32 : 1, nil), (7, tokens > 5 ? 5 : 19)] as [(Int, Int?)] {
          let op = Attention(
            heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot(), window: window,
            softcap: window == nil ? nil : 2, recent: recent)
          cases.append(
            recentCase(
              "x\(dim)x\(valueDim) of \(keyRank)x\(valueRank) \(type) \(tokens)@\(position)", op, [q, k, v, at],
              valueDim: valueDim, tolerance: 1e-5))
        }
      }
    }
    return cases
  }

  /// Rows that all heads have in common: ranks that fill vectors and that do not, wider and narrower than a head; codes of 8
  /// bits with a scale for 8, 16 or 32 of them, and of 4 bits; keys that turn as halves, as neighbours, in part and not at all;
  /// one token, whose lanes take several keys, and many; queries with last rows of their own and with those of the call.
  /// Sums of up to 160 products of products in f32, 3e-5.
  private func latentAttention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, valueDim, keyRank, valueRank, turning, interleaved, type, step) in [
      (4, 2, 32, 32, 32, 48, 32, false, CacheType.f32, 1), (4, 2, 32, 32, 24, 8, 32, true, .f16, 1),
      (16, 2, 64, 64, 64, 32, 64, false, .f16, 1), (16, 1, 64, 64, 16, 96, 32, true, .f32, 1),
      (6, 2, 20, 12, 7, 30, 12, false, .f32, 1), (3, 1, 5, 7, 1, 3, 4, true, .f32, 1),
      (2, 2, 40, 40, 80, 4, 0, false, .f16, 1),
      (1, 1, 130, 130, 36, 68, 66, false, .f32, 1), (2, 1, 80, 80, 32, 48, 80, true, .i8, 8),
      (8, 2, 64, 64, 96, 32, 64, false, .i8, 32), (4, 2, 64, 64, 32, 96, 64, false, .i4, 32),
      (2, 2, 32, 32, 48, 16, 32, false, .i4t, 16), (8, 8, 8, 8, 160, 40, 8, true, .i8, 8),
    ] {
      let k = try cache(type, 90, heads: keyRank / step, dim: step, seed: 191)
      let v = try cache(type, 90, heads: valueRank / step, dim: step, seed: 192)
      let block = kvHeads == 1 ? 16 : 32
      let factors = [
        Tensor.random([kvHeads, keyRank, dim], seed: 196), Tensor.random([kvHeads, valueRank, valueDim], seed: 197),
      ]
      // Any angles: cosines and sines of the columns that form a pair are the same.
      let rows = LatentRows.angleRows(block: block, positions: 90)
      let angles = (0..<rows * 2 * turning).map { index in
        let (row, column) = (index / (2 * turning), index % turning)
        let angle = 0.37 * Float(row + 1) / Float((interleaved ? column / 2 : column % (turning / 2)) + 1)
        return index / turning % 2 == 0 ? cos(angle) : sin(angle)
      }
      for (tokens, position) in [(1, 6), (1, 64), (37, 53), (5, 0)] {
        let q = Tensor.random([tokens, heads * dim], seed: 193, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        for (recent, wholeCalls) in [(tokens == 1 ? 32 : 1, false), (7, tokens > 5), (7, tokens == 1)] {
          let latent = LatentRows(
            angleBlock: turning == 0 ? nil : block, interleaved: interleaved, wholeCalls: wholeCalls)
          let op = Attention(
            heads: heads, kvHeads: kvHeads, scale: 0.2 / Float(dim * keyRank).squareRoot(),
            softcap: recent == 7 ? 2 : nil, recent: recent, latent: latent)
          let others = factors + (turning == 0 ? [] : [Tensor(.f32, [rows, 2, turning], angles)])
          cases.append(
            recentCase(
              "x\(dim)x\(valueDim) of latent \(keyRank)x\(valueRank) \(type) \(tokens)@\(position) turning \(turning)",
              op,
              [q, k, v, at], valueDim: valueDim, others, tolerance: 3e-5))
        }
      }
    }
    return cases
  }

  @Test(arguments: targets) func latentAttentionKernels(_ target: String) throws {
    try check(try latentAttention(), on: target)
  }

  @Test(arguments: targets) func lowRankAttentionKernels(_ target: String) throws {
    try check(try lowRankAttention(), on: target)
  }

  /// Factors that all items of a leading axis share, as heads have them. Sums of up to 64 products in f32, 1e-5.
  @Test(arguments: targets) func productsByHead(_ target: String) throws {
    var cases: [KernelCase] = []
    for (a, b, transposed) in [
      ([6, 4, 3, 5], [4, 5, 7], false), ([1, 8, 2, 64], [8, 64, 64], false), ([5, 3, 1, 20], [3, 20, 20], true),
      ([2, 3, 4, 2, 9], [3, 4, 9, 9], false),
    ] {
      let (x, w) = (Tensor.random(a, seed: 96), Tensor.random(b, seed: 97))
      var one = KernelCase(
        "by head \(a) \(b)", MatMul(transposeB: transposed), [x, w], constants: [1], tolerance: 1e-5)
      cases.append(one)
      one.types[0] = symbolic(x.type)
      one.symbols = ["T": a[0]]
      cases.append(one)
    }
    try check(cases, on: target)
  }
}
