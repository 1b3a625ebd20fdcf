import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Attention, caches and rotary embedding.
extension KernelTests {
  /// A cache in the given type.
  func cache(_ type: CacheType, _ rows: Int, heads: Int, dim: Int, seed: UInt64) throws -> Tensor {
    if let element = type.element { return try random(element, [rows, heads * dim], seed: seed) }
    let numbers = Tensor.random([rows, heads * dim], seed: seed)
    let format = try #require(type.format(headDim: dim))
    let tensor = Tensor(TensorType(.f32, [rows, heads * dim], encoding: .block(format)))
    let old = Tensor(tensor.type)
    let all = Tensor(.i32, [1], [Int32(0)])
    try CacheUpdate().evaluate([old.view, numbers.view, all.view], into: [tensor.mutableView])
    return tensor
  }

  /// Four-bit caches: heads of one group and of several, halves of groups that are no whole vectors, odd halves; one token
  /// and many, the window of the attention shorter and longer than the rows that lie apart, positions before they are
  /// full. Sums of up to 90 products in f32, 1e-5.
  private func narrowCaches() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, type) in [
      (4, 2, 32, CacheType.i4), (2, 2, 64, .i4), (8, 2, 8, .i4), (3, 1, 80, .i4), (4, 2, 34, .i4), (16, 2, 128, .i4),
      (2, 1, 20, .i4t),
    ] {
      let k = try cache(type, 90, heads: kvHeads, dim: dim, seed: 61)
      let v = try cache(type, 90, heads: kvHeads, dim: dim, seed: 62)
      for (tokens, position) in [(1, 0), (1, 64), (37, 53), (5, 2)] {
        let q = Tensor.random([tokens, heads * dim], seed: 63, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        for (recent, window) in [(nil, nil), (32, nil), (7, 19), (7, 5)] as [(Int?, Int?)] {
          let op = Attention(
            heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot(), window: window,
            softcap: window == nil ? nil : 2, recent: recent)
          let last = recent.map { count in
            [64, 65].map { Tensor.random([count + tokens, kvHeads * dim], seed: $0) }
          }
          let inputs = [q, k, v, at] + (last ?? [])
          var types = inputs.map(\.type)
          if tokens > 1 {
            types[0] = symbolic(q.type)
            for index in 4..<inputs.count { types[index].shape[0] = types[0].shape[0] + .fixed(recent ?? 0) }
          }
          cases.append(
            KernelCase(
              "attention \(heads)/\(kvHeads) x\(dim) \(type) \(tokens)@\(position) recent \(recent ?? 0)",
              op, inputs,
              types: types, symbols: tokens > 1 ? ["T": tokens] : [:], tolerance: 1e-5))
        }
      }
    }
    // Numbers added to the scores of each head.
    let (k, v) = (try cache(.i4, 40, heads: 2, dim: 16, seed: 66), try cache(.i4, 40, heads: 2, dim: 16, seed: 67))
    let inputs = [
      Tensor.random([5, 64], seed: 68), k, v, Tensor(.i32, [1], [Int32(30)]), Tensor.random([4, 1, 40], seed: 69),
      Tensor.random([13, 32], seed: 70), Tensor.random([13, 32], seed: 71),
    ]
    cases.append(
      KernelCase(
        "attention with recent rows and slopes", Attention(heads: 4, kvHeads: 2, scale: 0.25, recent: 8), inputs,
        tolerance: 1e-5))
    return cases
  }

  /// Codes, scales and zero points are the evaluator's, byte by byte.
  private func narrowCacheUpdates() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for type in [CacheType.i4, .i4t] {
      for (tokens, dim) in [(3, 8), (1, 32), (2, 64), (4, 80), (2, 6), (3, 34), (1, 128)] {
        let old = try cache(type, 9, heads: 3, dim: dim, seed: 72)
        var numbers = Tensor.random([tokens, 3 * dim], seed: 73, in: -5...5).array(of: Float.self)
        let at = Tensor(.i32, [1], [Int32(5)])
        cases.append(
          KernelCase(
            "cache_update \(type) \(dim)", CacheUpdate(), [old, Tensor(.f32, [tokens, 3 * dim], numbers), at],
            tolerance: 0))
        // A head of zeros, one of a single sign with equal ends, one of tiny numbers with both ends.
        for i in 0..<dim {
          numbers[i] = 0
          numbers[dim + i] = i % 2 == 0 ? 3 : 1
          numbers[2 * dim + i] = i == 1 ? -1e-7 : i == 2 ? 1e-7 : 1e-9 * Float(i)
        }
        cases.append(
          KernelCase(
            "cache_update \(type) \(dim) of zeros", CacheUpdate(),
            [old, Tensor(.f32, [tokens, 3 * dim], numbers), at],
            tolerance: 0))
        // Numbers that are none leave the others of their group as they are.
        if type == .i4 {
          numbers[2] = .nan
          numbers[dim + 1] = -.nan
          cases.append(
            KernelCase(
              "cache_update \(type) \(dim) of nan", CacheUpdate(),
              [old, Tensor(.f32, [tokens, 3 * dim], numbers), at],
              tolerance: 0))
        }
      }
    }
    return cases
  }

  /// Several tiles of queries and blocks of keys, the last ones in part; groups of heads; caches of int8, whose numbers
  /// both sides take as they are. Sums of up to 90 products in f32, 1e-5.
  private func attentionTiles() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, dim, element) in [
      (6, 2, 20, CacheType.f32), (2, 2, 32, .f16), (8, 1, 8, .i8), (2, 1, 80, .i8), (3, 3, 4, .i8),
    ] {
      let k = try cache(element, 90, heads: kvHeads, dim: dim, seed: 41)
      let v = try cache(element, 90, heads: kvHeads, dim: dim, seed: 42)
      for (tokens, position) in [(1, 64), (37, 53)] {
        let q = Tensor.random([tokens, heads * dim], seed: 43, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        let label = "attention tile \(heads)/\(kvHeads) x\(dim) \(element) \(tokens)@\(position)"
        var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot())
        cases.append(KernelCase(label, op, [q, k, v, at], tolerance: 1e-5))
        op.window = 33
        op.softcap = 2
        cases.append(
          KernelCase(
            "\(label) window", op, [q, k, v, at], types: [symbolic(q.type), k.type, v.type, at.type],
            symbols: ["T": tokens], tolerance: 1e-5))
      }
    }
    // One token leaves lanes free, which take neighbouring keys: two and four of them, blocks that end in between.
    for (heads, kvHeads, dim, element) in [(16, 2, 64, CacheType.f16), (4, 1, 32, .i8)] {
      let k = try cache(element, 90, heads: kvHeads, dim: dim, seed: 51)
      let v = try cache(element, 90, heads: kvHeads, dim: dim, seed: 52)
      let q = Tensor.random([1, heads * dim], seed: 53, in: -2...2)
      for position in [0, 6, 31, 66] {
        let at = Tensor(.i32, [1], [Int32(position)])
        let label = "attention of one token \(heads)/\(kvHeads) x\(dim) \(element) @\(position)"
        var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot())
        cases.append(KernelCase(label, op, [q, k, v, at], tolerance: 1e-5))
        op.window = 33
        op.softcap = 2
        cases.append(KernelCase("\(label) window", op, [q, k, v, at], tolerance: 1e-5))
      }
    }
    let (q, k, v) = (
      Tensor.random([2, 35, 24], seed: 44), Tensor.random([2, 67, 8], seed: 45), Tensor.random([2, 67, 12], seed: 46)
    )
    let all = Attention(heads: 6, kvHeads: 2, scale: 0.5, causal: false)
    cases.append(KernelCase("attention tile of a batch", all, [q, k, v], tolerance: 1e-5))
    let bias = Tensor.random([6, 35, 67], seed: 47)
    cases.append(KernelCase("attention tile with added bias", all, [q, k, v, bias], tolerance: 1e-5))
    let padding = Tensor(.bool, [2, 1, 1, 67], (0..<134).map { UInt8($0 >= 40 && $0 < 120 ? 1 : 0) })
    cases.append(KernelCase("attention tile with padding", all, [q, k, v, padding], tolerance: 1e-5))
    let nothing = Tensor(.bool, [35, 67], (0..<35 * 67).map { UInt8($0 / 67 % 3 == 0 ? 0 : 1) })
    cases.append(KernelCase("attention tile with hidden rows", all, [q, k, v, nothing], tolerance: 1e-5))
    // Scores of 1e4, which are off by some 2^-24 of that, and so are the weights: 1e4 * 6e-8 * 4 products < 3e-3. Nothing
    // overflows.
    let far = Tensor.random([2, 35, 24], seed: 48, in: -1000...1000)
    cases.append(KernelCase("attention tile of large scores", all, [far, k, v], tolerance: 3e-3))
    for (tokens, group) in [(3, 8), (1, 20), (2, 64)] {
      let old = try cache(.i8, 9, heads: 3, dim: group, seed: 49)
      let rows = Tensor.random([tokens, 3 * group], seed: 50, in: -5...5)
      cases.append(
        KernelCase("cache_update i8 \(group)", CacheUpdate(), [old, rows, Tensor(.i32, [1], [Int32(5)])], tolerance: 0))
    }
    return cases
  }

  /// Products of bytes. Both sides round alike but for numbers at the edge between two codes, where the last bit of an
  /// exponential or of a mean decides: a weight may then be off by 1 / 255 of the largest one of its block, a value by
  /// a step of its code, which is at most 2 / 127; 1e-2 of the largest result leaves room for one of either.
  private func byteAttention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    func add(
      _ label: String, _ op: Attention, _ inputs: [Tensor], _ types: [TensorType]? = nil, _ symbols: [String: Int]
    ) {
      var item = KernelCase(label, op, inputs, types: types, symbols: symbols, tolerance: 1e-2)
      item.kernels = "mcc_attention_int8"
      cases.append(item)
    }
    for (heads, kvHeads, dim, element) in [
      (6, 2, 20, CacheType.f32), (2, 2, 64, .f16), (8, 1, 8, .i8), (2, 1, 80, .i8), (3, 3, 5, .f32), (1, 1, 130, .f32),
    ] {
      let k = try cache(element, 200, heads: kvHeads, dim: dim, seed: 81)
      let v = try cache(element, 200, heads: kvHeads, dim: dim, seed: 82)
      for (tokens, position) in [(2, 0), (37, 53), (131, 69), (16, 48)] {
        let q = Tensor.random([tokens, heads * dim], seed: 83, in: -2...2)
        let at = Tensor(.i32, [1], [Int32(position)])
        let label = "attention int8 \(heads)/\(kvHeads) x\(dim) \(element) \(tokens)@\(position)"
        var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot(), int8: ByteAttention())
        add(label, op, [q, k, v, at], [symbolic(q.type), k.type, v.type, at.type], ["T": tokens])
        op.window = 33
        op.softcap = 2
        op.int8 = ByteAttention(block: 16)
        add("\(label) window", op, [q, k, v, at], nil, [:])
      }
    }
    let (q, k, v) = (
      Tensor.random([2, 35, 24], seed: 84), Tensor.random([2, 67, 8], seed: 85), Tensor.random([2, 67, 12], seed: 86)
    )
    let all = Attention(heads: 6, kvHeads: 2, scale: 0.5, causal: false, int8: ByteAttention())
    add("attention int8 of a batch", all, [q, k, v], nil, [:])
    let types = [symbolic(q.type, axis: 1), symbolic(k.type, axis: 1, name: "S"), symbolic(v.type, axis: 1, name: "S")]
    add("attention int8 of a batch T", all, [q, k, v], types, ["T": 35, "S": 67])
    add("attention int8 with added bias", all, [q, k, v, Tensor.random([6, 35, 67], seed: 87)], nil, [:])
    let padding = Tensor(.bool, [2, 1, 1, 67], (0..<134).map { UInt8($0 >= 40 && $0 < 120 ? 1 : 0) })
    add("attention int8 with padding", all, [q, k, v, padding], nil, [:])
    let nothing = Tensor(.bool, [35, 67], (0..<35 * 67).map { UInt8($0 / 67 % 3 == 0 || $0 % 67 < 10 ? 0 : 1) })
    add("attention int8 with hidden rows", all, [q, k, v, nothing], nil, [:])
    var plain = all
    plain.int8 = ByteAttention(block: 32, smooth: false)
    add("attention int8 as it is", plain, [q, k, v], nil, [:])
    // Values that are whole numbers with 127 among them, and weights that are all equal: means of 64 + 3 values, with no code at
    // an edge. Sums of 67 numbers in f32, 1e-6.
    let none = Tensor(.f32, [2, 35, 24], [Float](repeating: 0, count: 2 * 35 * 24))
    var whole = [Float](repeating: 127, count: 2 * 67 * 12)
    for i in whole.indices {
      let row = i / 12 % 67
      if row % 64 != 1 { whole[i] = Float(i * 37 % 255 - 127) }
    }
    var exact = KernelCase(
      "attention int8 of whole numbers", plain, [none, k, Tensor(.f32, [2, 67, 12], whole)], tolerance: 1e-6)
    exact.kernels = "mcc_attention_int8"
    plain.int8 = ByteAttention(smooth: false)
    exact.op = plain
    cases.append(exact)
    let (q3, k3, v3) = (
      Tensor.random([3, 6, 12], seed: 88), Tensor.random([3, 6, 12], seed: 89), Tensor.random([3, 6, 12], seed: 90)
    )
    var columns = KernelCase(
      "attention int8 over columns of a batch", Attention(heads: 3, kvHeads: 3, scale: 0.5, int8: ByteAttention()),
      [q3, k3, v3], columns: [0: (0, 36), 1: (12, 36), 2: (24, 36)], tolerance: 1e-2)
    columns.kernels = "mcc_attention_int8"
    cases.append(columns)
    return cases
  }

  @Test(arguments: targets) func byteAttentionKernels(_ target: String) throws {
    try check(try byteAttention(), on: target)
  }

  /// Rotary embedding turns a head by angles up to 100: products and table rounded once each, 1e-5.
  func attention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let context = 70
    for (heads, kvHeads, dim) in [(8, 4, 8), (4, 1, 16), (2, 2, 40), (3, 3, 64), (2, 1, 5), (1, 1, 160)] {
      for cache in [DType.f32, .f16] {
        let k = try random(cache, [context, kvHeads * dim], seed: 21),
          v = try random(cache, [context, kvHeads * dim], seed: 22)
        for (tokens, position) in [(1, 0), (1, 31), (1, 69), (5, 0), (5, 40)] {
          let q = Tensor.random([tokens, heads * dim], seed: 23, in: -2...2)
          let at = Tensor(.i32, [1], [Int32(position)])
          var op = Attention(heads: heads, kvHeads: kvHeads, scale: 1 / Float(dim).squareRoot())
          cases.append(
            KernelCase(
              "attention \(heads)/\(kvHeads) x\(dim) \(cache) \(tokens)@\(position)", op, [q, k, v, at], tolerance: 1e-5
            ))
          op.window = 7
          op.softcap = 1.5
          cases.append(
            KernelCase(
              "attention window \(heads)x\(dim) \(cache) \(tokens)@\(position)", op, [q, k, v, at],
              types: [symbolic(q.type), k.type, v.type, at.type], symbols: ["T": tokens], tolerance: 1e-5))
        }
      }
    }
    let (q, k, v) = (
      Tensor.random([2, 6, 12], seed: 24), Tensor.random([2, 9, 12], seed: 25), Tensor.random([2, 9, 12], seed: 26)
    )
    let all = Attention(heads: 3, kvHeads: 3, scale: 0.5, causal: false)
    cases.append(KernelCase("attention of a batch", all, [q, k, v], tolerance: 1e-5))
    let mask = Tensor.random([2, 1, 1, 9], seed: 27)
    cases.append(KernelCase("attention with added mask", all, [q, k, v, mask], tolerance: 1e-5))
    let hidden = Tensor(.bool, [6, 9], (0..<54).map { UInt8($0 / 9 != 2 && $0 % 4 != 0 ? 1 : 0) })
    cases.append(KernelCase("attention with hidden keys", all, [q, k, v, hidden], tolerance: 1e-5))
    // Queries and keys that fill tiles and blocks of keys in part, or several of them.
    for (batch, heads, kvHeads, dim, tokens, keys) in [
      (1, 2, 2, 5, 1, 3), (3, 2, 1, 8, 37, 49), (1, 1, 1, 30, 65, 300), (2, 3, 3, 32, 16, 13),
    ] {
      let q = Tensor.random([batch, tokens, heads * dim], seed: 33, in: -2...2)
      let k = Tensor.random([batch, keys, kvHeads * dim], seed: 34),
        v = Tensor.random([batch, keys, kvHeads * dim], seed: 35)
      var op = Attention(heads: heads, kvHeads: kvHeads, scale: 0.7, causal: false)
      let label = "attention \(batch) x \(heads)/\(kvHeads)x\(dim) \(tokens) of \(keys)"
      cases.append(KernelCase(label, op, [q, k, v], tolerance: 1e-5))
      cases.append(
        KernelCase(
          label + " T", op, [q, k, v],
          types: [
            symbolic(q.type, axis: 1), symbolic(k.type, axis: 1, name: "S"),
            symbolic(v.type, axis: 1, name: "S"),
          ],
          symbols: ["T": tokens, "S": keys], tolerance: 1e-5))
      // A mask that hides all keys of a query and all of the first block of another.
      let count = batch * heads * tokens * keys
      let numbers = Tensor.random([batch, heads, tokens, keys], seed: 36, in: -2...2).array(of: Float.self)
      let mask = Tensor(
        .f32, [batch, heads, tokens, keys],
        (0..<count).map { i in
          let (row, key) = (i / keys, i % keys)
          if row % tokens == 0, tokens > 1 { return -Float.infinity }
          if row % tokens == 1, key < 256, key < keys - 1 { return -Float.infinity }
          return numbers[i]
        })
      op.softcap = 2
      cases.append(KernelCase(label + " masked", op, [q, k, v, mask], tolerance: 1e-5))
    }
    let causal = Attention(heads: 3, kvHeads: 3, scale: 0.5)
    cases.append(KernelCase("causal attention without position", causal, [q, k, v], tolerance: 1e-5))
    let (q2, k2, v2) = (
      Tensor.random([6, 12], seed: 28), Tensor.random([6, 12], seed: 29), Tensor.random([6, 12], seed: 30)
    )
    cases.append(
      KernelCase(
        "attention over columns of one buffer", causal, [q2, k2, v2],
        columns: [0: (0, 36), 1: (12, 36), 2: (24, 36)], tolerance: 1e-5))
    cases += try attentionTiles()
    let (q3, k3, v3) = (
      Tensor.random([3, 6, 12], seed: 37), Tensor.random([3, 6, 12], seed: 38), Tensor.random([3, 6, 12], seed: 39)
    )
    cases.append(
      KernelCase(
        "attention over columns of a batch", all, [q3, k3, v3], columns: [0: (0, 36), 1: (12, 36), 2: (24, 36)],
        tolerance: 1e-5))
    for (tokens, cache, columns) in [(1, DType.f32, 16), (4, .f16, 100), (3, .bf16, 5)] {
      let old = try random(cache, [9, columns], seed: 31), rows = Tensor.random([tokens, columns], seed: 32)
      cases.append(
        KernelCase(
          "cache_update \(cache) \(columns)", CacheUpdate(), [old, rows, Tensor(.i32, [1], [Int32(5)])], tolerance: 0))
      cases.append(
        KernelCase(
          "cache_update of columns \(cache) \(columns)", CacheUpdate(), [old, rows, Tensor(.i32, [1], [Int32(2)])],
          types: [old.type, symbolic(rows.type), TensorType(.i32, [1])], columns: [1: (start: 3, width: columns + 4)],
          symbols: ["T": tokens], tolerance: 0))
    }
    for (dim, width, interleaved) in [(8, 4, false), (64, 32, false), (40, 10, false), (8, 4, true), (10, 3, true)] {
      let x = Tensor.random([3, 2 * dim], seed: 33), table = Tensor.random([3, 2, width], seed: 34)
      cases.append(
        KernelCase("rope \(dim) \(width)", Rope(headDim: dim, interleaved: interleaved), [x, table], tolerance: 1e-6))
      cases.append(
        KernelCase(
          "rope of columns \(dim) \(width)", Rope(headDim: dim, interleaved: interleaved), [x, table],
          types: [symbolic(x.type), symbolic(table.type)], columns: [0: (start: 1, width: 2 * dim + 9)],
          symbols: ["T": 3], tolerance: 1e-6))
    }
    let frequencies = Tensor(.f32, [5], [1, 0.3, 0.1, 0.03, 0.001] as [Float])
    cases.append(
      KernelCase(
        "rope_table", RopeTable(length: 4), [Tensor(.i32, [1], [Int32(97)]), frequencies], tolerance: 1e-6))
    return cases
  }

  @Test(arguments: targets) func attentionKernels(_ target: String) throws { try check(try attention(), on: target) }

  @Test(arguments: targets) func narrowCacheKernels(_ target: String) throws {
    try check(try narrowCaches() + narrowCacheUpdates(), on: target)
  }
}
