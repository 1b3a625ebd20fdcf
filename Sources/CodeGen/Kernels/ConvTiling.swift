import IR
import Tensors

/// How a convolution with channels last is cut into work, whatever its numbers are: tiles of `pixels` places times `vectors`
/// vectors of output channels, whose sums are in registers.
///
/// The output channels of a group lie in panels of `vectors` vectors. Strips of `stripLines` lines go through all panels one
/// after the other, so that a panel and the lines of the image stay in the second-level cache. Convolutions that see one pixel
/// at a time take the pixels of all lines as one line, of which tiles are cut.
package struct ConvTiling: Hashable, Codable, Sendable {
  package var geometry: ConvGeometry
  /// Output channels.
  package var outputs: Int
  package var groups: Int
  /// Places of the window computed at a time, and vectors of output channels.
  package var pixels: Int
  package var vectors: Int
  /// Lines of the result (tiles, where all pixels are one line) that go through all panels before the next ones.
  package var stripLines: Int

  /// A tiling of whatever tile, whose strips see at most `stripBytes` of the image; its values have `elementBytes` each.
  init(
    geometry: ConvGeometry, outputs: Int, groups: Int, pixels: Int, vectors: Int, elementBytes: Int, stripBytes: Int
  ) {
    self.geometry = geometry.flattened()
    self.outputs = outputs
    self.groups = groups
    self.pixels = pixels
    self.vectors = vectors
    stripLines = 1
    let lineBytes =
      elementBytes * geometry.channels * (geometry.isPointwise ? pixels : geometry.width * geometry.strides[0])
    let most = max(1, stripBytes / max(lineBytes, 1))
    let strips = (lines + most - 1) / most
    stripLines = max(1, (lines + strips - 1) / max(strips, 1))
  }

  /// Input and output channels of a group.
  var groupChannels: Int { geometry.channels / groups }
  var groupOutputs: Int { outputs / groups }

  /// Whether the pixels are one line, of which tiles are cut.
  var isFlat: Bool { geometry.isPointwise && geometry.height == 1 }

  /// Lines, or tiles of the only line, of one image.
  var lines: Int { isFlat ? (geometry.width + pixels - 1) / pixels : geometry.outHeight }

  /// Output channels of a panel, and panels of a group.
  func panelOutputs(target: Target) -> Int { vectors * target.lanes }

  func panelsPerGroup(target: Target) -> Int {
    let width = panelOutputs(target: target)
    return (groupOutputs + width - 1) / width
  }

  /// The first parts of a kernel's name: `3x3p1_56x56x64_64_g2`.
  var words: [String] { [geometry.text, "\(outputs)"] + (groups > 1 ? ["g\(groups)"] : []) }

  /// Cycles of one step of a tile: products and loads, two of each at a time, and the latency of the sums.
  static func stepCycles(pixels: Int, vectors: Int) -> Double {
    max(Double(pixels * vectors) / 2, Double(pixels + vectors) / 2, 4) + 0.5
  }

  /// Estimated cycles of the arithmetic of a call (on one image, for a batch of run time): `steps` of each tile with the
  /// `panelBytes` of weights of a panel, and `finishing`, what is done once per tile with its number of vectors of sums.
  func cycles(
    steps: Int, panelBytes: Int, target: Target, finishing: (_ sums: Int) -> Double = { _ in 0 }
  ) -> Double {
    func tile(_ count: Int) -> Double {
      Self.stepCycles(pixels: count, vectors: vectors) * Double(steps) + finishing(count * vectors)
    }
    var line = 0.0
    if isFlat {
      let full = geometry.width / pixels, rest = geometry.width % pixels
      line = Double(full) * tile(pixels) + (rest > 0 ? tile(rest) : 0)
    } else {
      for run in geometry.tileRuns(of: pixels) { line += Double(run.repeats) * tile(run.count) }
      line *= Double(geometry.outHeight)
    }
    // Panels beyond the second-level cache are read again from farther away for every tile.
    let penalty = panelBytes > target.cacheBytes.level2 * 2 / 3 ? 1.25 : 1
    let panels = Double(groups * panelsPerGroup(target: target))
    return line * panels * Double(geometry.batch.fixedValue ?? 1) * penalty
  }

  /// The tilings worth trying, best first: for each number of `vectors` of output channels the one with the least `cycles`. Where
  /// a program has several levels, panels are such that all levels can have them.
  static func candidates(
    _ geometry: ConvGeometry, outputs: Int, groups: Int, vectors: [Int], elementBytes: Int, stripBytes: Int,
    target: Target, cycles: (ConvTiling) -> Double
  ) -> [ConvTiling] {
    let most = max(1, (outputs / groups + target.lanes - 1) / target.lanes, target.vectorsPerPanelLanes)
    let line = geometry.isPointwise ? geometry.flattened().width : geometry.outWidth
    var found: [(tiling: ConvTiling, cycles: Double)] = []
    for vectors in vectors where vectors <= most && vectors % target.vectorsPerPanelLanes == 0 {
      // Sums, the weights of one step and the number they are multiplied by.
      let room = (target.vectorRegisters - 1 - vectors) / vectors
      guard room >= 1 else { continue }
      var best: (tiling: ConvTiling, cycles: Double)?
      for pixels in 1...max(1, min(room, line, 16)) {
        let tiling = ConvTiling(
          geometry: geometry, outputs: outputs, groups: groups, pixels: pixels, vectors: vectors,
          elementBytes: elementBytes, stripBytes: stripBytes)
        let cycles = cycles(tiling)
        if cycles < (best?.cycles ?? .infinity) { best = (tiling, cycles) }
      }
      if let best { found.append(best) }
    }
    return found.sorted { $0.cycles < $1.cycles }.map(\.tiling)
  }

  /// Emits the loop over the calling thread's share of the pairs of a panel and a line, strip by strip.
  func forEachPanelLine(in k: KernelBuilder, _ body: (_ panel: ConvPanel, _ line: Expression) -> Void) {
    guard lines > 0, geometry.outWidth > 0 else { return }
    let all = k.extent(geometry.batch) * .integer(lines)
    let panels = groups * panelsPerGroup(target: k.target)
    let strips = all.dividedRoundingUp(by: stripLines)
    let part = k.partition(strips * .integer(panels * stripLines))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let inStrip = k.define("panel_line", strips == 1 ? unit : unit % .integer(panels * stripLines))
      let strip = strips == 1 ? Expression.integer(0) : k.define("strip", unit / .integer(panels * stripLines))
      let panel = k.define("panel", panels == 1 ? 0 : inStrip / .integer(stripLines))
      let line = k.define(
        "line", strip * .integer(stripLines) + (panels == 1 ? inStrip : inStrip % .integer(stripLines)))
      func emit() { body(ConvPanel(tiling: self, number: panel, in: k), line) }
      let isWhole = all.constant.map { $0 % stripLines == 0 } ?? (lines % stripLines == 0)
      if isWhole { emit() } else { k.condition(line < all, then: emit) }
    }
  }
}
