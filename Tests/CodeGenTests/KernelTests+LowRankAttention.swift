import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Attention over old rows with the first numbers of a head alone.
extension KernelTests {
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
          let last = [(dim, 94), (valueDim, 95)].map { size, seed in
            Tensor.random([recent + tokens, kvHeads * size], seed: UInt64(seed))
          }
          let inputs = [q, k, v, at] + last
          var types = inputs.map(\.type)
          if tokens > 1 {
            types[0] = symbolic(q.type)
            for index in 4...5 { types[index].shape[0] = types[0].shape[0] + .fixed(recent) }
          }
          cases.append(
            KernelCase(
              "attention \(heads)/\(kvHeads) x\(dim)x\(valueDim) of \(keyRank)x\(valueRank) \(type) \(tokens)@\(position) "
                + "recent \(recent)",
              op, inputs, types: types, symbols: tokens > 1 ? ["T": tokens] : [:], tolerance: 1e-5))
        }
      }
    }
    return cases
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
