import Base
import IR
import Tensors
import TestSupport
import Testing

/// Attention over keys that are stored without the mean that rotary embedding turns.
@Suite struct KeyTermTests {
  private func evaluate(_ op: any Operator, _ inputs: [Tensor]) throws -> Tensor { try op.results(of: inputs)[0] }

  /// Cosines and sines of the columns of a head of 4 numbers, of which 2 pairs turn: of the first `block` positions,
  /// then of `blocks` blocks.
  static func angles(_ frequencies: [Double], block: Int, blocks: Int) -> Tensor {
    let positions = Array(0..<block) + (0..<blocks).map { $0 * block }
    let numbers = positions.flatMap { position in
      let angles = (frequencies + frequencies).map { $0 * Double(position) }
      return angles.map { Float(cosine($0)) } + angles.map { Float(cosine($0 - .pi / 2)) }
    }
    return Tensor(.f32, [positions.count, 2, 2 * frequencies.count], numbers)
  }

  /// A cosine by its series, after whole turns.
  private static func cosine(_ x: Double) -> Double {
    let y = x.remainder(dividingBy: 2 * .pi)
    var (sum, term) = (1.0, 1.0)
    for n in stride(from: 2.0, to: 40, by: 2) {
      term *= -y * y / (n * (n - 1))
      sum += term
    }
    return sum
  }

  /// Keys from rotary embedding, and keys less their mean from rotary embedding with the term, give the same; from the
  /// cache and from the last rows, in the middle of blocks and across their ends.
  @Test(arguments: [(nil, 0, 7), (nil, 3, 5), (3, 9, 4), (4, 2, 6)] as [(Int?, Int, Int)])
  func addsTheTurnedMean(_ recent: Int?, _ position: Int, _ tokens: Int) throws {
    let (rows, block) = (14, 4)
    let frequencies: [Float] = [1, 0.3]
    let plain = Tensor.random([rows, 8], seed: 1)
    let mean: [Float] = [3, -2, 1.5, 0.5, -4, 2, 0.25, 1]
    let less = Tensor(
      .f32, [rows, 8], plain.array(of: Float.self).enumerated().map { $0.element - mean[$0.offset % 8] })
    let table = try evaluate(
      RopeTable(length: .fixed(rows)), [Tensor(.i32, [1], [Int32(0)]), Tensor(.f32, [2], frequencies)])
    let keys = try [plain, less].map { try evaluate(Rope(headDim: 4), [$0, table]) }
    let (q, v) = (Tensor.random([tokens, 16], seed: 2), Tensor.random([rows, 8], seed: 3))
    let at = Tensor(.i32, [1], [Int32(position)])
    // The rows before the first query and those of the queries.
    func last(_ source: Tensor) -> Tensor {
      let (numbers, first) = (source.array(of: Float.self), position - (recent ?? 0))
      let some = (first..<position + tokens).flatMap { row in
        (0..<8).map { row < 0 ? Float.nan : numbers[row * 8 + $0] }
      }
      return Tensor(.f32, [position + tokens - first, 8], some)
    }
    var op = Attention(heads: 4, kvHeads: 2, scale: 0.6, recent: recent)
    func inputs(_ keys: Tensor) -> [Tensor] { [q, keys, v, at] + (recent == nil ? [] : [last(keys), last(v)]) }
    let wanted = try evaluate(op, inputs(keys[0])).array(of: Float.self)
    let other = try evaluate(op, inputs(keys[1])).array(of: Float.self)
    op.angleBlock = block
    let partners = (0..<8).map { $0 % 4 < 2 ? -mean[$0 + 2] : mean[$0 - 2] }
    let angles = Self.angles(frequencies.map { Double($0) }, block: block, blocks: 4)
    let found = try evaluate(op, inputs(keys[1]) + [Tensor(.f32, [2, 8], mean + partners), angles])
      .array(of: Float.self)
    // Scores up to 10 with products and angles rounded to f32.
    for (a, b) in zip(found, wanted) { #expect(abs(a - b) <= 2e-5) }
    #expect(zip(other, wanted).contains { abs($0 - $1) > 0.01 })
    // Weights that are asked for are those of the same keys.
    let weights = try op.received((inputs(keys[1]) + [Tensor(.f32, [2, 8], mean + partners), angles]).map(\.view))
    #expect(abs(weights.reduce(0, +) - Float(4 * tokens)) <= 1e-4)
  }

  @Test func saysWhatDoesNotFit() {
    let (q, k, position) = (TensorType(.f32, [2, 4]), TensorType(.f32, [9, 4]), TensorType(.i32, [1]))
    let (means, angles) = (TensorType(.f32, [2, 4]), TensorType(.f32, [7, 2, 2]))
    func message(_ block: Int?, _ inputs: [TensorType]) -> String {
      do {
        _ = try Attention(heads: 2, kvHeads: 2, scale: 1, angleBlock: block).inferTypes(inputs)
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    #expect(message(4, [q, k, k, position, means, angles]) == "")
    #expect(message(3, [q, k, k, position, means, angles]) == "")
    #expect(message(2, [q, k, k, position, means, angles]) == "")
    #expect(message(5, [q, k, k, position, means, TensorType(.f32, [6, 2, 2])]).contains("expected [7, 2, 2]"))
    #expect(message(4, [q, k, k, position, means, TensorType(.f32, [7, 2, 4])]).contains("found angles of shape"))
    #expect(message(4, [q, k, k, position, TensorType(.f32, [4]), angles]).contains("means"))
    #expect(message(1, [q, k, k, position, means, angles]).contains("'angleBlock' is 1"))
    #expect(message(4, [q, k, k, position]).contains("found 4 inputs"))
    #expect(message(nil, [q, k, k, position, means, angles]).contains("found 6 inputs"))
  }
}
