/// Elements moved without change: transposes, slices, concatenations, paddings and broadcasts. One part per input; each runs
/// over an index space with a stride per axis on both sides.
package struct StridedCopyConfig: Hashable, Codable, Sendable {
  package struct Part: Hashable, Codable, Sendable {
    package var sizes: [Extent]
    package var inputStrides: [Extent]
    package var inputOffset: Extent
    package var outputStrides: [Extent]
    package var outputOffset: Extent

    package init(
      sizes: [Extent], inputStrides: [Extent], inputOffset: Extent = .fixed(0), outputStrides: [Extent],
      outputOffset: Extent = .fixed(0)
    ) {
      self.sizes = sizes
      self.inputStrides = inputStrides
      self.inputOffset = inputOffset
      self.outputStrides = outputStrides
      self.outputOffset = outputOffset
    }

    /// Without axes of size 1, and with axes merged where both sides are contiguous over them.
    func collapsed() -> Part {
      var result = self
      result.sizes = []
      result.inputStrides = []
      result.outputStrides = []
      for axis in sizes.indices where sizes[axis] != .fixed(1) {
        if let last = result.sizes.indices.last, case .fixed(let size) = sizes[axis],
          case .fixed(let outer) = result.sizes[last],
          let a = inputStrides[axis].fixedValue, result.inputStrides[last] == .fixed(a * size),
          let b = outputStrides[axis].fixedValue, result.outputStrides[last] == .fixed(b * size)
        {
          result.sizes[last] = .fixed(outer * size)
          result.inputStrides[last] = inputStrides[axis]
          result.outputStrides[last] = outputStrides[axis]
        } else {
          result.sizes.append(sizes[axis])
          result.inputStrides.append(inputStrides[axis])
          result.outputStrides.append(outputStrides[axis])
        }
      }
      return result
    }
  }

  package var element: ScalarType
  package var parts: [Part]

  package init(element: ScalarType, parts: [Part]) {
    self.element = element
    self.parts = parts
  }

  /// Elements a thread takes at a time along a single axis.
  private static let chunk = 4096

  /// Parameters: inputs in order, y, then the run-time extents in order of first use.
  package func build(name: String, target: Target) -> KernelFunction {
    let k = KernelBuilder(name, target: target)
    let inputs = parts.indices.map { k.input(parts.count == 1 ? "x" : "x\($0)", element) }
    let y = k.output("y", element)
    for (part, x) in zip(parts, inputs) {
      let part = part.collapsed()
      let sizes = part.sizes.map(\.text).joined(separator: ", ")
      let strides = part.inputStrides.map(\.text).joined(separator: ", ")
      let outputs = part.outputStrides.map(\.text).joined(separator: ", ")
      k.comment.append("Copies [\(sizes)] \(element.rawValue): \(x.name) by strides [\(strides)], y by [\(outputs)].")
      copy(k, part, x, y)
    }
    return k.finish()
  }

  private func copy(_ k: KernelBuilder, _ part: Part, _ x: Pointer, _ y: Pointer) {
    let sizes = part.sizes.map { k.extent($0) }
    let from = part.inputStrides.map { k.extent($0) }
    let to = part.outputStrides.map { k.extent($0) }
    let source = k.extent(part.inputOffset)
    let destination = k.extent(part.outputOffset)
    guard let inner = sizes.last, let innerFrom = from.last, let innerTo = to.last else {
      let range = k.partition(1)
      k.loop("unit", from: range.begin, to: range.end) { _ in k.store(y, destination, x[source]) }
      return
    }
    if sizes.count == 1 {
      let range = k.partition(inner.dividedRoundingUp(by: Self.chunk))
      let end = k.define("last", .minimum(range.end * .integer(Self.chunk), inner))
      k.loop("i", from: range.begin * .integer(Self.chunk), to: end) { i in
        k.store(y, destination + i * innerTo, x[source + i * innerFrom])
      }
      return
    }
    let range = k.partition(sizes.dropLast().reduce(1) { $0 * $1 })
    k.loop("row", from: range.begin, to: range.end) { row in
      var rest = row
      var base = source
      var place = destination
      for axis in (0..<(sizes.count - 1)).reversed() {
        let index = axis == 0 ? rest : k.define("i\(axis)", rest % sizes[axis])
        if axis > 0 { rest = k.define("rest", rest / sizes[axis]) }
        base = base + index * from[axis]
        place = place + index * to[axis]
      }
      base = k.define("from", base)
      place = k.define("to", place)
      k.loop("i", to: inner) { i in k.store(y, place + i * innerTo, x[base + i * innerFrom]) }
    }
  }
}

/// x[...] with elements of one value around it.
package struct PadConfig: Hashable, Codable, Sendable {
  package var element: ScalarType
  package var sizes: [Extent]
  package var before: [Int]
  package var after: [Int]
  package var value: Float

  package init(element: ScalarType, sizes: [Extent], before: [Int], after: [Int], value: Float) {
    self.element = element
    self.sizes = sizes
    self.before = before
    self.after = after
    self.value = value
  }

  /// Parameters: x, y, then the run-time sizes of x in order.
  package func build(name: String, target: Target) -> KernelFunction {
    let k = KernelBuilder(name, target: target)
    k.comment = [
      "x[\(sizes.map(\.text).joined(separator: ", "))] with \(before) elements before and \(after) after each axis."
    ]
    let x = k.input("x", element)
    let y = k.output("y", element)
    let inner = sizes.map { k.extent($0) }
    let outer = inner.indices.map { inner[$0] + .integer(before[$0] + after[$0]) }
    let fill: Expression = element.isFloat ? .real(value) : .integer(Int(value))
    let last = sizes.count - 1
    let range = k.partition(outer.dropLast().reduce(1) { $0 * $1 })
    k.loop("row", from: range.begin, to: range.end) { row in
      var rest = row
      var base: Expression = 0
      var stride = last >= 0 ? inner[last] : 1
      var inside: Expression?
      for axis in (0..<max(last, 0)).reversed() {
        let index = axis == 0 ? rest : k.define("i\(axis)", rest % outer[axis])
        if axis > 0 { rest = k.define("rest", rest / outer[axis]) }
        base = base + (index - .integer(before[axis])) * stride
        stride = stride * inner[axis]
        if before[axis] + after[axis] > 0 {
          let within = (index >= .integer(before[axis])) & (index < inner[axis] + .integer(before[axis]))
          inside = inside.map { $0 & within } ?? within
        }
      }
      let place = k.define("place", row * outer[last])
      let from = k.define("from", base)
      let copy = {
        k.loop("i", to: .integer(before[last])) { k.store(y, place + $0, fill) }
        k.loop("i", to: inner[last]) { k.store(y, place + $0 + .integer(before[last]), x[from + $0]) }
        let end = k.define("end", place + inner[last] + .integer(before[last]))
        k.loop("i", to: .integer(after[last])) { k.store(y, end + $0, fill) }
      }
      if let inside {
        k.condition(inside, then: copy) { k.loop("i", to: outer[last]) { k.store(y, place + $0, fill) } }
      } else {
        copy()
      }
    }
    return k.finish()
  }
}
