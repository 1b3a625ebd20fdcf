import IR

/// Neighbouring places of a line, of which a tile computes the sums.
struct ConvPlaces {
  let run: ConvGeometry.TileRun
  let image: Expression
  /// The line of the result in its image, and the unit of work that it is.
  let place: Expression
  let line: Expression
  /// The first place in its line, and among the pixels of the result.
  let column: Expression
  let result: Expression
}

/// A panel of output channels in a kernel that is being built: the loops over the tiles of a line, over what lies under the
/// window of a tile, and over its results.
struct ConvPanel {
  let tiling: ConvTiling
  let number: Expression
  /// The first input channel, and the panel's number in its group.
  private let channel: Expression
  private let groupPanel: Expression
  /// The first output channel.
  let output: Expression
  private let k: KernelBuilder

  private var g: ConvGeometry { tiling.geometry }

  init(tiling: ConvTiling, number panel: Expression, in k: KernelBuilder) {
    self.tiling = tiling
    self.k = k
    number = panel
    let perGroup = tiling.panelsPerGroup(target: k.target), width = tiling.panelOutputs(target: k.target)
    if tiling.groups == 1 {
      channel = 0
      groupPanel = panel
      output = k.define("output", panel * .integer(width))
    } else {
      let group = perGroup == 1 ? panel : k.define("group", panel / .integer(perGroup))
      channel = k.define("channel", group * .integer(tiling.groupChannels))
      groupPanel = perGroup == 1 ? 0 : k.define("group_panel", panel % .integer(perGroup))
      output = k.define("output", group * .integer(tiling.groupOutputs) + groupPanel * .integer(width))
    }
  }

  /// The tiles of a line (the tile of that number, where all pixels are one line).
  func forEachTile(of line: Expression, _ tile: @escaping (ConvPlaces) -> Void) {
    let lines = tiling.lines, pixels = tiling.pixels
    let isOne = g.batch == .fixed(1)
    let image = isOne ? Expression.integer(0) : k.define("image", line / .integer(lines))
    let place = isOne ? line : k.define("place", line % .integer(lines))
    guard tiling.isFlat else {
      let result = k.define("row", line * .integer(g.outWidth))
      for run in g.tileRuns(of: pixels) {
        let end = run.start + run.count * run.repeats
        k.loop("j", from: .integer(run.start), to: .integer(end), step: run.count) { j in
          tile(ConvPlaces(run: run, image: image, place: place, line: line, column: j, result: result + j))
        }
      }
      return
    }
    let column = k.define("j", place * .integer(pixels))
    let result = k.define("row", image * .integer(g.width) + column)
    let rest = g.width % pixels
    let runs = g.tileRuns(of: pixels)
    func emit(_ run: ConvGeometry.TileRun) {
      tile(ConvPlaces(run: run, image: image, place: 0, line: line, column: column, result: result))
    }
    guard let full = runs.first else { return }
    if rest == 0 || runs.count == 1 {
      emit(full)
    } else {
      k.condition(place < .integer(lines - 1)) {
        emit(full)
      } otherwise: {
        emit(runs[1])
      }
    }
  }

  /// How the weights of a panel follow one another.
  struct Weights {
    /// The first weights, `header` numbers behind `start`.
    var start: Pointer
    var header = 0
    /// Numbers from one tap of the window to the next, or from one line where taps are `merged`.
    var stride: Int
    var merged = false
    /// Whether taps that see neighbouring pixels of all channels are one run.
    var contiguous: Bool
  }

  /// Passes the runs of input values of `x` under the window of a tile that are contiguous in memory, with their weights: the
  /// values of a run at its first place and its weights, the number of its first tap, of how many values it is, and the places
  /// of the tile that see it, each `strides[1] * channels` values behind the one before.
  func forEachRun(
    of x: Pointer, _ places: ConvPlaces, _ weights: Weights,
    _ body: (_ values: Pointer, _ weights: Pointer, _ tap: Expression, _ count: Int, _ places: Range<Int>) -> Void
  ) {
    // Tiles in the padding see nothing.
    let lines = places.run.groups.isEmpty ? (first: 0, end: 0) : g.lines(at: places.place, in: k)
    let channels = tiling.groupChannels
    k.loop("u", from: lines.first, to: lines.end) { u in
      let base = k.define("line_start", g.line(places.image, places.place, u))
      for group in places.run.groups {
        let first = group.taps.lowerBound
        let start =
          base + (places.column + .integer(group.places.lowerBound)) * .integer(g.strides[1])
          + .integer(first * g.dilations[1] - g.padding[1])
        let values = k.pointer("xp", x, offset: start * .integer(g.channels) + channel)
        let tap = weights.merged ? u : u * .integer(g.kernel[1]) + .integer(first)
        let panel = k.pointer("wt", weights.start, offset: .integer(weights.header) + tap * .integer(weights.stride))
        if weights.merged || weights.contiguous || group.taps.count == 1 {
          let taps = weights.merged ? g.kernel[1] : group.taps.count
          body(values, panel, tap, taps * channels, group.places)
        } else {
          k.loop("v", to: .integer(group.taps.count)) { v in
            let here = k.pointer("xv", values, offset: v * .integer(g.dilations[1] * g.channels))
            let part = k.pointer("wv", panel, offset: v * .integer(weights.stride))
            body(here, part, tap + v, channels, group.places)
          }
        }
      }
    }
  }

  /// Stores the results of a tile in `y`, from its sums by places and vectors. `prepare` is called for each vector, with how many
  /// channels an incomplete one has; it gives what makes the result of a sum and the place that it goes to.
  func store(
    _ sums: [[Expression]], _ places: ConvPlaces, to y: Pointer,
    _ prepare: @escaping (_ vector: Int, _ tail: Expression?) -> (_ sum: Expression, _ place: Expression) -> Expression
  ) {
    let width = tiling.panelOutputs(target: k.target), panels = tiling.panelsPerGroup(target: k.target)
    let first = k.define("first_result", places.result * .integer(tiling.outputs) + output)
    let rest = tiling.groupOutputs % width
    func store(_ count: Int) {
      for v in 0..<tiling.vectors where v * k.lanes < count {
        let left = count - v * k.lanes
        let tail: Expression? = left < k.lanes ? .integer(left) : nil
        let result = prepare(v, tail)
        for q in sums.indices {
          let place = first + .integer(q * tiling.outputs + v * k.lanes)
          k.store(y, place, result(sums[q][v], place), count: tail)
        }
      }
    }
    if rest == 0 {
      store(width)
    } else if panels == 1 {
      store(rest)
    } else {
      k.condition(groupPanel < .integer(panels - 1)) {
        store(width)
      } otherwise: {
        store(rest)
      }
    }
  }
}
