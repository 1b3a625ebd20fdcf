import IR
import Tensors

/// A window that moves over images with channels last: the sizes of a convolution or pooling.
package struct ConvGeometry: Hashable, Codable, Sendable {
  package var batch: Extent
  /// Sizes of the image.
  package var height: Int
  package var width: Int
  package var channels: Int
  /// Height and width of the window, then what moves it.
  package var kernel: [Int]
  package var strides: [Int]
  /// Top, left, bottom, right.
  package var padding: [Int]
  package var dilations: [Int]

  package init(
    batch: Extent, height: Int, width: Int, channels: Int, kernel: [Int], strides: [Int] = [1, 1],
    padding: [Int] = [0, 0, 0, 0], dilations: [Int] = [1, 1]
  ) {
    self.batch = batch
    self.height = height
    self.width = width
    self.channels = channels
    self.kernel = kernel
    self.strides = strides
    self.padding = padding
    self.dilations = dilations
  }

  /// Sizes of the result.
  package var outHeight: Int { places(height, 0) }
  package var outWidth: Int { places(width, 1) }

  private func places(_ size: Int, _ axis: Int) -> Int {
    let room = size + padding[axis] + padding[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1
    return room < 0 ? 0 : room / strides[axis] + 1
  }

  /// Whether every place of the window sees one pixel, each another one: the pixels may be counted in any way.
  package var isPointwise: Bool { kernel == [1, 1] && strides == [1, 1] && padding == [0, 0, 0, 0] }

  /// The same window over all pixels in one line, if that is possible.
  package func flattened() -> ConvGeometry {
    guard isPointwise else { return self }
    var result = self
    result.width = height * width
    result.height = 1
    if case .fixed(let count) = batch {
      result.width *= count
      result.batch = .fixed(1)
    }
    return result
  }

  /// `3x3s2d2p1_56x56x64`: the parts that differ from the plain case, then the image.
  package var text: String {
    func pair(_ letter: String, _ values: [Int], plain: Int) -> String {
      if values.allSatisfy({ $0 == plain }) { return "" }
      return letter + (Set(values).count == 1 ? "\(values[0])" : values.map(String.init).joined(separator: "_"))
    }
    let window =
      kernel.map(String.init).joined(separator: "x") + pair("s", strides, plain: 1) + pair("d", dilations, plain: 1)
      + pair("p", padding, plain: 0)
    let count = batch.fixedValue == 1 ? "" : "\(batch.text)x"
    return "\(window)_\(count)\(height)x\(width)x\(channels)"
  }

  // MARK: Which taps see which pixels

  /// Neighbouring taps of a line of the window that see pixels of the image at the same places of a tile.
  struct TapGroup: Hashable {
    var taps: Range<Int>
    var places: Range<Int>
  }

  /// Tiles of neighbouring places of a line for which all that depends on the edges of the image is equal.
  struct TileRun: Hashable {
    /// The first place of the first tile.
    var start: Int
    /// Places of a tile, and tiles.
    var count: Int
    var repeats: Int
    var groups: [TapGroup]

    /// Whether all taps see pixels at all places.
    func isInterior(taps: Int) -> Bool { groups == [TapGroup(taps: 0..<taps, places: 0..<count)] }

    /// The taps that see a pixel at a place.
    func taps(at place: Int) -> Int {
      groups.reduce(0) { $0 + ($1.places.contains(place) ? $1.taps.count : 0) }
    }
  }

  /// The line of places cut into tiles of `count` (the last one perhaps shorter), alike neighbours in one run.
  func tileRuns(of count: Int) -> [TileRun] {
    var runs: [TileRun] = []
    for start in stride(from: 0, to: outWidth, by: count) {
      let size = min(count, outWidth - start)
      let groups = tapGroups(start: start, count: size)
      if let last = runs.last, last.groups == groups, last.count == size {
        runs[runs.count - 1].repeats += 1
      } else {
        runs.append(TileRun(start: start, count: size, repeats: 1, groups: groups))
      }
    }
    return runs
  }

  private func tapGroups(start: Int, count: Int) -> [TapGroup] {
    let left = start * strides[1] - padding[1]
    let right = left + (count - 1) * strides[1] + (kernel[1] - 1) * dilations[1]
    if left >= 0, right < width { return [TapGroup(taps: 0..<kernel[1], places: 0..<count)] }
    var groups: [TapGroup] = []
    for tap in 0..<kernel[1] {
      let column = left + tap * dilations[1]
      let first = column >= 0 ? 0 : (strides[1] - 1 - column) / strides[1]
      let end = column < width ? min(count, (width - 1 - column) / strides[1] + 1) : 0
      guard first < end else { continue }
      if let group = groups.last, group.places == first..<end, group.taps.upperBound == tap {
        groups[groups.count - 1].taps = group.taps.lowerBound..<(tap + 1)
      } else {
        groups.append(TapGroup(taps: tap..<(tap + 1), places: first..<end))
      }
    }
    return groups
  }

  /// The lines of the window that see the image when it stands at line `place` of the result: first and end.
  func lines(at place: Expression, in k: KernelBuilder) -> (first: Expression, end: Expression) {
    let taps = Expression.integer(kernel[0])
    if padding[0] == 0, padding[2] == 0 { return (0, taps) }
    let top = k.define("top", place * .integer(strides[0]))
    let before = Expression.maximum(.integer(padding[0]) - top, 0)
    let room = Expression.maximum(.integer(height + padding[0]) - top, 0)
    return (
      padding[0] == 0 ? 0 : k.define("first", before.dividedRoundingUp(by: dilations[0])),
      k.define("end", .minimum(room.dividedRoundingUp(by: dilations[0]), taps))
    )
  }

  /// The index of the first pixel of the image line under line `tap` of the window, in pixels of the whole batch; and, as
  /// columns may begin in the padding, to be read only at columns inside.
  func line(_ image: Expression, _ place: Expression, _ tap: Expression) -> Expression {
    let line = place * .integer(strides[0]) + tap * .integer(dilations[0]) - .integer(padding[0])
    return (image * .integer(height) + line) * .integer(width)
  }
}
