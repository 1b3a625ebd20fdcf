import Base
import IR
import Tensors
import TestSupport
import Testing

/// Attention whose last keys and values lie apart from the cache.
@Suite struct RecentAttentionTests {
  private func evaluate(_ op: Attention, _ inputs: [Tensor]) throws -> [Float] {
    try op.results(of: inputs)[0].array(of: Float.self)
  }

  /// Every query gives what it gives alone over a cache into which the last rows were copied.
  @Test(arguments: [(3, nil), (1, nil), (6, 4), (2, 4), (20, nil)] as [(Int, Int?)])
  func takesTheLastRows(_ recent: Int, _ window: Int?) throws {
    let (tokens, position, rows, width) = (5, 6, 14, 8)
    let q = Tensor.random([tokens, 16], seed: 1)
    let cache = [Tensor.random([rows, width], seed: 2), Tensor.random([rows, width], seed: 3)]
    let last = [Tensor.random([recent + tokens, width], seed: 4), Tensor.random([recent + tokens, width], seed: 5)]
    var op = Attention(heads: 4, kvHeads: 2, scale: 0.7, window: window, softcap: 3)
    var wanted: [Float] = []
    for token in 0..<tokens {
      let at = position + token
      var mixed = cache.map { $0.array(of: Float.self) }
      for part in 0..<2 {
        let numbers = last[part].array(of: Float.self)
        for key in max(0, at + 1 - recent)...at {
          let row = key - position + recent
          for column in 0..<width { mixed[part][key * width + column] = numbers[row * width + column] }
        }
      }
      let query = Array(q.array(of: Float.self)[token * 16..<(token + 1) * 16])
      wanted += try evaluate(
        op,
        [Tensor(.f32, [1, 16], query)] + mixed.map { Tensor(.f32, [rows, width], $0) }
          + [Tensor(.i32, [1], [Int32(at)])])
    }
    op.recent = recent
    let found = try evaluate(op, [q] + cache + [Tensor(.i32, [1], [Int32(position)])] + last)
    // Sums of at most 11 products in another order.
    for (a, b) in zip(found, wanted) { #expect(abs(a - b) <= 1e-6) }
    #expect(found.count == wanted.count)
  }

  /// Old rows with the first numbers of a head give what rows with zeros behind these give, in f32 and in f64.
  @Test(arguments: [(4, 3, 1), (4, 4, 1), (1, 6, 6), (3, 2, 20)])
  func oldRowsMayHaveFewerNumbers(_ keyRank: Int, _ valueRank: Int, _ recent: Int) throws {
    let (tokens, position, rows, heads, kvHeads, dim, valueDim) = (5, 6, 14, 4, 2, 4, 6)
    let narrow = [
      Tensor.random([rows, kvHeads * keyRank], seed: 2), Tensor.random([rows, kvHeads * valueRank], seed: 3),
    ]
    let padded = zip(narrow, [(keyRank, dim), (valueRank, valueDim)]).map { tensor, sizes in
      let numbers = tensor.array(of: Float.self)
      let wide = (0..<rows * kvHeads * sizes.1).map { index in
        let (row, column) = index.quotientAndRemainder(dividingBy: sizes.1)
        return column < sizes.0 ? numbers[row * sizes.0 + column] : 0
      }
      return Tensor(.f32, [rows, kvHeads * sizes.1], wide)
    }
    let others = (
      Tensor.random([tokens, heads * dim], seed: 1), Tensor(.i32, [1], [Int32(position)]),
      [
        Tensor.random([recent + tokens, kvHeads * dim], seed: 4),
        Tensor.random([recent + tokens, kvHeads * valueDim], seed: 5),
      ]
    )
    let op = Attention(heads: heads, kvHeads: kvHeads, scale: 0.7, softcap: 3, recent: recent)
    let found = try evaluate(op, [others.0] + narrow + [others.1] + others.2)
    let wanted = try evaluate(op, [others.0] + padded + [others.1] + others.2)
    // Sums of at most 11 products in another order.
    #expect(found.count == tokens * heads * valueDim && maxRelativeError(found, wanted) <= 1e-6)
    let wide = try op.results(
      of: ([others.0] + narrow).map { $0.converted(to: .f64) } + [others.1] + others.2.map { $0.converted(to: .f64) })
    #expect(maxRelativeError(found.map(Double.init), wide[0].array(of: Double.self)) <= 1e-6)
  }

  /// Rows that heads have in common give what a product, a rotary embedding and an attention give one after the other, for
  /// pairs of halves and of neighbours, heads that turn in part and not at all, before and behind a block of angles; with
  /// `wholeCalls` what a call of its first token with the last rows of the others gives.
  @Test(arguments: [(8, false, false), (8, true, true), (4, false, true), (0, false, false)])
  func rowsMayBeFeatures(_ turning: Int, _ interleaved: Bool, _ wholeCalls: Bool) throws {
    let (tokens, position, rows, heads, kvHeads, dim, valueDim, recent) = (5, 21, 28, 4, 2, 8, 6, 3)
    let (keyRank, valueRank, block) = (11, 5, 4)
    let q = Tensor.random([tokens, heads * dim], seed: 1), at = Tensor(.i32, [1], [Int32(position)])
    let features = [Tensor.random([rows, keyRank], seed: 2), Tensor.random([rows, valueRank], seed: 3)]
    let factors = [
      Tensor.random([kvHeads, keyRank, dim], seed: 4), Tensor.random([kvHeads, valueRank, valueDim], seed: 5),
    ]
    let last = [
      Tensor.random([recent + tokens, kvHeads * dim], seed: 6),
      Tensor.random([recent + tokens, kvHeads * valueDim], seed: 7),
    ]
    func table(_ frequencies: [Float], _ count: Int) throws -> Tensor {
      try RopeTable(length: .fixed(count)).results(
        of: [Tensor(.i32, [1], [Int32(0)]), Tensor(.f32, [frequencies.count], frequencies)])[0]
    }
    let frequencies = (0..<turning / 2).map { 1 / Float($0 * 2 + 1) }
    var expanded = try zip(features, factors).map { features, factors -> Tensor in
      let (rank, width) = (factors.type.shape[1].maximum, factors.type.shape[2].maximum)
      let numbers = factors.array(of: Float.self)
      // [rank, heads * width].
      let wide = (0..<rank * kvHeads * width).map { index in
        let (row, column) = index.quotientAndRemainder(dividingBy: kvHeads * width)
        return numbers[(column / width * rank + row) * width + column % width]
      }
      return try MatMul(transposeB: false).results(of: [features, Tensor(.f32, [rank, kvHeads * width], wide)])[0]
    }
    var angles: [Tensor] = []
    if turning > 0 {
      expanded[0] = try Rope(headDim: dim, interleaved: interleaved).results(
        of: [expanded[0], table(frequencies, rows)])[0]
      let steps = try table(frequencies, block).array(of: Float.self)
      let far = try table(frequencies.map { $0 * Float(block) }, rows / block).array(of: Float.self)
      // Cosines and sines of each column.
      let both = steps + far, pairs = turning / 2
      let spread = (0..<both.count * 2).map { index in
        let (row, column) = index.quotientAndRemainder(dividingBy: turning)
        return both[row * pairs + (interleaved ? column / 2 : column % pairs)]
      }
      angles = [Tensor(.f32, [both.count / turning, 2, turning], spread)]
    }
    var op = Attention(heads: heads, kvHeads: kvHeads, scale: 0.1, softcap: 3, recent: recent)
    var wanted: [Float] = []
    if wholeCalls {
      // Every token alone over the cache into which the last rows from the call's first token on were copied.
      op.recent = nil
      var mixed = expanded.map { $0.array(of: Float.self) }
      for (part, width) in [kvHeads * dim, kvHeads * valueDim].enumerated() {
        let numbers = last[part].array(of: Float.self)
        for key in position + 1 - recent..<position + tokens {
          for column in 0..<width {
            mixed[part][key * width + column] = numbers[(key - position + recent) * width + column]
          }
        }
      }
      wanted = try evaluate(
        op,
        [q] + zip(mixed, [kvHeads * dim, kvHeads * valueDim]).map { Tensor(.f32, [rows, $1], $0) } + [at])
    } else {
      wanted = try evaluate(op, [q] + expanded + [at] + last)
    }
    op.recent = recent
    op.latent = LatentRows(
      angleBlock: turning > 0 ? block : nil, interleaved: interleaved, wholeCalls: wholeCalls)
    let inputs = [q] + features + [at] + last + factors + angles
    let found = try evaluate(op, inputs)
    // Sums of at most 11 products, and angles from sums of two.
    #expect(found.count == tokens * heads * valueDim && maxRelativeError(found, wanted) <= 1e-5)
    let wide = try op.results(of: inputs.map { $0.type.element == .f32 ? $0.converted(to: .f64) : $0 })
    #expect(maxRelativeError(found.map(Double.init), wide[0].array(of: Double.self)) <= 1e-5)
    // Rows that nobody reads may hold anything.
    let noise = features.map { tensor -> Tensor in
      var numbers = tensor.array(of: Float.self)
      let width = tensor.type.shape[1].maximum
      for index in (position + (wholeCalls ? 1 : tokens) - recent) * width..<rows * width { numbers[index] = .nan }
      return Tensor(.f32, [rows, width], numbers)
    }
    #expect(try evaluate(op, [q] + noise + [at] + last + factors + angles) == found)
  }

  @Test func saysWhichFeaturesDoNotFit() {
    let (q, k, v, position) = (
      TensorType(.f32, [2, 8]), TensorType(.f32, [9, 3]), TensorType(.f32, [9, 5]), TensorType(.i32, [1])
    )
    let last = TensorType(.f32, [5, 8])
    let (a, b) = (TensorType(.f32, [2, 3, 4]), TensorType(.f32, [2, 5, 4])), angles = TensorType(.f32, [7, 2, 4])
    func message(
      _ others: [TensorType], _ latent: LatentRows = LatentRows(angleBlock: 4), recent: Int? = 3, block: Int? = nil
    ) -> String {
      do {
        let op = Attention(heads: 2, kvHeads: 2, scale: 1, recent: recent, angleBlock: block, latent: latent)
        _ = try op.inferTypes([q, k, v, position] + others)
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    #expect(message([last, last, a, b, angles]) == "")
    #expect(message([last, last, a, b], LatentRows(angleBlock: nil)) == "")
    #expect(message([last, last, a, b]).contains("found 8 inputs"))
    #expect(message([last, last, b, b, angles]).contains("factors of keys"))
    #expect(message([last, last, a, a, angles]).contains("factors of values"))
    #expect(message([last, last, a, b, TensorType(.f32, [6, 2, 4])]).contains("expected [7, 2, C]"))
    #expect(message([last, last, a, b, TensorType(.f32, [7, 2, 6])]).contains("expected [7, 2, C]"))
    #expect(message([last, last, a, b, TensorType(.f32, [7, 2, 3])]).contains("expected [7, 2, C]"))
    #expect(message([last, last, a, b, angles], LatentRows(angleBlock: 1)).contains("'angleBlock' is 1"))
    #expect(message([a, b, angles], recent: nil).contains("'latent' needs 'recent'"))
    #expect(message([last, last, a, b, a, b, angles], block: 4).contains("exclude each other"))
    #expect(
      message([last, TensorType(.f32, [5, 6]), a, b, angles]).contains("last values of shape [5, 6], expected [5, 8]"))
  }

  @Test func saysWhatDoesNotFit() {
    let (q, k, position) = (TensorType(.f32, [2, 4]), TensorType(.f32, [9, 4]), TensorType(.i32, [1]))
    func message(_ recent: Int, _ inputs: [TensorType]) -> String {
      do {
        _ = try Attention(heads: 2, kvHeads: 2, scale: 1, recent: recent).inferTypes(inputs)
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    let last = TensorType(.f32, [5, 4])
    #expect(message(3, [q, k, k, position, last, last]) == "")
    #expect(message(4, [q, k, k, position, last, last]).contains("last keys of shape [5, 4], expected [6, 4]"))
    #expect(message(0, [q, k, k, position, last, last]).contains("'recent' is 0"))
    #expect(message(3, [q, k, k, position]).contains("found 4 inputs"))
    // Two heads: queries and last rows of 2 numbers each, old rows of 1; 3 are too many, and without last rows 1 is.
    let (old, much) = (TensorType(.f32, [9, 2]), TensorType(.f32, [9, 6]))
    #expect(message(3, [q, old, old, position, last, last]) == "")
    #expect(message(3, [q, much, k, position, last, last]).contains("do not fit keys"))
    #expect(message(3, [q, k, much, position, last, last]).contains("last values of shape [5, 4], expected [5, 6]"))
    let narrow = TensorType(.f32, [5, 2])
    #expect(message(3, [q, old, k, position, narrow, last]).contains("last keys of shape [5, 2], expected [5, 4]"))
    #expect(throws: CompileError.self) {
      try Attention(heads: 2, kvHeads: 2, scale: 1).inferTypes([q, old, k, position])
    }
    #expect(message(3, [q, k, k, TensorType(.f32, [2, 9]), last, last]).contains("expected the position"))
    #expect(message(3, [q, k, k, position, last, TensorType(.i32, [5, 4])]).contains("last values"))
  }
}
