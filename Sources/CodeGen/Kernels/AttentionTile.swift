/// Scaled dot-product attention for many queries at once, by online softmax over blocks of keys.
///
/// A tile is as many pairs of a token and a head of one group as fit one or two vectors. Their queries lie transposed, one
/// pair per lane, so a block of keys is scored by products of a broadcast key element with lanes and needs no sums across
/// lanes; maximum and sum of the softmax are kept per lane. Values are summed with their numbers in lanes, one broadcast
/// weight for each pair. Every row of keys and values is read once per tile and, where the cache is narrower than f32,
/// widened once.
///
/// Where the pairs of a tile leave lanes free, as those of one token do, every pair takes two or four neighbouring lanes for
/// as many keys: rows of keys are then interleaved when they are widened, and a load of some numbers again and again takes the
/// place of the broadcast.
struct AttentionTile {
  let config: AttentionConfig
  let k: KernelBuilder
  let q: Pointer
  let keyPointer: Pointer
  let valuePointer: Pointer
  let position: Pointer?
  let mask: Pointer?
  let y: Pointer
  /// Rows of the queries and of the keys.
  let tokens: Expression
  let rowCount: Expression

  /// Keys scored at a time.
  static let block = 32

  private var lanes: Int { k.lanes }
  private var group: Int { config.heads / config.kvHeads }
  private var headDim: Int { config.headDim }
  private var valueDim: Int { config.valueDim }
  private var paddedValueDim: Int { (valueDim + lanes - 1) / lanes * lanes }
  private var paddedHeadDim: Int { (headDim + lanes - 1) / lanes * lanes }

  /// Vectors of pairs in a tile: fewer where heads are wide, so that a tile stays in the first cache.
  static func vectors(_ config: AttentionConfig, lanes: Int) -> Int {
    if let pairs = config.tokens.fixedValue.map({ $0 * config.heads / config.kvHeads }), pairs <= lanes { return 1 }
    return config.headDim > 64 || config.valueDim > 64 ? 1 : 2
  }

  /// Lanes of a pair.
  private var copies: Int { KeyInterleaving.copies(config, lanes: lanes) }

  /// The work of a thread.
  func build() {
    let vectors = Self.vectors(config, lanes: lanes)
    let width = vectors * lanes
    let pairs = k.define("pairs", tokens * .integer(group))
    let tiles = k.define("tiles", pairs.dividedRoundingUp(by: width))
    let units = k.extent(config.batch) * .integer(config.kvHeads) * tiles
    let scratch = Scratch(self, width: width)
    k.share("unit", of: units) { unit in
      let first = k.define("first", unit % tiles * .integer(width))
      let shared =
        config.batch == .fixed(1)
        ? k.define("shared", unit / tiles) : k.define("shared", unit / tiles % .integer(config.kvHeads))
      let item: Expression =
        config.batch == .fixed(1) ? 0 : k.define("item", unit / (tiles * .integer(config.kvHeads)))
      let count = k.define("count", .minimum(pairs - first, .integer(width)))
      let place = Place(item: item, shared: shared, first: first, count: count)
      if vectors == 1 {
        tile(place, vectors: 1, scratch)
      } else {
        k.condition(
          count <= .integer(lanes), then: { tile(place, vectors: 1, scratch) },
          otherwise: { tile(place, vectors: vectors, scratch) })
      }
    }
  }

  /// Which tile: batch item, head of keys, first pair and their number.
  private struct Place {
    let item, shared, first, count: Expression
  }

  /// Local memory of a tile.
  private struct Scratch {
    /// Pairs to a row of the arrays, whatever the number of vectors in use.
    let width: Int
    let queries, scores, sums, factors: Pointer
    /// For each pair the first key it does not see; nil where all see all.
    let ends: Pointer?
    /// Widened rows; nil where rows are f32.
    let keys, values: Pointer?

    init(_ tile: AttentionTile, width: Int) {
      self.width = width
      let k = tile.k
      queries = k.array("queries", .f32, count: tile.headDim * width)
      scores = k.array("scores", .f32, count: AttentionTile.block * width)
      sums = k.array("sums", .f32, count: width * tile.paddedValueDim)
      ends = tile.config.causal ? k.array("ends", .i32, count: width) : nil
      factors = k.array("factors", .f32, count: width)
      keys =
        tile.config.key == .f32 && tile.copies == 1
        ? nil : k.array("key_rows", .f32, count: AttentionTile.block * tile.paddedHeadDim)
      values =
        tile.config.value == .f32
        ? nil : k.array("value_rows", .f32, count: AttentionTile.block * tile.paddedValueDim)
    }
  }

  // MARK: One tile

  private func tile(_ place: Place, vectors: Int, _ scratch: Scratch) {
    let range = prepare(place, vectors: vectors, scratch)
    let largest = (0..<vectors).map { k.variable("largest\($0)", .broadcast(.real(-.infinity))) }
    let total = (0..<vectors).map { k.variable("total\($0)", .broadcast(.real(0))) }
    let keys = k.pointer("keys", keyPointer, offset: offset(place, config.keyStride, config.key, headDim))
    let values = k.pointer("values", valuePointer, offset: offset(place, config.valueStride, config.value, valueDim))
    let perPass = queriesPerPass
    let passes = k.define("passes", place.count.dividedRoundingUp(by: perPass))
    k.loop("key", from: range.begin, to: range.end, step: Self.block) { key in
      let rows = k.define("rows", .minimum(range.end - key, .integer(Self.block)))
      let keyBlock =
        copies == 1
        ? widened(keys, config.key, key, rows, config.keyStride, headDim, paddedHeadDim, scratch.keys)
        : interleaved(keys, key, rows, scratch)
      score(keyBlock, rows: rows, vectors: vectors, scratch)
      addMask(place, key, rows, vectors, scratch)
      weigh(key, vectors: vectors, largest, total, scratch)
      let valueBlock = widened(
        values, config.value, key, rows, config.valueStride, valueDim, paddedValueDim, scratch.values)
      accumulate(valueBlock, rows: rows, passes: passes, perPass: perPass, scratch)
    }
    for vector in 0..<vectors {
      for distance in [1, 2] where distance < copies {
        k.assign(total[vector], total[vector] + .exchanged(total[vector], distance: distance))
      }
      let inverse = Expression.choose(total[vector] > 0.0, .broadcast(.real(1)) / total[vector], .broadcast(.real(0)))
      k.store(scratch.factors, .integer(vector * lanes), inverse)
    }
    k.loop("pair", to: place.count) { pair in
      let inverse = k.define("inverse", .broadcast(scratch.factors[pair * .integer(copies)]))
      let out = k.define("out", self.pair(place, pair, rowStride: config.heads * valueDim, valueDim))
      let sums = k.pointer("row", scratch.sums, offset: pair * .integer(paddedValueDim))
      k.vectorLoop("d", count: .integer(valueDim)) { d, tail in
        k.store(y, out + d, sums.load(d) * inverse, count: tail)
      }
    }
  }

  /// Where the numbers of a pair begin, in rows of `rowStride` with `size` numbers per head.
  private func pair(_ place: Place, _ pair: Expression, rowStride: Int, _ size: Int) -> Expression {
    let (token, head) = tokenAndHead(place, pair)
    return (place.item * tokens + token) * .integer(rowStride) + head * .integer(size)
  }

  private func tokenAndHead(_ place: Place, _ pair: Expression) -> (token: Expression, head: Expression) {
    let index = place.first + pair
    guard group > 1 else { return (index, place.shared) }
    return (index / .integer(group), place.shared * .integer(group) + index % .integer(group))
  }

  /// Offset in elements of the first row of the keys or values of a head.
  private func offset(_ place: Place, _ stride: Int, _ element: ScalarType, _ size: Int) -> Expression {
    place.item * rowCount * .integer(stride) + place.shared * .integer(AttentionConfig.headStride(element, size))
  }

  /// Transposes and scales the queries, notes the end of what each pair sees, clears the sums; the range of keys that
  /// any pair sees.
  private func prepare(_ place: Place, vectors: Int, _ scratch: Scratch) -> (begin: Expression, end: Expression) {
    let zero = Expression.broadcast(.real(0))
    k.loop("d", to: .integer(headDim)) { d in
      for vector in 0..<vectors {
        k.store(scratch.queries, d * .integer(scratch.width) + .integer(vector * lanes), zero)
      }
    }
    k.loop("i", to: .integer(vectors * lanes * paddedValueDim), step: lanes) { k.store(scratch.sums, $0, zero) }
    var end = rowCount
    if let ends = scratch.ends {
      for vector in 0..<vectors { k.store(ends, .integer(vector * lanes), .broadcast(.convert(0, .i32))) }
    }
    let past = config.causal ? k.define("past", position.map { $0[0].asIndex } ?? (rowCount - tokens)) : 0
    k.loop("pair", to: place.count) { pair in
      let from = k.define("from", self.pair(place, pair, rowStride: config.queryStride, headDim))
      if copies == 1 {
        k.loop("d", to: .integer(headDim)) { d in
          k.store(scratch.queries, d * .integer(scratch.width) + pair, q[from + d] * .real(config.scale))
        }
      } else {
        k.loop("d", to: .integer(headDim), step: lanes) { d in
          for (index, column) in KeyInterleaving.columns(lanes: lanes, copies: copies).enumerated() {
            let number = k.define("number", q[from + d + .integer(column)] * .real(config.scale))
            for copy in 0..<copies {
              let at = (d + .integer(index)) * .integer(scratch.width) + pair * .integer(copies) + .integer(copy)
              k.store(scratch.queries, at, number)
            }
          }
        }
      }
      if let ends = scratch.ends {
        let end = k.define("end", (past + tokenAndHead(place, pair).token + 1).asInt32)
        for copy in 0..<copies { k.store(ends, pair * .integer(copies) + .integer(copy), end) }
      }
    }
    var begin: Expression = 0
    if config.causal {
      end = k.define("end", past + tokenAndHead(place, place.count - 1).token + 1)
      if let window = config.window {
        begin = k.define("begin", .maximum(past + tokenAndHead(place, 0).token + 1 - .integer(window), 0))
      }
    }
    return (begin, end)
  }

  // MARK: Steps

  /// Rows of f32, and the distance between them.
  private struct Rows {
    let pointer: Pointer
    let stride: Int
  }

  /// The rows from `key` on as f32: where they lie, or widened into local memory.
  private func widened(
    _ source: Pointer, _ element: ScalarType, _ key: Expression, _ rows: Expression, _ stride: Int, _ size: Int,
    _ padded: Int, _ local: Pointer?
  ) -> Rows {
    guard let local else {
      k.loop("r", to: rows) { prefetch(source, element, key + $0, stride, size) }
      return Rows(pointer: k.pointer("block", source, offset: key * .integer(stride)), stride: stride)
    }
    k.loop("r", to: rows) { r in
      prefetch(source, element, key + r, stride, size)
      let row = AttentionRow(k, source, element, at: (key + r) * .integer(stride))
      k.vectorLoop("d", count: .integer(size)) { d, tail in
        k.store(local, r * .integer(padded) + d, row.load(d, count: tail))
      }
    }
    return Rows(pointer: local, stride: padded)
  }

  /// Asks for the row a block behind `row`: rows of one head lie too far apart for the processor to foresee the next ones.
  private func prefetch(_ source: Pointer, _ element: ScalarType, _ row: Expression, _ stride: Int, _ size: Int) {
    let next = k.define("next", (row + .integer(Self.block)) * .integer(stride))
    let bytes = AttentionConfig.headStride(element, size) * element.byteCount
    for line in Swift.stride(from: 0, to: bytes, by: 64) {
      k.prefetch(source, next + .integer(line / element.byteCount))
    }
  }

  /// The keys from `key` on as f32 with the numbers of `copies` rows side by side; the last row stands for those behind it.
  private func interleaved(_ source: Pointer, _ key: Expression, _ rows: Expression, _ scratch: Scratch) -> Rows {
    guard let local = scratch.keys else { preconditionFailure("interleaved keys need local memory") }
    let isEven = [1, 2].filter { $0 < copies }.map { distance in
      k.define(
        "even", (.laneNumbers & .broadcast(.integer(distance))).isEqual(to: .broadcast(.integer(0))))
    }
    let stride = copies * paddedHeadDim
    k.loop("r", to: rows, step: copies) { r in
      let sources = (0..<copies).map { copy in
        let row = k.define("row", key + .minimum(r + .integer(copy), rows - 1))
        prefetch(source, config.key, row, config.keyStride, headDim)
        return AttentionRow(k, source, config.key, at: row * .integer(config.keyStride))
      }
      k.loop("d", to: .integer(headDim), step: lanes) { d in
        let vectors = sources.map { k.define("x", $0.load(d, count: nil)) }
        let mixed = KeyInterleaving.interleave(vectors) { a, b, distance in
          let even = isEven[distance - 1]
          return (
            k.define("y", .choose(even, a, .exchanged(b, distance: distance))),
            k.define("y", .choose(even, .exchanged(a, distance: distance), b))
          )
        }
        for (index, vector) in mixed.enumerated() {
          k.store(local, r * .integer(paddedHeadDim) + d * .integer(copies) + .integer(index * lanes), vector)
        }
      }
    }
    return Rows(pointer: local, stride: stride)
  }

  /// scores[r, pair] = query . key r. Beyond the last row, the last one is scored again. With several lanes for a pair, r
  /// counts as many rows.
  private func score(_ keys: Rows, rows: Expression, vectors: Int, _ scratch: Scratch) {
    let step = k.target.vectorRegisters >= 32 ? 8 : 4
    let count = copies == 1 ? rows : k.define("groups", rows.dividedRoundingUp(by: copies))
    k.loop("r", to: count, step: step) { r in
      let places = (0..<step).map {
        k.define("at", .minimum(r + .integer($0), count - 1) * .integer(keys.stride))
      }
      let products = (0..<step).map { row in
        (0..<vectors).map { k.variable("s\(row)\($0)", .broadcast(.real(0))) }
      }
      k.loop("d", to: .integer(headDim)) { d in
        let queries = (0..<vectors).map {
          k.define("q", scratch.queries.load(d * .integer(scratch.width) + .integer($0 * lanes)))
        }
        for row in 0..<step {
          let element = k.define(
            "x",
            copies == 1
              ? .broadcast(keys.pointer[places[row] + d])
              : .repeated(keys.pointer, places[row] + d * .integer(copies), count: copies))
          for vector in 0..<vectors {
            k.assign(products[row][vector], .multiplyAdd(element, queries[vector], products[row][vector]))
          }
        }
      }
      for row in 0..<step {
        for vector in 0..<vectors {
          var score = products[row][vector]
          if let softcap = config.softcap {
            score = .broadcast(.real(softcap)) * .call(.tanh, score * .broadcast(.real(1 / softcap)))
          }
          k.store(scratch.scores, (r + .integer(row)) * .integer(scratch.width) + .integer(vector * lanes), score)
        }
      }
    }
  }

  /// Adds the mask to the scores, or hides keys.
  private func addMask(
    _ place: Place, _ key: Expression, _ rows: Expression, _ vectors: Int, _ scratch: Scratch
  ) {
    guard let mask else { return }
    let isSame = config.maskIsBroadcast[1] && config.maskIsBroadcast[2]
    func masked(_ score: Expression, _ element: Expression) -> Expression {
      guard mask.element == .u8 else { return score + element }
      return .choose(element.asIndex.isNotEqual(to: 0), score, .real(-.infinity))
    }
    func element(_ row: Pointer, _ r: Expression) -> Expression { row[config.maskIsBroadcast[3] ? 0 : key + r] }
    if isSame {
      let row = k.pointer(
        "mask_row", mask, offset: config.maskOffset(item: place.item, head: 0, token: 0, tokens, rowCount))
      k.loop("r", to: rows) { r in
        let term: Expression =
          mask.element == .u8
          ? .choose(element(row, r).asIndex.isNotEqual(to: 0), .real(0), .real(-.infinity)) : element(row, r)
        let wide = k.define("term", .broadcast(term))
        for vector in 0..<vectors {
          let at = r * .integer(scratch.width) + .integer(vector * lanes)
          k.store(scratch.scores, at, scratch.scores.load(at) + wide)
        }
      }
      return
    }
    k.loop("pair", to: place.count) { pair in
      let (token, head) = tokenAndHead(place, pair)
      let row = k.pointer(
        "mask_row", mask,
        offset: config.maskOffset(item: place.item, head: head, token: token, tokens, rowCount))
      k.loop("r", to: rows) { r in
        let at = k.define("at", r * .integer(scratch.width) + pair)
        k.store(scratch.scores, at, masked(scratch.scores[at], element(row, r)))
      }
    }
  }

  /// Replaces scores by exp(score - largest), hidden ones by 0; updates largest and total, and notes the factors for the
  /// sums so far.
  private func weigh(
    _ key: Expression, vectors: Int, _ largest: [Expression], _ total: [Expression], _ scratch: Scratch
  ) {
    let next = (0..<vectors).map { k.variable("next\($0)", largest[$0]) }
    let ends = (0..<vectors).map { vector in
      k.define("ends", scratch.ends?.load(.integer(vector * lanes)) ?? .broadcast(rowCount.asInt32))
    }
    let copy = copies == 1 ? nil : k.define("copy", .laneNumbers & .broadcast(.integer(copies - 1)))
    k.loop("r", to: .integer(Self.block / copies)) { r in
      let first = Expression.broadcast((key + r * .integer(copies)).asInt32)
      let index = k.define("index", copy.map { first + $0 } ?? first)
      for vector in 0..<vectors {
        let at = k.define("at", r * .integer(scratch.width) + .integer(vector * lanes))
        var score = Expression.choose(ends[vector] > index, scratch.scores.load(at), .broadcast(.real(-.infinity)))
        if let window = config.window {
          let first = ends[vector] - .broadcast(.convert(.integer(window), .i32))
          score = .choose(first > index, .broadcast(.real(-.infinity)), score)
        }
        score = k.define("score", score)
        k.store(scratch.scores, at, score)
        k.assign(next[vector], .maximum(score, next[vector]))
      }
    }
    for vector in 0..<vectors {
      for distance in [1, 2] where distance < copies {
        k.assign(next[vector], .maximum(.exchanged(next[vector], distance: distance), next[vector]))
      }
    }
    // Where every key so far is hidden, 0 stands in for -inf, whose difference with itself is no number.
    let bases = next.map { next in
      k.define("base", .choose(next > .broadcast(.real(-.infinity)), next, .broadcast(.real(0))))
    }
    for vector in 0..<vectors {
      let factor = k.define("factor", .call(.exp, largest[vector] - bases[vector]))
      k.store(scratch.factors, .integer(vector * lanes), factor)
      k.assign(total[vector], total[vector] * factor)
      k.assign(largest[vector], next[vector])
    }
    k.loop("r", to: .integer(Self.block / copies)) { r in
      for vector in 0..<vectors {
        let at = k.define("at", r * .integer(scratch.width) + .integer(vector * lanes))
        let weight = k.define("weight", .call(.exp, scratch.scores.load(at) - bases[vector]))
        k.store(scratch.scores, at, weight)
        k.assign(total[vector], total[vector] + weight)
      }
    }
  }

  /// Vectors of values that are summed together, and for how many pairs.
  private static func chunkVectors(_ target: Target, valueDim: Int) -> Int {
    min(4, (valueDim + target.lanes - 1) / target.lanes)
  }

  private var queriesPerPass: Int {
    let registers = k.target.vectorRegisters >= 32 ? 16 : 8
    return min(lanes / copies, registers >> Self.chunkShift(Self.chunkVectors(k.target, valueDim: valueDim)))
  }

  /// The exponent of the smallest power of two that is not below `count`.
  private static func chunkShift(_ count: Int) -> Int { count <= 1 ? 0 : count <= 2 ? 1 : 2 }

  /// sums[pair] = sums[pair] * factor + weights[r, pair] * values[r].
  private func accumulate(
    _ values: Rows, rows: Expression, passes: Expression, perPass: Int, _ scratch: Scratch
  ) {
    let chunk = Self.chunkVectors(k.target, valueDim: valueDim)
    let starts = Array(stride(from: 0, to: valueDim, by: lanes))
    k.loop("pass", to: passes) { pass in
      let pair = k.define("pair", pass * .integer(perPass))
      for part in stride(from: 0, to: starts.count, by: chunk) {
        let columns = Array(starts[part..<min(starts.count, part + chunk)])
        let registers = (0..<perPass).map { query in
          let factor = k.define("factor", .broadcast(scratch.factors[(pair + .integer(query)) * .integer(copies)]))
          return columns.map { column in
            let at = (pair + .integer(query)) * .integer(paddedValueDim) + .integer(column)
            return k.variable("o", scratch.sums.load(at) * factor)
          }
        }
        k.loop("r", to: rows) { r in
          let row = columns.map { column in
            // Local rows are padded to whole vectors.
            let tail = scratch.values == nil && valueDim - column < lanes ? Expression.integer(valueDim - column) : nil
            return k.define("v", values.pointer.load(r * .integer(values.stride) + .integer(column), count: tail))
          }
          let scores =
            copies == 1
            ? r * .integer(scratch.width)
            : k.define("at", r / .integer(copies) * .integer(scratch.width) + r % .integer(copies))
          for query in 0..<perPass {
            let place = scores + (pair + .integer(query)) * .integer(copies)
            let weight = k.define("w", .broadcast(scratch.scores[place]))
            for (index, value) in row.enumerated() {
              k.assign(registers[query][index], .multiplyAdd(weight, value, registers[query][index]))
            }
          }
        }
        for query in 0..<perPass {
          for (index, column) in columns.enumerated() {
            let at = (pair + .integer(query)) * .integer(paddedValueDim) + .integer(column)
            k.store(scratch.sums, at, registers[query][index])
          }
        }
      }
    }
  }
}

/// A row of one head in a cache: f32, f16 or bf16 numbers, or an f32 scale followed by int8 codes.
struct AttentionRow {
  private let numbers: Pointer
  private let start: Expression
  /// What numbers are multiplied with; nil for 1.
  let scale: Expression?

  /// The row at an offset, in elements or, for codes, in bytes.
  init(_ k: KernelBuilder, _ base: Pointer, _ element: ScalarType, at offset: Expression) {
    guard element == .i8 else {
      numbers = base
      start = k.define("row", offset)
      scale = nil
      return
    }
    let place = k.define("row", offset)
    scale = k.define("scale", k.pointer("scales", base, offset: place, as: .f32)[0])
    numbers = k.pointer("codes", base, offset: place + .integer(AttentionConfig.scaleBytes))
    start = 0
  }

  /// Numbers before they are scaled.
  func loadUnscaled(_ column: Expression, count: Expression?) -> Expression {
    let loaded = numbers.load(start + column, count: count)
    return scale == nil ? loaded : loaded.asFloat
  }

  func load(_ column: Expression, count: Expression?) -> Expression {
    let loaded = loadUnscaled(column, count: count)
    return scale.map { loaded * .broadcast($0) } ?? loaded
  }
}
