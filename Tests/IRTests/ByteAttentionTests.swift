import Base
import IR
import Tensors
import TestSupport
import Testing

/// Attention with products of bytes, as the evaluator computes it.
@Suite struct ByteAttentionTests {
  /// Numbers of about a normal distribution: sums of twelve uniform ones.
  private func random(_ sizes: [Int], _ seed: UInt64) -> Tensor {
    var generator = SplitMix64(seed: seed)
    let numbers: [Float] = (0..<sizes.reduce(1, *)).map { _ in
      var sum = -6.0
      for _ in 0..<12 { sum += generator.uniform() }
      return Float(sum)
    }
    return Tensor(.f32, sizes, numbers)
  }

  private func evaluate(_ op: Attention, _ inputs: [Tensor]) throws -> [Float] {
    try op.results(of: inputs)[0].array(of: Float.self)
  }

  /// How results in bytes lie to those in f32: relative error (RMS), largest error, cosine.
  private struct Distance {
    var relative, largest, cosine: Double

    init(_ found: [Float], _ wanted: [Float]) {
      var (difference, product, own, other, most) = (0.0, 0.0, 0.0, 0.0, 0.0)
      for (a, b) in zip(found, wanted) {
        let (x, y) = (Double(a), Double(b))
        difference += (x - y) * (x - y)
        product += x * y
        own += x * x
        other += y * y
        most = max(most, abs(x - y))
      }
      relative = (difference / other).squareRoot()
      largest = most
      cosine = product / (own * other).squareRoot()
    }
  }

  private func distance(_ op: Attention, _ form: ByteAttention, _ inputs: [Tensor]) throws -> Distance {
    var rounded = op
    rounded.int8 = form
    return Distance(try evaluate(rounded, inputs), try evaluate(op, inputs))
  }

  /// Some channels of the keys have a bias of 30 times their deviation, as those of language models do. In each row of
  /// keys it makes the steps of codes as coarse; its mean takes no part in softmax. Values have a bias as well.
  @Test(arguments: [true, false]) func smoothingTakesChannelBiasOff(_ causal: Bool) throws {
    let (tokens, heads, dim) = (200, 2, 64)
    let (q, v) = (random([tokens, heads * dim], 1), random([tokens, heads * dim], 3))
    var keys = random([tokens, heads * dim], 2).array(of: Float.self)
    var values = v.array(of: Float.self)
    for row in 0..<tokens {
      for channel in [3, 17, 64 + 40] { keys[row * heads * dim + channel] += channel == 17 ? -30 : 30 }
      values[row * heads * dim + 5] += 10
    }
    let inputs = [
      q, Tensor(.f32, [tokens, heads * dim], keys), Tensor(.f32, [tokens, heads * dim], values),
    ]
    let op = Attention(heads: heads, kvHeads: heads, scale: 0.125, causal: causal)
    let (on, off) = (
      try distance(op, ByteAttention(), inputs), try distance(op, ByteAttention(smooth: false), inputs)
    )
    // Numbers of normal distribution have steps of about 3 / 127, whose error is 0.7% of their deviation: in queries and keys
    // together 1% of a score, and about as much of a weight.
    #expect(on.relative < 0.005)
    #expect(on.cosine > 0.99999)
    #expect(off.relative > 4 * on.relative)
    #expect(off.largest > 4 * on.largest)
  }

  /// With a cap the share of the mean does not cancel: one of 8 in a channel moves scores by up to several times the cap.
  @Test func meanIsGivenBackUnderACap() throws {
    let (tokens, dim) = (70, 16)
    var keys = random([tokens, dim], 4).array(of: Float.self)
    for row in 0..<tokens { keys[row * dim + 2] += 8 }
    let inputs = [random([tokens, dim], 5), Tensor(.f32, [tokens, dim], keys), random([tokens, dim], 6)]
    let op = Attention(heads: 1, kvHeads: 1, scale: 0.5, causal: true, softcap: 2)
    #expect(try distance(op, ByteAttention(block: 16), inputs).relative < 0.012)
  }

  /// One key and many, blocks that end in between, groups of heads, heads of any width, windows, masks, batches. The
  /// relative error is that of the codes, as above.
  @Test func isCloseForAllForms() throws {
    for (tokens, keys, heads, kvHeads, dim) in [
      (2, 2, 1, 1, 4), (3, 65, 4, 2, 5), (65, 65, 6, 2, 20), (33, 129, 3, 1, 80), (7, 7, 2, 2, 3),
    ] {
      let q = random([tokens, heads * dim], 7)
      let (k, v) = (random([keys, kvHeads * dim], 8), random([keys, kvHeads * dim], 9))
      let scale = 1 / Float(dim).squareRoot()
      var op = Attention(heads: heads, kvHeads: kvHeads, scale: scale)
      let label = "\(tokens) of \(keys), \(heads)/\(kvHeads) x \(dim)"
      #expect(try distance(op, ByteAttention(), [q, k, v]).relative < 0.02, "\(label)")
      op.window = 3
      #expect(try distance(op, ByteAttention(block: 16), [q, k, v]).relative < 0.02, "\(label) window")
      op = Attention(heads: heads, kvHeads: kvHeads, scale: scale, causal: false)
      let hidden = Tensor(.bool, [tokens, keys], (0..<tokens * keys).map { UInt8($0 % 3 == 1 ? 0 : 1) })
      #expect(try distance(op, ByteAttention(), [q, k, v, hidden]).relative < 0.02, "\(label) mask")
    }
    let (q, k, v) = (random([2, 9, 24], 10), random([2, 70, 8], 11), random([2, 70, 12], 12))
    let op = Attention(heads: 6, kvHeads: 2, scale: 0.5, causal: false)
    #expect(try distance(op, ByteAttention(), [q, k, v]).relative < 0.02)
  }

  /// A query alone is computed as it is; a query that sees no key gives zeros; one that sees one key gives its value to
  /// half a step of the code.
  @Test func edges() throws {
    let (q, k, v) = (random([1, 8], 13), random([20, 8], 14), random([20, 8], 15))
    let op = Attention(heads: 1, kvHeads: 1, scale: 0.3, causal: false, int8: ByteAttention())
    var plain = op
    plain.int8 = nil
    #expect(try evaluate(op, [q, k, v]) == evaluate(plain, [q, k, v]))

    let hidden = Tensor(.bool, [2, 20], (0..<40).map { UInt8($0 == 23 ? 1 : 0) })
    let result = try evaluate(op, [random([2, 8], 16), k, v, hidden])
    #expect(result[..<8].allSatisfy { $0 == 0 })
    let row = v.array(of: Float.self)[24..<32]
    // The largest of 20 normal numbers, less their mean, is at most 4.
    for (a, b) in zip(result[8...], row) { #expect(abs(a - b) <= 0.51 * 4 / 127) }

    let zeros = Tensor(.f32, [4, 8], [Float](repeating: 0, count: 32))
    let mean = try evaluate(
      Attention(heads: 1, kvHeads: 1, scale: 1, causal: false, int8: .init()), [zeros, zeros, zeros])
    #expect(mean.allSatisfy { $0 == 0 })
  }

  /// Numbers that are none stay so, and nothing else happens.
  @Test(arguments: [Float.nan, .infinity, -.infinity, 3e38, 0x1p-133]) func takesAnyNumber(_ number: Float) throws {
    for operand in 0..<3 {
      var inputs = [random([5, 8], 17), random([5, 8], 18), random([5, 8], 19)]
      var numbers = inputs[operand].array(of: Float.self)
      numbers[11] = number
      inputs[operand] = Tensor(.f32, [5, 8], numbers)
      let result = try evaluate(Attention(heads: 1, kvHeads: 1, scale: 0.3, int8: .init()), inputs)
      #expect(result.count == 40)
      // Query 1, key 1 or value 1: the last query sees them all, the first only itself and the means of the block.
      if number.isNaN, operand > 0 { #expect(result[32...].contains { $0.isNaN }) }
      if number == 0x1p-133 { #expect(result.allSatisfy { $0.isFinite }) }
    }
  }

  /// Codes of a cache in int8 are taken as they are: two keys that differ by less than a step of smoothed codes stay apart.
  @Test func keepsCodesOfTheCache() throws {
    let (rows, dim) = (6, 8)
    let format = try #require(CacheType.i8.format(headDim: dim))
    let codes = Tensor(TensorType(.f32, [rows, dim], encoding: .block(format)))
    let numbers = random([rows, dim], 20)
    let at = Tensor(.i32, [1], [Int32(0)])
    try CacheUpdate().evaluate(
      [Tensor(codes.type).view, numbers.view, at.view], into: [codes.mutableView])
    let dense = Tensor(.f32, [rows, dim], numbers.array(of: Float.self))
    try Dequantize(.f32).evaluate([codes.view], into: [dense.mutableView])
    let (q, v) = (random([rows, dim], 21), random([rows, dim], 22))
    let op = Attention(heads: 1, kvHeads: 1, scale: 0.35, causal: false)
    // Against the numbers that the codes stand for, only queries, weights and values are rounded.
    var rounded = op
    rounded.int8 = ByteAttention()
    let kept = Distance(try evaluate(rounded, [q, codes, v]), try evaluate(op, [q, codes, v]))
    let again = Distance(try evaluate(rounded, [q, dense, v]), try evaluate(op, [q, dense, v]))
    #expect(kept.relative < 0.01)
    #expect(kept.relative != again.relative)
  }

  @Test func saysWhatDoesNotFit() {
    let (q, k, position) = (TensorType(.f32, [2, 4]), TensorType(.f32, [9, 4]), TensorType(.i32, [1]))
    func message(_ op: Attention, _ inputs: [TensorType]) -> String {
      do {
        _ = try op.inferTypes(inputs)
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    for (block, says) in [(64, ""), (16, ""), (0, "blocks of 0"), (24, "blocks of 24"), (512, "blocks of 512")] {
      let op = Attention(heads: 2, kvHeads: 2, scale: 1, int8: ByteAttention(block: block))
      #expect(says.isEmpty || message(op, [q, k, k, position]).contains(says))
      #expect(message(op, [q, k, k, position]).isEmpty == says.isEmpty)
    }
    let both = Attention(heads: 2, kvHeads: 2, scale: 1, recent: 3, int8: .init())
    let last = TensorType(.f32, [5, 4])
    #expect(message(both, [q, k, k, position, last, last]).contains("exclude each other"))
  }
}
