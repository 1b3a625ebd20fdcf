/// Softmax or its logarithm along one axis of x[outer, length, inner].
package struct SoftmaxConfig: Hashable, Codable, Sendable {
  package var isLogarithm: Bool
  package var outer: Extent
  package var length: Extent
  package var inner: Int

  package init(isLogarithm: Bool, outer: Extent, length: Extent, inner: Int = 1) {
    self.isLogarithm = isLogarithm
    self.outer = outer
    self.length = length
    self.inner = inner
  }

  package func name(target: Target) -> String {
    let sizes = [outer.text, length.text, "\(inner)"].joined(separator: "x")
    return "mcc_\(isLogarithm ? "log_" : "")softmax_\(sizes)_\(target.suffix)"
  }

  /// Parameters: x, y, then the run-time ones of outer and length. Threads share the rows.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "\(isLogarithm ? "Logarithm of the softmax" : "Softmax") along the middle axis of "
        + "x[\(outer.text), \(length.text), \(inner)]."
    ]
    let x = k.input("x", .f32)
    let y = k.output("y", .f32)
    let rows = k.extent(outer)
    let count = k.extent(length)
    if inner == 1 {
      let part = k.partition(rows)
      k.loop("row", from: part.begin, to: part.end) { row in
        alongRow(k, x, y, base: k.define("base", row * count), count)
      }
    } else {
      let chunks = (inner + k.lanes - 1) / k.lanes
      let part = k.partition(rows * .integer(chunks))
      k.loop("unit", from: part.begin, to: part.end) { unit in
        let column = k.define("column", unit % .integer(chunks) * .integer(k.lanes))
        let base = k.define("base", unit / .integer(chunks) * count * .integer(inner) + column)
        if inner % k.lanes == 0 {
          acrossRows(k, x, y, base: base, count, tail: nil)
        } else {
          acrossRows(
            k, x, y, base: base, count, tail: k.define("width", .minimum(.integer(k.lanes), .integer(inner) - column)))
        }
      }
    }
    return k.finish()
  }

  private func alongRow(_ k: KernelBuilder, _ x: Pointer, _ y: Pointer, base: Expression, _ count: Expression) {
    let high = k.variable("high", .broadcast(.real(-.infinity)))
    k.vectorLoop("i", count: count) { i, tail in
      var value = x.load(base + i, count: tail)
      if let tail { value = .choose(.laneNumbers < .broadcast(tail), value, .real(-.infinity)) }
      k.assign(high, .maximum(high, value))
    }
    let largest = k.define("largest", .broadcast(.reduce(.maximum, high)))
    let sums = k.variable("sums", .broadcast(.real(0)))
    k.vectorLoop("i", count: count) { i, tail in
      var value = k.define("e", .call(.exp, x.load(base + i, count: tail) - largest))
      if !isLogarithm { k.store(y, base + i, value, count: tail) }
      if let tail { value = .choose(.laneNumbers < .broadcast(tail), value, 0.0) }
      k.assign(sums, sums + value)
    }
    let sum = k.define("sum", .reduce(.sum, sums))
    let factor = k.define("factor", .broadcast(isLogarithm ? Expression.call(.log, sum) : 1 / sum))
    k.vectorLoop("i", count: count) { i, tail in
      let value =
        isLogarithm ? x.load(base + i, count: tail) - largest - factor : y.load(base + i, count: tail) * factor
      k.store(y, base + i, value, count: tail)
    }
  }

  private func acrossRows(
    _ k: KernelBuilder, _ x: Pointer, _ y: Pointer, base: Expression, _ count: Expression, tail: Expression?
  ) {
    let largest = k.variable("largest", .broadcast(.real(-.infinity)))
    let stride = Expression.integer(inner)
    k.loop("i", to: count) { i in k.assign(largest, .maximum(largest, x.load(base + i * stride, count: tail))) }
    let sum = k.variable("sum", .broadcast(.real(0)))
    k.loop("i", to: count) { i in
      let value = k.define("e", .call(.exp, x.load(base + i * stride, count: tail) - largest))
      if !isLogarithm { k.store(y, base + i * stride, value, count: tail) }
      k.assign(sum, sum + value)
    }
    let factor = k.define("factor", isLogarithm ? .call(.log, sum) : 1 / sum)
    k.loop("i", to: count) { i in
      let place = base + i * stride
      let value =
        isLogarithm ? x.load(place, count: tail) - largest - factor : y.load(place, count: tail) * factor
      k.store(y, place, value, count: tail)
    }
  }
}
