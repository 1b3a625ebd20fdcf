import IR

extension MatMulConfig {
  /// Whether many tokens are a loop of the kernel (`MatMulTokenLoop`), not rows of a tile in registers.
  func usesTokenLoop(target: Target) -> Bool {
    weights.isQuantized && activationGroup != nil && tokens != .fixed(1) && Self.loopsOverTokens(target)
  }

  /// Sixteen registers hold neither the sums of a tile nor the codes that a compiler likes to unpack ahead.
  static func loopsOverTokens(_ target: Target) -> Bool { target.vectorRegisters < 32 }
}

/// The sums of some tokens times one panel of quantized weights where registers are few: the codes of a few steps of one
/// vector of rows are unpacked into registers, then every token is multiplied with them in turn. Its sums lie in memory
/// that stays in the first level of the cache and are read and written once for a group.
struct MatMulTokenLoop {
  /// Says how codes lie; has no tokens of its own.
  let tile: MatMulTile
  /// The first token, and their number, at most `config.tokenTile`.
  let first: Expression
  let count: Expression

  private var config: MatMulConfig { tile.config }
  private var k: KernelBuilder { tile.builder }
  private var lanes: Int { k.lanes }
  private var activations: ActivationLayout { ActivationLayout(depth: config.depth, group: config.group) }
  private var hasRowScales: Bool { config.weightGroup == nil }

  /// Computes the sums and calls `body` with each token and its sums by vector.
  func forEachToken(_ body: (_ token: Expression, _ sums: [Expression]) -> Void) {
    let (k, tile, group) = (k, tile, config.group)
    let size = config.tokenTile
    let sums = k.array("sums", .f32, count: config.vectors * size * lanes)
    k.loop("i", to: .integer(config.vectors * size)) { k.store(sums, $0 * .integer(lanes), .broadcast(.real(0))) }
    let chunks = chunks
    let totals = chunks.count > 1 ? k.array("totals", .i32, count: size * lanes) : sums
    let rows = k.pointer("rows", tile.x, offset: first * .integer(activations.rowBytes))
    let panelCodes =
      hasRowScales ? k.pointer("codes", tile.w, offset: .integer(tile.layout.scaleBytes), as: .i32) : tile.w
    k.loop("g", to: .integer(activations.groups)) { g in
      let base = hasRowScales ? tile.w : k.pointer("group", tile.w, offset: g * .integer(tile.layout.groupBytes))
      let words =
        hasRowScales
        ? k.pointer("words", panelCodes, offset: g * .integer(group / 4 * tile.layout.panelRows))
        : k.pointer("words", base, offset: .integer(tile.layout.headerBytes), as: .i32)
      tile.prefetchNextPanel(g, of: activations.groups)
      for v in tile.vectors {
        let zero = tile.zeros(base, vector: v).map { k.define("zero\(v)", $0) }
        let scale =
          hasRowScales
          ? nil
          : k.define("scale\(v)", k.pointer("ws", base, offset: 0, as: .f16).load(.integer(v * lanes)))
        for chunk in chunks {
          let codes = unpacked(chunk, words, vector: v)
          k.loop("i", to: count) { i in
            let row = k.pointer("row", rows, offset: i * .integer(activations.rowBytes))
            let start =
              chunk.lowerBound == 0
              ? tile.start(
                k.pointer("xo", row, offset: .integer(activations.sumOffset), as: .i32)[g], zeros: [zero])[0]
              : totals.load(i * .integer(lanes))
            let total = products(codes, row, g, chunk, start)
            guard chunk.upperBound == group / 4 else { return k.store(totals, i * .integer(lanes), total) }
            let place = (.integer(v * size) + i) * .integer(lanes)
            let factor = Expression.broadcast(
              k.pointer("xs", row, offset: .integer(activations.scaleOffset), as: .f32)[g])
            k.store(sums, place, .multiplyAdd(total.asFloat, scale.map { $0 * factor } ?? factor, sums.load(place)))
          }
        }
      }
    }
    k.loop("i", to: count) { i in
      let values = tile.vectors.map { v -> Expression in
        let sum = sums.load((.integer(v * size) + i) * .integer(lanes))
        guard hasRowScales else { return k.define("s\(v)", sum) }
        return k.define("s\(v)", sum * k.pointer("ws", tile.w, offset: 0, as: .f32).load(.integer(v * lanes)))
      }
      body(k.define("token", first + i), values)
    }
  }

  /// The steps of a group that are unpacked at a time: what half of the registers holds, where signed codes are needed
  /// twice, by value and by sign.
  private var chunks: [Range<Int>] {
    let steps = config.group / 4
    let most = k.target.vectorRegisters / (tile.dot.weights == .i8 ? 4 : 2)
    let unit = tile.codeUnit
    let size = max(unit, most / unit * unit)
    return stride(from: 0, to: steps, by: size).map { $0..<min($0 + size, steps) }
  }

  /// The codes of some steps of one vector.
  private func unpacked(_ steps: Range<Int>, _ words: Pointer, vector: Int) -> [Expression] {
    let unit = tile.codeUnit
    return stride(from: steps.lowerBound, to: steps.upperBound, by: unit).flatMap { step in
      let loaded = tile.unitWords(words, .integer(step / unit), vector: vector)
      return (0..<min(unit, steps.upperBound - step)).map { tile.bytes(loaded, step: $0) }
    }
  }

  /// `start` and the products of one token with the codes of some steps.
  private func products(
    _ codes: [Expression], _ row: Pointer, _ g: Expression, _ steps: Range<Int>, _ start: Expression
  ) -> Expression {
    let a = k.pointer("a", row, offset: 0, as: .i32)
    let (dot, limit) = (tile.dot, k.target.vocabulary.steps(perFlushOf: tile.dot.weights))
    let total = k.variable("d", start)
    var partial = total
    for (index, step) in steps.enumerated() {
      if let limit, index % limit == 0 { partial = k.variable("p", .broadcast(.integer(0))) }
      let word = Expression.broadcast(a[g * .integer(config.group / 4) + .integer(step)])
      k.assign(partial, .dotStep(dot, partial, codes[index], word))
      if let limit, (index + 1) % limit == 0 || index + 1 == codes.count {
        k.assign(total, .dotFlush(dot, total, partial))
      }
    }
    return total
  }
}
