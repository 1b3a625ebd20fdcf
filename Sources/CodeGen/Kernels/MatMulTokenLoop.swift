import IR

/// The sums of some tokens times one panel of quantized weights: the codes of a few steps of some vectors of rows are
/// unpacked into registers, then every token is multiplied with them in turn. Its sums lie in memory that stays in the
/// first level of the cache and are read and written once for a group. Unpacking is shared by many tokens, and no
/// compiler gets to move it between their products, for which there are no registers.
struct MatMulTokenLoop {
  /// Says how codes lie; has no tokens of its own.
  let tile: MatMulTile
  /// The first token, and their number, at most `config.tokenTile`.
  let first: Expression
  let count: Expression

  /// Tokens of a tile: even, for blocks.
  static let tokens = 32

  private var config: MatMulConfig { tile.config }
  private var k: KernelBuilder { tile.builder }
  private var lanes: Int { k.lanes }
  private var activations: ActivationLayout { ActivationLayout(depth: config.depth, group: config.group) }
  private var hasRowScales: Bool { config.weightGroup == nil }
  /// Whether two tokens at a time take two steps at a time (`ByteDot.Extent`).
  private var hasBlocks: Bool { k.target.vocabulary.hasDotBlocks && tile.dot.weights != .u8 }

  /// Computes the sums and calls `body` with each token and its sums by vector.
  func forEachToken(_ body: (_ token: Expression, _ sums: [Expression]) -> Void) {
    let sums = k.array("sums", .f32, count: config.vectors * config.tokenTile * lanes)
    k.loop("i", to: .integer(config.vectors * config.tokenTile)) {
      k.store(sums, $0 * .integer(lanes), .broadcast(.real(0)))
    }
    let chunks = chunks
    // Sums of a group that are not complete yet.
    let totals =
      chunks.count > 1 ? k.array("totals", .i32, count: config.vectors * config.tokenTile * lanes) : sums
    let rows = k.pointer("rows", tile.x, offset: first * .integer(activations.rowBytes))
    let panelCodes =
      hasRowScales ? k.pointer("codes", tile.w, offset: .integer(tile.layout.scaleBytes), as: .i32) : tile.w
    k.loop("g", to: .integer(activations.groups)) { g in
      let base = hasRowScales ? tile.w : tile.group(g)
      let words =
        hasRowScales
        ? k.pointer("words", panelCodes, offset: g * .integer(config.group / 4 * tile.layout.panelRows))
        : k.pointer("words", base, offset: .integer(tile.layout.headerBytes), as: .i32)
      tile.prefetchNextPanel(g, of: activations.groups)
      for start in stride(from: 0, to: config.vectors, by: vectorsAtOnce) {
        let vectors = Array(start..<min(start + vectorsAtOnce, config.vectors))
        let zeros = vectors.map { v in tile.zeros(base, vector: v).map { k.define("zero\(v)", $0) } }
        let scales = vectors.map { v -> Expression? in
          guard !hasRowScales else { return nil }
          return k.define("scale\(v)", tile.scale(base, vector: v))
        }
        for chunk in chunks {
          let part = Part(
            vectors: vectors, steps: chunk, codes: unpacked(chunk, words, vectors), zeros: zeros, scales: scales,
            group: g)
          k.loop("i", to: count, step: hasBlocks ? 2 : 1) { add(part, $0, rows, to: sums, totals) }
        }
      }
    }
    k.loop("i", to: count) { i in
      let values = tile.vectors.map { v -> Expression in
        let sum = sums.load(place(v, i))
        guard hasRowScales else { return k.define("s\(v)", sum) }
        return k.define("s\(v)", sum * k.pointer("ws", tile.w, offset: 0, as: .f32).load(.integer(v * lanes)))
      }
      body(k.define("token", first + i), values)
    }
  }

  /// What is in registers while the loop over tokens runs.
  private struct Part {
    var vectors: [Int]
    /// Steps of the group.
    var steps: Range<Int>
    /// By vector, then by step, or by two steps: the low and the high rows.
    var codes: [[Expression]]
    var zeros: [Expression?]
    var scales: [Expression?]
    var group: Expression
  }

  /// Where the sums of a token and a vector lie.
  private func place(_ vector: Int, _ token: Expression) -> Expression {
    (.integer(vector * config.tokenTile) + token) * .integer(lanes)
  }

  // MARK: Codes

  /// Vectors of rows that share the loads of activations, and the steps of a group that are unpacked at a time: both as
  /// many as half of the registers hold. Where registers are few, signed codes are needed twice, by value and by sign.
  private var vectorsAtOnce: Int { k.target.vectorRegisters < 32 ? 1 : min(2, config.vectors) }

  private var chunks: [Range<Int>] {
    let steps = config.group / 4
    let isNeededTwice = tile.dot.weights == .i8 && k.target.vectorRegisters < 32
    let most = k.target.vectorRegisters / (isNeededTwice ? 4 : 2) / vectorsAtOnce
    let unit = tile.codeUnit
    let size = max(unit, most / unit * unit)
    return stride(from: 0, to: steps, by: size).map { $0..<min($0 + size, steps) }
  }

  /// The codes of some steps, unpacked.
  private func unpacked(_ steps: Range<Int>, _ words: Pointer, _ vectors: [Int]) -> [[Expression]] {
    let unit = tile.codeUnit
    return vectors.map { v in
      let codes = stride(from: steps.lowerBound, to: steps.upperBound, by: unit).flatMap { step in
        let loaded = tile.unitWords(words, .integer(step / unit), vector: v)
        return (0..<min(unit, steps.upperBound - step)).map { tile.bytes(loaded, step: $0) }
      }
      guard hasBlocks else { return codes }
      return stride(from: 0, to: codes.count, by: 2).flatMap { step in
        [ByteDot.Arrangement.lowRows, .highRows].map { half in
          k.define("r", .dotArrange(half, codes[step], codes[step + 1]))
        }
      }
    }
  }

  // MARK: Products

  /// Adds the products of the `i`-th token, and of the next one where there are blocks, to its sums.
  private func add(_ part: Part, _ i: Expression, _ rows: Pointer, to sums: Pointer, _ totals: Pointer) {
    // Behind an odd last token comes the same once more, whose sums nobody reads.
    let tokens = hasBlocks ? [i, k.define("j", .minimum(i + 1, count - 1))] : [i]
    let rows = tokens.map { k.pointer("row", rows, offset: $0 * .integer(activations.rowBytes)) }
    let codes = rows.map { k.pointer("a", $0, offset: 0, as: .i32) }
    let isFirst = part.steps.lowerBound == 0, isLast = part.steps.upperBound == config.group / 4
    func starts(_ row: Pointer) -> [Expression] {
      tile.start(
        k.pointer("xo", row, offset: .integer(activations.sumOffset), as: .i32)[part.group], zeros: part.zeros)
    }
    /// Sums of every vector: of the token, or of the low and of the high rows of blocks.
    let variables = part.vectors.indices.map { n in
      (0..<tokens.count).map { half in
        isFirst ? Expression.broadcast(.integer(0)) : totals.load(place(part.vectors[n], i + .integer(half)))
      }
    }
    let first = !hasBlocks && isFirst ? starts(rows[0]) : nil
    let results = variables.enumerated().map { n, halves in
      halves.map { k.variable("d\(n)", first?[n] ?? $0) }
    }
    if hasBlocks {
      addBlocks(part, codes, to: results)
    } else {
      addSteps(part, codes[0], to: results.map { $0[0] })
    }
    guard isLast else {
      for (n, v) in part.vectors.enumerated() {
        for half in results[n].indices { k.store(totals, place(v, i + .integer(half)), results[n][half]) }
      }
      return
    }
    for (number, row) in rows.enumerated() {
      let factor = k.define(
        "xs", .broadcast(k.pointer("xs", row, offset: .integer(activations.scaleOffset), as: .f32)[part.group]))
      let start = hasBlocks && tile.needsSums ? starts(row) : nil
      for (n, v) in part.vectors.enumerated() {
        var total = results[n][0]
        if hasBlocks { total = .dotArrange(number == 0 ? .firstToken : .secondToken, total, results[n][1]) }
        if let start { total = start[n] + total }
        let target = place(v, i + .integer(number))
        k.store(
          sums, target, .multiplyAdd(total.asFloat, part.scales[n].map { $0 * factor } ?? factor, sums.load(target)))
      }
    }
  }

  /// Adds the products of one token with the codes of some steps.
  private func addSteps(_ part: Part, _ a: Pointer, to totals: [Expression]) {
    let (dot, limit) = (tile.dot, k.target.vocabulary.steps(perFlushOf: tile.dot.weights))
    var partial = totals
    for (index, step) in part.steps.enumerated() {
      if let limit, index % limit == 0 { partial = totals.map { _ in k.variable("p", .broadcast(.integer(0))) } }
      let word = Expression.broadcast(a[part.group * .integer(config.group / 4) + .integer(step)])
      let shared = part.vectors.count > 1 ? k.define("b", word) : word
      for n in totals.indices { k.assign(partial[n], .dotStep(dot, partial[n], part.codes[n][index], shared)) }
      if let limit, (index + 1) % limit == 0 || index + 1 == part.steps.count {
        for n in totals.indices { k.assign(totals[n], .dotFlush(dot, totals[n], partial[n])) }
      }
    }
  }

  /// Adds the products of two tokens with the codes of some steps, by low and high rows.
  private func addBlocks(_ part: Part, _ a: [Pointer], to totals: [[Expression]]) {
    let dot = ByteDot(tile.dot.weights, .blocks)
    for index in stride(from: 0, to: part.steps.count, by: 2) {
      let word = part.group * .integer(config.group / 4) + .integer(part.steps.lowerBound + index)
      let tokens = k.define("b", .dotTokens(a[0], word, a[1], word))
      for n in totals.indices {
        for half in 0..<2 {
          k.assign(totals[n][half], .dotStep(dot, totals[n][half], part.codes[n][index + half], tokens))
        }
      }
    }
  }
}
