import IR
import Tensors

/// The experts of each token and how much each counts (see `Route`).
package struct RouteConfig: Hashable, Codable, Sendable {
  package var experts: Int
  package var tokens: Extent
  package var op: Route
  package var hasBias: Bool

  package func name(target: Target) -> String {
    var parts = ["mcc_route", "\(op.count)of\(experts)", op.scoring.rawValue]
    if hasBias { parts.append("bias") }
    if op.normalizes { parts.append("normalized") }
    if op.groups > 1 { parts.append("groups\(op.chosenGroups)of\(op.groups)\(op.groupScore.rawValue)") }
    if op.scale != 1 { parts.append("scale\(shortHash("\(op.scale)"))") }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: logits, bias if there is one, ids, weights, then the number of tokens if it is a run-time one. Threads
  /// share the tokens. The largest of a row is searched for as often as experts are wanted.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = ["The best \(op.count) of \(experts) experts for \(tokens.text) rows of logits, and their weights."]
    let logits = k.input("logits", .f32)
    let bias = hasBias ? k.input("bias", .f32) : nil
    let ids = k.output("ids", .i32), weights = k.output("weights", .f32)
    let count = k.extent(tokens)
    let part = k.partition(count)
    let padded = (experts + k.lanes - 1) / k.lanes * k.lanes
    let scores = k.array("scores", .f32, count: padded)
    let judged = k.array("judged", .f32, count: padded)
    k.loop("token", from: part.begin, to: part.end) { token in
      let row = k.pointer("row", logits, offset: token * .integer(experts))
      score(k, row, scores)
      k.vectorLoop("e", count: .integer(experts)) { e, tail in
        var value = scores.load(e, count: tail)
        if let bias { value = value + bias.load(e, count: tail) }
        k.store(judged, e, value, count: tail)
      }
      if op.groups > 1, op.chosenGroups < op.groups { dropGroups(k, judged) }
      let place = k.define("place", token * .integer(op.count))
      let sum: Expression? = op.normalizes ? k.variable("sum", .real(0)) : nil
      k.loop("slot", to: .integer(op.count)) { slot in
        let best = largest(k, judged, from: 0, to: .integer(experts)).index
        k.store(judged, best, .real(-.infinity))
        k.store(ids, place + slot, .convert(best, .i32))
        k.store(weights, place + slot, scores[best])
        if let sum { k.assign(sum, sum + scores[best]) }
      }
      guard sum != nil || op.scale != 1 else { return }
      let factor = k.define("factor", sum.map { Expression.real(op.scale) / $0 } ?? Expression.real(op.scale))
      k.loop("slot", to: .integer(op.count)) { slot in
        k.store(weights, place + slot, weights[place + slot] * factor)
      }
    }
    return k.finish()
  }

  private func score(_ k: KernelBuilder, _ row: Pointer, _ scores: Pointer) {
    let count = Expression.integer(experts)
    guard op.scoring == .softmax else {
      k.vectorLoop("e", count: count) { e, tail in
        k.store(scores, e, .call(.sigmoid, row.load(e, count: tail)), count: tail)
      }
      return
    }
    let high = k.variable("high", .broadcast(.real(-.infinity)))
    k.vectorLoop("e", count: count) { e, tail in
      var value = row.load(e, count: tail)
      if let tail { value = .choose(.laneNumbers < .broadcast(tail), value, .real(-.infinity)) }
      k.assign(high, .maximum(high, value))
    }
    let largest = k.define("largest", .broadcast(.reduce(.maximum, high)))
    let sums = k.variable("sums", .broadcast(.real(0)))
    k.vectorLoop("e", count: count) { e, tail in
      var value = k.define("v", .call(.exp, row.load(e, count: tail) - largest))
      k.store(scores, e, value, count: tail)
      if let tail { value = .choose(.laneNumbers < .broadcast(tail), value, 0.0) }
      k.assign(sums, sums + value)
    }
    let factor = k.define("inverse", .broadcast(1 / Expression.reduce(.sum, sums)))
    k.vectorLoop("e", count: count) { e, tail in
      k.store(scores, e, scores.load(e, count: tail) * factor, count: tail)
    }
  }

  /// The largest of some numbers, the first of equal ones.
  private func largest(
    _ k: KernelBuilder, _ numbers: Pointer, from: Expression, to: Expression
  ) -> (index: Expression, value: Expression) {
    let value = k.variable("most", .real(-.infinity))
    let index = k.variable("best", from + 0)
    k.loop("e", from: from, to: to) { e in
      k.condition(numbers[e] > value) {
        k.assign(value, numbers[e])
        k.assign(index, e)
      }
    }
    return (index, value)
  }

  private func largestValue(
    _ k: KernelBuilder, _ numbers: Pointer, from: Expression, to: Expression
  ) -> Expression {
    let value = k.variable("most", .real(-.infinity))
    k.loop("e", from: from, to: to) { e in k.assign(value, .maximum(numbers[e], value)) }
    return value
  }

  /// Puts the scores of groups that are not chosen out of the running.
  private func dropGroups(_ k: KernelBuilder, _ judged: Pointer) {
    let size = experts / op.groups
    let lanes = (op.groups + k.lanes - 1) / k.lanes * k.lanes
    let groups = k.array("groups", .f32, count: lanes)
    let dropped = k.array("dropped", .f32, count: lanes)
    k.loop("g", to: .integer(op.groups)) { g in
      let from = k.define("from", g * .integer(size)), to = k.define("to", g * .integer(size) + .integer(size))
      k.store(dropped, g, .real(1))
      guard op.groupScore == .twoBest else { return k.store(groups, g, largestValue(k, judged, from: from, to: to)) }
      let best = largest(k, judged, from: from, to: to)
      let kept = k.define("kept", best.value + .real(0))
      k.store(judged, best.index, .real(-.infinity))
      let second = largestValue(k, judged, from: from, to: to)
      k.store(judged, best.index, kept)
      k.store(groups, g, kept + second)
    }
    k.loop("slot", to: .integer(op.chosenGroups)) { _ in
      let best = largest(k, groups, from: 0, to: .integer(op.groups)).index
      k.store(groups, best, .real(-.infinity))
      k.store(dropped, best, .real(0))
    }
    k.loop("g", to: .integer(op.groups)) { g in
      k.condition(dropped[g] > 0.0) {
        k.loop("e", from: g * .integer(size), to: g * .integer(size) + .integer(size)) { e in
          k.store(judged, e, .real(-.infinity))
        }
      }
    }
  }
}

/// The choice of experts.
package enum RouteKernel: Kernel {
  package static let name = "route"
  package static let summary = "the best experts for each token, and their weights"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Route, query.isPlain(),
      query.operands.allSatisfy({ $0.type.element == .f32 }), let logits = query.operands.first?.type,
      let experts = logits.shape[1].fixedValue, experts <= 1 << 14
    else { return [] }
    var extents = ExtentTable()
    let config = RouteConfig(
      experts: experts, tokens: extents.extent(logits.shape[0], "T"), op: op, hasBias: query.operands.count > 1)
    let size = Double(logits.maximumCount)
    return [
      KernelChoice(
        config.build(target: target),
        work: KernelWork(floatOperations: (30 + 2 * Double(op.count)) * size, bytes: 4 * size), target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0), .result(1)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}
