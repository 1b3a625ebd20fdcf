import IR

extension MatMulConfig {
  /// Parameters: x, weights, then bias and residual if the epilogue has them, y, then the number of tokens if it is a
  /// run-time one. Threads share the panels; one output element is always computed by one thread in one order.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let layout = panel(target: target)
    let x: Pointer
    k.comment = ["y[\(tokens.text), \(columns)] = epilogue(x[\(tokens.text), \(depth)] W[\(rows), \(depth)]^T)."]
    if let group = activationGroup {
      let activations = ActivationLayout(depth: depth, group: group)
      x = k.input("x", .u8)
      k.comment.append(
        "x: \(tokens.text) rows of \(activations.rowBytes) bytes: i8[\(activations.paddedDepth)], "
          + "f32 scale[\(activations.groups)], i32 -8*sum[\(activations.groups)]")
    } else {
      x = k.input("x", .f32)
    }
    let weightPointer = k.input("w", weights.element ?? .u8)
    k.comment.append(
      "w: \(layout.panelCount) panels of \(layout.panelRows) rows, \(layout.panelBytes) bytes each, \(weights.text)")
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let y = k.output("y", .f32)
    let count = k.extent(tokens)

    let part = k.partition(.integer(layout.panelCount))
    k.loop("panel", from: part.begin, to: part.end) { panel in
      let stride = layout.panelBytes / weightPointer.element.byteCount
      let w = k.pointer("wp", weightPointer, offset: panel * .integer(stride))
      let tile = tokens.fixedValue == 1 ? 1 : tokenTile
      k.loop("first", to: count, step: tile) { first in
        let tokenRows = (0..<tile).map { i -> Expression in
          if tile == 1 { return first }
          if let fixed = tokens.fixedValue, fixed % tile == 0 { return first + .integer(i) }
          return i == 0 ? first : k.define("t\(i)", .minimum(first + .integer(i), count - 1))
        }
        let tileBody = MatMulTile(config: self, layout: layout, builder: k, x: x, w: w, tokens: tokenRows)
        let sums = tileBody.sums()
        for i in 0..<tile {
          let isSure = tile == 1 || i == 0 || (tokens.fixedValue.map { $0 % tile == 0 } ?? false)
          let finish = {
            storeRow(k, sums[i], panel: panel, token: tokenRows[i], bias: bias, residual: residual, y: y)
          }
          if isSure { finish() } else { k.condition(first + .integer(i) < count, then: finish) }
        }
      }
    }
    return k.finish()
  }

  /// Applies the epilogue to the sums of one token in one panel and stores the results.
  private func storeRow(
    _ k: KernelBuilder, _ sums: [Expression], panel: Expression, token: Expression, bias: Pointer?, residual: Pointer?,
    y: Pointer
  ) {
    let lanes = k.lanes
    let outputs = epilogue.gated ? vectors / 2 : vectors
    let row = token * .integer(columns)
    for output in 0..<outputs {
      let column = panel * .integer(outputs * lanes) + .integer(output * lanes)
      let store = { (tail: Expression?) in
        var values = epilogue.gated ? [sums[2 * output], sums[2 * output + 1]] : [sums[output]]
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

  private var k: KernelBuilder { builder }
  private var vectors: Range<Int> { 0..<config.vectors }

  /// Statements that compute the sums; returns them by token and vector.
  func sums() -> [[Expression]] {
    if config.activationGroup != nil { return byteSums() }
    return config.weights.isQuantized ? dequantizedSums() : floatSums()
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
    let isNibbles: Bool
    if case .w4 = config.weights { isNibbles = true } else { isNibbles = false }
    let perLoad = isNibbles ? 8 : 4
    let perRow = config.weightGroup == nil
    let group = perRow ? layout.paddedDepth : layout.group
    /// The products of `count` columns from `first` on of the group at `codes`, added to `partial`.
    func products(_ codes: Pointer, _ load: Expression, _ column: Expression, _ count: Int, _ partial: [[Expression]]) {
      for v in vectors {
        let place = (load * .integer(config.vectors) + .integer(v)) * .integer(k.lanes)
        let loaded = k.define("w\(v)", codes.load(place))
        for code in 0..<perLoad {
          // Byte b of a lane holds columns b (low) and b + 4 (high) of eight, or column b of four.
          let offset = isNibbles ? code % 2 * 4 + code / 2 : code
          guard offset < count else { continue }
          let value: Expression
          if isNibbles {
            value = ((loaded >> (4 * code)) & 15).asFloat - 8
          } else {
            value = (loaded << (24 - 8 * code)).shiftedRightArithmetically(by: 24).asFloat
          }
          let weight = k.define("f", value)
          for i in tokens.indices {
            let a = Expression.broadcast(rows[i][column + .integer(offset)])
            k.assign(partial[i][v], .multiplyAdd(a, weight, partial[i][v]))
          }
        }
      }
    }
    func groupProducts(_ base: Pointer, _ start: Expression, columns: Int, _ partial: [[Expression]]) {
      let codes = k.pointer("codes", base, offset: .integer(layout.scaleBytes), as: .i32)
      k.loop("q", to: .integer(columns / perLoad)) { q in
        products(codes, q, start + q * .integer(perLoad), perLoad, partial)
      }
      if columns % perLoad != 0 {
        let last = columns / perLoad
        products(codes, .integer(last), start + .integer(last * perLoad), columns % perLoad, partial)
      }
    }
    if perRow {
      groupProducts(w, 0, columns: config.depth, sums)
      let scales = k.pointer("scales", w, offset: 0, as: .f32)
      for v in vectors {
        let scale = k.define("scale\(v)", scales.load(.integer(v * k.lanes)))
        for i in tokens.indices { k.assign(sums[i][v], sums[i][v] * scale) }
      }
      return sums
    }
    let body = { (index: Expression, columns: Int) in
      let base = k.pointer("group", w, offset: index * .integer(layout.groupBytes))
      let partial = zeros("g")
      groupProducts(base, index * .integer(group), columns: columns, partial)
      let scales = k.pointer("scales", base, offset: 0, as: .f16)
      for v in vectors {
        let scale = k.define("scale\(v)", scales.load(.integer(v * k.lanes)))
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
    let isNibbles: Bool
    if case .w4 = config.weights { isNibbles = true } else { isNibbles = false }
    let weightForm: ByteDot.Weights = isNibbles ? .u4 : k.target.vocabulary.eightBitWeights
    let dot = ByteDot(weightForm)
    let needsSums = weightForm != .i8
    let offsets = rows.enumerated().map { i, row in
      needsSums ? k.pointer("xo\(i)", row, offset: .integer(activations.sumOffset), as: .i32) : row
    }
    let sums = zeros("s")
    let perRow = config.weightGroup == nil
    let group = config.group
    let perLoad = isNibbles ? 8 : 4
    let limit = k.target.vocabulary.stepsPerFlush[weightForm]
    let panelCodes = perRow ? k.pointer("codes", w, offset: .integer(layout.scaleBytes), as: .i32) : w
    k.loop("g", to: .integer(activations.groups)) { g in
      let base = perRow ? w : k.pointer("group", w, offset: g * .integer(layout.groupBytes))
      let words =
        perRow
        ? k.pointer("words", panelCodes, offset: g * .integer(group / 4 * layout.panelRows))
        : k.pointer("words", base, offset: .integer(layout.scaleBytes), as: .i32)
      if tokens.count == 1, !perRow { prefetch(base) }
      let start = tokens.indices.map { i -> Expression in
        guard needsSums else { return .broadcast(.integer(0)) }
        let sum = k.define("o\(i)", .broadcast(offsets[i][g]))
        return isNibbles ? sum : k.define("o\(i)", sum << 4)
      }
      let totals = tokens.indices.map { i in vectors.map { v in k.variable("d\(i)_\(v)", start[i]) } }
      let stepsPerLoad = isNibbles ? 2 : 1
      let loads = group / perLoad
      let loadsPerFlush = limit.map { min(loads, $0 / stepsPerLoad) } ?? loads
      for chunk in stride(from: 0, to: loads, by: loadsPerFlush) {
        let partial =
          limit == nil
          ? totals : tokens.indices.map { i in vectors.map { v in k.variable("p\(i)_\(v)", .broadcast(.integer(0))) } }
        k.loop("q", from: .integer(chunk), to: .integer(min(loads, chunk + loadsPerFlush))) { q in
          let loaded = vectors.map { v in
            k.define("w\(v)", words.load((q * .integer(config.vectors) + .integer(v)) * .integer(k.lanes)))
          }
          for part in 0..<stepsPerLoad {
            let bytes = vectors.map { v -> Expression in
              guard isNibbles else { return loaded[v] }
              return k.define(part == 0 ? "low\(v)" : "high\(v)", (loaded[v] >> (4 * part)) & 0x0f0f_0f0f)
            }
            for i in tokens.indices {
              let word = g * .integer(group / 4) + q * .integer(stepsPerLoad) + .integer(part)
              let a = k.define("b\(i)", .broadcast(codes[i][word]))
              for v in vectors { k.assign(partial[i][v], .dotStep(dot, partial[i][v], bytes[v], a)) }
            }
          }
        }
        if limit != nil {
          for i in tokens.indices {
            for v in vectors { k.assign(totals[i][v], .dotFlush(dot, totals[i][v], partial[i][v])) }
          }
        }
      }
      if perRow {
        for i in tokens.indices {
          let scale = k.define("scale", .broadcast(scales[i][g]))
          for v in vectors { k.assign(sums[i][v], .multiplyAdd(totals[i][v].asFloat, scale, sums[i][v])) }
        }
      } else {
        let scalePointer = k.pointer("ws", base, offset: 0, as: .f16)
        let weightScales = vectors.map { v in k.define("scale\(v)", scalePointer.load(.integer(v * k.lanes))) }
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

  /// Asks for the group some groups ahead, so that one token streams weights at memory speed.
  private func prefetch(_ group: Pointer) {
    let distance = 6144
    for line in stride(from: 0, to: layout.groupBytes, by: 64) { k.prefetch(group, .integer(distance + line)) }
  }
}
