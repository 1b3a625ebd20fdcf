import Base
import Tensors

extension Attention: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    nonisolated(unsafe) let plan = try plan(inputs, results[0].data)
    if plan.work < 1 << 16 {
      for head in 0..<plan.count { plan.run(head) }
    } else {
      parallelFor(plan.count) { range in for head in range { plan.run(head) } }
    }
    withExtendedLifetime(plan) {}
  }

  /// For each key that a query may see, of each batch, the sum of its weights over all queries and heads.
  package func received(_ inputs: [TensorView]) throws -> [Float] {
    let numbers = inputs.map { Numbers<Float>($0) }
    return try withExtendedLifetime(numbers) {
      let plan = try plan(numbers, nil)
      defer { withExtendedLifetime(plan) {} }
      return plan.received(parts: 1)[0]
    }
  }

  /// The same for the heads of each key and value head by themselves, of one batch.
  package func receivedByHead(_ inputs: [TensorView]) throws -> [[Float]] {
    let numbers = inputs.map { Numbers<Float>($0) }
    return try withExtendedLifetime(numbers) {
      let plan = try plan(numbers, nil)
      defer { withExtendedLifetime(plan) {} }
      return plan.received(parts: kvHeads)
    }
  }

  private func plan<R: Real>(_ inputs: [Numbers<R>], _ y: UnsafeMutablePointer<R>?) throws -> AttentionPlan<R> {
    let (q, k, v) = (inputs[0], inputs[1], inputs[2])
    let rank = q.sizes.count
    let batches = rank == 3 ? q.sizes[0] : 1
    let queries = q.sizes[rank - 2]
    let keys = k.sizes[rank - 2]
    let optional = optionalInputs(inputs.map(\.view.type))
    var past: Int?
    if causal { past = optional.position.map { integer(inputs[$0].view) } ?? keys - queries }
    if let past, past < 0 || past > keys - queries {
      throw failure("\(queries) queries at position \(past) need more keys than \(keys)")
    }
    // Rows beyond the last visible key are not read.
    let visible = past.map { $0 + queries } ?? keys
    let (kWidth, vWidth) = (k.sizes[rank - 1], v.sizes[rank - 1])
    let mask = optional.mask.map { AttentionMask(inputs[$0], batches, heads, queries, keys) }
    let last = recentInputs(inputs.count).map { range in
      LastRows(
        k: inputs[range.lowerBound].data, v: inputs[range.lowerBound + 1].data,
        vWidth: inputs[range.lowerBound + 1].sizes[1])
    }
    if let latent, let range = latentInputs(inputs.count), let past, let last {
      let (keyFactors, valueFactors) = (inputs[range.lowerBound], inputs[range.lowerBound + 1])
      let factors = LatentFactors(
        heads: kvHeads, headDim: keyFactors.sizes[2], valueDim: valueFactors.sizes[2],
        keys: keyFactors.data, values: valueFactors.data,
        angles: latent.angleBlock.map { angles(inputs[range.lowerBound + 2], $0, latent.interleaved) })
      // Rows that no query reads are zeros.
      let old = max(0, (latent.wholeCalls ? past + 1 : visible) - (recent ?? 0))
      let all = (
        keys: factors.expandedKeys(k.prefix(old * kWidth), count: old, of: visible, rank: kWidth),
        values: factors.expandedValues(v.prefix(old * vWidth), count: old, of: visible, rank: vWidth)
      )
      return AttentionPlan<R>(
        op: self, batches: 1, queries: queries, visible: visible, past: past, qWidth: q.sizes[rank - 1],
        kWidth: kvHeads * factors.headDim, vWidth: kvHeads * factors.valueDim, q: q.data,
        k: UnsafePointer(all.keys.data), v: UnsafePointer(all.values.data), y: y, mask: mask, keys: visible, last: last,
        kept: [all.keys, all.values], rounded: nil)
    }
    if let channels, let range = channelInputs(inputs.count), let past, let last {
      let numbers = ChannelNumbers(
        heads: kvHeads, headDim: kWidth / kvHeads, outliers: channels.outliers, scales: inputs[range.lowerBound].data,
        angles: channels.angleBlock.map { angles(inputs[range.lowerBound + 1], $0, channels.interleaved) })
      let old = max(0, visible - (recent ?? 0))
      let apart = (0..<2).map { side in
        channels.outliers > 0 ? inputs[range.upperBound - 2 + side].prefix(old * 2 * channels.outliers) : nil
      }
      let all = (
        keys: numbers.keys(k.prefix(old * kWidth), apart[0], count: old, of: visible),
        values: numbers.values(v.prefix(old * vWidth), apart[1], width: vWidth, count: old, of: visible)
      )
      return AttentionPlan<R>(
        op: self, batches: 1, queries: queries, visible: visible, past: past, qWidth: q.sizes[rank - 1],
        kWidth: kWidth, vWidth: vWidth, q: q.data, k: UnsafePointer(all.keys.data), v: UnsafePointer(all.values.data),
        y: y, mask: mask, keys: visible, last: last, kept: [all.keys, all.values], rounded: nil)
    }
    if let range = termInputs(inputs.count), let block = angleBlock, let past {
      let term = KeyTerm(
        means: inputs[range.lowerBound].data, angles: inputs[range.lowerBound + 1].data, width: kWidth,
        headDim: kWidth / kvHeads, block: block)
      let first = past - (recent ?? 0)
      let all = term.added(to: k.prefix(visible * kWidth), rows: visible, from: 0)
      let late = last.map { term.added(to: $0.k, rows: visible - first, from: first) }
      return AttentionPlan<R>(
        op: self, batches: 1, queries: queries, visible: visible, past: past, qWidth: q.sizes[rank - 1],
        kWidth: kWidth, vWidth: vWidth, q: q.data, k: UnsafePointer(all.data), v: v.prefix(visible * vWidth), y: y,
        mask: mask, keys: keys,
        last: last.flatMap { last in
          late.map { LastRows(k: UnsafePointer($0.data), v: last.v, vWidth: last.vWidth) }
        },
        kept: [all] + (late.map { [$0] } ?? []), rounded: nil)
    }
    let rounded = int8.flatMap { int8 -> RoundedRows<R>? in
      guard queries > 1 else { return nil }
      var keepsKeys = false
      if case .block(let format) = k.view.type.encoding { keepsKeys = format.bits == 8 }
      return RoundedRows(
        int8, batches: batches, rows: visible, keys: (k.visible(batches, visible, kWidth), keys * kWidth, kWidth),
        values: (v.visible(batches, visible, vWidth), keys * vWidth, vWidth), heads: kvHeads, keepsKeys: keepsKeys)
    }
    return AttentionPlan<R>(
      op: self, batches: batches, queries: queries, visible: visible, past: past, qWidth: q.sizes[rank - 1],
      kWidth: kWidth, vWidth: vWidth, q: q.data, k: k.visible(batches, visible, kWidth),
      v: v.visible(batches, visible, vWidth), y: y, mask: mask, keys: keys, last: last, rounded: rounded)
  }
}

/// Angles of keys from `[N, 2, C]`.
private func angles<R: Real>(_ numbers: Numbers<R>, _ block: Int, _ interleaved: Bool) -> KeyAngles<R> {
  KeyAngles(numbers: numbers.data, block: block, interleaved: interleaved, turning: numbers.sizes[2])
}

extension Numbers {
  /// The numbers up to the last visible row; of several batches all.
  fileprivate func visible(_ batches: Int, _ visible: Int, _ width: Int) -> UnsafePointer<S> {
    prefix(batches == 1 ? visible * width : count)
  }
}

/// A mask as numbers to add to scores.
private struct AttentionMask<R: Real> {
  let data: UnsafePointer<R>
  let strides: [Int]
  let isBool: Bool

  init(_ mask: Numbers<R>, _ batches: Int, _ heads: Int, _ queries: Int, _ keys: Int) {
    data = mask.data
    strides = broadcastStrides(mask.sizes, over: [batches, heads, queries, keys])
    isBool = mask.view.type.element == .bool
  }

  func apply(to scores: UnsafeMutablePointer<R>, batch: Int, head: Int, query: Int, keys: Range<Int>) {
    let row = data + batch * strides[0] + head * strides[1] + query * strides[2]
    if isBool {
      for j in keys where row[j * strides[3]] == 0 { scores[j] = -R.infinity }
    } else {
      for j in keys { scores[j] += row[j * strides[3]] }
    }
  }
}

/// The last keys, as wide as queries, and the last values, from the row `recent` before the first query on.
private struct LastRows<R: Real> {
  let k, v: UnsafePointer<R>
  let vWidth: Int
}

/// One attention: what each head reads and writes.
private struct AttentionPlan<R: Real> {
  let op: Attention
  let batches, queries, visible: Int
  let past: Int?
  let qWidth, kWidth, vWidth: Int
  let q, k, v: UnsafePointer<R>
  /// Nil where no result is wanted.
  let y: UnsafeMutablePointer<R>?
  let mask: AttentionMask<R>?
  let keys: Int
  let last: LastRows<R>?
  /// Memory that lives as long as the plan.
  var kept: [Scratch<R>] = []
  /// Keys and values as bytes stand for them; nil where products are those of the numbers.
  let rounded: RoundedRows<R>?

  /// Heads of all batches.
  var count: Int { batches * op.heads }

  var work: Int { count * queries * visible }

  func run(_ index: Int) {
    guard let y else { return }
    let (batch, head) = index.quotientAndRemainder(dividingBy: op.heads)
    // Those of the cache may have fewer numbers of a head than those of the result.
    let (oldDepth, valueDepth) = (vWidth / op.kvHeads, (last?.vWidth ?? vWidth) / op.kvHeads)
    let yWidth = valueDepth * op.heads
    let scores = weights(index)
    let group = head / (op.heads / op.kvHeads)
    let result = y + batch * queries * yWidth + head * valueDepth
    // What the last values are weighed with is no weight of the others.
    var late: [(query: Int, row: Int, weight: R)] = []
    if last != nil {
      for i in 0..<queries {
        for (key, row) in recentKeys(i) {
          late.append((i, row, scores.data[i * visible + key]))
          scores.data[i * visible + key] = 0
        }
      }
    }
    var values: UnsafePointer<R> = v + batch * keys * vWidth
    if let rounded { values = UnsafePointer(rounded.values.data + batch * visible * vWidth) }
    R.multiply(
      MatrixProduct(
        rows: queries, columns: oldDepth, depth: visible, strideA: visible, strideB: vWidth, strideC: yWidth),
      scores.data, values + group * oldDepth, into: result)
    withExtendedLifetime(scores) {}
    guard let last else { return }
    for query in 0..<queries {
      for d in oldDepth..<valueDepth { result[query * yWidth + d] = 0 }
    }
    for (query, row, weight) in late {
      let (values, sums) = (last.v + row * last.vWidth + group * valueDepth, result + query * yWidth)
      for d in 0..<valueDepth { sums[d] += weight * values[d] }
    }
  }

  /// The keys that a query takes from the last rows, with their rows there.
  private func recentKeys(_ query: Int) -> [(key: Int, row: Int)] {
    guard let past, let recent = op.recent else { return [] }
    let end = past + query + 1
    let first = op.latent?.wholeCalls == true ? past + 1 : end
    return (max(0, first - recent)..<end).map { ($0, $0 - past + recent) }
  }

  /// The weights of a head, a row for each query.
  private func weights(_ index: Int) -> Scratch<R> {
    let (batch, head) = index.quotientAndRemainder(dividingBy: op.heads)
    let group = head / (op.heads / op.kvHeads)
    let (depth, oldDepth) = (qWidth / op.heads, kWidth / op.kvHeads)
    let scores = Scratch<R>(queries * visible)
    let own = q + batch * queries * qWidth + head * depth
    if let rounded {
      rounded.score(
        own, queries: queries, stride: qWidth, batch: batch, column: group * depth, depth: depth,
        scale: Double(op.scale), into: scores.data)
    } else {
      R.multiply(
        MatrixProduct(
          rows: queries, columns: visible, depth: oldDepth, transposeB: true, strideA: qWidth, strideB: kWidth,
          strideC: visible, alpha: Double(op.scale)),
        own, k + batch * keys * kWidth + group * oldDepth, into: scores.data)
    }
    if let last {
      let scale = R(rounding: Double(op.scale))
      for i in 0..<queries {
        let query = q + i * qWidth + head * depth
        for (key, row) in recentKeys(i) {
          let other = last.k + (row * op.kvHeads + group) * depth
          var sum = R.zero
          for d in 0..<depth { sum += query[d] * other[d] }
          scores.data[i * visible + key] = scale * sum
        }
      }
    }
    for i in 0..<queries { weigh(scores.data + i * visible, batch: batch, head: head, query: i) }
    return scores
  }

  /// The sums of the weights of each key, by batch, for each of `parts` equal parts of the heads.
  func received(parts: Int) -> [[Float]] {
    var sums = [[Float]](repeating: [Float](repeating: 0, count: batches * visible), count: parts)
    for index in 0..<count {
      let scores = weights(index)
      let first = index / op.heads * visible
      let part = index % op.heads / (op.heads / parts)
      for i in 0..<queries {
        for j in 0..<visible { sums[part][first + j] += Float(scores.data[i * visible + j]) }
      }
      withExtendedLifetime(scores) {}
    }
    return sums
  }

  /// Turns the scores of a query into weights: cap, mask, softmax; zeros for keys it does not see.
  private func weigh(_ scores: UnsafeMutablePointer<R>, batch: Int, head: Int, query: Int) {
    let end = past.map { $0 + query + 1 } ?? visible
    let seen = max(0, op.window.map { end - $0 } ?? 0)..<end
    if let softcap = op.softcap.map({ R(rounding: Double($0)) }) {
      for j in seen { scores[j] = softcap * R.tanh(scores[j] / softcap) }
    }
    mask?.apply(to: scores, batch: batch, head: head, query: query, keys: seen)
    if let rounded {
      rounded.weigh(scores, seen)
      for j in 0..<seen.lowerBound { scores[j] = 0 }
      for j in end..<max(end, visible) { scores[j] = 0 }
      return
    }
    var largest = -R.infinity
    for j in seen where scores[j] > largest || scores[j].isNaN { largest = scores[j] }
    var sum = 0.0
    for j in seen {
      scores[j] = largest == -R.infinity ? 0 : R.exp(scores[j] - largest)
      sum += Double(scores[j])
    }
    let factor = R(rounding: sum == 0 ? 0 : 1 / sum)
    for j in seen { scores[j] *= factor }
    for j in 0..<seen.lowerBound { scores[j] = 0 }
    for j in end..<max(end, visible) { scores[j] = 0 }
  }
}
