import CodeGen
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Caches of levels, keys with scales of columns, and outliers apart.
extension KernelTests {
  private static let types: [CacheType] = [.n4, .n3, .n2]

  /// Tables whose codes fill vectors and that do not, with heads in one group and in several. Sums of up to 90 products in
  /// f32, 1e-5.
  private func levelCaches() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for type in Self.types {
      for (heads, kvHeads, dim) in [(4, 2, 32), (16, 2, 128), (3, 1, 40), (8, 8, 8)] {
        let k = try cache(type, 90, heads: kvHeads, dim: dim, seed: 61)
        let v = try cache(type, 90, heads: kvHeads, dim: dim, seed: 62)
        for (tokens, position) in [(1, 64), (37, 53)] {
          let q = Tensor.random([tokens, heads * dim], seed: 63, in: -2...2)
          let last = [64, 65].map { Tensor.random([7 + tokens, kvHeads * dim], seed: $0) }
          for recent in [nil, 7] as [Int?] {
            let op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot(), recent: recent)
            cases.append(
              KernelCase(
                "attention \(heads)/\(kvHeads) x\(dim) \(type) \(tokens)@\(position) recent \(recent ?? 0)", op,
                [q, k, v, Tensor(.i32, [1], [Int32(position)])] + (recent == nil ? [] : last), tolerance: 1e-5))
          }
        }
      }
    }
    return cases
  }

  /// Codes and scales are the evaluator's, byte by byte: heads of zeros, with one number, of tiny and of large ones.
  private func levelUpdates() throws -> [KernelCase] {
    try Self.types.flatMap { type in
      try [(3, 8), (1, 32), (2, 64), (4, 80), (1, 128)].flatMap { tokens, dim in
        let old = try cache(type, 9, heads: 3, dim: dim, seed: 72)
        var numbers = Tensor.random([tokens, 3 * dim], seed: 73, in: -5...5).array(of: Float.self)
        let at = Tensor(.i32, [1], [Int32(5)])
        let plain = Tensor(.f32, [tokens, 3 * dim], numbers)
        for i in 0..<dim {
          numbers[i] = 0
          numbers[dim + i] = i == 2 ? -3 : 0
          numbers[2 * dim + i] = i == 1 ? -1e-3 : i == 2 ? 1e-3 : 1e-5 * Float(i)
        }
        let edge = Tensor(.f32, [tokens, 3 * dim], numbers)
        let huge = Tensor(.f32, [tokens, 3 * dim], numbers.map { $0 * 1e9 })
        return [plain, edge, huge].enumerated().map { index, rows in
          KernelCase("cache_update \(type) \(dim) \(index)", CacheUpdate(), [old, rows, at], tolerance: 0)
        }
      }
    }
  }

  /// Keys that turn as halves, as neighbours, in part and not at all; caches of codes and of numbers; no, one and several
  /// outliers, in f32 and f16; one token, whose lanes take several keys, and many; before the last rows are full and behind.
  /// Sums of up to 90 products in f32 and angles from sums of two, 3e-5.
  private func channelAttention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, valueDim, turning, interleaved, type, outliers, apart) in [
      (4, 2, 32, 32, 32, false, CacheType.n4, 1, DType.f16), (4, 2, 32, 16, 32, true, .n3, 2, .f16),
      (16, 2, 64, 64, 64, false, .n2, 0, .f16), (16, 1, 64, 128, 32, true, .n4, 3, .f32),
      (6, 2, 20, 12, 12, false, .f32, 4, .f32), (3, 1, 5, 7, 4, true, .f32, 1, .f32),
      (2, 2, 40, 40, 0, false, .n3, 1, .f16), (8, 8, 8, 8, 8, true, .n4, 0, .f16),
      (2, 1, 80, 80, 80, false, .i8, 2, .f16),
      (1, 1, 130, 130, 66, false, .f16, 1, .f32),
    ] {
      let block = kvHeads == 1 ? 16 : 32
      let k = try cache(type, 90, heads: kvHeads, dim: dim, seed: 291)
      let v = try cache(type, 90, heads: kvHeads, dim: valueDim, seed: 292)
      let rows = LatentRows.angleRows(block: block, positions: 90)
      // Any angles: cosines and sines of the columns that form a pair are the same.
      let angles = (0..<rows * 2 * turning).map { index in
        let (row, column) = (index / (2 * turning), index % turning)
        let angle = 0.37 * Float(row + 1) / Float((interleaved ? column / 2 : column % (turning / 2)) + 1)
        return index / turning % 2 == 0 ? cos(angle) : sin(angle)
      }
      var others = [Tensor.random([2, kvHeads * dim], seed: 296)]
      if turning > 0 { others.append(Tensor(.f32, [rows, 2, turning], angles)) }
      if outliers > 0 {
        for width in [kvHeads * dim, kvHeads * valueDim] {
          let numbers = Tensor.random([90, width], seed: 297, in: -4...4)
          let split = try SplitOutliers(count: outliers).results(of: [numbers])
          others.append(try Cast(apart).results(of: [split[1]])[0])
        }
      }
      for (tokens, position) in [(1, 6), (1, 64), (37, 53), (5, 0)] {
        let recent = tokens == 1 ? 32 : 3
        let op = Attention(
          heads: heads, kvHeads: kvHeads, scale: 0.5 / Float(dim).squareRoot(), softcap: tokens == 5 ? 2 : nil,
          recent: recent,
          channels: ChannelRows(
            angleBlock: turning == 0 ? nil : block, interleaved: interleaved, outliers: outliers))
        let last = [(dim, 294), (valueDim, 295)].map { size, seed in
          Tensor.random([recent + tokens, kvHeads * size], seed: UInt64(seed))
        }
        let inputs =
          [Tensor.random([tokens, heads * dim], seed: 293, in: -2...2), k, v, Tensor(.i32, [1], [Int32(position)])]
          + last + others
        cases.append(
          KernelCase(
            "attention \(heads)/\(kvHeads) x\(dim)x\(valueDim) \(type) in channels \(tokens)@\(position) of \(outliers)",
            op, inputs, tolerance: 3e-5))
      }
    }
    return cases
  }

  /// Rows of vectors and of parts of them, with equal numbers, zeros, infinities and NaN.
  private func outlierSplits() -> [KernelCase] {
    [(3, 64, 2), (1, 20, 1), (2, 5, 5), (4, 1, 1), (2, 200, 3)].map { tokens, columns, count in
      var numbers = Tensor.random([tokens, columns], seed: 80, in: -3...3).array(of: Float.self)
      if columns > 4 {
        (numbers[0], numbers[1], numbers[2]) = (7, -7, 7)
        for index in columns - 3..<columns { numbers[(tokens - 1) * columns + index] = .nan }
      }
      if tokens > 2 {
        for index in columns..<2 * columns { numbers[index] = 0 }
        numbers[columns + columns / 2] = -.infinity
      }
      return KernelCase(
        "split_outliers \(count) of \(columns)", SplitOutliers(count: count),
        [Tensor(.f32, [tokens, columns], numbers)],
        tolerance: 0)
    }
  }

  @Test(arguments: targets) func channelAttentionKernels(_ target: String) throws {
    try check(try channelAttention(), on: target)
  }

  @Test(arguments: targets) func levelCacheKernels(_ target: String) throws {
    try check(try levelCaches() + levelUpdates() + outlierSplits(), on: target)
  }
}
