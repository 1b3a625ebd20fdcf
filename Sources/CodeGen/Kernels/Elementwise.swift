import IR

/// y = f(x0, x1, ...) element by element over an index space in which each input may be broadcast along some dimensions.
///
/// Config dimensions are as collapsed as possible: neighbouring dimensions along which every input is treated alike are one.
/// The last one is vectorised; the threads share the others, or chunks of a single one.
package struct ElementwiseConfig: Hashable, Sendable {
  package var expression: ScalarExpression
  package var dimensions: [Extent]
  /// For each input its element type and for each dimension whether all indices see the same element.
  package var inputs: [Input]
  package var output: ScalarType

  package struct Input: Hashable, Codable, Sendable {
    package var element: ScalarType
    package var isBroadcast: [Bool]

    package init(_ element: ScalarType, isBroadcast: [Bool]) {
      self.element = element
      self.isBroadcast = isBroadcast
    }
  }

  package init(expression: ScalarExpression, dimensions: [Extent], inputs: [Input], output: ScalarType) {
    self.expression = expression
    self.dimensions = dimensions
    self.inputs = inputs
    self.output = output
  }

  /// The same function with neighbouring dimensions merged where all inputs treat them alike; numbers are multiplied, a
  /// run-time dimension stays as it is.
  package func collapsed() -> ElementwiseConfig {
    var result = self
    var kept: [Int] = []
    var dimensions: [Extent] = []
    for index in self.dimensions.indices where self.dimensions[index] != .fixed(1) {
      if let last = kept.last, case .fixed(let a)? = dimensions.last, case .fixed(let b) = self.dimensions[index],
        inputs.allSatisfy({ $0.isBroadcast[last] == $0.isBroadcast[index] })
      {
        dimensions[dimensions.count - 1] = .fixed(a * b)
      } else {
        dimensions.append(self.dimensions[index])
        kept.append(index)
      }
    }
    result.dimensions = dimensions.isEmpty ? [.fixed(1)] : dimensions
    for input in inputs.indices {
      result.inputs[input].isBroadcast = dimensions.isEmpty ? [false] : kept.map { inputs[input].isBroadcast[$0] }
    }
    return result
  }
}

extension ElementwiseConfig {
  /// Elements a thread takes at a time of a single dimension.
  private static let chunk = 512

  /// Parameters: inputs in order, output, then the run-time dimensions in order.
  package func build(name: String, target: Target) -> KernelFunction {
    let k = KernelBuilder(name, target: target)
    let pointers = inputs.indices.map { k.input("x\($0)", inputs[$0].element) }
    let y = k.output("y", output)
    let sizes = dimensions.map { k.extent($0) }
    k.comment = ["Elementwise over [\(dimensions.map(\.text).joined(separator: ", "))]."]
    for (index, input) in inputs.enumerated() {
      let shape = zip(dimensions, input.isBroadcast).map { $1 ? "1" : $0.text }
      k.comment.append("x\(index): \(input.element.rawValue)[\(shape.joined(separator: ", "))]")
    }
    let inner = dimensions.count - 1
    /// One stretch along the last dimension: bases of inputs and output, first index, number of elements.
    func stretch(bases: [Expression], base: Expression, from: Expression, count: Expression) {
      k.vectorLoop("i", count: count) { i, tail in
        let values = inputs.indices.map { index -> Expression in
          if inputs[index].isBroadcast[inner] {
            return .broadcast(pointers[index][bases[index]].asFloat)
          }
          return k.define("x", pointers[index].load(bases[index] + from + i, count: tail).asFloat)
        }
        let value = expression.render(values, in: k).adapted(to: .vector(.f32))
        k.store(y, base + from + i, output.isFloat ? value : value.asInt32, count: tail)
      }
    }
    if dimensions.count == 1 {
      let size = sizes[0]
      let part = k.partition(size.dividedRoundingUp(by: Self.chunk))
      let begin = k.define("first", part.begin * .integer(Self.chunk))
      let end = k.define("last", .minimum(part.end * .integer(Self.chunk), size))
      k.condition(begin < end) {
        stretch(bases: inputs.map { _ in 0 }, base: 0, from: begin, count: k.define("count", end - begin))
      }
      return k.finish()
    }
    let outer = sizes.dropLast().reduce(1) { $0 * $1 }
    let part = k.partition(outer)
    k.loop("row", from: part.begin, to: part.end) { row in
      var rest = row
      var positions: [Expression] = Array(repeating: 0, count: inner)
      for axis in (0..<inner).reversed() {
        positions[axis] = axis == 0 ? rest : k.define("i\(axis)", rest % sizes[axis])
        if axis > 0 { rest = k.define("rest", rest / sizes[axis]) }
      }
      let bases = inputs.indices.map { index -> Expression in
        var stride: Expression = 1
        var base: Expression = 0
        for axis in sizes.indices.reversed() where !inputs[index].isBroadcast[axis] {
          if axis < inner { base = base + positions[axis] * stride }
          stride = stride * sizes[axis]
        }
        return k.define("base", base)
      }
      stretch(bases: bases, base: k.define("out", row * sizes[inner]), from: 0, count: sizes[inner])
    }
    return k.finish()
  }
}
