import IR

extension MatMulConfig {
  /// Parameters: x, weights, then bias and residual if the epilogue has them, weight and bias of the norm if there is
  /// one, y, then the number of tokens if it is a run-time one. Threads share the panels, or the tiles of tokens in
  /// them; one output element is always computed by one thread in one order.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let layout = panel(target: target)
    let input = k.input("x", activationGroup == nil || quantizesInput ? .f32 : .u8)
    let weightPointer = k.input("w", weights.element ?? .u8)
    k.comment = ["y[\(tokens.text), \(columns)] = epilogue(x[\(tokens.text), \(depth)] W[\(rows), \(depth)]^T)."]
    let activations = activationGroup.map { ActivationLayout(depth: depth, group: $0) }
    if let activations {
      k.comment.append(
        (quantizesInput
          ? "x: \(norm == nil ? "" : "normalised, ")\(rotation == nil ? "" : "rotated, ")quantized by every thread to "
          : "x: ")
          + "\(tokens.text) rows of \(activations.rowBytes) bytes: i8[\(activations.paddedDepth)], "
          + "f32 scale[\(activations.groups)], i32 -8*sum[\(activations.groups)]")
    }
    k.comment.append(
      "w: \(layout.panelCount) panels of \(layout.panelRows) rows, \(layout.panelBytes) bytes each, \(weights.text)")
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let normWeight = norm.map { k.input("norm_weight", $0.weight) }
    let normBias = norm?.bias.map { k.input("norm_bias", $0) }
    let y = k.output("y", .f32)
    let count = k.extent(tokens)
    var x = input
    if quantizesInput, let activations {
      x = k.array("row", .u8, count: activations.rowBytes)
      var values =
        norm.flatMap { norm in
          normWeight.map { norm.statistics(k, input, 0, columns: depth, weight: $0, bias: normBias) }
        } ?? { input.load($0, count: $1) }
      if let rotation {
        let rotated = k.array("rotated", .f32, count: depth)
        rotation.rotate(k, values, into: rotated)
        values = { rotated.load($0, count: $1) }
      }
      k.loop("g", to: .integer(activations.groups)) {
        activations.quantizeGroup(k, $0, codeBits: codeBits, into: x, values)
      }
    }

    let tile = tile
    let full = fullTiles(k, of: count)
    // Many tiles are shared out one by one, so that few panels do not leave a thread idle.
    let sharedTiles = weights.isQuantized || tile == 1 ? nil : tokens.fixedValue.map { ($0 + tile - 1) / tile }
    if sharedTiles == nil {
      k.stream = WeightStream(name: weightPointer.name, units: layout.panelCount, unitBytes: layout.panelBytes)
    }
    k.share("unit", of: .integer(layout.panelCount * (sharedTiles ?? 1))) { unit in
      let panel = k.define("panel", unit / .integer(sharedTiles ?? 1))
      let stride = layout.panelBytes / weightPointer.element.byteCount
      let w = k.pointer("wp", weightPointer, offset: panel * .integer(stride))
      let store = { (token: Expression, sums: [Expression]) in
        storeRow(k, sums, panel: panel, token: token, bias: bias, residual: residual, y: y)
      }
      if let sharedTiles, let fixed = tokens.fixedValue {
        let first = k.define("first", unit % .integer(sharedTiles) * .integer(tile))
        let compute = { (first: Expression, size: Int, isMain: Bool) in
          self.sums(k, layout, x: x, w: w, from: first, size, isMain: isMain, store)
        }
        guard fixed % tile != 0 else { return compute(first, tile, true) }
        k.condition(first < full, then: { compute(first, tile, true) }) {
          compute(.integer(fixed / tile * tile), fixed % tile, false)
        }
        return
      }
      forEachToken(k, layout, x: x, w: w, count: count, full: full, store)
    }
    return k.finish()
  }

  /// Tokens of a whole tile.
  var tile: Int { tokens.fixedValue.map { min(max($0, 1), tokenTile) } ?? tokenTile }

  /// The tokens that lie in whole tiles.
  func fullTiles(_ k: KernelBuilder, of count: Expression) -> Expression {
    tile == 1 || loopsOverTokens(k.target)
      ? count : k.define("full", count / .integer(tile) * .integer(tile))
  }

  /// Computes the sums of `size` tokens from `first` on times one panel and hands those of each token to `body`.
  private func sums(
    _ k: KernelBuilder, _ layout: PanelLayout, x: Pointer, w: Pointer, from first: Expression, _ size: Int,
    isMain: Bool, _ body: (_ token: Expression, _ sums: [Expression]) -> Void
  ) {
    let rows = (0..<size).map { first + .integer($0) }
    let sums = MatMulTile(
      config: self, layout: layout, builder: k, x: x, w: w, tokens: rows,
      ahead: isMain && tile > 1 ? first / .integer(tile) : nil
    ).sums()
    for i in 0..<size { body(rows[i], sums[i]) }
  }

  /// Computes the sums of every token times the panel at `w` and hands them to `body`; `full` is ``fullTiles(_:of:)``.
  func forEachToken(
    _ k: KernelBuilder, _ layout: PanelLayout, x: Pointer, w: Pointer, count: Expression, full: Expression,
    _ body: (_ token: Expression, _ sums: [Expression]) -> Void
  ) {
    let tile = tile
    if loopsOverTokens(k.target) {
      k.loop("first", to: count, step: tile) { first in
        let some = k.define("some", .minimum(count - first, .integer(tile)))
        let loop = MatMulTokenLoop(
          tile: MatMulTile(
            config: self, layout: layout, builder: k, x: x, w: w, tokens: [], ahead: first / .integer(tile)
          ).withPreamble(),
          first: first, count: some)
        loop.forEachToken(body)
      }
      return
    }
    k.loop("first", to: full, step: tile) { sums(k, layout, x: x, w: w, from: $0, tile, isMain: true, body) }
    // What is left of the tokens: one tile where the number is known, otherwise tiles of half the size each.
    guard tile > 1 else { return }
    if let fixed = tokens.fixedValue {
      let first = fixed / tile * tile
      if first < fixed { sums(k, layout, x: x, w: w, from: .integer(first), fixed - first, isMain: false, body) }
      return
    }
    let rest = k.define("rest", count - full)
    var size = 1
    while 2 * size < tile { size *= 2 }
    while size >= 1 {
      let done = rest / .integer(2 * size) * .integer(2 * size)
      k.condition((rest & .integer(size)).isNotEqual(to: 0)) {
        sums(k, layout, x: x, w: w, from: k.define("first", full + done), size, isMain: false, body)
      }
      size /= 2
    }
  }

  /// Applies the epilogue to the sums of one token in one panel and stores the results.
  func storeRow(
    _ k: KernelBuilder, _ sums: [Expression], panel: Expression, token: Expression, bias: Pointer?, residual: Pointer?,
    y: Pointer
  ) {
    let lanes = k.lanes
    let outputs = epilogue.gated ? vectors / 2 : vectors
    let row = token * .integer(columns)
    // Vectors of gates and of what they gate alternate by as many as the layout's lanes are.
    let block = k.target.vectorsPerPanelLanes
    for output in 0..<outputs {
      let gate = output / block * 2 * block + output % block
      let column = panel * .integer(outputs * lanes) + .integer(output * lanes)
      let store = { (tail: Expression?) in
        var values = epilogue.gated ? [sums[gate], sums[gate + block]] : [sums[output]]
        if let bias {
          for index in values.indices {
            values[index] = values[index] + biasVector(k, bias, column: column, part: index, tail: tail)
          }
        }
        let place = row + column
        let added = residual.map { $0.load(place, count: tail) }
        if epilogue.residual == .beforeActivation, let added { values[0] = values[0] + added }
        var value = epilogue.activation.function.render([k.define("s", values[0])], in: k)
        if epilogue.gated { value = value * values[1] }
        if epilogue.residual == .afterActivation, let added { value = value + added }
        k.store(y, place, value, count: tail)
      }
      if columns % (outputs * lanes) == 0 {
        store(nil)
      } else {
        let rest = Expression.integer(columns) - column
        k.condition(rest >= .integer(lanes), then: { store(nil) }) {
          if columns % lanes != 0 { k.condition(rest > 0) { store(rest) } }
        }
      }
    }
  }

  private func biasVector(_ k: KernelBuilder, _ bias: Pointer, column: Expression, part: Int, tail: Expression?)
    -> Expression
  {
    guard epilogue.gated else { return bias.load(column, count: tail) }
    let pairs = k.array("pairs", .f32, count: k.lanes)
    k.loop("lane", to: .integer(k.lanes)) { lane in
      let index = tail == nil ? column + lane : Expression.minimum(column + lane, .integer(columns - 1))
      k.store(pairs, lane, bias[index * 2 + .integer(part)])
    }
    return pairs.load(0)
  }
}

/// The sums of one tile: some tokens times one panel.
struct MatMulTile {
  let config: MatMulConfig
  let layout: PanelLayout
  let builder: KernelBuilder
  let x: Pointer
  let w: Pointer
  let tokens: [Expression]
  /// The number of this tile among those of the panel, if it is to ask for parts of the next panel; nil if not.
  var ahead: Expression?
  /// The table of levels, and the factor of scales, of the panel.
  var table: Expression?
  var factor: Expression?

  var k: KernelBuilder { builder }
  var vectors: Range<Int> { 0..<config.vectors }

  /// Statements that compute the sums; returns them by token and vector.
  func sums() -> [[Expression]] {
    let tile = withPreamble()
    if config.activationGroup != nil { return tile.byteSums() }
    return config.weights.isQuantized ? tile.dequantizedSums() : tile.floatSums()
  }

  private func zeros(_ name: String) -> [[Expression]] {
    tokens.indices.map { i in
      vectors.map { v in k.variable(tokens.count == 1 ? "\(name)\(v)" : "\(name)\(i)_\(v)", .broadcast(.real(0))) }
    }
  }

  // MARK: Weights in floating point

  private func floatSums() -> [[Expression]] {
    let rows = tokens.enumerated().map { i, token in
      k.pointer("x\(i)", x, offset: token * .integer(config.inputStride))
    }
    // One token leaves few sums in flight; separate ones for every fourth k hide the latency of the fused multiply-add.
    let ways = tokens.count * config.vectors < 8 ? min(4, max(1, config.depth)) : 1
    let sums = (0..<ways).map { way in zeros(way == 0 ? "s" : "s_\(way)_") }
    let step = { (index: Expression, way: Int) in
      if tokens.count == 1 {
        // One token streams weights at memory speed.
        let size = w.element.byteCount, width = config.vectors * k.lanes
        for line in stride(from: 0, to: width * size, by: 64) {
          k.prefetch(w, index * .integer(width) + .integer((6144 + line) / size))
        }
      }
      let loaded = vectors.map { v in
        k.define("w\(v)", w.load((index * .integer(config.vectors) + .integer(v)) * .integer(k.lanes)))
      }
      for i in tokens.indices {
        let a = k.define("a\(i)", .broadcast(rows[i][index]))
        for v in vectors { k.assign(sums[way][i][v], .multiplyAdd(a, loaded[v], sums[way][i][v])) }
      }
    }
    let full = config.depth / ways * ways
    k.loop("k", to: .integer(full), step: ways) { index in
      for way in 0..<ways { step(index + .integer(way), way) }
    }
    for rest in full..<config.depth { step(.integer(rest), 0) }
    return tokens.indices.map { i in
      vectors.map { v in
        sums.dropFirst().reduce(sums[0][i][v]) { $0 + $1[i][v] }
      }
    }
  }

  // MARK: Quantized weights, f32 activations

  private func dequantizedSums() -> [[Expression]] {
    let rows = tokens.enumerated().map { i, token in
      k.pointer("x\(i)", x, offset: token * .integer(config.inputStride))
    }
    let sums = zeros("s")
    let perRow = config.weightGroup == nil
    let group = perRow ? layout.paddedDepth : layout.group
    let unit = codeUnit
    // Of few sums each would wait for the one before it; separate ones for the four columns of a word do not.
    let ways = tokens.count * config.vectors < 8 ? 4 : 1
    /// The products of `count` columns from `first` on, in one unit of the group at `codes`, added to `partial`.
    func products(
      _ codes: Pointer, _ index: Expression, _ column: Expression, _ count: Int, _ zeros: [Expression?],
      _ partial: [[[Expression]]]
    ) {
      if isStreaming { prefetchUnit(codes, index) }
      for v in vectors {
        let words = unitWords(codes, index, vector: v, steps: (count + 3) / 4)
        for step in 0..<unit where 4 * step < count {
          let levels = table.map { _ in bytes(words, step: step) }
          for byte in 0..<4 where 4 * step + byte < count {
            let code = levels.map { number($0, byte: byte) } ?? number(words, step: step, byte: byte)
            let weight = k.define("f", zeros[v].map { code - $0 } ?? code)
            let sums = partial[byte % ways]
            for i in tokens.indices {
              let a = Expression.broadcast(rows[i][column + .integer(4 * step + byte)])
              k.assign(sums[i][v], .multiplyAdd(a, weight, sums[i][v]))
            }
          }
        }
      }
    }
    /// The products of so many columns from `start` on, by token and vector.
    func groupProducts(_ base: Pointer, _ start: Expression, columns: Int) -> [[Expression]] {
      let partial = (0..<ways).map { self.zeros("p\($0)_") }
      let codes = k.pointer("codes", base, offset: .integer(layout.headerBytes), as: .i32)
      let zeros = vectors.map { v in self.zeros(base, vector: v)?.asFloat ?? middle }
      k.loop("q", to: .integer(columns / (4 * unit))) { q in
        products(codes, q, start + q * .integer(4 * unit), 4 * unit, zeros, partial)
      }
      if columns % (4 * unit) != 0 {
        let last = columns / (4 * unit)
        products(codes, .integer(last), start + .integer(last * 4 * unit), columns % (4 * unit), zeros, partial)
      }
      return tokens.indices.map { i in
        vectors.map { v in partial.dropFirst().reduce(partial[0][i][v]) { $0 + $1[i][v] } }
      }
    }
    if perRow {
      let totals = groupProducts(w, 0, columns: config.depth)
      let scales = k.pointer("scales", w, offset: 0, as: .f32)
      for v in vectors {
        let scale = k.define("scale\(v)", scales.load(.integer(v * k.lanes)))
        for i in tokens.indices { k.assign(sums[i][v], totals[i][v] * scale) }
      }
      return sums
    }
    let body = { (index: Expression, columns: Int) in
      let base = self.group(index)
      if isStreaming { prefetchGroup(base) }
      let partial = groupProducts(base, index * .integer(group), columns: columns)
      for v in vectors {
        let scale = k.define("scale\(v)", self.scale(base, vector: v))
        for i in tokens.indices { k.assign(sums[i][v], .multiplyAdd(partial[i][v], scale, sums[i][v])) }
      }
    }
    let full = config.depth / group
    k.loop("g", to: .integer(full)) { body($0, group) }
    if config.depth % group != 0 { body(.integer(full), config.depth % group) }
    return sums
  }

  // MARK: Quantized weights and activations

  private func byteSums() -> [[Expression]] {
    let activations = ActivationLayout(depth: config.depth, group: config.group)
    let rows = tokens.enumerated().map { i, token in
      k.pointer("x\(i)", x, offset: token * .integer(activations.rowBytes))
    }
    let codes = rows.enumerated().map { i, row in k.pointer("a\(i)", row, offset: 0, as: .i32) }
    let scales = rows.enumerated().map { i, row in
      k.pointer("xs\(i)", row, offset: .integer(activations.scaleOffset), as: .f32)
    }
    let dot = dot
    let offsets = rows.enumerated().map { i, row in
      needsSums ? k.pointer("xo\(i)", row, offset: .integer(activations.sumOffset), as: .i32) : row
    }
    let sums = zeros("s")
    let perRow = config.weightGroup == nil
    let group = config.group
    let unit = codeUnit
    let limit = k.target.vocabulary.steps(perFlushOf: dot.weights)
    let panelCodes = perRow ? k.pointer("codes", w, offset: .integer(layout.scaleBytes), as: .i32) : w
    k.loop("g", to: .integer(activations.groups)) { g in
      let base = perRow ? w : self.group(g)
      let words =
        perRow
        ? k.pointer("words", panelCodes, offset: g * .integer(group / 4 * layout.panelRows))
        : k.pointer("words", base, offset: .integer(layout.headerBytes), as: .i32)
      let units = group / (4 * unit)
      if ahead != nil { prefetchNextPanel(g, of: activations.groups) }
      if isStreaming, !perRow { prefetchGroup(base) }
      let zeros = vectors.map { v in self.zeros(base, vector: v).map { k.define("zero\(v)", $0) } }
      let totals = tokens.indices.map { i in
        let start = start(offsets[i][g], zeros: zeros)
        return vectors.map { v in k.variable("d\(i)_\(v)", start[v]) }
      }
      // Whole units between two flushes, or the steps between two flushes within a unit.
      let unitsPerFlush = limit.map { max(1, min(units, $0 / unit)) } ?? units
      let stepsPerFlush = limit.map { min(unit, $0) } ?? unit
      func freshPartials() -> [[Expression]] {
        guard limit != nil else { return totals }
        return tokens.indices.map { i in vectors.map { v in k.variable("p\(i)_\(v)", .broadcast(.integer(0))) } }
      }
      func flush(_ partial: [[Expression]]) {
        guard limit != nil else { return }
        for i in tokens.indices {
          for v in vectors { k.assign(totals[i][v], .dotFlush(dot, totals[i][v], partial[i][v])) }
        }
      }
      for chunk in stride(from: 0, to: units, by: unitsPerFlush) {
        let whole = stepsPerFlush == unit ? freshPartials() : nil
        k.loop("q", from: .integer(chunk), to: .integer(min(units, chunk + unitsPerFlush))) { q in
          if isStreaming { prefetchUnit(words, q) }
          let loaded = vectors.map { v in unitWords(words, q, vector: v) }
          var partial = whole ?? []
          for step in 0..<unit {
            if whole == nil, step % stepsPerFlush == 0 { partial = freshPartials() }
            let bytes = vectors.map { v in self.bytes(loaded[v], step: step) }
            for i in tokens.indices {
              let word = g * .integer(group / 4) + q * .integer(unit) + .integer(step)
              let a = k.define("b\(i)", .broadcast(codes[i][word]))
              for v in vectors { k.assign(partial[i][v], .dotStep(dot, partial[i][v], bytes[v], a)) }
            }
            if whole == nil, (step + 1) % stepsPerFlush == 0 || step + 1 == unit { flush(partial) }
          }
        }
        if let whole { flush(whole) }
      }
      if perRow {
        for i in tokens.indices {
          let scale = k.define("scale", .broadcast(scales[i][g]))
          for v in vectors { k.assign(sums[i][v], .multiplyAdd(totals[i][v].asFloat, scale, sums[i][v])) }
        }
      } else {
        let weightScales = vectors.map { v in k.define("scale\(v)", scale(base, vector: v)) }
        for i in tokens.indices {
          let scale = k.define("xs", .broadcast(scales[i][g]))
          for v in vectors {
            k.assign(sums[i][v], .multiplyAdd(totals[i][v].asFloat, weightScales[v] * scale, sums[i][v]))
          }
        }
      }
    }
    if perRow {
      let scalePointer = k.pointer("ws", w, offset: 0, as: .f32)
      for v in vectors {
        let scale = k.define("scale\(v)", scalePointer.load(.integer(v * k.lanes)))
        for i in tokens.indices { k.assign(sums[i][v], sums[i][v] * scale) }
      }
    }
    return sums
  }
}
