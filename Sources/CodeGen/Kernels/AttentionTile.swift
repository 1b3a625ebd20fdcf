/// Scaled dot-product attention for many queries at once, by online softmax over blocks of keys.
///
/// A tile is as many pairs of a token and a head of one group as fit one or two vectors. Their queries lie transposed, one
/// pair per lane, so a block of keys is scored by products of a broadcast key element with lanes and needs no sums across
/// lanes; maximum and sum of the softmax are kept per lane. Values are summed with their numbers in lanes, one broadcast
/// weight for each pair. Every row of keys and values is read once per tile and, where the cache is narrower than f32,
/// widened once.
///
/// Where the pairs of a tile leave lanes free, as those of one token do, every pair takes two or four neighbouring
/// lanes for as many keys: rows of keys are then interleaved when they are widened, and a load of some numbers again
/// and again takes the place of the broadcast.
struct AttentionTile {
  let config: AttentionConfig
  let k: KernelBuilder
  let q: Pointer
  let keyPointer: Pointer
  let valuePointer: Pointer
  let position: Pointer?
  let mask: Pointer?
  /// The last keys and values, if there are rows of their own for them.
  let last: (keys: Pointer, values: Pointer)?
  /// What is added to keys by their position, if there is anything.
  let term: KeyTerm?
  /// What keys and values of the cache are multiplied out by, if all heads have rows in common.
  let latent: Latent?
  /// What rows with scales of columns stand for, if keys lie so.
  let channels: Channels?
  /// The tables that codes of keys and values are places in.
  let tables: (keys: Expression?, values: Expression?)
  let y: Pointer
  /// Rows of the queries and of the keys.
  let tokens: Expression
  let rowCount: Expression

  /// Keys scored at a time.
  static let block = 32

  var lanes: Int { k.lanes }
  private var group: Int { config.heads / config.kvHeads }
  var headDim: Int { config.headDim }
  var valueDim: Int { config.valueDim }
  var paddedValueDim: Int { valueDim.aligned(to: lanes) }
  var paddedHeadDim: Int { headDim.aligned(to: lanes) }

  /// Vectors of pairs in a tile: fewer where heads are wide, so that a tile stays in the first cache.
  static func vectors(_ config: AttentionConfig, lanes: Int) -> Int {
    if let pairs = config.tokens.fixedValue.map({ $0 * config.heads / config.kvHeads }), pairs <= lanes { return 1 }
    return config.headDim > 64 || config.valueDim > 64 ? 1 : 2
  }

  /// Lanes of a pair.
  var copies: Int { KeyInterleaving.copies(config, lanes: lanes) }

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

  /// Sums of weighted values, a row of `stride` for each pair, of whose numbers `size` count.
  struct Sums {
    let pointer: Pointer
    let stride, size: Int
  }

  /// Local memory of a tile.
  struct Scratch {
    /// Pairs to a row of the arrays, whatever the number of vectors in use.
    let width: Int
    let queries, scores, factors: Pointer
    let sums: Sums
    /// For each pair the first key it does not see; nil where all see all.
    let ends: Pointer?
    /// Widened rows; nil where rows are f32 and read as they are.
    let keys, values: Pointer?
    /// The term of the next key and its partner; nil without one.
    let term: Pointer?
    /// Keys of the head from rows with scales of columns; nil without such.
    let channelKeys: Pointer?
    let latent: LatentScratch?

    init(_ tile: AttentionTile, width: Int) {
      self.width = width
      let k = tile.k
      queries = k.array("queries", .f32, count: tile.headDim * width)
      scores = k.array("scores", .f32, count: AttentionTile.block * width)
      sums = Sums(
        pointer: k.array("sums", .f32, count: width * tile.paddedValueDim), stride: tile.paddedValueDim,
        size: tile.valueDim)
      ends = tile.config.causal ? k.array("ends", .i32, count: width) : nil
      factors = k.array("factors", .f32, count: width)
      let isLocal = tile.latent != nil || tile.channels != nil
      keys =
        tile.copies == 1 && (isLocal || tile.config.key == .f32 && tile.term == nil)
        ? nil : k.array("key_rows", .f32, count: AttentionTile.block * tile.paddedHeadDim)
      values =
        tile.config.value == .f32 && tile.channels?.outliers == nil || tile.latent != nil
        ? nil : k.array("value_rows", .f32, count: AttentionTile.block * tile.paddedValueDim)
      term = tile.term.map { _ in k.array("term", .f32, count: 2 * tile.paddedHeadDim) }
      channelKeys = tile.channels.map { _ in
        k.array("channel_keys", .f32, count: AttentionTile.block * tile.paddedHeadDim)
      }
      latent = tile.latent.map { LatentScratch(tile, $0.config, width: width) }
    }
  }

  // MARK: One tile

  private func tile(_ place: Place, vectors: Int, _ scratch: Scratch) {
    let range = prepare(place, vectors: vectors, scratch)
    let largest = (0..<vectors).map { k.variable("largest\($0)", .broadcast(.real(-.infinity))) }
    let total = (0..<vectors).map { k.variable("total\($0)", .broadcast(.real(0))) }
    let perPass = queriesPerPass
    let passes = k.define("passes", place.count.dividedRoundingUp(by: perPass))
    for source in sources(place, range) {
      k.loop("key", from: source.begin, to: source.end, step: Self.block) { key in
        let rows = k.define("rows", .minimum(source.end - key, .integer(Self.block)))
        let row = k.define("first_row", key - source.start)
        let term = runningTerm(key, head: place.shared, scratch.term)
        let isLatent = source.isLatent
        var (keys, keyRow) = (source.keys, row)
        if isLatent, let latent, let local = scratch.latent {
          keys = expandedKeys(
            latent, latentRows(keys, row, rows, local.rows), from: key, count: rows, head: place.shared,
            into: local.keys)
          keyRow = 0
        }
        if source.isInChannels, let channels, let local = scratch.channelKeys {
          keys = channelKeys(channels, keys, row, from: key, count: rows, head: place.shared, into: local)
          keyRow = 0
        }
        let keyBlock =
          copies == 1
          ? widened(keys, keyRow, rows, scratch.keys, term) : interleaved(keys, keyRow, rows, scratch, term)
        score(keyBlock, size: keys.size, rows: rows, vectors: vectors, scratch)
        addMask(place, key, rows, vectors, scratch)
        weigh(key, vectors: vectors, largest, total, source, scratch)
        let values: Rows
        if isLatent {
          values = latentRows(source.values, row, rows, scratch.latent?.rows)
        } else if source.isInChannels, let channels {
          values = channelValues(channels, source.values, row, count: rows, head: place.shared, scratch.values)
        } else {
          values = widened(source.values, row, rows, scratch.values)
        }
        accumulate(
          values, size: source.values.size, rows: rows, passes: passes, perPass: perPass,
          into: isLatent ? scratch.latent?.sums ?? scratch.sums : scratch.sums, scratch)
      }
      if source.isLatent, let latent, let local = scratch.latent {
        expandSums(latent, local, head: place.shared, pairs: place.count, into: scratch.sums)
      }
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
      let sums = k.pointer("row", scratch.sums.pointer, offset: pair * .integer(scratch.sums.stride))
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

  /// Where keys and values come from, and which of them pairs see there.
  private struct Source {
    let keys, values: CacheRows
    /// The range of keys that any pair sees, and the key of row 0.
    let begin, end, start: Expression
    /// How many of the last keys a pair leaves out, and how many it sees with those; all if nil.
    var delay = 0
    var window: Int?
    /// The first key that no pair sees there; nil where that depends on the pair.
    var limit: Expression?
    /// Whether rows are what keys and values of all heads follow from.
    var isLatent = false
    /// Whether keys lie there before they turn, with scales of columns.
    var isInChannels = false
  }

  /// The cache, and behind it the last keys and values where they lie apart.
  private func sources(_ place: Place, _ range: KeyRange) -> [Source] {
    func rows(
      _ name: String, _ pointer: Pointer, _ element: CacheElement, _ stride: Int, _ size: Int, hasHeads: Bool = true,
      table: Expression? = nil
    ) -> CacheRows {
      let head = hasHeads ? place.shared * .integer(element.headStride(size)) : 0
      return CacheRows(
        pointer: k.pointer(name, pointer, offset: place.item * rowCount * .integer(stride) + head), element: element,
        stride: stride, size: size, table: table)
    }
    let keys = rows(
      "keys", keyPointer, config.key, config.keyStride, config.keySize, hasHeads: latent == nil, table: tables.keys)
    let values = rows(
      "values", valuePointer, config.value, config.valueStride, config.valueSize, hasHeads: latent == nil,
      table: tables.values)
    guard let recent = config.recent, let last else {
      return [
        Source(keys: keys, values: values, begin: range.begin, end: range.end, start: 0, window: config.window)
      ]
    }
    let start = k.define("start", range.past - .integer(recent))
    let wholeCalls = config.latent?.rows.wholeCalls == true
    let early = Source(
      keys: keys, values: values, begin: range.begin,
      end: k.define("early", wholeCalls ? start + 1 : range.end - .integer(recent)), start: 0,
      delay: wholeCalls ? 0 : recent, window: config.window, limit: wholeCalls ? start + 1 : nil,
      isLatent: latent != nil, isInChannels: channels != nil)
    let oldest = wholeCalls ? start + 1 : range.past + tokenAndHead(place, 0).token + 1 - .integer(recent)
    let late = Source(
      keys: rows("last_keys", last.keys, .f32, config.kvHeads * headDim, headDim),
      values: rows("last_values", last.values, .f32, config.kvHeads * valueDim, valueDim),
      begin: k.define("late", .maximum(oldest, range.begin)), end: range.end, start: start,
      window: wholeCalls ? config.window : min(recent, config.window ?? recent))
    return [early, late]
  }

  /// The keys that any pair of a tile sees, and those before the first token.
  private struct KeyRange {
    let begin, end, past: Expression
  }

  /// Transposes and scales the queries, notes the end of what each pair sees, clears the sums.
  private func prepare(_ place: Place, vectors: Int, _ scratch: Scratch) -> KeyRange {
    let zero = Expression.broadcast(.real(0))
    k.loop("d", to: .integer(headDim)) { d in
      for vector in 0..<vectors {
        k.store(scratch.queries, d * .integer(scratch.width) + .integer(vector * lanes), zero)
      }
    }
    for sums in [scratch.sums, scratch.latent?.sums].compactMap({ $0 }) {
      k.loop("i", to: .integer(vectors * lanes * sums.stride), step: lanes) { k.store(sums.pointer, $0, zero) }
    }
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
    return KeyRange(begin: begin, end: end, past: past)
  }

  // MARK: Steps

  /// scores[r, pair] = query . key r, over the first `size` numbers. Beyond the last row, the last one is scored again. With
  /// several lanes for a pair, r counts as many rows.
  private func score(_ keys: Rows, size: Int, rows: Expression, vectors: Int, _ scratch: Scratch) {
    let step = k.target.vectorRegisters >= 32 ? 8 : 4
    let count = copies == 1 ? rows : k.define("groups", rows.dividedRoundingUp(by: copies))
    k.loop("r", to: count, step: step) { r in
      let places = (0..<step).map {
        k.define("at", .minimum(r + .integer($0), count - 1) * .integer(keys.stride))
      }
      let products = (0..<step).map { row in
        (0..<vectors).map { k.variable("s\(row)\($0)", .broadcast(.real(0))) }
      }
      k.loop("d", to: .integer(size)) { d in
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
    _ key: Expression, vectors: Int, _ largest: [Expression], _ total: [Expression], _ source: Source,
    _ scratch: Scratch
  ) {
    let next = (0..<vectors).map { k.variable("next\($0)", largest[$0]) }
    let common = source.limit.map { k.define("limit", .broadcast($0.asInt32)) }
    let ends = (0..<(common == nil || source.window != nil ? vectors : 0)).map { vector in
      k.define("ends", scratch.ends?.load(.integer(vector * lanes)) ?? .broadcast(rowCount.asInt32))
    }
    let limits =
      common.map { [Expression](repeating: $0, count: vectors) }
      ?? ends.map { source.delay == 0 ? $0 : k.define("limits", $0 - .broadcast(.integer(source.delay))) }
    let copy = copies == 1 ? nil : k.define("copy", .laneNumbers & .broadcast(.integer(copies - 1)))
    k.loop("r", to: .integer(Self.block / copies)) { r in
      let first = Expression.broadcast((key + r * .integer(copies)).asInt32)
      let index = k.define("index", copy.map { first + $0 } ?? first)
      for vector in 0..<vectors {
        let at = k.define("at", r * .integer(scratch.width) + .integer(vector * lanes))
        var score = Expression.choose(limits[vector] > index, scratch.scores.load(at), .broadcast(.real(-.infinity)))
        if let window = source.window {
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
  static func chunkVectors(_ target: Target, valueDim: Int) -> Int {
    min(4, (valueDim + target.lanes - 1) / target.lanes)
  }

  private var queriesPerPass: Int {
    let registers = k.target.vectorRegisters >= 32 ? 16 : 8
    let width = max(valueDim, config.latent?.values ?? 0)
    return min(lanes / copies, registers >> Self.chunkShift(Self.chunkVectors(k.target, valueDim: width)))
  }

  /// The exponent of the smallest power of two that is not below `count`.
  static func chunkShift(_ count: Int) -> Int { count <= 1 ? 0 : count <= 2 ? 1 : 2 }

  /// sums[pair] = sums[pair] * factor + weights[r, pair] * values[r] for the first `size` numbers; sums of others are still
  /// 0, as rows with fewer of them come first.
  private func accumulate(
    _ values: Rows, size: Int, rows: Expression, passes: Expression, perPass: Int, into sums: Sums, _ scratch: Scratch
  ) {
    let chunk = Self.chunkVectors(k.target, valueDim: sums.size)
    let starts = Array(stride(from: 0, to: size, by: lanes))
    // Local rows are padded to whole vectors, by numbers that sums of others do not take.
    let isWhole = values.isPadded && size == sums.size
    k.loop("pass", to: passes) { pass in
      let pair = k.define("pair", pass * .integer(perPass))
      for part in stride(from: 0, to: starts.count, by: chunk) {
        let columns = Array(starts[part..<min(starts.count, part + chunk)])
        let registers = (0..<perPass).map { query in
          let factor = k.define("factor", .broadcast(scratch.factors[(pair + .integer(query)) * .integer(copies)]))
          return columns.map { column in
            let at = (pair + .integer(query)) * .integer(sums.stride) + .integer(column)
            return k.variable("o", sums.pointer.load(at) * factor)
          }
        }
        k.loop("r", to: rows) { r in
          let row = columns.map { column in
            let tail = !isWhole && size - column < lanes ? Expression.integer(size - column) : nil
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
            let at = (pair + .integer(query)) * .integer(sums.stride) + .integer(column)
            k.store(sums.pointer, at, registers[query][index])
          }
        }
      }
    }
  }
}
