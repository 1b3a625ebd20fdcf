import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Attention over keys that are stored without the mean that rotary embedding turns.
extension KernelTests {
  /// Cosines and sines of the columns of a head: of the first positions, then of the blocks.
  private func angles(_ dim: Int, block: Int, rows: Int) -> Tensor {
    let positions = Array(0..<block) + (0..<(rows + block - 1) / block).map { $0 * block }
    let numbers = positions.flatMap { position in
      let angles = (0..<dim).map { Double(position) * pow(0.7, Double($0 % max(1, dim / 2))) }
      return angles.map { Float(cos($0)) } + angles.map { Float(sin($0)) }
    }
    return Tensor(.f32, [positions.count, 2, dim], numbers)
  }

  /// Caches of all types; heads that are no whole vectors; one token, whose lanes take several keys, and many; blocks
  /// of angles that are longer and shorter than the kernel's. The term grows by up to 32 turns in f32, each rounded
  /// twice: 1e-5 of sums of up to 90 products more, 2e-5.
  private func keyTerms() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, type, block) in [
      (4, 2, 32, CacheType.i4, 32), (16, 4, 64, .i4, 32), (2, 2, 34, .i4, 32), (6, 2, 20, .f32, 7),
      (8, 2, 16, .f16, 64), (4, 2, 12, .i8, 32),
    ] {
      let k = try cache(type, 90, heads: kvHeads, dim: dim, seed: 81),
        v = try cache(type, 90, heads: kvHeads, dim: dim, seed: 82)
      let term = [Tensor.random([2, kvHeads * dim], seed: 83, in: -2...2), angles(dim, block: block, rows: 90)]
      for (tokens, position) in [(1, 0), (1, 64), (1, 39), (37, 53), (5, 2)] {
        let q = Tensor.random([tokens, heads * dim], seed: 84, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        for (recent, window) in [(nil, nil), (7, 19)] as [(Int?, Int?)] {
          let op = Attention(
            heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot(), window: window,
            softcap: window == nil ? nil : 2, recent: recent, angleBlock: block)
          let last = recent.map { count in
            [85, 86].map { Tensor.random([count + tokens, kvHeads * dim], seed: $0) }
          }
          let inputs = [q, k, v, at] + (last ?? []) + term
          var types = inputs.map(\.type)
          if tokens > 1 {
            types[0] = symbolic(q.type)
            for index in 4..<4 + (last?.count ?? 0) { types[index].shape[0] = types[0].shape[0] + .fixed(recent ?? 0) }
          }
          cases.append(
            KernelCase(
              "attention with a term \(heads)/\(kvHeads) x\(dim) \(type) \(tokens)@\(position) recent \(recent ?? 0)",
              op,
              inputs, types: types, constants: [inputs.count - 2, inputs.count - 1],
              symbols: tokens > 1 ? ["T": tokens] : [:], tolerance: 2e-5))
        }
      }
    }
    return cases
  }

  @Test(arguments: targets) func keyTermKernels(_ target: String) throws { try check(try keyTerms(), on: target) }
}
