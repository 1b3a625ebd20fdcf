import Base
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Keys before rotary embedding, with scales of columns, and outliers apart.
@Suite struct ChannelAttentionTests {
  private func evaluate(_ op: Attention, _ inputs: [Tensor]) throws -> [Float] {
    try op.results(of: inputs)[0].array(of: Float.self)
  }

  /// Against attention over keys and values that this test multiplies, turns and fills itself. Pairs of halves and of
  /// neighbours, heads that turn in part and not at all; positions before the last rows are full and behind; no, one and
  /// several outliers, more than a row has numbers other than 0 among them. Angles are sums of two, 1e-5.
  @Test(arguments: [
    (2, 2, 4, 4, 4, false, 1, 3, 0), (4, 2, 6, 4, 4, true, 3, 9, 1), (6, 3, 4, 2, 0, false, 2, 20, 3),
    (2, 1, 8, 8, 8, true, 1, 30, 8), (1, 1, 2, 1, 2, false, 5, 0, 1),
  ])
  func isAttentionOverWholeRows(
    _ heads: Int, _ kvHeads: Int, _ dim: Int, _ valueDim: Int, _ turning: Int, _ interleaved: Bool, _ tokens: Int,
    _ position: Int, _ outliers: Int
  ) throws {
    let (rows, recent, block) = (40, 4, 8)
    let (width, valueWidth) = (kvHeads * dim, kvHeads * valueDim)
    var random = SplitMix64(seed: 5)
    func numbers(_ count: Int) -> [Float] { (0..<count).map { _ in Float(random.uniform()) * 2 - 1 } }
    let (keys, values) = (numbers(rows * width), numbers(rows * valueWidth))
    let (scales, offsets) = (numbers(width).map { $0 + 2 }, numbers(width))
    // In each row the numbers of the first slots, in places that differ from row to row; the last slot has none.
    func apart(_ width: Int) -> [Float] {
      (0..<rows).flatMap { row -> [Float] in
        let used = min(outliers, width) - (outliers > 1 ? 1 : 0)
        let found = (0..<outliers).map { $0 < used ? Float(10 + row + $0) : 0 }
        return found + (0..<outliers).map { $0 < used ? Float((row + $0) % width) : -1 }
      }
    }
    let (apartKeys, apartValues) = (apart(width), apart(valueWidth))
    let frequencies = (0..<turning / 2).map { 1 / Float($0 + 1) }
    func angle(_ position: Int, _ column: Int) -> Float {
      Float(position) * frequencies[interleaved ? column / 2 : column % (turning / 2)]
    }
    var (wantedKeys, wantedValues) = (keys, values)
    for row in 0..<rows {
      for slot in 0..<outliers {
        let place = Int(apartKeys[row * 2 * outliers + outliers + slot])
        if place >= 0 { wantedKeys[row * width + place] = apartKeys[row * 2 * outliers + slot] }
        let other = Int(apartValues[row * 2 * outliers + outliers + slot])
        if other >= 0 { wantedValues[row * valueWidth + other] = apartValues[row * 2 * outliers + slot] }
      }
      for column in 0..<width {
        wantedKeys[row * width + column] = wantedKeys[row * width + column] * scales[column] + offsets[column]
      }
      for head in 0..<kvHeads {
        for pair in 0..<turning / 2 {
          let (a, b) = interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + turning / 2)
          let start = row * width + head * dim
          let (x, y, t) = (wantedKeys[start + a], wantedKeys[start + b], angle(row, a))
          wantedKeys[start + a] = x * cos(t) - y * sin(t)
          wantedKeys[start + b] = y * cos(t) + x * sin(t)
        }
      }
    }
    let q = Tensor(.f32, [tokens, heads * dim], numbers(tokens * heads * dim))
    let at = Tensor(.i32, [1], [Int32(position)])
    let last = [
      Tensor(.f32, [recent + tokens, width], numbers((recent + tokens) * width)),
      Tensor(.f32, [recent + tokens, valueWidth], numbers((recent + tokens) * valueWidth)),
    ]
    var op = Attention(heads: heads, kvHeads: kvHeads, scale: 0.3, softcap: 5, recent: recent)
    let wanted = try evaluate(
      op,
      [q, Tensor(.f32, [rows, width], wantedKeys), Tensor(.f32, [rows, valueWidth], wantedValues), at] + last)
    op.channels = ChannelRows(angleBlock: turning > 0 ? block : nil, interleaved: interleaved, outliers: outliers)
    var others = [Tensor(.f32, [2, width], scales + offsets)]
    if turning > 0 {
      let steps = (0..<block).map { $0 } + (0..<rows / block).map { $0 * block }
      let table = steps.flatMap { step in
        (0..<turning).map { cos(angle(step, $0)) } + (0..<turning).map { sin(angle(step, $0)) }
      }
      others.append(Tensor(.f32, [steps.count, 2, turning], table))
    }
    if outliers > 0 {
      others += [apartKeys, apartValues].map { Tensor(.f32, [rows, 2 * outliers], $0) }
    }
    let stored = [Tensor(.f32, [rows, width], keys), Tensor(.f32, [rows, valueWidth], values), at]
    let found = try evaluate(op, [q] + stored + last + others)
    #expect(found.count == tokens * heads * valueDim && maxRelativeError(found, wanted) <= 1e-5)
  }

  @Test func saysWhatDoesNotFit() {
    let (q, k, position) = (TensorType(.f32, [2, 8]), TensorType(.f32, [9, 8]), TensorType(.i32, [1]))
    let last = TensorType(.f32, [5, 8])
    let (scales, angles) = (TensorType(.f32, [2, 8]), TensorType(.f32, [7, 2, 4])), apart = TensorType(.f16, [9, 4])
    func message(
      _ others: [TensorType], _ channels: ChannelRows, recent: Int? = 3, block: Int? = nil, keys: TensorType? = nil
    ) -> String {
      do {
        let op = Attention(heads: 2, kvHeads: 2, scale: 1, recent: recent, angleBlock: block, channels: channels)
        _ = try op.inferTypes([q, keys ?? k, k, position] + others)
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    let full = ChannelRows(angleBlock: 4, outliers: 2)
    #expect(message([last, last, scales, angles, apart, apart], full) == "")
    #expect(message([last, last, scales], ChannelRows(angleBlock: nil)) == "")
    #expect(message([last, last, scales, angles], full).contains("found 8 inputs"))
    #expect(message([last, last, last, angles, apart, apart], full).contains("scales and offsets"))
    #expect(message([last, last, scales, scales, apart, apart], full).contains("angles"))
    #expect(
      message([last, last, scales, TensorType(.f32, [6, 2, 4]), apart, apart], full).contains("expected [7, 2, C]"))
    #expect(message([last, last, scales, angles, last, apart], full).contains("outliers of keys"))
    #expect(message([last, last, scales, angles, apart, last], full).contains("outliers of values"))
    #expect(message([last, last, scales], ChannelRows(angleBlock: nil, outliers: -1)).contains("-1 outliers"))
    #expect(message([scales, angles, apart, apart], full, recent: nil).contains("'channels' needs 'recent'"))
    #expect(
      message([last, last, scales, angles, scales, angles, apart, apart], full, block: 4).contains("exclude each other")
    )
    #expect(
      message([last, last, scales], ChannelRows(angleBlock: nil), keys: TensorType(.f32, [9, 4])).contains("keys"))
  }

  /// The largest numbers of each row, of equal ones the first, with their places; neither zeros nor NaN.
  @Test func splitsOutliers() throws {
    let (nan, infinity) = (Float.nan, Float.infinity)
    let x = Tensor(
      .f32, [5, 4], [1, -5, 2, 5, 0, 0, 3, 0, 0, 0, 0, 0, nan, 1, -infinity, 2, nan, nan, nan, nan] as [Float])
    let results = try SplitOutliers(count: 2).results(of: [x])
    let rest = results[0].array(of: Float.self), apart = results[1].array(of: Float.self)
    #expect(Array(rest[0..<12]) == [1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    #expect(rest[12].isNaN && Array(rest[13..<16]) == [1, 0, 0] && rest[16...].allSatisfy { $0.isNaN })
    #expect(
      apart == [-5, 5, 1, 3, 3, 0, 2, -1, 0, 0, -1, -1, -infinity, 2, 2, 3, 0, 0, -1, -1] as [Float])
    func message(_ type: TensorType, _ count: Int) -> String {
      do {
        _ = try SplitOutliers(count: count).inferTypes([type])
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    #expect(message(TensorType(.f16, [3, 4]), 4) == "" && message(TensorType(.f32, [3, 4]), 5).contains("is 5"))
    #expect(message(TensorType(.f32, [3, 4]), 0).contains("is 0"))
    #expect(message(TensorType(.f32, [3, 2049]), 1).contains("at most 2048"))
    #expect(message(TensorType(.f32, [3, 0]), 1).contains("'count' is 1"))
    #expect(try SplitOutliers(count: 1).results(of: [Tensor(.f32, [0, 4], [Float]())])[1].view.count == 0)
  }
}
