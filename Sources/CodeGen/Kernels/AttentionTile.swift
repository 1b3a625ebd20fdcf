import IR

/// Scaled dot-product attention of many queries over all keys, by online softmax.
///
/// A tile is some vectors of queries of one head, one query per lane: queries are transposed into a local array, so that
/// scores, maxima, sums and weighted values of all queries of a tile are vectors and nothing is reduced across lanes.
/// Keys and values are read where they lie, one number for all lanes; per block of keys once per tile.
extension AttentionConfig {
  /// Whether the tiled kernel computes this: every query sees all keys but for a mask.
  package var canBeTiled: Bool { !causal && window == nil && !hasPosition && key == .f32 && value == .f32 }

  /// Keys scored at a time.
  private var tiledBlock: Int {
    guard let fixed = keys.fixedValue, fixed <= 256 else { return 128 }
    return max(fixed, 1)
  }

  /// The name of the tiled kernel.
  package func tiledName(target: Target) -> String {
    "mcc_attention_tiled" + name(target: target).dropFirst("mcc_attention".count)
  }

  /// Parameters: q, k, v, the mask if there is one, y, then the run-time ones of batch, tokens and keys. Threads share
  /// the tiles of all heads.
  package func buildTiled(target: Target) -> KernelFunction {
    let k = KernelBuilder(tiledName(target: target), target: target)
    k.comment = [
      "Attention of q[\(tokens.text), \(heads) * \(headDim)] over k[\(keys.text), \(kvHeads) * \(headDim)] and "
        + "v[\(keys.text), \(kvHeads) * \(valueDim)], all rows.",
      "Tiles of queries, one query per lane.",
    ]
    let q = k.input("q", .f32)
    let keyPointer = k.input("k", .f32)
    let valuePointer = k.input("v", .f32)
    let maskPointer = mask.map { k.input("mask", $0) }
    let y = k.output("y", .f32)
    let batches = k.extent(batch), count = k.extent(tokens), rowCount = k.extent(keys)
    let vectors = (tokens.fixedValue ?? .max) <= k.lanes ? 1 : 2
    let tile = AttentionTile(config: self, builder: k, vectors: vectors, block: tiledBlock)
    let tiles = k.define("tiles", count.dividedRoundingUp(by: tile.width))
    let part = k.partition(batches * .integer(heads) * tiles)
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let first = k.define("first", unit % tiles * .integer(tile.width))
      let head = k.define("head", unit / tiles % .integer(heads))
      let item = k.define("item", unit / (tiles * .integer(heads)))
      let shared = k.define("shared", head / .integer(heads / kvHeads))
      let present = k.define("present", .minimum(count - first, .integer(tile.width)))
      let queryRows = k.pointer(
        "queries", q, offset: (item * count + first) * .integer(queryStride) + head * .integer(headDim))
      let keyRows = k.pointer(
        "keys", keyPointer, offset: item * rowCount * .integer(keyStride) + shared * .integer(headDim))
      let valueRows = k.pointer(
        "values", valuePointer, offset: item * rowCount * .integer(valueStride) + shared * .integer(valueDim))
      tile.load(queryRows, present: present)
      tile.clear()
      k.loop("base", to: rowCount, step: tiledBlock) { base in
        let rows = k.define("rows", .minimum(rowCount - base, .integer(tiledBlock)))
        var masks: AttentionTile.Mask?
        if let maskPointer {
          let strides = maskStrides(count, rowCount)
          let start = k.define(
            "hidden", item * strides[0] + head * strides[1] + first * strides[2] + base * strides[3])
          masks = .init(
            rows: k.pointer("mask_rows", maskPointer, offset: start),
            queryStride: maskIsBroadcast[2] ? nil : strides[2],
            keyStride: strides[3])
        }
        tile.score(keyRows, first: base, rows: rows, mask: masks, present: present)
        tile.weigh(rows: rows)
        tile.accumulate(valueRows, first: base, rows: rows)
      }
      tile.store(
        k.pointer("out", y, offset: ((item * count + first) * .integer(heads) + head) * .integer(valueDim)),
        present: present)
    }
    return k.finish()
  }

  /// Elements between neighbours along batch, heads, tokens and keys of the mask; 0 where it is broadcast.
  private func maskStrides(_ count: Expression, _ rowCount: Expression) -> [Expression] {
    let sizes: [Expression] = [1, .integer(heads), count, rowCount]
    var strides: [Expression] = [0, 0, 0, 0]
    var stride: Expression = 1
    for axis in (0..<4).reversed() where !maskIsBroadcast[axis] {
      strides[axis] = stride
      stride = stride * sizes[axis]
    }
    return strides
  }
}

/// The steps of attention on one tile of queries.
private struct AttentionTile {
  /// Where the mask of a tile and a block of keys lies.
  struct Mask {
    var rows: Pointer
    /// Elements between the rows of two queries; nil if one row serves all.
    var queryStride: Expression?
    var keyStride: Expression
  }

  let config: AttentionConfig
  let k: KernelBuilder
  let vectors: Int
  let block: Int
  /// Queries by number of their element, then by lane; scores by key; sums by number of the element.
  private let queries, scores, sums: Pointer
  /// For each lane the largest score so far, the sum of weights, and what sums so far are to be multiplied with.
  private let largest, total, correction: Pointer

  init(config: AttentionConfig, builder: KernelBuilder, vectors: Int, block: Int) {
    self.config = config
    k = builder
    self.vectors = vectors
    self.block = block
    let width = vectors * builder.lanes
    // Whole tiles of keys are stored.
    let spare = Self.rowsAtOnce(vectors, builder.target)
    queries = builder.array("qt", .f32, count: config.headDim * width)
    scores = builder.array("scores", .f32, count: (block + spare) * width)
    sums = builder.array("sums", .f32, count: config.valueDim * width)
    largest = builder.array("largest", .f32, count: width)
    total = builder.array("total", .f32, count: width)
    correction = builder.array("correction", .f32, count: width)
  }

  /// Queries in a tile.
  var width: Int { vectors * k.lanes }

  /// Rows of sums that fit into registers beside operands.
  private var rowsAtOnce: Int { Self.rowsAtOnce(vectors, k.target) }

  private static func rowsAtOnce(_ vectors: Int, _ target: Target) -> Int {
    (target.vectorRegisters >= 32 ? 24 : 8) / vectors
  }

  private func lane(_ v: Int) -> Expression { .integer(v * k.lanes) }

  /// Transposes the queries, times the scale; lanes without query repeat the last one.
  func load(_ rows: Pointer, present: Expression) {
    k.loop("i", to: .integer(width)) { i in
      let row = k.define("row", .minimum(i, present - 1) * .integer(config.queryStride))
      k.loop("d", to: .integer(config.headDim)) { d in
        k.store(queries, d * .integer(width) + i, rows[row + d] * .real(config.scale))
      }
    }
  }

  func clear() {
    for v in 0..<vectors {
      k.store(largest, lane(v), .broadcast(.real(-.infinity)))
      k.store(total, lane(v), .broadcast(.real(0)))
    }
    k.loop("d", to: .integer(config.valueDim * width), step: k.lanes) { k.store(sums, $0, .broadcast(.real(0))) }
  }

  /// scores[j] = queries . keys[first + j], capped and masked.
  func score(_ keys: Pointer, first: Expression, rows: Expression, mask: Mask?, present: Expression) {
    let step = rowsAtOnce
    k.loop("j", to: rows, step: step) { j in
      let sources = (0..<step).map { t in
        let row = t == 0 ? j : Expression.minimum(j + .integer(t), rows - 1)
        return k.pointer("key\(t)", keys, offset: (first + row) * .integer(config.keyStride))
      }
      let products = (0..<step).map { t in
        (0..<vectors).map { v in k.variable("s\(t)_\(v)", .broadcast(.real(0))) }
      }
      k.loop("d", to: .integer(config.headDim)) { d in
        let loaded = (0..<vectors).map { v in k.define("q\(v)", queries.load(d * .integer(width) + lane(v))) }
        for t in 0..<step {
          let element = k.define("e\(t)", .broadcast(sources[t][d]))
          for v in 0..<vectors { k.assign(products[t][v], .multiplyAdd(element, loaded[v], products[t][v])) }
        }
      }
      for t in 0..<step {
        for v in 0..<vectors {
          var score = products[t][v]
          if let softcap = config.softcap {
            score = .broadcast(.real(softcap)) * .call(.tanh, score * .broadcast(.real(1 / softcap)))
          }
          k.store(scores, (j + .integer(t)) * .integer(width) + lane(v), score)
        }
      }
    }
    if let mask { hide(mask, rows: rows, present: present) }
  }

  /// Adds the mask to the scores, or replaces hidden ones by -inf.
  private func hide(_ mask: Mask, rows: Expression, present: Expression) {
    func masked(_ score: Expression, _ element: Expression) -> Expression {
      mask.rows.element == .u8
        ? .choose(element.asIndex.isNotEqual(to: 0), score, .real(-.infinity)) : score + element
    }
    if let stride = mask.queryStride {
      k.loop("i", to: present) { i in
        let row = k.pointer("mask_row", mask.rows, offset: i * stride)
        k.loop("j", to: rows) { j in
          let place = k.define("place", j * .integer(width) + i)
          k.store(scores, place, masked(scores[place], row[j * mask.keyStride]))
        }
      }
      return
    }
    k.loop("j", to: rows) { j in
      let element = mask.rows[j * mask.keyStride]
      let number =
        mask.rows.element == .u8
        ? Expression.choose(element.asIndex.isNotEqual(to: 0), .real(0), .real(-.infinity)) : element
      let added = k.define("added", .broadcast(number))
      for v in 0..<vectors {
        let place = k.define("place", j * .integer(width) + lane(v))
        k.store(scores, place, scores.load(place) + added)
      }
    }
  }

  /// Replaces scores by exp(score - largest), updates largest and total, and sets the factor for the sums so far.
  func weigh(rows: Expression) {
    for v in 0..<vectors {
      let old = k.define("old", largest.load(lane(v)))
      let high = k.variable("high", old)
      k.loop("j", to: rows) { j in
        k.assign(high, .maximum(scores.load(j * .integer(width) + lane(v)), high))
      }
      // Where every key so far is hidden, 0 stands in for -inf, whose difference with itself is no number.
      let base = k.define(
        "base", .choose(high > .broadcast(.real(-.infinity)), high, .broadcast(.real(0))))
      let factor = k.define("factor", .call(.exp, old - base))
      let sum = k.variable("sum", total.load(lane(v)) * factor)
      k.loop("j", to: rows) { j in
        let place = k.define("place", j * .integer(width) + lane(v))
        let weight = k.define("weight", .call(.exp, scores.load(place) - base))
        k.store(scores, place, weight)
        k.assign(sum, sum + weight)
      }
      k.store(largest, lane(v), high)
      k.store(total, lane(v), sum)
      k.store(correction, lane(v), factor)
    }
  }

  /// sums = sums * correction + scores[j] * values[first + j].
  func accumulate(_ values: Pointer, first: Expression, rows: Expression) {
    for start in stride(from: 0, to: config.valueDim, by: rowsAtOnce) {
      let numbers = start..<min(start + rowsAtOnce, config.valueDim)
      let factors = (0..<vectors).map { v in k.define("c\(v)", correction.load(lane(v))) }
      let registers = numbers.map { d in
        (0..<vectors).map { v in
          k.variable("y\(d)_\(v)", sums.load(.integer(d * width) + lane(v)) * factors[v])
        }
      }
      k.loop("j", to: rows) { j in
        let row = k.pointer("value", values, offset: (first + j) * .integer(config.valueStride) + .integer(start))
        let weights = (0..<vectors).map { v in k.define("w\(v)", scores.load(j * .integer(width) + lane(v))) }
        for (index, pair) in registers.enumerated() {
          let element = k.define("e\(index)", .broadcast(row[.integer(index)]))
          for v in 0..<vectors { k.assign(pair[v], .multiplyAdd(element, weights[v], pair[v])) }
        }
      }
      for (d, pair) in zip(numbers, registers) {
        for v in 0..<vectors { k.store(sums, .integer(d * width) + lane(v), pair[v]) }
      }
    }
  }

  /// Stores the means; zeros for queries that see no key.
  func store(_ out: Pointer, present: Expression) {
    for v in 0..<vectors {
      let sum = k.define("all", total.load(lane(v)))
      let inverse = k.define(
        "inverse",
        .choose(sum > .broadcast(.real(0)), .broadcast(.real(1)) / sum, .broadcast(.real(0))))
      k.store(total, lane(v), inverse)
    }
    k.loop("i", to: present) { i in
      let inverse = k.define("scale", total[i])
      let row = k.define("row", i * .integer(config.heads * config.valueDim))
      k.loop("d", to: .integer(config.valueDim)) { d in
        k.store(out, row + d, sums[d * .integer(width) + i] * inverse)
      }
    }
  }
}
