import IR

/// Scaled dot-product attention with products of bytes (``ByteAttention``) for many queries, by online softmax over
/// blocks of keys.
///
/// A tile is up to some 128 pairs of a token and a head of one group. A block of keys and values is rounded to codes
/// once per tile: keys with four columns in each word, values with four keys in each word. Then parts of the tile, two
/// vectors of pairs, one pair per lane, go over the block: a word of a key for all lanes times a word of each query
/// gives four products of a score at a time; the weights of four keys are a word of a pair, which all lanes take times
/// a word of the values, one column per lane. Sums in i32 join those in f32 once per block.
struct AttentionByteTile {
  let config: AttentionConfig
  let form: ByteAttention
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

  /// Vectors of pairs in a part.
  static let vectors = 2
  /// 1.5 * 2^23: added to a number it leaves the nearest integer in the low bits.
  static let magic: Float = 12_582_912

  var lanes: Int { k.lanes }
  var group: Int { config.heads / config.kvHeads }
  var headDim: Int { config.headDim }
  var valueDim: Int { config.valueDim }
  var block: Int { form.block }
  /// Pairs that are scored together.
  var part: Int { Self.vectors * lanes }
  var paddedHeadDim: Int { headDim.aligned(to: lanes) }
  var paddedValueDim: Int { valueDim.aligned(to: lanes) }
  /// Words of four columns in a head.
  var headWords: Int { (headDim + 3) / 4 }
  /// Parts of a tile: fewer where heads are wide, whose sums would not stay in the second cache.
  var parts: Int {
    let most = max(1, (max(headDim, valueDim) > 64 ? 64 : 128) / part)
    guard let tokens = config.tokens.fixedValue else { return most }
    return max(1, min(most, (tokens * group + part - 1) / part))
  }
  /// Pairs of a tile.
  var width: Int { parts * part }

  /// Whether keys are codes in memory.
  var keepsKeys: Bool { config.key.format?.bits == 8 }
  var takesMeansOfKeys: Bool { form.smooth && !keepsKeys }
  /// The products of scores: keys as the target wants weights, queries as activations.
  var dot: ByteDot { ByteDot(k.target.vocabulary.eightBitWeights) }
  /// Whether codes of keys lie 128 higher, which a sum of the codes of each query corrects.
  var isOffset: Bool { dot.weights == .u8 }

  /// Which tile: batch item, head of keys, first pair and their number.
  struct Place {
    let item, shared, first, count: Expression
  }

  /// Local memory of a tile.
  struct Scratch {
    /// By part: words of codes by column and pair, and numbers times the scale likewise.
    let queryWords: Pointer
    let queries: Pointer?
    /// By pair: scale of the codes, what sums begin with, the first key it does not see.
    let queryScales: Pointer
    let starts, ends: Pointer?
    /// By pair: largest score and sum of weights so far, and weighted values.
    let largest, total, sums: Pointer
    /// A block in f32, as codes, and the scales and means of keys and columns.
    let rows, keyCodes, keyWords, keyScales, valueWords, valueScales: Pointer
    let keyCenter, valueCenter: Pointer?
    /// Of a part and a block: scores, words of weights, and by pair the factors of the sums so far and of the block,
    /// and the sum of its weights.
    let scores, weights, before, factors, shares: Pointer
    /// Codes of one query.
    let codes, codeWords: Pointer

    init(_ tile: AttentionByteTile) {
      let k = tile.k
      let (width, block) = (tile.width, tile.block)
      queryWords = k.array("query_words", .i32, count: width * tile.headWords)
      queries = tile.takesMeansOfKeys ? k.array("queries", .f32, count: width * tile.headDim) : nil
      queryScales = k.array("query_scales", .f32, count: width)
      starts = tile.isOffset ? k.array("starts", .i32, count: width) : nil
      ends = tile.config.causal ? k.array("ends", .i32, count: width) : nil
      largest = k.array("largest", .f32, count: width)
      total = k.array("total", .f32, count: width)
      sums = k.array("sums", .f32, count: width * tile.paddedValueDim)
      rows = k.array("rows", .f32, count: block * max(tile.paddedHeadDim, tile.paddedValueDim))
      keyCodes = k.array("key_codes", tile.isOffset ? .u8 : .i8, count: block * tile.paddedHeadDim)
      keyWords = k.pointer("key_words", keyCodes, offset: 0, as: .i32)
      keyScales = k.array("key_scales", .f32, count: block)
      keyCenter = tile.takesMeansOfKeys ? k.array("key_center", .f32, count: tile.paddedHeadDim) : nil
      valueWords = k.array("value_words", .i32, count: block / 4 * tile.paddedValueDim)
      valueScales = k.array("value_scales", .f32, count: tile.paddedValueDim)
      valueCenter = tile.form.smooth ? k.array("value_center", .f32, count: tile.paddedValueDim) : nil
      scores = k.array("scores", .f32, count: block * tile.part)
      weights = k.array("weights", .i32, count: block / 4 * tile.part)
      before = k.array("before", .f32, count: tile.part)
      factors = k.array("factors", .f32, count: tile.part)
      shares = k.array("shares", .f32, count: tile.part)
      codes = k.array("codes", .i8, count: tile.paddedHeadDim)
      codeWords = k.pointer("code_words", codes, offset: 0, as: .i32)
    }
  }

  /// The work of a thread.
  func build() {
    let pairs = k.define("pairs", tokens * .integer(group))
    let tiles = k.define("tiles", pairs.dividedRoundingUp(by: width))
    let units = k.extent(config.batch) * .integer(config.kvHeads) * tiles
    let scratch = Scratch(self)
    k.share("unit", of: units) { unit in
      let first = k.define("first", unit % tiles * .integer(width))
      let isSingle = config.batch == .fixed(1)
      let head = unit / tiles
      let shared = k.define("shared", isSingle ? head : head % .integer(config.kvHeads))
      let item: Expression = isSingle ? 0 : k.define("item", unit / (tiles * .integer(config.kvHeads)))
      let count = k.define("count", .minimum(pairs - first, .integer(width)))
      tile(Place(item: item, shared: shared, first: first, count: count), scratch)
    }
  }

  private func tile(_ place: Place, _ scratch: Scratch) {
    let past = config.causal ? k.define("past", position.map { $0[0].asIndex } ?? (rowCount - tokens)) : 0
    // Rows that exist: those of a block have their means and scales in common, seen or not.
    let known = config.causal ? k.define("known", past + tokens) : rowCount
    var (begin, end): (Expression, Expression) = (0, rowCount)
    if config.causal {
      end = k.define("end", past + tokenAndHead(place, place.count - 1).token + 1)
      if let window = config.window {
        let oldest = Expression.maximum(past + tokenAndHead(place, 0).token + 1 - .integer(window), 0)
        begin = k.define("begin", oldest / .integer(block) * .integer(block))
      }
    }
    prepare(place, past: past, scratch)
    let used = k.define("used", place.count.dividedRoundingUp(by: part))
    k.loop("key", from: begin, to: end, step: block) { key in
      let rows = k.define("rows", .minimum(known - key, .integer(block)))
      let seen = k.define("seen", .minimum(end - key, .integer(block)))
      roundKeys(place, key, rows: rows, seen: seen, scratch)
      roundValues(place, key, rows: rows, seen: seen, scratch)
      k.loop("p", to: used) { p in
        let present = k.define("present", .minimum(place.count - p * .integer(part), .integer(part)))
        score(p, seen: seen, scratch)
        addMask(place, key, p, present: present, seen: seen, scratch)
        weigh(key, p, seen: seen, scratch)
        accumulate(p, present: present, seen: seen, scratch)
      }
    }
    finish(place, scratch)
  }

  /// Where the numbers of a pair begin, in rows of `rowStride` with `size` numbers per head.
  private func pair(_ place: Place, _ pair: Expression, rowStride: Int, _ size: Int) -> Expression {
    let (token, head) = tokenAndHead(place, pair)
    return (place.item * tokens + token) * .integer(rowStride) + head * .integer(size)
  }

  func tokenAndHead(_ place: Place, _ pair: Expression) -> (token: Expression, head: Expression) {
    let index = place.first + pair
    guard group > 1 else { return (index, place.shared) }
    return (index / .integer(group), place.shared * .integer(group) + index % .integer(group))
  }

  /// Stores a vector throughout an array whose length is a multiple of one.
  private func fill(_ pointer: Pointer, _ count: Int, _ value: Expression) {
    k.loop("i", to: .integer(count), step: lanes) { k.store(pointer, $0, value) }
  }

  // MARK: Queries

  /// Rounds the queries of a tile and clears its sums; lanes without a pair are zeros.
  private func prepare(_ place: Place, past: Expression, _ scratch: Scratch) {
    let (zero, none) = (Expression.broadcast(.real(0)), Expression.broadcast(.integer(0)))
    fill(scratch.queryWords, width * headWords, none)
    if let queries = scratch.queries { fill(queries, width * headDim, zero) }
    fill(scratch.queryScales, width, zero)
    if let starts = scratch.starts { fill(starts, width, none) }
    if let ends = scratch.ends { fill(ends, width, none) }
    fill(scratch.largest, width, .broadcast(.real(-.infinity)))
    fill(scratch.total, width, zero)
    fill(scratch.sums, width * paddedValueDim, zero)
    k.loop("pair", to: place.count) { pair in
      let from = k.define("from", self.pair(place, pair, rowStride: config.queryStride, headDim))
      let factor = roundingFactor(of: headDim, "top") { q.load(from + $0, count: $1) }
      k.store(scratch.queryScales, pair, factor.largest / 127 * .real(config.scale))
      let sum = scratch.starts.map { _ in k.variable("sum", none) }
      k.vectorLoop("d", count: .integer(headDim)) { d, tail in
        let code = k.define("code", (q.load(from + d, count: tail) * factor.vector).asInt32)
        k.store(scratch.codes, d, code)
        if let sum { k.assign(sum, sum + code) }
      }
      if let starts = scratch.starts, let sum { k.store(starts, pair, Expression.reduce(.sum, sum) * -128) }
      let index = k.define("index", pair / .integer(part)), lane = k.define("lane", pair % .integer(part))
      k.loop("w", to: .integer(headWords)) { w in
        k.store(
          scratch.queryWords, (index * .integer(headWords) + w) * .integer(part) + lane, scratch.codeWords[w])
      }
      if let queries = scratch.queries {
        k.loop("d", to: .integer(headDim)) { d in
          k.store(queries, (index * .integer(headDim) + d) * .integer(part) + lane, q[from + d] * .real(config.scale))
        }
      }
      if let ends = scratch.ends { k.store(ends, pair, (past + tokenAndHead(place, pair).token + 1).asInt32) }
    }
  }

  /// The largest magnitude of some numbers, and what they are multiplied with to be codes, in all lanes.
  func roundingFactor(
    of count: Int, _ name: String, _ numbers: (Expression, Expression?) -> Expression
  ) -> (largest: Expression, vector: Expression) {
    let high = k.variable(name, .broadcast(.real(0)))
    k.vectorLoop("d", count: .integer(count)) { d, tail in
      k.assign(high, .maximum(numbers(d, tail).absolute, high))
    }
    let largest = k.define("largest", .reduce(.maximum, high))
    let factor = Expression.choose(largest > .real(ByteAttention.leastMagnitude), 127.0 / largest, 0.0)
    return (largest, k.define("factor", .broadcast(factor)))
  }

  // MARK: Results

  private func finish(_ place: Place, _ scratch: Scratch) {
    k.loop("pair", to: place.count) { pair in
      let total = k.define("sum", scratch.total[pair])
      let inverse = k.define("inverse", .broadcast(.choose(total > 0.0, 1 / total, 0.0)))
      let out = k.define("out", self.pair(place, pair, rowStride: config.heads * valueDim, valueDim))
      let sums = k.pointer("row", scratch.sums, offset: pair * .integer(paddedValueDim))
      k.vectorLoop("d", count: .integer(valueDim)) { d, tail in
        k.store(y, out + d, sums.load(d) * inverse, count: tail)
      }
    }
  }
}
