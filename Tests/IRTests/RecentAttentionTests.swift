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
    #expect(message(3, [q, k, k, TensorType(.f32, [2, 9]), last, last]).contains("expected the position"))
    #expect(message(3, [q, k, k, position, last, TensorType(.i32, [5, 4])]).contains("last values"))
  }
}
