import Base
import Foundation
import IR
import TestSupport
import Tensors
import Testing

/// Attention over caches of a bounded number of rows.
@Suite struct BoundedAttentionTests {
  private func random(_ sizes: [Int], _ seed: UInt64) -> Tensor {
    var generator = SplitMix64(seed: seed)
    return Tensor(.f32, sizes, (0..<sizes.reduce(1, *)).map { _ in Float(generator.uniform() * 2 - 1) })
  }

  /// Caches that hold numbers of a text before, none of which may be read.
  private func states(_ heads: Int, _ rows: Int, _ depth: Int, _ valueDepth: Int, _ element: DType = .f32) -> [Tensor] {
    [[heads, rows, depth], [heads, rows, valueDepth], [heads, 2, rows]].enumerated().map { index, sizes in
      Tensor(.f32, sizes, [Float](repeating: .nan, count: sizes.reduce(1, *)))
        .converted(to: index < 2 ? element : .f32)
    }
  }

  /// The rows of a text.
  private struct Text {
    var q, k, v: Tensor
    var count: Int { q.view.sizes[0] }
  }

  private func text(_ tokens: Int, heads: Int, kvHeads: Int, _ depth: Int, _ valueDepth: Int, seed: UInt64) -> Text {
    Text(
      q: random([tokens, heads * depth], seed), k: random([tokens, kvHeads * depth], seed + 1),
      v: random([tokens, kvHeads * valueDepth], seed + 2))
  }

  /// The results of a text that is cut into calls of these lengths, and the states at the end.
  private func run(
    _ op: BoundedAttention, _ text: Text, _ states: [Tensor], calls: [Int]
  ) throws -> (y: [Float], states: [Tensor]) {
    var (states, y, at) = (states, [Float](), 0)
    for count in calls {
      let parts = [text.q, text.k, text.v].map { whole in
        let width = whole.view.sizes[1]
        return Tensor(
          .f32, [count, width], Array(whole.array(of: Float.self)[at * width..<(at + count) * width]))
      }
      let results = try op.results(of: states + parts + [.i32(Int32(at))])
      y += results[3].array(of: Float.self)
      states = Array(results[..<3])
      at += count
    }
    return (y, states)
  }

  /// Attention over all rows.
  private func plain(_ op: BoundedAttention, _ text: Text, kvHeads: Int) throws -> [Float] {
    let attention = Attention(heads: op.heads, kvHeads: kvHeads, scale: op.scale, softcap: op.softcap)
    let result = try attention.results(of: [text.q, text.k, text.v, .i32(0)])
    return result[0].array(of: Float.self)
  }

  /// As long as nothing is dropped it is causal attention. Sums of at most 40 products in another order.
  @Test(arguments: [(4, 2, 8, 8, nil), (3, 1, 5, 7, 2), (2, 2, 1, 3, nil)] as [(Int, Int, Int, Int, Float?)])
  func isAttentionWhileAllIsKept(_ heads: Int, _ kvHeads: Int, _ depth: Int, _ valueDepth: Int, _ cap: Float?) throws {
    let text = text(40, heads: heads, kvHeads: kvHeads, depth, valueDepth, seed: 3)
    let op = BoundedAttention(heads: heads, scale: 0.6, softcap: cap, sinks: 2, recent: 5)
    let found = try run(op, text, states(kvHeads, 40, depth, valueDepth), calls: [40])
    #expect(maxRelativeError(found.y, try plain(op, text, kvHeads: kvHeads)) <= 2e-6)
    let less = try run(op, text, states(kvHeads, 39, depth, valueDepth), calls: [40])
    #expect(maxRelativeError(less.y, try plain(op, text, kvHeads: kvHeads)) > 1e-4)
  }

  /// Cuts between calls change no bit of results and states.
  @Test(arguments: [DType.f32, .f16, .bf16]) func callsDoNotMatter(_ element: DType) throws {
    let text = text(50, heads: 4, kvHeads: 2, 6, 4, seed: 9)
    let op = BoundedAttention(heads: 4, scale: 1.5, sinks: 1, recent: 4)
    let begin = states(2, 11, 6, 4, element)
    let whole = try run(op, text, begin, calls: [50])
    for calls in [[Int](repeating: 1, count: 50), [7, 13, 1, 29], [4, 1, 6, 39]] {
      let parts = try run(op, text, begin, calls: calls)
      #expect(parts.y == whole.y)
      for (a, b) in zip(parts.states, whole.states) { #expect(a.view.bytes.elementsEqual(b.view.bytes)) }
    }
    let numbers = whole.y.filter(\.isFinite).count
    #expect(numbers == whole.y.count)
  }

  /// The positions that each head keeps, from their place in the states.
  private func kept(_ states: [Tensor]) -> [Set<Int>] {
    let sizes = states[2].view.sizes
    let numbers = states[2].array(of: Float.self)
    return (0..<sizes[0]).map { head in
      Set((0..<sizes[2]).map { Int(numbers[(2 * head + 1) * sizes[2] + $0]) })
    }
  }

  /// Queries that look at a few known tokens and nowhere else: these are kept, and nothing is lost.
  @Test func keepsWhatIsLookedAt() throws {
    let (tokens, rows) = (120, 12)
    let wanted = [[7, 20, 21, 60, 77], [9, 33, 50, 71, 80]]
    var text = text(tokens, heads: 4, kvHeads: 2, 4, 3, seed: 5)
    // The first number of keys that are looked at is 1; of a query 90.
    var (q, k) = (text.q.array(of: Float.self), text.k.array(of: Float.self))
    for token in 0..<tokens {
      for head in 0..<4 { for d in 0..<4 { q[(token * 4 + head) * 4 + d] = d == 0 ? 90 : 0 } }
      for head in 0..<2 { k[(token * 2 + head) * 4] = wanted[head].contains(token) ? 1 : 0 }
    }
    (text.q, text.k) = (Tensor(.f32, [tokens, 16], q), Tensor(.f32, [tokens, 8], k))
    let op = BoundedAttention(heads: 4, scale: 1, sinks: 2, recent: 4)
    let found = try run(op, text, states(2, rows, 4, 3), calls: [tokens])
    for (head, positions) in kept(found.states).enumerated() {
      let needed = Set(wanted[head] + [0, 1] + Array(tokens - 4..<tokens))
      #expect(positions.count == rows && positions.isSuperset(of: needed), "\(positions.sorted())")
    }
    // From the first of them on nothing else has a weight that counts: exp(-90). Before it all are alike.
    let exact = try plain(op, text, kvHeads: 2)
    let first = 10 * 12
    #expect(maxRelativeError(Array(found.y[first...]), Array(exact[first...])) <= 1e-6)
    // The last tokens alone are not enough.
    let window = BoundedAttention(heads: 4, scale: 1, sinks: 2, recent: 10)
    let lost = try run(window, text, states(2, rows, 4, 3), calls: [tokens])
    #expect(maxRelativeError(Array(lost.y[first...]), Array(exact[first...])) > 0.1)
  }

  /// The rule itself, on lists of positions: of the tokens that are neither first nor last the one with the least mean
  /// attention goes, just before the row is needed.
  @Test(arguments: [(2, 5, 14), (0, 1, 6), (3, 9, 12), (0, 3, 4)])
  func dropsWhatReceivesLeast(_ sinks: Int, _ recent: Int, _ rows: Int) throws {
    let (tokens, heads, depth) = (70, 3, 4)
    let text = text(tokens, heads: heads, kvHeads: 1, depth, 2, seed: 11)
    let op = BoundedAttention(heads: heads, scale: 3, sinks: sinks, recent: recent)
    let found = try run(op, text, states(1, rows, depth, 2), calls: [30, 40])
    let (q, k, v) = (
      text.q.array(of: Float.self).map(Double.init), text.k.array(of: Float.self).map(Double.init),
      text.v.array(of: Float.self).map(Double.init)
    )
    var received: [Int: Double] = [:]
    var y: [Double] = []
    for token in 0..<tokens {
      if received.count == rows {
        let candidates = received.keys.filter { $0 >= sinks && $0 <= token - recent }
        let least = try #require(
          candidates.min { (received[$0] ?? 0) / Double(token - $0) < (received[$1] ?? 0) / Double(token - $1) })
        received[least] = nil
      }
      received[token] = 0
      let positions = received.keys.sorted()
      for head in 0..<heads {
        let scores = positions.map { position in
          (0..<depth).reduce(0.0) { $0 + q[(token * heads + head) * depth + $1] * k[position * depth + $1] } * 3
        }
        let weights = scores.map { exp($0 - (scores.max() ?? 0)) }
        let total = weights.reduce(0, +)
        for (position, weight) in zip(positions, weights) { received[position, default: 0] += weight / total }
        for d in 0..<2 {
          y.append(zip(positions, weights).reduce(0.0) { $0 + $1.1 / total * v[$1.0 * 2 + d] })
        }
      }
    }
    #expect(kept(found.states) == [Set(received.keys)])
    #expect(maxRelativeError(found.y.map(Double.init), y) <= 1e-5)
  }

  /// Numbers that are none stay where they are and stop nothing.
  @Test func takesAnyNumbers() throws {
    var text = text(30, heads: 2, kvHeads: 1, 2, 2, seed: 1)
    var q = text.q.array(of: Float.self)
    q[4 * 9] = .nan
    q[4 * 12 + 2] = .infinity
    text.q = Tensor(.f32, [30, 4], q)
    let op = BoundedAttention(heads: 2, scale: 1, sinks: 1, recent: 2)
    let found = try run(op, text, states(1, 5, 2, 2), calls: [30])
    let (before, at, after) = (found.y[4 * 8..<4 * 9], found.y[4 * 9..<4 * 9 + 2], found.y[4 * 29..<4 * 30])
    #expect(before.filter(\.isFinite).count == 4)
    #expect(at.filter(\.isNaN).count == 2)
    #expect(after.filter(\.isFinite).count == 4)
  }
}
