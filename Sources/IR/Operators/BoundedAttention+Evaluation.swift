import Base
import Tensors

extension BoundedAttention: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let position = integer(inputs[6].view)
    guard position >= 0 else { throw failure("the position is \(position)") }
    for index in 0..<3 {
      let (source, target) = (inputs[index].data, results[index].data)
      if UnsafePointer(target) != source { target.update(from: source, count: results[index].count) }
    }
    let (k, v) = (
      Stored<R>(inputs[4], inputs[0].view.type.element), Stored<R>(inputs[5], inputs[1].view.type.element)
    )
    nonisolated(unsafe) let plan = BoundedAttentionPlan<R>(
      op: self, kvHeads: inputs[0].sizes[0], rows: inputs[0].sizes[1], depth: inputs[0].sizes[2],
      valueDepth: inputs[1].sizes[2], tokens: inputs[3].sizes[0], position: position, q: inputs[3].data,
      k: k.numbers.data, v: v.numbers.data, keys: results[0].data, values: results[1].data, received: results[2].data,
      y: results[3].data)
    parallelFor(plan.kvHeads) { range in for head in range { plan.run(head) } }
    withExtendedLifetime((k, v)) {}
  }
}

/// Rows as a cache of an element type holds them.
private final class Stored<R: Real> {
  let numbers: Numbers<R>
  private let tensor: Tensor

  init(_ rows: Numbers<R>, _ element: DType) {
    tensor = Tensor(TensorType(element, rows.sizes))
    convertRow(
      UnsafeRawBufferPointer(UnsafeBufferPointer(start: rows.data, count: rows.count)), R.dtype,
      into: tensor.mutableView.bytes, element)
    numbers = Numbers(tensor.view)
  }
}

/// One call: what each key and value head reads and writes.
private struct BoundedAttentionPlan<R: Real> {
  let op: BoundedAttention
  let kvHeads, rows, depth, valueDepth, tokens, position: Int
  let q, k, v: UnsafePointer<R>
  let keys, values, received, y: UnsafeMutablePointer<R>

  func run(_ head: Int) {
    let group = op.heads / kvHeads
    let scores = Scratch<R>(rows)
    for token in 0..<tokens {
      insert(token, head)
      let count = min(position + token + 1, rows)
      for index in head * group..<(head + 1) * group { attend(token, index, head, count, scores.data) }
    }
    withExtendedLifetime(scores) {}
  }

  /// Gives a token its row.
  private func insert(_ token: Int, _ head: Int) {
    let place = position + token
    let own = received + 2 * head * rows
    var row = place
    if place >= op.sinks + op.recent {
      row = op.sinks + (place - op.sinks) % op.recent
      if let target = place < rows ? place : leastReceived(own, place, than: row) {
        copy(row, to: target, head)
        (own[target], own[rows + target]) = (own[row], own[rows + row])
      }
    }
    let (key, value) = ((head * rows + row) * depth, (head * rows + row) * valueDepth)
    (keys + key).update(from: k + (token * kvHeads + head) * depth, count: depth)
    (values + value).update(from: v + (token * kvHeads + head) * valueDepth, count: valueDepth)
    (own[row], own[rows + row]) = (0, R(place))
  }

  /// The row between sinks and last tokens that received least of each of the tokens before `place`, if that is not more
  /// than what the row `other` did.
  private func leastReceived(_ received: UnsafeMutablePointer<R>, _ place: Int, than other: Int) -> Int? {
    func mean(_ row: Int) -> R { received[row] / (R(place) - received[rows + row]) }
    var least = R.infinity
    var found: Int?
    for row in op.sinks + op.recent..<rows {
      let mean = mean(row)
      if mean < least { (least, found) = (mean, row) }
    }
    return least <= mean(other) ? found : nil
  }

  private func copy(_ row: Int, to target: Int, _ head: Int) {
    let first = head * rows
    (keys + (first + target) * depth).update(from: keys + (first + row) * depth, count: depth)
    (values + (first + target) * valueDepth).update(from: values + (first + row) * valueDepth, count: valueDepth)
  }

  /// One query over the rows that are taken.
  private func attend(_ token: Int, _ index: Int, _ head: Int, _ count: Int, _ scores: UnsafeMutablePointer<R>) {
    let query = q + (token * op.heads + index) * depth
    let scale = R(rounding: Double(op.scale))
    let softcap = op.softcap.map { R(rounding: Double($0)) }
    var largest = -R.infinity
    for row in 0..<count {
      let key = keys + (head * rows + row) * depth
      var sum = R.zero
      for d in 0..<depth { sum += query[d] * key[d] }
      var score = sum * scale
      if let softcap { score = softcap * R.tanh(score / softcap) }
      if score > largest { largest = score }
      scores[row] = score
    }
    var total = 0.0
    for row in 0..<count {
      scores[row] = R.exp(scores[row] - (largest == -R.infinity ? 0 : largest))
      total += Double(scores[row])
    }
    let factor = R(rounding: total == 0 ? 0 : 1 / total)
    let result = y + (token * op.heads + index) * valueDepth
    result.update(repeating: 0, count: valueDepth)
    let own = received + 2 * head * rows
    for row in 0..<count {
      let weight = scores[row] * factor
      own[row] += weight
      let value = values + (head * rows + row) * valueDepth
      for d in 0..<valueDepth { result[d] += weight * value[d] }
    }
  }
}
