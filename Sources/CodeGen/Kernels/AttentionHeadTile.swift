import Base
import IR
import Tensors

/// Scaled dot-product attention of many queries over all keys, by online softmax.
///
/// A tile is some vectors of queries of one head, one query per lane: queries are transposed into a local array, so that
/// scores, maxima, sums and weighted values of all queries of a tile are vectors and nothing is reduced across lanes.
/// Keys and values are read where they lie, one number for all lanes; per block of keys once per tile.
extension AttentionConfig {
  /// Whether the tiled kernel computes this: every query sees all keys but for a mask.
  package var canBeTiledByHead: Bool {
    !causal && window == nil && !hasPosition && key == .f32 && value == .f32
  }

  /// Keys scored at a time.
  private var tiledBlock: Int {
    guard let fixed = keys.fixedValue, fixed <= 256 else { return 128 }
    return max(fixed, 1)
  }

  /// The name of the tiled kernel.
  package func tiledName(target: Target) -> String {
    "mcc_attention_heads" + (maskIsTiled ? "_masktile" : "")
      + name(target: target).dropFirst("mcc_attention".count)
  }

  /// Vectors of queries in a tile.
  private func tileVectors(_ target: Target) -> Int {
    (tokens.fixedValue ?? .max) <= target.lanes ? 1 : 2
  }

  /// The layout of a mask that the tiled kernel reads by vectors; nil for masks of other forms.
  package func maskLayout(target: Target) -> AttentionMaskLayout? {
    guard mask == .f32, softcap == nil, let queries = tokens.fixedValue, let rows = keys.fixedValue,
      maskIsBroadcast.count == 4, !maskIsBroadcast[2], !maskIsBroadcast[3]
    else { return nil }
    return AttentionMaskLayout(
      heads: maskIsBroadcast[1] ? 1 : heads, queries: queries, keys: rows,
      width: tileVectors(target) * target.lanes)
  }

  /// Parameters: q, k, v, the mask if there is one, y, then the run-time ones of batch, tokens and keys. Threads share
  /// the tiles of all heads.
  package func buildTiledByHead(target: Target) -> KernelFunction {
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
    let batches = k.extent(batch)
    let count = k.extent(tokens)
    let rowCount = k.extent(keys)
    let tile = AttentionHeadTile(
      config: self, builder: k, vectors: tileVectors(target), block: tiledBlock)
    let tiles = k.define("tiles", count.dividedRoundingUp(by: tile.width))
    let units = batches * .integer(heads) * tiles
    k.share("unit", of: units) { unit in
      let first = k.define("first", unit % tiles * .integer(tile.width))
      let head = k.define("head", unit / tiles % .integer(heads))
      let item = k.define("item", unit / (tiles * .integer(heads)))
      let shared = k.define("shared", head / .integer(heads / kvHeads))
      let present = k.define("present", .minimum(count - first, .integer(tile.width)))
      let queryRows = k.pointer(
        "queries", q,
        offset: (item * count + first) * .integer(queryStride) + head * .integer(headDim))
      let keyRows = k.pointer(
        "keys", keyPointer,
        offset: item * rowCount * .integer(keyStride) + shared * .integer(headDim))
      let valueRows = k.pointer(
        "values", valuePointer,
        offset: item * rowCount * .integer(valueStride) + shared * .integer(valueDim))
      tile.load(queryRows, present: present)
      tile.clear()
      k.loop("base", to: rowCount, step: tiledBlock) { base in
        let rows = k.define("rows", .minimum(rowCount - base, .integer(tiledBlock)))
        var masks: AttentionHeadTile.Mask?
        if let maskPointer, maskIsTiled {
          let perHead = tiles * rowCount
          let perItem = maskIsBroadcast[1] ? perHead : perHead * .integer(heads)
          let place =
            (maskIsBroadcast[0] ? 0 : item * perItem) + (maskIsBroadcast[1] ? 0 : head * perHead)
            + unit % tiles * rowCount + base
          masks = .init(
            rows: k.pointer("mask_tile", maskPointer, offset: place * .integer(tile.width)),
            keyStride: 1, isTiled: true
          )
        } else if let maskPointer {
          let strides = maskStrides(count, rowCount)
          let start = k.define(
            "hidden", item * strides[0] + head * strides[1] + first * strides[2] + base * strides[3]
          )
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
        k.pointer(
          "out", y, offset: ((item * count + first) * .integer(heads) + head) * .integer(valueDim)),
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
private struct AttentionHeadTile {
  /// Where the mask of a tile and a block of keys lies.
  struct Mask {
    var rows: Pointer
    /// Elements between the rows of two queries; nil if one row serves all.
    var queryStride: Expression?
    var keyStride: Expression
    /// Whether the numbers of a key for all queries of the tile are vectors.
    var isTiled = false
  }

  let config: AttentionConfig
  let k: KernelBuilder
  let vectors: Int
  let block: Int
  /// Queries by number of their element, then by lane; scores by key; sums by number of the element.
  private let queries, scores, sums: Pointer
  /// For each lane the largest score so far, the sum of weights, and what sums so far are to be multiplied with.
  private let largest, total, correction: Pointer
  /// A vector on its way between rows and columns. Moving it by hand keeps compilers from gathering and scattering.
  private let part: Pointer

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
    part = builder.array("part", .f32, count: builder.lanes)
    builder.store(part, 0, .broadcast(.real(0)))
  }

  /// Queries in a tile.
  var width: Int { vectors * k.lanes }

  /// Rows of sums that fit into registers beside operands.
  private var rowsAtOnce: Int { Self.rowsAtOnce(vectors, k.target) }

  /// Keys scored at once: as many as fit, or somewhat fewer if that leaves less of the last tile unused.
  private var keysAtOnce: Int {
    let most = rowsAtOnce
    return ((most + 1) / 2...most).reversed().min { a, b in
      (block + a - 1) / a * (a + 1) < (block + b - 1) / b * (b + 1)
    } ?? most
  }

  private static func rowsAtOnce(_ vectors: Int, _ target: Target) -> Int {
    (target.vectorRegisters >= 32 ? 24 : 8) / vectors
  }

  private func lane(_ v: Int) -> Expression { .integer(v * k.lanes) }

  /// Transposes the queries, times the scale; lanes without query are zeros.
  func load(_ rows: Pointer, present: Expression) {
    k.condition(present < .integer(width)) {
      k.loop("d", to: .integer(config.headDim * width), step: k.lanes) {
        k.store(queries, $0, .broadcast(.real(0)))
      }
    }
    k.loop("i", to: present) { i in
      let row = k.define("row", i * .integer(config.queryStride))
      eachPart(of: config.headDim) { start, numbers, tail in
        k.store(
          part, 0, rows.load(row + .integer(start), count: tail) * .broadcast(.real(config.scale)))
        for number in numbers {
          k.store(queries, .integer((start + number) * width) + i, part[.integer(number)])
        }
      }
    }
  }

  /// Calls `body` for each vector of a row: its start, its elements, and their number if it is not full.
  private func eachPart(of count: Int, _ body: (Int, Range<Int>, Expression?) -> Void) {
    for start in stride(from: 0, to: count, by: k.lanes) {
      let size = min(k.lanes, count - start)
      body(start, 0..<size, size < k.lanes ? .integer(size) : nil)
    }
  }

  func clear() {
    for v in 0..<vectors {
      k.store(largest, lane(v), .broadcast(.real(-.infinity)))
      k.store(total, lane(v), .broadcast(.real(0)))
    }
    k.loop("d", to: .integer(config.valueDim * width), step: k.lanes) {
      k.store(sums, $0, .broadcast(.real(0)))
    }
  }

  /// scores[j] = queries . keys[first + j], capped and masked.
  func score(_ keys: Pointer, first: Expression, rows: Expression, mask: Mask?, present: Expression) {
    let step = keysAtOnce
    k.loop("j", to: rows, step: step) { j in
      let places = (0..<step).map { t in
        t == 0 ? j : k.define("j\(t)", .minimum(j + .integer(t), rows - 1))
      }
      let sources = (0..<step).map { t in
        k.pointer("key\(t)", keys, offset: (first + places[t]) * .integer(config.keyStride))
      }
      let products = (0..<step).map { t in
        (0..<vectors).map { v in
          let start =
            mask?.isTiled == true ? mask?.rows.load(places[t] * .integer(width) + lane(v)) : nil
          return k.variable("s\(t)_\(v)", start ?? .broadcast(.real(0)))
        }
      }
      k.loop("d", to: .integer(config.headDim)) { d in
        let loaded = (0..<vectors).map { v in
          k.define("q\(v)", queries.load(d * .integer(width) + lane(v)))
        }
        for t in 0..<step {
          let element = k.define("e\(t)", .broadcast(sources[t][d]))
          for v in 0..<vectors {
            k.assign(products[t][v], .multiplyAdd(element, loaded[v], products[t][v]))
          }
        }
      }
      for t in 0..<step {
        for v in 0..<vectors {
          var score = products[t][v]
          if let softcap = config.softcap {
            score =
              .broadcast(.real(softcap)) * .call(.tanh, score * .broadcast(.real(1 / softcap)))
          }
          k.store(scores, (j + .integer(t)) * .integer(width) + lane(v), score)
        }
      }
    }
    if let mask, !mask.isTiled { hide(mask, rows: rows, present: present) }
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
        ? Expression.choose(element.asIndex.isNotEqual(to: 0), .real(0), .real(-.infinity))
        : element
      let added = k.define("added", .broadcast(number))
      for v in 0..<vectors {
        let place = k.define("place", j * .integer(width) + lane(v))
        k.store(scores, place, scores.load(place) + added)
      }
    }
  }

  /// Replaces scores by exp(score - largest), updates largest and total, and sets the factor for the sums so far.
  func weigh(rows: Expression) {
    let all = 0..<vectors
    let old = all.map { v in k.define("old\(v)", largest.load(lane(v))) }
    let high = all.map { v in k.variable("high\(v)", old[v]) }
    k.loop("j", to: rows) { j in
      for v in all {
        k.assign(high[v], .maximum(scores.load(j * .integer(width) + lane(v)), high[v]))
      }
    }
    // Where every key so far is hidden, 0 stands in for -inf, whose difference with itself is no number.
    let base = all.map { v in
      k.define(
        "base\(v)", .choose(high[v] > .broadcast(.real(-.infinity)), high[v], .broadcast(.real(0))))
    }
    let factor = all.map { v in k.define("factor\(v)", .call(.exp, old[v] - base[v])) }
    let sum = all.map { v in k.variable("sum\(v)", total.load(lane(v)) * factor[v]) }
    k.loop("j", to: rows) { j in
      for v in all {
        let place = k.define("place", j * .integer(width) + lane(v))
        let weight = k.define("weight", .call(.exp, scores.load(place) - base[v]))
        k.store(scores, place, weight)
        k.assign(sum[v], sum[v] + weight)
      }
    }
    for v in all {
      k.store(largest, lane(v), high[v])
      k.store(total, lane(v), sum[v])
      k.store(correction, lane(v), factor[v])
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
        let row = k.pointer(
          "value", values, offset: (first + j) * .integer(config.valueStride) + .integer(start))
        let weights = (0..<vectors).map { v in
          k.define("w\(v)", scores.load(j * .integer(width) + lane(v)))
        }
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
      let inverse = k.define("scale", .broadcast(total[i]))
      let row = k.define("row", i * .integer(config.heads * config.valueDim))
      eachPart(of: config.valueDim) { start, numbers, tail in
        for number in numbers {
          k.store(part, .integer(number), sums[.integer((start + number) * width) + i])
        }
        k.store(out, row + .integer(start), part.load(0) * inverse, count: tail)
      }
    }
  }
}

/// Where the numbers of a mask lie for the tiled kernel: by item of the batch, head, tile of queries and key, one query per
/// lane; lanes without query hold zeros.
package struct AttentionMaskLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "attention_mask"

  /// 1 if all heads share the mask.
  package var heads: Int
  package var queries: Int
  package var keys: Int
  /// Queries in a tile.
  package var width: Int

  package init(heads: Int, queries: Int, keys: Int, width: Int) {
    self.heads = heads
    self.queries = queries
    self.keys = keys
    self.width = width
  }

  private var tiles: Int { (queries + width - 1) / width }

  /// The layout as an encoding of tensor types; a panel is an item of the batch.
  package var packed: PackedLayout {
    PackedLayout(
      name: Self.name, rows: 1, panelBytes: 4 * heads * tiles * keys * width,
      parameters: [heads, queries, keys, width])
  }

  /// The layout that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    let numbers = layout.parameters
    guard layout.name == Self.name, numbers.count == 4,
      numbers.allSatisfy({ (1...1 << 20).contains($0) })
    else {
      return nil
    }
    self.init(heads: numbers[0], queries: numbers[1], keys: numbers[2], width: numbers[3])
    guard packed == layout else { return nil }
  }

  /// Fills panels from the items of a mask `[B, heads, queries, keys]`.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    guard view.type.isDense, view.type.element == .f32, view.sizes.count == 4,
      Array(view.sizes[1...]) == [heads, queries, keys],
      bytes.count >= view.sizes[0] * packed.panelBytes
    else { throw CompileError(.internal, "cannot pack \(view.type) as a mask of attention") }
    let source = view.elements(as: Float.self)
    let target = bytes.bindMemory(to: Float.self)
    target.update(repeating: 0)
    for head in 0..<view.sizes[0] * heads {
      for query in 0..<queries {
        let tile = (head * tiles + query / width) * keys * width + query % width
        for key in 0..<keys {
          target[tile + key * width] = source[(head * queries + query) * keys + key]
        }
      }
    }
  }
}
