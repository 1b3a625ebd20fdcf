import IR

/// Some neighbouring places of a window and one vector of channels: the unit of kernels that treat each channel alone.
struct ChannelTile {
  let geometry: ConvGeometry
  let run: ConvGeometry.TileRun
  /// The image, the line of the result and the first place in it.
  let image: Expression
  let place: Expression
  let column: Expression
  /// The lines of the window that see the image.
  let lines: (first: Expression, end: Expression)
  /// The first channel; for the last, incomplete vector the number of channels left.
  let channel: Expression
  let tail: Expression?

  /// Windows with more products than this per line are not written out but looped over.
  private static let mostProducts = 256

  /// Passes all vectors of the image under the window, line by line: for each tap the line and column of the window and what
  /// every place sees there. A column of the image is read once for all places that see it through different taps.
  ///
  /// - Parameters:
  ///   - x: the image.
  ///   - k: the builder of the kernel.
  ///   - prepare: called at the begin of each line of the window, before its columns.
  ///   - body: called with the line and column of the window, the number of the place in the tile and what it sees.
  func forEachTap(
    of x: Pointer, in k: KernelBuilder, prepare: (_ line: Expression) -> Void = { _ in },
    _ body: (_ line: Expression, _ tap: Expression, _ place: Int, _ value: Expression) -> Void
  ) {
    let g = geometry
    k.loop("u", from: lines.first, to: lines.end) { u in
      let start = k.define("line_start", g.line(image, place, u))
      func pointer(_ pixel: Int) -> Pointer {
        let first = start + column * .integer(g.strides[1]) + .integer(pixel - g.padding[1])
        return k.pointer("xp", x, offset: first * .integer(g.channels) + channel)
      }
      prepare(u)
      if g.kernel[1] * run.count > Self.mostProducts {
        for group in run.groups {
          let first = group.taps.lowerBound
          let base = pointer(group.places.lowerBound * g.strides[1] + first * g.dilations[1])
          k.loop("v", from: .integer(first), to: .integer(group.taps.upperBound)) { v in
            let here = k.define("offset", (v - .integer(first)) * .integer(g.dilations[1] * g.channels))
            for q in group.places {
              let step = (q - group.places.lowerBound) * g.strides[1] * g.channels
              body(u, v, q, k.define("value", base.load(here + .integer(step), count: tail)))
            }
          }
        }
        return
      }
      var pairs: [Int: [(tap: Int, place: Int)]] = [:]
      for group in run.groups {
        for tap in group.taps {
          for q in group.places { pairs[q * g.strides[1] + tap * g.dilations[1], default: []].append((tap, q)) }
        }
      }
      guard let first = pairs.keys.min() else { return }
      let base = pointer(first)
      for (column, users) in pairs.sorted(by: { $0.key < $1.key }) {
        let value = k.define("value", base.load(.integer((column - first) * g.channels), count: tail))
        for user in users { body(u, .integer(user.tap), user.place, value) }
      }
    }
  }

  /// Passes all products of a window with weights for each channel, which lie as `[kh][kw][lanes]`: the number of the place,
  /// what it sees and the weight. The weights of a line of the window are read once for all places, if they are few.
  func forEachProduct(
    of x: Pointer, weights: Pointer, lanes: Int, in k: KernelBuilder,
    _ body: (_ place: Int, _ value: Expression, _ weight: Expression) -> Void
  ) {
    let taps = geometry.kernel[1]
    func weight(_ u: Expression, _ v: Expression) -> Expression {
      weights.load((u * .integer(taps) + v) * .integer(lanes))
    }
    var line: [Int: Expression] = [:]
    forEachTap(
      of: x, in: k,
      prepare: { u in
        guard taps <= 16 else { return }
        for v in run.groups.flatMap(\.taps) { line[v] = k.define("w\(v)", weight(u, .integer(v))) }
      }
    ) { u, v, place, value in
      body(place, value, v.constant.flatMap { line[$0] } ?? weight(u, v))
    }
  }

  /// Asks for what the tile below sees and this one does not, so that it comes nearer while the rest of the line is computed.
  func prefetchNextLine(of x: Pointer, in k: KernelBuilder) {
    let g = geometry
    let columns = run.count * g.strides[1]
    guard columns <= 32, g.strides[0] <= 2 else { return }
    for tap in max(0, g.kernel[0] - g.strides[0])..<g.kernel[0] {
      let start = g.line(image, place + 1, .integer(tap)) + column * .integer(g.strides[1])
      let next = k.pointer("next", x, offset: start * .integer(g.channels) + channel)
      for column in 0..<columns { k.prefetch(next, .integer(column * g.channels)) }
    }
  }

  /// Stores the results of the places of a result with as many channels as the image.
  func forEachResult(in k: KernelBuilder, _ body: (_ place: Int, _ index: Expression) -> Void) {
    let g = geometry
    let line = image * .integer(g.outHeight) + place
    let pixel = line * .integer(g.outWidth) + column
    let first = k.define("first_result", pixel * .integer(g.channels) + channel)
    for q in 0..<run.count { body(q, first + .integer(q * g.channels)) }
  }
}

extension ConvGeometry {
  /// Vectors of channels that a unit of work takes at one line.
  private static let vectorsPerUnit = 8

  /// Emits the loops over the calling thread's share of lines and channels.
  ///
  /// - Parameters:
  ///   - k: the builder of the kernel.
  ///   - pixels: places of a tile.
  ///   - body: emits what is done with one tile.
  func forEachChannelTile(in k: KernelBuilder, pixels: Int, _ body: (ChannelTile) -> Void) {
    guard outHeight > 0, outWidth > 0, channels > 0 else { return }
    let width = Self.vectorsPerUnit * k.lanes
    let chunks = (channels + width - 1) / width
    let full = channels / k.lanes * k.lanes
    let part = k.partition(k.extent(batch) * .integer(outHeight * chunks))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let line = chunks == 1 ? unit : k.define("line", unit / .integer(chunks))
      let chunk = chunks == 1 ? Expression.integer(0) : k.define("chunk", unit % .integer(chunks))
      let isOne = batch == .fixed(1)
      let image = isOne ? Expression.integer(0) : k.define("image", line / .integer(outHeight))
      let place = isOne ? line : k.define("place", line % .integer(outHeight))
      let lines = self.lines(at: place, in: k)
      let start = k.define("first_channel", chunk * .integer(width))
      let end =
        chunks == 1
        ? Expression.integer(full) : k.define("end_channel", .minimum(start + .integer(width), .integer(full)))
      for run in tileRuns(of: pixels) {
        k.loop("j", from: .integer(run.start), to: .integer(run.start + run.count * run.repeats), step: run.count) {
          j in
          func emit(_ channel: Expression, _ tail: Expression?) {
            body(
              ChannelTile(
                geometry: self, run: run, image: image, place: place, column: j, lines: lines, channel: channel,
                tail: tail))
          }
          k.loop("c", from: start, to: end, step: k.lanes) { emit($0, nil) }
          guard full < channels else { return }
          func rest() { emit(.integer(full), .integer(channels - full)) }
          if chunks == 1 { rest() } else { k.condition(chunk >= .integer(chunks - 1), then: rest) }
        }
      }
    }
  }

  /// As many places as leave room for the weights of a line of the window in registers.
  func depthwisePixels(target: Target) -> Int {
    let most = target.vectorRegisters - 2 - min(kernel[1], target.vectorRegisters / 2)
    return channelTilePixels(most: min(most, 16))
  }

  /// The number of places computed at a time with the least loads, at most `most`.
  func channelTilePixels(most: Int) -> Int {
    let width = max(outWidth, 1)
    func loads(_ pixels: Int) -> Int {
      func tile(_ count: Int) -> Int {
        let columns = (count - 1) * strides[1] + (kernel[1] - 1) * dilations[1] + 1
        return min(columns, count * kernel[1]) + kernel[1] + 2
      }
      let rest = width % pixels
      return width / pixels * tile(pixels) + (rest > 0 ? tile(rest) : 0)
    }
    let candidates = 1...max(1, min(most, width))
    return candidates.min { loads($0) < loads($1) } ?? 1
  }
}
