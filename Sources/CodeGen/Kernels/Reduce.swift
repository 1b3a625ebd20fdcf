/// Sum, mean, largest, smallest or product along the middle axis of x[outer, length, inner].
package struct ReduceConfig: Hashable, Codable, Sendable {
  package enum Function: String, Hashable, Codable, Sendable {
    case sum, mean, max, min, product
  }

  package var function: Function
  package var outer: Extent
  package var length: Extent
  package var inner: Int

  package init(function: Function, outer: Extent, length: Extent, inner: Int = 1) {
    self.function = function
    self.outer = outer
    self.length = length
    self.inner = inner
  }

  package func name(target: Target) -> String {
    "mcc_reduce_\(function.rawValue)_\(outer.text)x\(length.text)x\(inner)_\(target.suffix)"
  }

  private var initial: Float {
    switch function {
    case .sum, .mean: 0
    case .max: -.infinity
    case .min: .infinity
    case .product: 1
    }
  }

  /// The two values folded; NaN stays.
  private func fold(_ a: Expression, _ b: Expression) -> Expression {
    switch function {
    case .sum, .mean: a + b
    case .max: .choose(a.isNotEqual(to: a), a, .maximum(a, b))
    case .min: .choose(a.isNotEqual(to: a), a, .minimum(a, b))
    case .product: a * b
    }
  }

  /// Parameters: x, y, then the run-time ones of outer and length. Threads share the results; each is folded by vectors of
  /// neighbouring elements (inner 1) or in order.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = ["\(function.rawValue) along the middle axis of x[\(outer.text), \(length.text), \(inner)]."]
    let x = k.input("x", .f32)
    let y = k.output("y", .f32)
    let rows = k.extent(outer)
    let count = k.extent(length)
    let divisor = { () -> Expression? in function == .mean ? count.asFloatCount : nil }
    if inner == 1 {
      let part = k.partition(rows)
      k.loop("row", from: part.begin, to: part.end) { row in
        let base = k.define("base", row * count)
        let folded = k.variable("folded", .broadcast(.real(initial)))
        k.vectorLoop("i", count: count) { i, tail in
          var value = x.load(base + i, count: tail)
          if let tail, initial != 0 { value = .choose(.laneNumbers < .broadcast(tail), value, .real(initial)) }
          k.assign(folded, fold(folded, k.define("v", value)))
        }
        // Lanes are folded in order: the horizontal verbs would drop a NaN.
        let lanes = k.array("lanes", .f32, count: k.lanes)
        k.store(lanes, 0, folded)
        let result = k.variable("result", lanes[0])
        k.loop("lane", from: 1, to: .integer(k.lanes)) { lane in
          k.assign(result, fold(result, k.define("next", lanes[lane])))
        }
        k.store(y, row, divisor().map { result / $0 } ?? result)
      }
      return k.finish()
    }
    let chunks = (inner + k.lanes - 1) / k.lanes
    let part = k.partition(rows * .integer(chunks))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let column = k.define("column", unit % .integer(chunks) * .integer(k.lanes))
      let row = k.define("row", unit / .integer(chunks))
      let base = k.define("base", row * count * .integer(inner) + column)
      let tail = inner % k.lanes == 0 ? nil : k.define("width", .minimum(.integer(k.lanes), .integer(inner) - column))
      let folded = k.variable("folded", .broadcast(.real(initial)))
      k.loop("i", to: count) { i in
        k.assign(folded, fold(folded, k.define("v", x.load(base + i * .integer(inner), count: tail))))
      }
      k.store(y, row * .integer(inner) + column, divisor().map { folded / $0 } ?? folded, count: tail)
    }
    return k.finish()
  }
}

extension Expression {
  /// A count as f32.
  fileprivate var asFloatCount: Expression {
    if case .integer(let value) = self { return .real(Float(value)) }
    return .convert(self, .f32)
  }
}
