import Base
import Tensors

/// Rows of a cache in the form in which few bits hold them best, see ``Attention``: keys before rotary embedding, each column
/// less an offset and over a scale of its own, and outliers of keys and values apart (C. Hooper and others, KVQuant, 2024,
/// arXiv:2401.18079).
package struct ChannelRows: Hashable, Codable, Sendable {
  /// The positions of a block of angles, as in ``LatentRows``; nil if keys do not turn.
  package var angleBlock: Int?
  package var interleaved: Bool = false
  /// Outliers of each row of keys and of values, see ``SplitOutliers``.
  package var outliers: Int = 0

  package init() {}

  package init(angleBlock: Int?, interleaved: Bool = false, outliers: Int = 0) {
    self.angleBlock = angleBlock
    self.interleaved = interleaved
    self.outliers = outliers
  }

  package init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    angleBlock = try container.decodeIfPresent(Int.self, forKey: .angleBlock)
    interleaved = try container.decodeIfPresent(Bool.self, forKey: .interleaved) ?? interleaved
    outliers = try container.decodeIfPresent(Int.self, forKey: .outliers) ?? outliers
  }

  /// Inputs that follow from it.
  var inputs: Int { 1 + (angleBlock == nil ? 0 : 1) + (outliers > 0 ? 2 : 0) }
}

extension Attention {
  /// Checks scales and offsets of columns, angles and outliers.
  func checkChannels(
    _ channels: ChannelRows, _ inputs: [TensorType], _ k: TensorType, _ v: TensorType, headDim: Int
  ) throws {
    guard k.rank == 2, k.shape[1] == .fixed(kvHeads * headDim) else {
      throw failure("found keys of shape \(k.shape) for attribute 'channels', expected [S, \(kvHeads * headDim)]")
    }
    guard (0...SplitOutliers.mostColumns).contains(channels.outliers) else {
      throw failure("attribute 'channels' has \(channels.outliers) outliers")
    }
    for type in inputs {
      try expectDense(type, "scales, angles and outliers")
      try expectFloat(type, "scales, angles and outliers")
    }
    try expectShape(inputs[0], [2, k.shape[1]], "scales and offsets")
    if let block = channels.angleBlock {
      try checkAngles(inputs[1], block: block, rows: k.shape[0], headDim: headDim)
    }
    guard channels.outliers > 0 else { return }
    for (type, role) in zip(inputs.suffix(2), ["outliers of keys", "outliers of values"]) {
      try expectShape(type, [k.shape[0], .fixed(2 * channels.outliers)], role)
    }
  }

  /// Checks cosines and sines in blocks for keys of so many rows.
  func checkAngles(_ type: TensorType, block: Int, rows: Dim, headDim: Int) throws {
    guard block >= 2, block <= 1 << 20 else {
      throw failure("attribute 'angleBlock' is \(block), expected 2 to \(1 << 20)")
    }
    try expectRank(type, 3...3, "angles")
    guard rows.maximum < 1 << 40 else { throw failure("found \(rows.maximum) keys, more than there are angles for") }
    let (least, angles) = (LatentRows.angleRows(block: block, positions: rows.maximum), type.shape)
    guard let count = angles[0].fixedValue, count >= least, angles[1] == 2, let columns = angles[2].fixedValue,
      columns >= 0, columns % 2 == 0, columns <= headDim
    else {
      throw failure(
        "found angles of shape \(angles) for \(rows) keys, expected [\(least), 2, C] with an even C up to \(headDim)")
    }
  }
}

/// Cosines and sines by which keys turn when they are read.
struct KeyAngles<R: Real> {
  let numbers: UnsafePointer<R>
  let block: Int
  let interleaved: Bool
  /// Numbers of a head that turn.
  let turning: Int

  /// Turns the heads of the first `count` positions.
  func turn(_ keys: UnsafeMutablePointer<R>, count: Int, heads: Int, headDim: Int) {
    let pairs = turning / 2
    for row in 0..<count {
      let early = numbers + (block + row / block) * 2 * turning
      let late = numbers + row % block * 2 * turning
      for head in 0..<heads {
        let key = keys + (row * heads + head) * headDim
        for pair in 0..<pairs {
          let (first, second) = interleaved ? (2 * pair, 2 * pair + 1) : (pair, pair + pairs)
          let cosine = early[first] * late[first] - early[turning + first] * late[turning + first]
          let sine = early[turning + first] * late[first] + early[first] * late[turning + first]
          let (x, y) = (key[first], key[second])
          key[first] = x * cosine - y * sine
          key[second] = y * cosine + x * sine
        }
      }
    }
  }
}

/// What rows of ``ChannelRows`` stand for.
struct ChannelNumbers<R: Real> {
  let heads, headDim: Int
  let outliers: Int
  /// Scales of the columns of all heads, behind them the offsets.
  let scales: UnsafePointer<R>
  let angles: KeyAngles<R>?

  /// Keys of the first `count` of `all` positions, and zeros for the others.
  func keys(_ rows: UnsafePointer<R>, _ apart: UnsafePointer<R>?, count: Int, of all: Int) -> Scratch<R> {
    let width = heads * headDim
    let result = values(rows, apart, width: width, count: count, of: all)
    for row in 0..<count {
      let numbers = result.data + row * width
      for column in 0..<width { numbers[column] = numbers[column] * scales[column] + scales[width + column] }
    }
    angles?.turn(result.data, count: count, heads: heads, headDim: headDim)
    return result
  }

  /// Rows with their outliers in place.
  func values(
    _ rows: UnsafePointer<R>, _ apart: UnsafePointer<R>?, width: Int, count: Int, of all: Int
  ) -> Scratch<R> {
    let result = Scratch<R>(all * width)
    result.data.update(from: rows, count: count * width)
    (result.data + count * width).update(repeating: 0, count: (all - count) * width)
    guard let apart else { return result }
    for row in 0..<count {
      let found = apart + row * 2 * outliers
      for slot in 0..<outliers {
        let place = Double(found[outliers + slot])
        if place >= 0, place < Double(width) { result.data[row * width + Int(place)] = found[slot] }
      }
    }
    return result
  }
}
