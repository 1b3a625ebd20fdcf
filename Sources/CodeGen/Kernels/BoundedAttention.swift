import IR
import Tensors

/// Attention over caches of a bounded number of rows, see `BoundedAttention`. Tokens are taken one after the other; scores
/// of all rows of a head are kept until their softmax is known, as rows are told what they received.
package struct BoundedAttentionConfig: Hashable, Codable, Sendable {
  package var heads: Int
  package var kvHeads: Int
  /// Numbers per head of queries and keys, and of values.
  package var headDim: Int
  package var valueDim: Int
  package var scale: Float
  package var softcap: Float?
  package var sinks: Int
  package var recent: Int
  package var tokens: Extent
  /// Rows of the caches, and the most that there may be.
  package var rows: Extent
  package var mostRows: Int
  /// The elements of the caches.
  package var key: ScalarType
  package var value: ScalarType
  /// From row to row of queries, keys and values of the call.
  package var strides: [Int]

  private static func word(_ number: Float) -> String {
    "\(number)".map { $0.isLetter || $0.isNumber ? String($0) : "_" }.joined()
  }

  package func name(target: Target) -> String {
    var parts = ["mcc_bounded_attention", "\(heads)x\(headDim)", "kv\(kvHeads)"]
    if valueDim != headDim { parts[2] += "x\(valueDim)" }
    parts.append(key.rawValue)
    if value != key { parts.append(value.rawValue) }
    parts.append("sinks\(sinks)_recent\(recent)_rows\(mostRows)")
    if scale != 1 / Float(headDim).squareRoot() { parts.append("scale\(Self.word(scale))") }
    if let softcap { parts.append("softcap\(Self.word(softcap))") }
    if strides != [heads * headDim, kvHeads * headDim, kvHeads * valueDim] {
      parts.append("strides" + strides.map { "\($0)" }.joined(separator: "_"))
    }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: q, k, v, position, the caches of keys and values, what rows received, y, then the number of tokens if it is
  /// a run-time one, and that of rows. Threads share the key and value heads.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = [
      "Attention of q[\(tokens.text), \(heads) * \(headDim)] over caches of \(rows.text) rows for each of \(kvHeads) heads:",
      "the first \(sinks) tokens, the last \(recent), and of the others those that received most attention on average.",
    ]
    BoundedAttentionBuilder(self, k).build()
    return k.finish()
  }
}

private struct BoundedAttentionBuilder {
  let config: BoundedAttentionConfig
  let k: KernelBuilder
  let q, newKeys, newValues, position, keys, values, received, y: Pointer
  let count, capacity: Expression

  init(_ config: BoundedAttentionConfig, _ k: KernelBuilder) {
    self.config = config
    self.k = k
    (q, newKeys, newValues) = (k.input("q", .f32), k.input("k", .f32), k.input("v", .f32))
    position = k.input("position", .i32)
    (keys, values) = (k.output("keys", config.key), k.output("values", config.value))
    (received, y) = (k.output("received", .f32), k.output("y", .f32))
    count = k.extent(config.tokens)
    capacity = k.extent(config.rows)
  }

  /// The caches of one head.
  private struct Caches {
    let keys, values, received, positions: Pointer
  }

  func build() {
    let part = k.partition(.integer(config.kvHeads))
    let size = (config.mostRows + k.lanes - 1) / k.lanes * k.lanes
    let scores = k.array("scores", .f32, count: size)
    let group = config.heads / config.kvHeads
    k.loop("head", from: part.begin, to: part.end) { head in
      let first = k.define("first_row", head * capacity)
      let own = Caches(
        keys: k.pointer("own_keys", keys, offset: first * .integer(config.headDim)),
        values: k.pointer("own_values", values, offset: first * .integer(config.valueDim)),
        received: k.pointer("own_received", received, offset: first * 2),
        positions: k.pointer("own_positions", received, offset: first * 2 + capacity))
      k.loop("token", to: count) { token in
        let place = k.define("place", position[0].asIndex + token)
        insert(token, head, place, own)
        let rows = k.define("rows", .minimum(place + 1, capacity))
        k.loop("member", to: .integer(group)) { member in
          attend(token, k.define("index", head * .integer(group) + member), rows, own, scores)
        }
      }
    }
  }

  // MARK: Rows

  /// Gives a token its row: of the last ones, whose former token may go to another.
  private func insert(_ token: Expression, _ head: Expression, _ place: Expression, _ own: Caches) {
    let (sinks, recent) = (config.sinks, config.recent)
    let row = k.variable("row", place)
    k.condition(place >= .integer(sinks + recent)) {
      k.assign(row, (place - .integer(sinks)) % .integer(recent) + .integer(sinks))
      let target = k.variable("target", place)
      k.condition(place >= capacity) { findLeast(own, place, than: row, target) }
      k.condition(target < capacity) {
        copy(own.keys, row, to: own.keys, target, config.headDim)
        copy(own.values, row, to: own.values, target, config.valueDim)
        k.store(own.received, target, own.received[row])
        k.store(own.positions, target, own.positions[row])
      }
    }
    let (depth, valueDepth) = (config.headDim, config.valueDim)
    let key = k.pointer("new_key", newKeys, offset: token * .integer(config.strides[1]) + head * .integer(depth))
    let value = k.pointer(
      "new_value", newValues, offset: token * .integer(config.strides[2]) + head * .integer(valueDepth))
    copy(key, 0, to: own.keys, row, depth)
    copy(value, 0, to: own.values, row, valueDepth)
    k.store(own.received, row, .real(0))
    k.store(own.positions, row, place.asFloat)
  }

  private func copy(_ source: Pointer, _ from: Expression, to target: Pointer, _ row: Expression, _ size: Int) {
    let (start, end) = (k.define("from", from * .integer(size)), k.define("to", row * .integer(size)))
    k.vectorLoop("d", count: .integer(size)) { d, tail in
      k.store(target, end + d, source.load(start + d, count: tail), count: tail)
    }
  }

  /// Makes `target` the first row behind the last tokens that received least of each of the tokens before `place`, or
  /// `capacity` if all of them received more than the row `other`.
  private func findLeast(_ own: Caches, _ place: Expression, than other: Expression, _ target: Expression) {
    let now = k.define("now", place.asFloat)
    let start = Expression.integer(config.sinks + config.recent)
    let span = k.define("span", capacity - start)
    let full = k.define("full", span / .integer(k.lanes) * .integer(k.lanes))
    let best = k.variable("best", .broadcast(.real(.infinity)))
    let at = k.variable("at", .broadcast(.real(.infinity)))
    // Places are exact in f32, as there are at most 2^16.
    k.loop("i", to: full, step: k.lanes) { i in
      let x = k.define("x", own.received.load(start + i) / (.broadcast(now) - own.positions.load(start + i)))
      let here = k.define("here", (Expression.laneNumbers + .broadcast(i.asInt32)).asFloat)
      k.assign(at, .choose(x < best, here, at))
      k.assign(best, .choose(x < best, x, best))
    }
    let least = k.variable("least", .reduce(.minimum, best))
    let wanted = k.define("wanted", .broadcast(least))
    let lane = Expression.choose(best.isEqual(to: wanted), at, .broadcast(.real(.infinity)))
    let found = k.variable("found", .reduce(.minimum, k.define("lane", lane)))
    k.loop("i", from: full, to: span) { i in
      let x = k.define("x", own.received[start + i] / (now - own.positions[start + i]))
      k.condition(x < least) {
        k.assign(least, x)
        k.assign(found, i.asFloat)
      }
    }
    k.assign(target, capacity)
    let limit = k.define("limit", own.received[other] / (now - own.positions[other]))
    k.condition((least <= limit) & (found < .real(Float(BoundedAttention.mostRows)))) {
      k.assign(target, start + k.define("i", found.asInt32).asIndex)
    }
  }

  // MARK: Attention

  /// Vectors of a head: the first number, and how many there are where that is not a whole vector.
  private func parts(_ size: Int) -> [(start: Expression, tail: Expression?)] {
    stride(from: 0, to: size, by: k.lanes).map {
      (.integer($0), size - $0 < k.lanes ? .integer(size - $0) : nil)
    }
  }

  /// One query of a head over the rows that are taken; adds its weights to what they received.
  private func attend(
    _ token: Expression, _ index: Expression, _ rows: Expression, _ own: Caches, _ scores: Pointer
  ) {
    let query = k.pointer(
      "query", q, offset: token * .integer(config.strides[0]) + index * .integer(config.headDim))
    let largest = score(query, rows, own, scores)
    weigh(rows, own, scores, largest)
    let out = k.define("out", (token * .integer(config.heads) + index) * .integer(config.valueDim))
    let parts = parts(config.valueDim)
    for chunk in stride(from: 0, to: parts.count, by: 8) {
      let part = Array(parts[chunk..<min(parts.count, chunk + 8)])
      let sums = part.map { _ in k.variable("sum", .broadcast(.real(0))) }
      k.loop("r", to: rows) { r in
        let row = k.define("at", r * .integer(config.valueDim))
        let weight = k.define("weight", .broadcast(scores[r]))
        for (part, sum) in zip(part, sums) {
          k.assign(sum, .multiplyAdd(weight, own.values.load(row + part.start, count: part.tail), sum))
        }
      }
      for (part, sum) in zip(part, sums) { k.store(y, out + part.start, sum, count: part.tail) }
    }
  }

  /// scores[r] = scale * query . keys[r], capped; -inf behind the last row up to a whole vector. The largest one.
  private func score(_ query: Pointer, _ rows: Expression, _ own: Caches, _ scores: Pointer) -> Expression {
    let parts = parts(config.headDim)
    func load(_ index: Int) -> Expression { query.load(parts[index].start, count: parts[index].tail) }
    let loaded = parts.count <= 8 ? parts.indices.map { k.define("q", load($0)) } : []
    let largest = k.variable("largest", .real(-.infinity))
    k.loop("r", to: rows) { r in
      let row = k.define("at", r * .integer(config.headDim))
      var products: [Expression?] = [nil, nil]
      for (index, part) in parts.enumerated() {
        let a = loaded.isEmpty ? load(index) : loaded[index]
        let b = own.keys.load(row + part.start, count: part.tail)
        products[index % 2] = k.define("p", products[index % 2].map { .multiplyAdd(a, b, $0) } ?? a * b)
      }
      let product = products.compactMap { $0 }.reduce(nil) { (sum: Expression?, next) in sum.map { $0 + next } ?? next }
      var score = Expression.reduce(.sum, product ?? .broadcast(.real(0))) * .real(config.scale)
      if let softcap = config.softcap {
        score = Expression.real(softcap) * Expression.call(.tanh, score * .real(1 / softcap))
      }
      let value = k.define("score", score)
      k.store(scores, r, value)
      k.assign(largest, .maximum(value, largest))
    }
    let end = k.define("end", rows.dividedRoundingUp(by: k.lanes) * .integer(k.lanes))
    k.loop("r", from: rows, to: end) { r in k.store(scores, r, .real(-.infinity)) }
    return largest
  }

  /// Makes weights of scores, and adds them to what the rows received.
  private func weigh(_ rows: Expression, _ own: Caches, _ scores: Pointer, _ largest: Expression) {
    // Where every score is -inf, 0 stands in for it, whose difference with itself is no number.
    let base = k.define("base", .broadcast(.choose(largest > .real(-.infinity), largest, 0.0)))
    let sum = k.variable("sum", .broadcast(.real(0)))
    let end = k.define("end", rows.dividedRoundingUp(by: k.lanes) * .integer(k.lanes))
    k.loop("r", to: end, step: k.lanes) { r in
      let weight = k.define("e", .call(.exp, scores.load(r) - base))
      k.store(scores, r, weight)
      k.assign(sum, sum + weight)
    }
    let total = k.define("total", .reduce(.sum, sum))
    let inverse = k.define("inverse", .broadcast(.choose(total.isEqual(to: 0.0), 0.0, 1 / total)))
    k.vectorLoop("r", count: rows) { r, tail in
      let weight = k.define("w", scores.load(r) * inverse)
      k.store(scores, r, weight)
      k.store(own.received, r, own.received.load(r, count: tail) + weight, count: tail)
    }
  }
}

/// Attention that keeps the keys which receive attention.
package enum BoundedAttentionKernel: Kernel {
  package static let name = "bounded_attention"
  package static let summary = "attention over caches of bounded size, in f32, f16 or bf16, that keep what is looked at"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? BoundedAttention, query.operands.count == 7, query.isPlain(except: [3, 4, 5])
    else { return [] }
    let types = query.operands.map(\.type)
    guard types[2...5].allSatisfy({ $0.element == .f32 }), types[6].element == .i32,
      let key = types[0].element.scalar, key.isFloat, key != .f64,
      let value = types[1].element.scalar, value.isFloat, value != .f64, let heads = types[0].shape[0].fixedValue,
      let rows = types[0].shape[1].fixedValue, let depth = types[0].shape[2].fixedValue,
      let valueDepth = types[1].shape[2].fixedValue
    else { return [] }
    // Layers with about as many rows share a kernel.
    var most = 64
    while most < rows { most *= 2 }
    var extents = ExtentTable()
    let tokens = types[3].shape[0]
    let config = BoundedAttentionConfig(
      heads: op.heads, kvHeads: heads, headDim: depth, valueDim: valueDepth, scale: op.scale, softcap: op.softcap,
      sinks: op.sinks, recent: op.recent, tokens: extents.extent(tokens, "T"),
      rows: extents.parameter(types[0].shape[1], "C"), mostRows: most, key: key, value: value,
      strides: zip([3, 4, 5], [op.heads * depth, heads * depth, heads * valueDepth]).map {
        query.operands[$0].rowStride ?? $1
      })
    let scores = Double(tokens.maximum) * Double(op.heads) * Double(rows)
    let bytes = Double(types[0].maximumByteCount + types[1].maximumByteCount)
    return [
      KernelChoice(
        config.build(target: target),
        work: KernelWork(floatOperations: scores * Double(6 * (depth + valueDepth) + 30), bytes: bytes),
        target: target, pointers: (3...6).map { .input($0) } + (0...3).map { .result($0) }, extents: extents,
        layouts: query.unpacked, updates: [0, 1, 2])
    ]
  }
}
