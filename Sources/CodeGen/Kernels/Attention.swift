import IR

/// Scaled dot-product attention with grouped heads over rows of keys and values, by online softmax: blocks of rows are
/// scored, and sums so far are rescaled to the largest score seen. For few queries each row of a head is read once per
/// query; for many see ``AttentionTile``.
package struct AttentionConfig: Hashable, Codable, Sendable {
  package var heads: Int
  package var kvHeads: Int
  /// Whether queries are taken in tiles.
  package var isTiled: Bool
  /// Numbers per head of queries and keys, and of values.
  package var headDim: Int
  package var valueDim: Int
  /// How many of these the rows of keys and values have that are no last ones; nil for all.
  package var keyRank: Int?
  package var valueRank: Int?
  package var scale: Float
  package var causal: Bool
  package var window: Int?
  package var softcap: Float?
  /// Whether there is a position input: the number of keys before those of the first query.
  package var hasPosition: Bool
  /// Whether a mask is added to the scores (f32) or hides keys (u8, 0 hides), and for its axes batch, heads, tokens, keys
  /// whether it is broadcast.
  package var mask: ScalarType?
  package var maskIsBroadcast: [Bool]
  /// Whether the mask lies in the tiles of the tiled kernel, see `AttentionMaskLayout`.
  package var maskIsTiled = false
  package var batch: Extent
  package var tokens: Extent
  /// Rows of keys and values.
  package var keys: Extent
  /// The elements of keys and values.
  package var key: CacheElement
  package var value: CacheElement
  package var queryStride: Int
  /// From row to row, in elements, of codes in bytes.
  package var keyStride: Int
  package var valueStride: Int
  /// How many of the last keys and values a query takes from rows of f32 in two further inputs, which begin as many rows
  /// before the first query; nil without them.
  package var recent: Int?
  /// The positions of a block of angles of the keys' term, see `KeyTerm`; nil without one. For the tiled kernel alone.
  package var angleBlock: Int?
  /// Rows of keys and values that all heads have in common; nil where rows have heads. For the tiled kernel alone.
  package var latent: LatentConfig?
  /// Rows of keys with scales of columns; nil where they are stored as they are. For the tiled kernel alone.
  package var channels: ChannelConfig?
  /// How products are those of bytes; nil for numbers as they are.
  package var int8: ByteAttention?

  package init(
    isTiled: Bool, heads: Int, kvHeads: Int, headDim: Int, valueDim: Int? = nil, scale: Float, causal: Bool,
    window: Int? = nil,
    softcap: Float? = nil, hasPosition: Bool, mask: ScalarType? = nil, maskIsBroadcast: [Bool] = [],
    batch: Extent = .fixed(1), tokens: Extent, keys: Extent, key: CacheElement = .f32, value: CacheElement = .f32,
    queryStride: Int? = nil, keyStride: Int? = nil, valueStride: Int? = nil, recent: Int? = nil,
    keyRank: Int? = nil, valueRank: Int? = nil
  ) {
    self.isTiled = isTiled
    self.heads = heads
    self.kvHeads = kvHeads
    self.headDim = headDim
    self.valueDim = valueDim ?? headDim
    self.scale = scale
    self.causal = causal
    self.window = window
    self.softcap = softcap
    self.hasPosition = hasPosition
    self.mask = mask
    self.maskIsBroadcast = maskIsBroadcast
    self.batch = batch
    self.tokens = tokens
    self.keys = keys
    self.key = key
    self.value = value
    self.queryStride = queryStride ?? heads * headDim
    self.recent = recent
    let (keySize, valueSize) = (keyRank ?? headDim, valueRank ?? valueDim ?? headDim)
    self.keyRank = keySize < headDim ? keySize : nil
    self.valueRank = valueSize < self.valueDim ? valueSize : nil
    self.keyStride = keyStride ?? kvHeads * key.headStride(keySize)
    self.valueStride = valueStride ?? kvHeads * value.headStride(valueSize)
  }

  /// Numbers per head of the rows of keys and of values that are no last ones.
  var keySize: Int { latent?.keys ?? keyRank ?? headDim }
  var valueSize: Int { latent?.values ?? valueRank ?? valueDim }
  /// How many of these a row of keys and values has.
  private var rowHeads: Int { latent == nil ? kvHeads : 1 }

  /// A number as part of a name.
  private static func word(_ number: Float) -> String {
    "\(number)".map { $0.isLetter || $0.isNumber ? String($0) : "_" }.joined()
  }

  package func name(target: Target) -> String {
    let family = int8 != nil ? "mcc_attention_int8" : isTiled ? "mcc_attention_tile" : "mcc_attention"
    var parts = [family, "\(heads)x\(headDim)", "kv\(kvHeads)"]
    if valueDim != headDim { parts[2] += "x\(valueDim)" }
    parts.append(key.name)
    if value != key { parts.append(value.name) }
    if let recent { parts.append("recent\(recent)") }
    if keyRank != nil || valueRank != nil { parts.append("rank\(keySize)x\(valueSize)") }
    if let angleBlock { parts.append("term\(angleBlock)") }
    if let latent {
      parts.append("latent\(latent.keys)x\(latent.values)")
      if let block = latent.rows.angleBlock {
        parts.append((latent.rows.interleaved ? "pairs" : "turn") + "\(latent.turning)_\(block)")
      }
      if latent.rows.wholeCalls { parts.append("calls") }
    }
    if let channels {
      parts.append("channels")
      if let block = channels.rows.angleBlock {
        parts.append((channels.rows.interleaved ? "pairs" : "turn") + "\(channels.turning)_\(block)")
      }
      if channels.rows.outliers > 0 {
        parts.append("apart\(channels.rows.outliers)" + channels.outliers.map(\.rawValue).joined())
      }
    }
    if let int8, int8 != ByteAttention() { parts.append("block\(int8.block)" + (int8.smooth ? "" : "plain")) }
    if causal { parts.append("causal") }
    if let window { parts.append("window\(window)") }
    if scale != 1 / Float(headDim).squareRoot() { parts.append("scale\(Self.word(scale))") }
    if let softcap { parts.append("softcap\(Self.word(softcap))") }
    if let mask { parts.append("mask\(mask.rawValue)" + maskIsBroadcast.map { $0 ? "1" : "n" }.joined()) }
    let strides = [
      (queryStride, heads * headDim), (keyStride, rowHeads * key.headStride(keySize)),
      (valueStride, rowHeads * value.headStride(valueSize)),
    ]
    if strides.contains(where: { $0.0 != $0.1 }) {
      parts.append("strides" + strides.map { "\($0.0)" }.joined(separator: "_"))
    }
    if let fixed = batch.fixedValue, fixed != 1 { parts.append("batch\(fixed)") }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    if let fixed = keys.fixedValue, !(causal && hasPosition) { parts.append("keys\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Keys scored at a time.
  private static let block = 32

  /// Parameters: q, k, v, position, mask, last keys and values, means and angles of keys, or factors of latent rows and angles, or
  /// scales of columns, angles and outliers if there are any, y, then the run-time ones of batch, tokens and keys. Threads share the heads of all tokens, neighbouring tokens of a head
  /// together.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "Attention of q[\(tokens.text), \(heads) * \(headDim)] over k[\(keys.text), \(rowHeads) * \(keySize)] and "
        + "v[\(keys.text), \(rowHeads) * \(valueSize)].",
      causal ? "Token i sees rows 0 ... position + i." + (window.map { " Only the last \($0)." } ?? "") : "All rows.",
    ]
    if let recent { k.comment.append("Of these the last \(recent) come from rows of their own in f32.") }
    if latent != nil {
      k.comment.append("Of the others keys and values of \(kvHeads) heads are multiplied out.")
    } else if keyRank != nil || valueRank != nil {
      k.comment.append("The others have the first numbers of a head of \(headDim) and \(valueDim).")
    }
    let q = k.input("q", .f32)
    let keyPointer = k.input("k", key.scalar)
    let valuePointer = k.input("v", value.scalar)
    let position = hasPosition ? k.input("position", .i32) : nil
    let maskPointer = mask.map { k.input("mask", $0) }
    let last = recent.map { _ in (keys: k.input("last_k", .f32), values: k.input("last_v", .f32)) }
    let term = angleBlock.map {
      AttentionTile.KeyTerm(means: k.input("key_means", .f32), angles: k.input("key_angles", .f32), block: $0)
    }
    func angles(_ block: Int?, _ interleaved: Bool, _ turning: Int) -> AttentionTile.KeyAngles? {
      block.map {
        AttentionTile.KeyAngles(
          pointer: k.input("key_angles", .f32), block: $0, interleaved: interleaved, turning: turning)
      }
    }
    let expansion = latent.map {
      AttentionTile.Latent(
        config: $0, keys: k.input("expand_k", .f32), values: k.input("expand_v", .f32),
        angles: angles($0.rows.angleBlock, $0.rows.interleaved, $0.turning))
    }
    let columns = channels.map { channels in
      AttentionTile.Channels(
        scales: k.input("column_scales", .f32),
        angles: angles(channels.rows.angleBlock, channels.rows.interleaved, channels.turning),
        outliers: channels.rows.outliers == 0
          ? nil
          : (
            k.input("apart_k", channels.outliers[0]), k.input("apart_v", channels.outliers[1]), channels.rows.outliers
          ))
    }
    let y = k.output("y", .f32)
    let batches = k.extent(batch)
    let count = k.extent(tokens)
    let needsKeys = !(causal && hasPosition) || batch != .fixed(1) || mask != nil
    let rowCount = needsKeys ? k.extent(keys) : 0
    if let int8 {
      k.comment.append("Products of bytes, over blocks of \(int8.block) keys.")
      AttentionByteTile(
        config: self, form: int8, k: k, q: q, keyPointer: keyPointer, valuePointer: valuePointer, position: position,
        mask: maskPointer, y: y, tokens: count, rowCount: rowCount
      ).build()
      return k.finish()
    }
    if isTiled {
      AttentionTile(
        config: self, k: k, q: q, keyPointer: keyPointer, valuePointer: valuePointer, position: position,
        mask: maskPointer, last: last, term: term, latent: expansion, channels: columns,
        tables: (key.table(k), value.table(k)), y: y, tokens: count, rowCount: rowCount
      ).build()
      return k.finish()
    }
    precondition(
      angleBlock == nil && latent == nil && channels == nil, "terms of keys and forms of rows are for tiles")
    let tables = (keys: key.table(k), values: value.table(k))
    let part = k.partition(batches * .integer(heads) * count)
    let scores = k.array("scores", .f32, count: max(Self.block, k.lanes))
    let sums = k.array("sums", .f32, count: (valueDim + k.lanes - 1) / k.lanes * k.lanes)
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit % count)
      let head = batch == .fixed(1) ? k.define("head", unit / count) : k.define("head", unit / count % .integer(heads))
      let item: Expression = batch == .fixed(1) ? 0 : k.define("item", unit / (count * .integer(heads)))
      let shared = k.define("shared", head / .integer(heads / kvHeads))
      let query = k.pointer(
        "query", q, offset: (item * count + token) * .integer(queryStride) + head * .integer(headDim))
      let keyRows = k.pointer(
        "keys", keyPointer, offset: item * rowCount * .integer(keyStride) + shared * .integer(key.headStride(keySize)))
      let valueRows = k.pointer(
        "values", valuePointer,
        offset: item * rowCount * .integer(valueStride) + shared * .integer(value.headStride(valueSize)))
      var end = rowCount
      if causal {
        end = position.map { $0[0].asIndex + token + 1 } ?? (rowCount - count + token + 1)
      }
      end = k.define("end", end)
      let begin = window.map { k.define("begin", .maximum(end - .integer($0), 0)) } ?? 0
      let maskRow = maskPointer.map { pointer in
        k.pointer("mask_row", pointer, offset: maskOffset(item: item, head: head, token: token, count, rowCount))
      }
      k.vectorLoop("d", count: .integer((valueDim + k.lanes - 1) / k.lanes * k.lanes)) { d, _ in
        k.store(sums, d, .broadcast(.real(0)))
      }
      let largest = k.variable("largest", .real(-.infinity))
      let total = k.variable("total", .real(0))
      func pass(
        _ keys: CacheRows, _ values: CacheRows, from begin: Expression, to end: Expression, behind start: Expression
      ) {
        k.loop("first", from: begin, to: end, step: Self.block) { first in
          let rows = k.define("rows", .minimum(end - first, .integer(Self.block)))
          let row = k.define("first_row", first - start)
          score(k, query: query, keys: keys, mask: maskRow, first: first, row: row, rows: rows, scores: scores)
          let correction = weigh(k, scores: scores, rows: rows, largest: largest, total: total)
          accumulate(k, values: values, row: row, rows: rows, scores: scores, sums: sums, correction: correction)
        }
      }
      let keys = CacheRows(pointer: keyRows, element: key, stride: keyStride, size: keySize, table: tables.keys)
      let values = CacheRows(
        pointer: valueRows, element: value, stride: valueStride, size: valueSize, table: tables.values)
      if let recent, let last, let position {
        pass(keys, values, from: begin, to: k.define("early", end - .integer(recent)), behind: 0)
        let lastKeys = k.pointer("last_keys", last.keys, offset: shared * .integer(headDim))
        let lastValues = k.pointer("last_values", last.values, offset: shared * .integer(valueDim))
        pass(
          CacheRows(pointer: lastKeys, element: .f32, stride: kvHeads * headDim, size: headDim),
          CacheRows(pointer: lastValues, element: .f32, stride: kvHeads * valueDim, size: valueDim),
          from: k.define("late", .maximum(end - .integer(recent), begin)), to: end,
          behind: k.define("start", position[0].asIndex - .integer(recent)))
      } else {
        pass(keys, values, from: begin, to: end, behind: 0)
      }
      let inverse = k.define("inverse", .broadcast(.choose(total > 0.0, 1 / total, 0.0)))
      let out = k.define("out", ((item * count + token) * .integer(heads) + head) * .integer(valueDim))
      k.vectorLoop("d", count: .integer(valueDim)) { d, tail in
        k.store(y, out + d, sums.load(d) * inverse, count: tail)
      }
    }
    return k.finish()
  }

  /// Where the mask for a row of scores begins.
  func maskOffset(
    item: Expression, head: Expression, token: Expression, _ count: Expression, _ rowCount: Expression
  ) -> Expression {
    let sizes = [(item, Expression.integer(0)), (head, .integer(heads)), (token, count), (.integer(0), rowCount)]
    var stride: Expression = 1
    var offset: Expression = 0
    for axis in (0..<4).reversed() where !maskIsBroadcast[axis] {
      if axis < 3 { offset = offset + sizes[axis].0 * stride }
      if axis > 0 { stride = stride * sizes[axis].1 }
    }
    return offset
  }

  /// Rows of keys or values of one head.
  private struct CacheRows {
    let pointer: Pointer
    let element: CacheElement
    let stride: Int
    /// Numbers of the head.
    let size: Int
    /// The table that codes are places in.
    var table: Expression?
  }

  /// scores[r] = scale * query . keys[row + r] for the key `first + r`, capped and masked; -inf beyond the last row.
  private func score(
    _ k: KernelBuilder, query: Pointer, keys: CacheRows, mask: Pointer?, first: Expression, row start: Expression,
    rows: Expression, scores: Pointer
  ) {
    let parts = keys.element.parts(keys.size, lanes: k.lanes)
    func load(_ part: CacheElement.Part) -> Expression { query.load(.integer(part.start), count: part.tail(k.lanes)) }
    let loaded = parts.count <= 8 ? parts.map { k.define("q", load($0)) } : []
    k.loop("r", to: rows) { r in
      let row = CacheRow(
        k, keys.pointer, keys.element, at: (start + r) * .integer(keys.stride), size: keys.size,
        table: keys.table)
      var products: [Expression?] = [nil, nil]
      func add(_ a: Expression, _ b: Expression, to index: Int) {
        products[index % 2] = k.define("p", products[index % 2].map { .multiplyAdd(a, b, $0) } ?? a * b)
      }
      var group: Expression?
      for (index, part) in parts.enumerated() {
        let a = loaded.isEmpty ? load(part) : loaded[index]
        let b = row.loadUnscaled(part, lanes: k.lanes)
        guard row.scales.count > 1, let scale = row.scales[part.group] else {
          add(a, b, to: index)
          continue
        }
        let sum = k.define("s", group.map { .multiplyAdd(a, b, $0) } ?? a * b)
        let isLast = index + 1 == parts.count || parts[index + 1].group != part.group
        if isLast { add(sum, .broadcast(scale), to: part.group) }
        group = isLast ? nil : sum
      }
      let product = products.compactMap { $0 }.reduce(nil) { (sum: Expression?, next) in sum.map { $0 + next } ?? next }
      var score = Expression.reduce(.sum, product ?? .broadcast(.real(0))) * .real(scale)
      if let scale = row.scale { score = score * scale }
      if let softcap { score = Expression.real(softcap) * Expression.call(.tanh, score * .real(1 / softcap)) }
      if let mask {
        let element = mask[maskIsBroadcast[3] ? 0 : first + r]
        if mask.element == .u8 {
          score = .choose(element.asIndex.isNotEqual(to: 0), score, .real(-.infinity))
        } else {
          score = score + element
        }
      }
      k.store(scores, r, score)
    }
    k.loop("r", from: rows, to: .integer(max(Self.block, k.lanes))) { r in
      k.store(scores, r, .real(-.infinity))
    }
  }

  /// Replaces scores by exp(score - largest), updates largest and total, and returns the factor for the sums so far.
  private func weigh(
    _ k: KernelBuilder, scores: Pointer, rows: Expression, largest: Expression, total: Expression
  ) -> Expression {
    let width = max(Self.block, k.lanes)
    let starts = stride(from: 0, to: width, by: k.lanes).map { Expression.integer($0) }
    let loaded = starts.map { k.define("s", scores.load($0)) }
    let high = loaded.dropFirst().reduce(loaded[0]) { .maximum($0, $1) }
    let block = k.define("block", .reduce(.maximum, high))
    let next = k.define("next", .maximum(block, largest))
    // Where every key so far is hidden, 0 stands in for -inf, whose difference with itself is no number.
    let base = k.define("base", .choose(next > .real(-.infinity), next, 0.0))
    let correction = k.define("correction", .call(.exp, largest - base))
    var sum: Expression?
    for (start, score) in zip(starts, loaded) {
      let weight = k.define("e", .call(.exp, score - .broadcast(base)))
      k.store(scores, start, weight)
      sum = sum.map { $0 + weight } ?? weight
    }
    k.assign(total, .multiplyAdd(total, correction, .reduce(.sum, sum ?? .broadcast(.real(0)))))
    k.assign(largest, next)
    return k.define("factor", .broadcast(correction))
  }

  /// sums = sums * correction + scores[r] * values[row + r]. Sums of numbers that the values do not have are still 0, as
  /// rows with fewer of them come first.
  private func accumulate(
    _ k: KernelBuilder, values: CacheRows, row start: Expression, rows: Expression, scores: Pointer, sums: Pointer,
    correction: Expression
  ) {
    let parts = values.element.parts(values.size, lanes: k.lanes)
    // Sums are padded to whole vectors; behind parts of codes lie other sums.
    func tail(_ part: CacheElement.Part) -> Expression? { values.element.isPacked ? part.tail(k.lanes) : nil }
    for chunk in stride(from: 0, to: parts.count, by: 8) {
      let part = Array(parts[chunk..<min(parts.count, chunk + 8)])
      let registers = part.map {
        k.variable("v\($0.start)", sums.load(.integer($0.start), count: tail($0)) * correction)
      }
      k.loop("r", to: rows) { r in
        let row = CacheRow(
          k, values.pointer, values.element, at: (start + r) * .integer(values.stride), size: values.size,
          table: values.table, groups: (part.first?.group ?? 0)...(part.last?.group ?? 0))
        var weight: Expression?
        for (index, register) in registers.enumerated() {
          let group = part[index].group
          if index == 0 || row.scales.count > 1 && group != part[index - 1].group {
            weight = k.define("weight", .broadcast(row.scales[group].map { scores[r] * $0 } ?? scores[r]))
          }
          guard let weight else { continue }
          k.assign(register, .multiplyAdd(weight, row.loadUnscaled(part[index], lanes: k.lanes), register))
        }
      }
      for (part, register) in zip(part, registers) {
        k.store(sums, .integer(part.start), register, count: tail(part))
      }
    }
  }
}
