import IR
import Tensors

/// One specialised convolution of images with channels last, as tiles of pixels times output channels:
/// `y[n, i, j, o] = epilogue(sum over u, v, c of x[n, i s + u d - p, j s + v d - p, c] w[o, c, u, v])`.
///
/// A tile keeps `pixels` x `vectors` vectors of sums in registers; for every input value under the window it reads
/// `vectors` vectors of weights and one number per pixel. The weights lie in panels of `vectors` x lanes output channels
/// of one group: `[panel][kh][kw][C/groups][vectors * lanes]`, so 4 bytes of weights are read per tile and product. Convolutions
/// that see one pixel at a time take the pixels of all lines as one line.
package struct ConvConfig: Hashable, Codable, Sendable {
  package var geometry: ConvGeometry
  /// Output channels.
  package var outputs: Int
  package var groups: Int
  package var epilogue: Epilogue
  /// Places of the window computed at a time, and vectors of output channels.
  package var pixels: Int
  package var vectors: Int
  /// Lines of the result (tiles, where all pixels are one line) that go through all panels before the next ones.
  package var stripLines: Int

  package init(
    geometry: ConvGeometry, outputs: Int, groups: Int = 1, epilogue: Epilogue = .identity, pixels: Int, vectors: Int,
    stripLines: Int
  ) {
    self.geometry = geometry.flattened()
    self.outputs = outputs
    self.groups = groups
    self.epilogue = epilogue
    self.pixels = pixels
    self.vectors = vectors
    self.stripLines = stripLines
  }

  /// Input and output channels of a group.
  var groupChannels: Int { geometry.channels / groups }
  var groupOutputs: Int { outputs / groups }

  /// Whether the pixels are one line, of which tiles are cut.
  var isFlat: Bool { geometry.isPointwise && geometry.height == 1 }

  /// Lines, or tiles of the only line, of one image.
  var lines: Int { isFlat ? (geometry.width + pixels - 1) / pixels : geometry.outHeight }

  /// Input values under a window that one output channel sees.
  var depth: Int { geometry.kernel[0] * geometry.kernel[1] * groupChannels }

  func panelOutputs(target: Target) -> Int { vectors * target.lanes }

  func panelsPerGroup(target: Target) -> Int {
    let width = panelOutputs(target: target)
    return (groupOutputs + width - 1) / width
  }

  /// The layout of the weights; its panels are whole groups where there are several, as these begin a new panel.
  package func layout(target: Target) -> ConvLayout {
    ConvLayout(
      rows: outputs, groups: groups, channels: groupChannels, taps: geometry.kernel[0] * geometry.kernel[1],
      panel: panelOutputs(target: target))
  }

  /// `mcc_conv2d_3x3p1_56x56x64_64_bias_relu_14x32_1a2b3c_avx512`: window, image, output channels, epilogue, tile, a hash of
  /// everything.
  package func name(target: Target) -> String {
    var parts = ["mcc_conv2d", geometry.text, "\(outputs)"]
    if groups > 1 { parts.append("g\(groups)") }
    parts += epilogue.words
    parts += ["\(pixels)x\(panelOutputs(target: target))", shortHash("\(self)"), target.suffix]
    return parts.joined(separator: "_")
  }

  /// Estimated cycles of the arithmetic of a call (on one image, for a batch of run time); what the tile is chosen by.
  func cycles(target: Target) -> Double {
    /// One step of a tile: fused multiply-adds and loads, two of each at a time, and the latency of the sums.
    func step(_ count: Int) -> Double {
      let sums = Double(count * vectors) / 2, loads = Double(count + vectors) / 2
      return max(sums, loads, 4) + 0.5
    }
    var line = 0.0
    if isFlat {
      let full = geometry.width / pixels, rest = geometry.width % pixels
      line = Double(full) * step(pixels) + (rest > 0 ? step(rest) : 0)
    } else {
      for run in geometry.tileRuns(of: pixels) { line += Double(run.repeats) * step(run.count) }
      line *= Double(geometry.outHeight)
    }
    let panels = Double(groups * panelsPerGroup(target: target))
    // Panels beyond the second-level cache are read again from farther away for every tile.
    let panelBytes = 4 * depth * panelOutputs(target: target)
    let penalty = panelBytes > target.cacheBytes.level2 * 2 / 3 ? 1.25 : 1
    return line * panels * Double(depth) * Double(geometry.batch.fixedValue ?? 1) * penalty
  }

  /// The most lines whose part of the image stays in the second-level cache while all panels are applied to it.
  static func stripLines(_ geometry: ConvGeometry, pixels: Int, target: Target) -> Int {
    let flat = geometry.isPointwise
    let lineBytes = 4 * geometry.channels * (flat ? pixels : geometry.width * geometry.strides[0])
    let lines = flat ? (geometry.flattened().width + pixels - 1) / pixels : geometry.outHeight
    let most = max(1, min(lines, target.cacheBytes.level2 / 4 / max(lineBytes, 1)))
    let strips = (lines + most - 1) / most
    return max(1, (lines + strips - 1) / max(strips, 1))
  }

  /// The tiles worth trying for a convolution, best first, one for each number of vectors.
  static func candidates(
    _ geometry: ConvGeometry, outputs: Int, groups: Int, epilogue: Epilogue, target: Target
  ) -> [ConvConfig] {
    let most = (outputs / groups + target.lanes - 1) / target.lanes
    let line = geometry.isPointwise ? geometry.flattened().width : geometry.outWidth
    var found: [(config: ConvConfig, cycles: Double)] = []
    let block = target.vectorsPerPanelLanes
    for vectors in [1, 2, 3, 4, 6, 8] where vectors <= max(most, block) && vectors % block == 0 {
      // Sums, the weights of one step and the number they are multiplied by.
      let room = (target.vectorRegisters - 1 - vectors) / vectors
      guard room >= 1 else { continue }
      var best: (config: ConvConfig, cycles: Double)?
      for pixels in 1...max(1, min(room, line, 16)) {
        let config = ConvConfig(
          geometry: geometry, outputs: outputs, groups: groups, epilogue: epilogue, pixels: pixels, vectors: vectors,
          stripLines: stripLines(geometry, pixels: pixels, target: target))
        let cycles = config.cycles(target: target)
        if cycles < (best?.cycles ?? .infinity) { best = (config, cycles) }
      }
      if let best { found.append(best) }
    }
    return found.sorted { $0.cycles < $1.cycles }.map(\.config)
  }
}

extension Epilogue {
  /// The parts of a kernel's name, in the order in which they are applied.
  var words: [String] {
    var words: [String] = []
    if bias { words.append("bias") }
    if residual == .beforeActivation { words.append("residual") }
    if activation != .none { words.append(activation.rawValue) }
    if residual == .afterActivation { words.append("residual") }
    return words
  }
}
