import IR
import Tensors

/// One specialised convolution of bytes with channels last, as tiles of pixels times output channels: the counterpart of
/// ``ConvConfig`` for ``QuantizedConv2D``.
///
/// A tile keeps `pixels` x `vectors` vectors of i32 sums in registers. A step reads `vectors` vectors of weights and, per pixel,
/// four neighbouring input bytes, which are multiplied with four codes of every channel (`ByteDot.unsignedActivations`); one byte
/// of weights is read per tile and product. Sums begin with what the zero point of the input adds too much. Convolutions that
/// see one pixel at a time take the pixels of all lines as one line.
package struct QuantizedConvConfig: Hashable, Codable, Sendable {
  package var geometry: ConvGeometry
  /// Output channels.
  package var outputs: Int
  package var groups: Int
  var requantization: Requantization
  /// Places of the window computed at a time, and vectors of output channels.
  package var pixels: Int
  package var vectors: Int
  /// Lines of the result (tiles, where all pixels are one line) that go through all panels before the next ones.
  package var stripLines: Int

  init(
    geometry: ConvGeometry, outputs: Int, groups: Int, requantization: Requantization, pixels: Int, vectors: Int,
    stripLines: Int
  ) {
    self.geometry = geometry.flattened()
    self.outputs = outputs
    self.groups = groups
    self.requantization = requantization
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

  /// Whether the bytes under a line of the window are contiguous, and no tap fills its steps.
  static func isMerged(_ geometry: ConvGeometry, groups: Int) -> Bool {
    groups == 1 && geometry.dilations[1] == 1 && geometry.channels % 4 != 0 && geometry.kernel[1] > 1
  }

  /// Whether the kernel computes the convolution: padding must be bytes of 0, and no window may begin inside of a step.
  static func isPossible(_ geometry: ConvGeometry, groups: Int, zeroPoint: Int) -> Bool {
    geometry.padding == [0, 0, 0, 0] || (zeroPoint == 0 && !isMerged(geometry, groups: groups))
  }

  /// The layout of the weights.
  package func layout(target: Target) -> QuantizedConvLayout {
    QuantizedConvLayout(
      rows: outputs, groups: groups, channels: groupChannels, kernel: geometry.kernel,
      merged: Self.isMerged(geometry, groups: groups), panel: vectors * target.lanes)
  }

  /// `mcc_qconv2d_3x3p1_56x56x64_64_bias_relu_u8_14x32_1a2b3c_avx512`: window, image, output channels, epilogue, tile, a hash
  /// of everything.
  package func name(target: Target) -> String {
    var parts = ["mcc_qconv2d", geometry.text, "\(outputs)"]
    if groups > 1 { parts.append("g\(groups)") }
    parts += requantization.words
    parts += ["\(pixels)x\(vectors * target.lanes)", shortHash("\(self)"), target.suffix]
    return parts.joined(separator: "_")
  }

  /// Estimated cycles of the arithmetic of a call (on one image, for a batch of run time); what the tile is chosen by.
  func cycles(target: Target) -> Double {
    /// One step of a tile: products and loads, two of each at a time, and the latency of the sums.
    func step(_ count: Int) -> Double {
      max(Double(count * vectors) / 2, Double(count + vectors) / 2, 4) + 0.5
    }
    let layout = layout(target: target)
    let steps = Double(layout.runs * layout.runSteps)
    /// What is done once per tile: the way from sums to codes.
    func tile(_ count: Int) -> Double { step(count) * steps + 6 * Double(count * vectors) + 10 }
    var line = 0.0
    if isFlat {
      let full = geometry.width / pixels, rest = geometry.width % pixels
      line = Double(full) * tile(pixels) + (rest > 0 ? tile(rest) : 0)
    } else {
      for run in geometry.tileRuns(of: pixels) { line += Double(run.repeats) * tile(run.count) }
      line *= Double(geometry.outHeight)
    }
    let penalty = layout.panelBytes > target.cacheBytes.level2 * 2 / 3 ? 1.25 : 1
    return line * Double(groups * layout.panelsPerGroup) * Double(geometry.batch.fixedValue ?? 1) * penalty
  }

  /// The most lines whose part of the image stays in the second-level cache while all panels are applied to it.
  private static func stripLines(_ geometry: ConvGeometry, pixels: Int, target: Target) -> Int {
    let flat = geometry.flattened()
    let isFlat = geometry.isPointwise
    let lines = isFlat ? (flat.width + pixels - 1) / pixels : geometry.outHeight
    let lineBytes = isFlat ? pixels * geometry.channels : geometry.width * geometry.channels * geometry.strides[0]
    let most = max(1, target.cacheBytes.level2 / 2 / max(1, lineBytes))
    let strips = (lines + most - 1) / most
    return max(1, (lines + strips - 1) / max(strips, 1))
  }

  /// The tiles worth trying for a convolution, best first, one for each number of vectors.
  static func candidates(
    _ geometry: ConvGeometry, outputs: Int, groups: Int, requantization: Requantization, target: Target
  ) -> [QuantizedConvConfig] {
    let most = (outputs / groups + target.lanes - 1) / target.lanes
    let line = geometry.isPointwise ? geometry.flattened().width : geometry.outWidth
    var found: [(config: QuantizedConvConfig, cycles: Double)] = []
    for vectors in [1, 2, 3, 4] where vectors <= max(most, 1) {
      let room = (target.vectorRegisters - 1 - vectors) / vectors
      guard room >= 1 else { continue }
      var best: (config: QuantizedConvConfig, cycles: Double)?
      for pixels in 1...max(1, min(room, line, 16)) {
        let config = QuantizedConvConfig(
          geometry: geometry, outputs: outputs, groups: groups, requantization: requantization, pixels: pixels,
          vectors: vectors, stripLines: stripLines(geometry, pixels: pixels, target: target))
        let cycles = config.cycles(target: target)
        if cycles < (best?.cycles ?? .infinity) { best = (config, cycles) }
      }
      if let best { found.append(best) }
    }
    return found.sorted { $0.cycles < $1.cycles }.map(\.config)
  }
}

extension QuantizedConvConfig {
  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share the pairs of a panel and a line.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = geometry, layout = self.layout(target: target)
    k.comment = [
      "y[\(g.batch.text), \(g.outHeight), \(g.outWidth), \(outputs)] = epilogue(conv2d(x: u8[\(g.batch.text), \(g.height), "
        + "\(g.width), \(g.channels)])), window \(g.kernel[0]) x \(g.kernel[1]), \(groups) groups.",
      "w: \(groups * layout.panelsPerGroup) panels of \(layout.panel) output channels, \(layout.panelBytes) bytes each: "
        + "f32 scales, i32 sums, i8 codes",
    ]
    let epilogue = requantization.epilogue
    let x = k.input("x", .u8)
    let w = k.input("w", .u8)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", requantization.residualType) : nil
    let y = k.output("y", requantization.resultType)
    guard lines > 0, g.outWidth > 0 else { return k.finish() }
    let all = k.extent(g.batch) * .integer(lines)

    let panels = groups * layout.panelsPerGroup
    let strips = all.dividedRoundingUp(by: stripLines)
    let part = k.partition(strips * .integer(panels * stripLines))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let inStrip = k.define("panel_line", strips == 1 ? unit : unit % .integer(panels * stripLines))
      let strip = strips == 1 ? Expression.integer(0) : k.define("strip", unit / .integer(panels * stripLines))
      let panel = k.define("panel", panels == 1 ? 0 : inStrip / .integer(stripLines))
      let line = k.define(
        "line", strip * .integer(stripLines) + (panels == 1 ? inStrip : inStrip % .integer(stripLines)))
      let body = {
        QuantizedConvTile(
          config: self, layout: layout, builder: k, x: x, w: w, bias: bias, residual: residual, y: y, panel: panel
        ).line(line)
      }
      let isWhole = all.constant.map { $0 % stripLines == 0 } ?? (lines % stripLines == 0)
      if isWhole { body() } else { k.condition(line < all, then: body) }
    }
    return k.finish()
  }
}

/// One panel at the places of one line.
private struct QuantizedConvTile {
  let config: QuantizedConvConfig
  let layout: QuantizedConvLayout
  let builder: KernelBuilder
  let x: Pointer
  let bias: Pointer?
  let residual: Pointer?
  let y: Pointer
  /// Scales, sums and codes of the panel, the last two as i32 lanes.
  let scales: Pointer
  let words: Pointer
  /// The first input channel, and the panel's number in its group.
  let channel: Expression
  let groupPanel: Expression
  /// The first output channel.
  let output: Expression

  private var k: KernelBuilder { builder }
  private var g: ConvGeometry { config.geometry }
  private var width: Int { layout.panel }

  init(
    config: QuantizedConvConfig, layout: QuantizedConvLayout, builder k: KernelBuilder, x: Pointer, w: Pointer,
    bias: Pointer?, residual: Pointer?, y: Pointer, panel: Expression
  ) {
    self.config = config
    self.layout = layout
    self.builder = k
    self.x = x
    self.bias = bias
    self.residual = residual
    self.y = y
    let perGroup = layout.panelsPerGroup
    if config.groups == 1 {
      channel = 0
      groupPanel = panel
      output = k.define("output", panel * .integer(layout.panel))
    } else {
      let group = perGroup == 1 ? panel : k.define("group", panel / .integer(perGroup))
      channel = k.define("channel", group * .integer(config.groupChannels))
      groupPanel = perGroup == 1 ? 0 : k.define("group_panel", panel % .integer(perGroup))
      output = k.define("output", group * .integer(config.groupOutputs) + groupPanel * .integer(layout.panel))
    }
    scales = k.pointer("scales", w, offset: panel * .integer(layout.panelBytes), as: .f32)
    words = k.pointer("words", scales, offset: .integer(layout.panel), as: .i32)
  }

  /// All places of a line (of the tile of that number, where all pixels are one line).
  func line(_ line: Expression) {
    let lines = config.lines
    let isOne = g.batch == .fixed(1)
    let image = isOne ? Expression.integer(0) : k.define("image", line / .integer(lines))
    let place = isOne ? line : k.define("place", line % .integer(lines))
    guard config.isFlat else {
      let result = k.define("row", line * .integer(g.outWidth))
      for run in g.tileRuns(of: config.pixels) {
        let end = run.start + run.count * run.repeats
        k.loop("j", from: .integer(run.start), to: .integer(end), step: run.count) { j in
          tile(run, image: image, place: place, column: j, result: result + j)
        }
      }
      return
    }
    let column = k.define("j", place * .integer(config.pixels))
    let result = k.define("row", image * .integer(g.width) + column)
    let rest = g.width % config.pixels
    let runs = g.tileRuns(of: config.pixels)
    let emit = { (run: ConvGeometry.TileRun) in
      tile(run, image: image, place: 0, column: column, result: result)
    }
    guard let full = runs.first else { return }
    if rest == 0 || runs.count == 1 {
      emit(full)
    } else {
      k.condition(place < .integer(lines - 1), then: { emit(full) }) { emit(runs[1]) }
    }
  }

  /// The sums of neighbouring places of a line, from `column` on, and their results, from pixel `result` on.
  private func tile(
    _ run: ConvGeometry.TileRun, image: Expression, place: Expression, column: Expression, result: Expression
  ) {
    let vectors = config.vectors
    let zero = config.requantization.input.zeroPoint
    let starts = (0..<vectors).map { v -> Expression in
      guard zero != 0 else { return .broadcast(.integer(0)) }
      return k.define("start", words.load(.integer(v * k.lanes)) * .integer(-zero))
    }
    let sums = (0..<run.count).map { q in (0..<vectors).map { v in k.variable("s\(q)_\(v)", starts[v]) } }
    let step = g.strides[1] * g.channels

    /// The products of a run of bytes at each place with their codes.
    func products(_ values: Pointer, _ codes: Pointer, bytes: Int, places: Range<Int>) {
      let whole = bytes / 4, rest = bytes % 4
      func multiply(_ index: Expression, _ four: (Int) -> Expression) {
        let loaded = (0..<vectors).map { v in
          k.define("w\(v)", codes.load((index * .integer(vectors) + .integer(v)) * .integer(k.lanes)))
        }
        for q in places {
          let a = k.define("a", .broadcast(four(q - places.lowerBound)))
          for v in 0..<vectors { k.assign(sums[q][v], .dotStep(.unsignedActivations, sums[q][v], loaded[v], a)) }
        }
      }
      if whole > 0 {
        let fours = step % 4 == 0 ? k.pointer("x4", values, offset: 0, as: .i32) : nil
        let pointers = places.map { q -> Pointer in
          fours ?? k.pointer("x4", values, offset: .integer((q - places.lowerBound) * step), as: .i32)
        }
        k.loop("c", to: .integer(whole)) { c in
          multiply(c) { q in fours.map { $0[c + .integer(q * step / 4)] } ?? pointers[q][c] }
        }
      }
      if rest > 0 {
        multiply(.integer(whole)) { q in
          let parts = (0..<rest).map { byte in
            Expression.convert(values[.integer(q * step + 4 * whole + byte)], .i32) << (8 * byte)
          }
          return parts.dropFirst().reduce(parts[0]) { $0 | $1 }
        }
      }
    }

    let lines = g.lines(at: place, in: k)
    let stepWords = layout.runSteps * width
    k.loop("u", from: lines.first, to: lines.end) { u in
      let base = k.define("line_start", g.line(image, place, u))
      for group in run.groups {
        let first = group.taps.lowerBound
        let start =
          base + (column + .integer(group.places.lowerBound)) * .integer(g.strides[1])
          + .integer(first * g.dilations[1] - g.padding[1])
        let values = k.pointer("xp", x, offset: start * .integer(g.channels) + channel)
        if layout.merged {
          let codes = k.pointer("wt", words, offset: .integer(width) + u * .integer(stepWords))
          products(values, codes, bytes: layout.runBytes, places: group.places)
          continue
        }
        let tap = u * .integer(g.kernel[1]) + .integer(first)
        let codes = k.pointer("wt", words, offset: .integer(width) + tap * .integer(stepWords))
        let isContiguous = g.dilations[1] == 1 && config.groups == 1 && g.channels % 4 == 0
        if isContiguous || group.taps.count == 1 {
          products(values, codes, bytes: group.taps.count * config.groupChannels, places: group.places)
        } else {
          k.loop("v", to: .integer(group.taps.count)) { v in
            let here = k.pointer("xv", values, offset: v * .integer(g.dilations[1] * g.channels))
            let part = k.pointer("wv", codes, offset: v * .integer(stepWords))
            products(here, part, bytes: config.groupChannels, places: group.places)
          }
        }
      }
    }
    finish(sums, result: result)
  }

  /// Applies the epilogue and stores.
  private func finish(_ sums: [[Expression]], result: Expression) {
    let first = k.define("first_result", result * .integer(config.outputs) + output)
    let rest = config.groupOutputs % width
    let store = { (count: Int) in
      for v in 0..<config.vectors where v * k.lanes < count {
        let left = count - v * k.lanes
        let tail: Expression? = left < k.lanes ? .integer(left) : nil
        let channels = config.requantization.channels(
          scales.load(.integer(v * k.lanes)), bias: bias.map { $0.load(output + .integer(v * k.lanes), count: tail) },
          in: k)
        for q in sums.indices {
          let place = first + .integer(q * config.outputs + v * k.lanes)
          let value = config.requantization.result(
            sums[q][v], channels, residual: residual.map { $0.load(place, count: tail) }, in: k)
          k.store(y, place, value, count: tail)
        }
      }
    }
    if rest == 0 {
      store(width)
    } else if layout.panelsPerGroup == 1 {
      store(rest)
    } else {
      k.condition(groupPanel < .integer(layout.panelsPerGroup - 1), then: { store(width) }) { store(rest) }
    }
  }
}
