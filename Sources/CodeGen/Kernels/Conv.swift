import IR

extension ConvConfig {
  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share the pairs of a panel and a line; one output element is always computed by one thread in one order.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = geometry
    let image = "\(g.batch.text), \(g.height), \(g.width), \(g.channels)"
    let result = "\(g.batch.text), \(g.outHeight), \(g.outWidth), \(outputs)"
    let layout = self.layout(target: target)
    k.comment = [
      "y[\(result)] = epilogue(conv2d(x[\(image)])), window \(g.kernel[0]) x \(g.kernel[1]), \(groups) groups.",
      "w: \(groups * layout.panelsPerGroup) panels of \(layout.panel) output channels, \(layout.panelBytes) bytes each",
    ]
    let x = k.input("x", .f32)
    let w = k.input("w", .f32)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let y = k.output("y", .f32)
    let lines = self.lines
    guard lines > 0, g.outWidth > 0 else { return k.finish() }
    let all = k.extent(g.batch) * .integer(lines)

    let panels = groups * panelsPerGroup(target: target)
    let strips = all.dividedRoundingUp(by: stripLines)
    let part = k.partition(strips * .integer(panels * stripLines))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let inStrip = k.define("panel_line", strips == 1 ? unit : unit % .integer(panels * stripLines))
      let strip = strips == 1 ? Expression.integer(0) : k.define("strip", unit / .integer(panels * stripLines))
      let panel = k.define("panel", panels == 1 ? 0 : inStrip / .integer(stripLines))
      let line = k.define(
        "line", strip * .integer(stripLines) + (panels == 1 ? inStrip : inStrip % .integer(stripLines)))
      let body = {
        let tile = ConvTile(
          config: self, builder: k, x: x, w: w, bias: bias, residual: residual, y: y, panel: panel)
        tile.line(line)
      }
      let isWhole = all.constant.map { $0 % stripLines == 0 } ?? (lines % stripLines == 0)
      if isWhole { body() } else { k.condition(line < all, then: body) }
    }
    return k.finish()
  }
}

/// One panel at the places of one line.
private struct ConvTile {
  let config: ConvConfig
  let builder: KernelBuilder
  let x: Pointer
  let bias: Pointer?
  let residual: Pointer?
  let y: Pointer
  let panel: Expression
  /// The weights of the panel.
  let weights: Pointer
  /// The first input channel, and the panel's number in its group.
  let channel: Expression
  let groupPanel: Expression
  /// The first output channel.
  let output: Expression

  private var k: KernelBuilder { builder }
  private var g: ConvGeometry { config.geometry }
  private var width: Int { config.vectors * k.lanes }
  private var panelsPerGroup: Int { config.panelsPerGroup(target: k.target) }

  init(
    config: ConvConfig, builder k: KernelBuilder, x: Pointer, w: Pointer, bias: Pointer?, residual: Pointer?,
    y: Pointer, panel: Expression
  ) {
    self.config = config
    self.builder = k
    self.x = x
    self.bias = bias
    self.residual = residual
    self.y = y
    self.panel = panel
    let perGroup = config.panelsPerGroup(target: k.target), width = config.vectors * k.lanes
    if config.groups == 1 {
      channel = 0
      groupPanel = panel
      output = k.define("output", panel * .integer(width))
    } else {
      let group = perGroup == 1 ? panel : k.define("group", panel / .integer(perGroup))
      channel = k.define("channel", group * .integer(config.groupChannels))
      groupPanel = perGroup == 1 ? 0 : k.define("group_panel", panel % .integer(perGroup))
      output = k.define("output", group * .integer(config.groupOutputs) + groupPanel * .integer(width))
    }
    weights = k.pointer("wp", w, offset: panel * .integer(config.depth * width))
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
          tile(run, image: image, place: place, line: line, column: j, result: result + j)
        }
      }
      return
    }
    let column = k.define("j", place * .integer(config.pixels))
    let result = k.define("row", image * .integer(g.width) + column)
    let rest = g.width % config.pixels
    let runs = g.tileRuns(of: config.pixels)
    let emit = { (run: ConvGeometry.TileRun) in
      tile(run, image: image, place: 0, line: line, column: column, result: result)
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
    _ run: ConvGeometry.TileRun, image: Expression, place: Expression, line: Expression, column: Expression,
    result: Expression
  ) {
    let vectors = config.vectors, channels = config.groupChannels
    let sums = (0..<run.count).map { q in
      (0..<vectors).map { v in k.variable("s\(q)_\(v)", .broadcast(.real(0))) }
    }
    let step = g.strides[1] * g.channels
    let ahead = prefetched(line: line, column: column)
    /// The products of `count` neighbouring input values with their weights, the first of which belong to input `first` of
    /// the window.
    func products(_ values: Pointer, _ panel: Pointer, first: Expression, count: Int, places: Range<Int>) {
      k.loop("c", to: .integer(count)) { c in
        if let ahead { k.prefetch(ahead.pointer, (first + c) * .integer(ahead.step)) }
        // The pixels of the next tile follow those of this one.
        if config.isFlat { k.prefetch(values, c * .integer(run.count) + .integer(run.count * g.channels)) }
        let loaded = (0..<vectors).map { v in
          k.define("w\(v)", panel.load((c * .integer(vectors) + .integer(v)) * .integer(k.lanes)))
        }
        for q in places {
          let a = k.define("a", .broadcast(values[c + .integer((q - places.lowerBound) * step)]))
          for v in 0..<vectors { k.assign(sums[q][v], .multiplyAdd(a, loaded[v], sums[q][v])) }
        }
      }
    }
    // Tiles in the padding see nothing.
    let lines = run.groups.isEmpty ? (first: 0, end: 0) : g.lines(at: place, in: k)
    k.loop("u", from: lines.first, to: lines.end) { u in
      let base = k.define("line_start", g.line(image, place, u))
      for group in run.groups {
        let first = group.taps.lowerBound
        let start =
          base + (column + .integer(group.places.lowerBound)) * .integer(g.strides[1])
          + .integer(first * g.dilations[1] - g.padding[1])
        let values = k.pointer("xp", x, offset: start * .integer(g.channels) + channel)
        let tap = u * .integer(g.kernel[1]) + .integer(first)
        let panel = k.pointer("wt", weights, offset: tap * .integer(channels * width))
        let isContiguous = g.dilations[1] == 1 && config.groups == 1
        if isContiguous || group.taps.count == 1 {
          products(
            values, panel, first: tap * .integer(channels), count: group.taps.count * channels, places: group.places)
        } else {
          k.loop("v", to: .integer(group.taps.count)) { v in
            let here = k.pointer("xv", values, offset: v * .integer(g.dilations[1] * g.channels))
            let part = k.pointer("wv", panel, offset: v * .integer(channels * width))
            products(here, part, first: (tap + v) * .integer(channels), count: channels, places: group.places)
          }
        }
      }
    }
    finish(sums, result: result)
  }

  /// Where in the weights of the next panel the tile at `column` of a line asks for cache lines, and how many numbers further
  /// with every input value: all tiles of a strip together ask for the whole panel, so that it comes from memory while this
  /// one is used. Nil where a panel is used so often that it does not matter.
  private func prefetched(line: Expression, column: Expression) -> (pointer: Pointer, step: Int)? {
    let perLine = config.isFlat ? 1 : (g.outWidth + config.pixels - 1) / config.pixels
    let tiles = config.stripLines * perLine
    guard config.groups * panelsPerGroup > 1, tiles <= width else { return nil }
    let step = (width + tiles - 1) / tiles
    let inStrip = line % .integer(config.stripLines)
    let tile = perLine == 1 ? inStrip : inStrip * .integer(perLine) + column / .integer(config.pixels)
    let offset = .integer(config.depth * width) + tile * .integer(config.depth * step)
    return (k.pointer("next", weights, offset: offset), step)
  }

  /// Applies the epilogue and stores.
  private func finish(_ sums: [[Expression]], result: Expression) {
    let first = k.define("first_result", result * .integer(config.outputs) + output)
    let rest = config.groupOutputs % width
    let store = { (count: Int) in
      for v in 0..<config.vectors where v * k.lanes < count {
        let left = count - v * k.lanes
        let tail: Expression? = left < k.lanes ? .integer(left) : nil
        let added = bias.map { k.define("b", $0.load(output + .integer(v * k.lanes), count: tail)) }
        for q in sums.indices {
          let place = first + .integer(q * config.outputs + v * k.lanes)
          let other = residual.map { $0.load(place, count: tail) }
          var value = sums[q][v]
          if let added { value = value + added }
          if config.epilogue.residual == .beforeActivation, let other { value = value + other }
          value = config.epilogue.activation.function.render([k.define("s", value)], in: k)
          if config.epilogue.residual == .afterActivation, let other { value = value + other }
          k.store(y, place, value, count: tail)
        }
      }
    }
    if rest == 0 {
      store(width)
    } else if panelsPerGroup == 1 {
      store(rest)
    } else {
      k.condition(groupPanel < .integer(panelsPerGroup - 1), then: { store(width) }) { store(rest) }
    }
  }
}
