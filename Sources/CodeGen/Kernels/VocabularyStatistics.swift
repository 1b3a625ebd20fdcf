import IR
import Tensors

/// The largest logit, the sum of exponentials and the logit of a given token, by parts of a vocabulary (see
/// `VocabularyStatistics`). Logits stay in registers.
struct VocabularyStatisticsConfig: Hashable, Codable, Sendable {
  /// The product whose sums are the logits, but for the bias and the function.
  var product: MatMulConfig
  /// Rows of w in a part: whole panels.
  var part: Int
  var hasBias: Bool
  var function: ScalarExpression

  /// The number of parts.
  var parts: Int { (product.rows - 1) / part + 1 }

  func name(target: Target) -> String {
    var name = "mcc_vocabulary_by\(part)"
    if hasBias { name += "_bias" }
    if function != .input(0) { name += "_f\(shortHash("\(function)"))" }
    return name + product.name(target: target).dropFirst("mcc_matmul".count)
  }

  /// Parameters: x, weights, ids, bias if there is one, y, then the number of tokens if it is a run-time one. Threads take
  /// parts one by one; each reads its panels once and goes through all tokens for each, so that a number depends on no
  /// other thread.
  func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    let layout = product.panel(target: target)
    let tokens = product.tokens.text
    k.comment = [
      "Of z[\(tokens), \(product.rows)] = f(x[\(tokens), \(product.depth)] W[\(product.rows), \(product.depth)]^T), "
        + "by \(parts) parts of \(part) rows of W:",
      "y[3, \(tokens), \(parts)] = the largest z, the sum of exp(z - largest), z of the token's id.",
      "w: \(layout.panelCount) panels of \(layout.panelRows) rows, \(layout.panelBytes) bytes each, "
        + product.weights.text,
    ]
    let x = k.input("x", product.activationGroup == nil ? .f32 : .u8)
    let weights = k.input("w", product.weights.element ?? .u8)
    let ids = k.input("ids", .i32)
    let bias = hasBias ? k.input("bias", .f32) : nil
    let y = k.output("y", .f32)
    let count = k.extent(product.tokens)
    let full = product.fullTiles(k, of: count)
    let plane = k.define("plane", count * .integer(parts))
    let panels = part / layout.panelRows
    k.share("block", of: .integer(parts)) { block in
      k.loop("token", to: count) { token in
        let place = k.define("place", token * .integer(parts) + block)
        k.store(y, place, .real(-.infinity))
        k.store(y, place + plane, .real(0))
        k.store(y, place + plane * 2, .real(0))
      }
      let first = k.define("first_panel", block * .integer(panels))
      let end = k.define("end_panel", .minimum(first + .integer(panels), .integer(layout.panelCount)))
      k.loop("panel", from: first, to: end) { panel in
        let stride = layout.panelBytes / weights.element.byteCount
        let w = k.pointer("wp", weights, offset: panel * .integer(stride))
        let column = k.define("column", panel * .integer(layout.panelRows))
        product.forEachToken(k, layout, x: x, w: w, count: count, full: full) { token, sums in
          let place = k.define("place", token * .integer(parts) + block)
          note(k, sums, column: column, id: ids[token].asIndex, bias: bias, y, at: place, plane: plane)
        }
      }
    }
    return k.finish()
  }

  /// Takes the sums of one token and one panel, whose first row is `column`, into the numbers of their part.
  private func note(
    _ k: KernelBuilder, _ sums: [Expression], column: Expression, id: Expression, bias: Pointer?, _ y: Pointer,
    at place: Expression, plane: Expression
  ) {
    let width = sums.count * k.lanes
    let logits = sums.enumerated().map { v, sum -> Expression in
      let start = column + .integer(v * k.lanes)
      let biased = bias.map { sum + $0.load(start) } ?? sum
      let value = function.render([k.define("s", biased)], in: k)
      guard product.rows % width != 0 else { return k.define("z\(v)", value) }
      // Rows behind the last one are no tokens.
      let rest = k.define("rest", .integer(product.rows) - start)
      return k.define("z\(v)", .choose(.laneNumbers < .broadcast(rest), value, .real(-.infinity)))
    }
    let highest = logits.dropFirst().reduce(logits[0]) { .maximum($0, $1) }
    let old = k.define("old", y[place])
    let top = k.define("top", .maximum(.reduce(.maximum, highest), old))
    // Where all logits are minus infinity, so that their differences are numbers.
    let base = k.define("base", .maximum(top, .real(-Float.greatestFiniteMagnitude)))
    let spread = k.define("spread", .broadcast(base))
    let powers = logits.map { k.define("e", .call(.exp, $0 - spread)) }
    let sum = k.variable("sum", y[place + plane])
    k.condition(top > old) {
      k.assign(sum, sum * .call(.exp, old - base))
      k.store(y, place, top)
    }
    k.store(y, place + plane, sum + .reduce(.sum, powers.dropFirst().reduce(powers[0]) { $0 + $1 }))
    let own = k.define("own", id)
    k.condition((own >= column) & (own < column + .integer(width))) {
      let row = k.array("row", .f32, count: width)
      for (v, logit) in logits.enumerated() { k.store(row, .integer(v * k.lanes), logit) }
      k.store(y, place + plane * 2, row[own - column])
    }
  }
}

/// Statistics of the products with a vocabulary.
package enum VocabularyStatisticsKernel: Kernel {
  package static let name = "vocabulary_statistics"
  package static let summary = "largest, sum of exponentials and one of products with packed weights, by parts of rows"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? VocabularyStatistics, query.operands.count >= 3 else { return [] }
    let (x, w) = (query.operands[0], query.operands[1])
    guard w.isConstant, w.rowStride == nil, x.rowStride == nil, let shape = w.type.shape.fixedSizes, shape[0] > 0,
      shape[1] > 0, let weights = MatMulKernel.weightType(w), x.type.rank == 2,
      let activation = MatMulKernel.activationGroup(x, weights: weights),
      query.operands.dropFirst(2).allSatisfy({ $0.type.isDense && $0.rowStride == nil && $0.dequantized == nil }),
      query.operands.dropFirst(3).allSatisfy({ $0.type.element == .f32 })
    else { return [] }
    var extents = ExtentTable()
    let extent = extents.extent(x.type.shape[0], "T")
    let hasBias = query.operands.count > 3
    return (shape[0] <= target.panelLanes ? [1] : [2, 1]).compactMap { count in
      let vectors = count * target.vectorsPerPanelLanes
      let product = MatMulConfig(
        weights: weights, activationGroup: activation.group, rows: shape[0], depth: shape[1], tokens: extent,
        vectors: vectors,
        tokenTile: MatMulKernel.tokenTile(
          weights, isBytes: activation.group != nil, vectors: vectors, target: target))
      let layout = product.panel(target: target)
      guard op.rows % layout.panelRows == 0, !hasBias || shape[0] % layout.panelRows == 0 else { return nil }
      let config = VocabularyStatisticsConfig(
        product: product, part: op.rows, hasBias: hasBias, function: op.function)
      var layouts = query.unpacked
      layouts[1] = layout.packed
      let tokens = Double(x.type.shape[0].maximum), size = Double(shape[0]) * Double(shape[1])
      var work = KernelWork()
      if activation.group != nil {
        work.byteOperations = 2 * size * tokens * (vectors == 1 ? 1.1 : 1)
      } else {
        work.floatOperations = 2 * size * tokens * (vectors == 1 ? 1.1 : 1)
      }
      work.floatOperations += tokens * Double(shape[0]) * Double(12 + op.function.operationCount)
      if weights.isQuantized, activation.group == nil { work.floatOperations += 3 * size }
      work.bytes = Double(layout.packed.byteCount(rows: shape[0])) + 4 * tokens * Double(shape[1] + 3 * config.parts)
      return KernelChoice(
        config.build(target: target), work: work, target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: layouts)
    }
  }
}
