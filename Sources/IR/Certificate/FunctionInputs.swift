import Base
import Tensors

/// What a function is run on.
package struct FunctionInputs: Sendable {
  /// One tensor per input.
  package var inputs: [Tensor]
  /// One tensor per state; nil for zeros.
  package var states: [Tensor]?
  /// The symbols that no input has as a size.
  package var symbols: [String: Int]

  package init(inputs: [Tensor], states: [Tensor]? = nil, symbols: [String: Int] = [:]) {
    self.inputs = inputs
    self.states = states
    self.symbols = symbols
  }

  /// The same with floating-point numbers in f64.
  func widened() -> FunctionInputs {
    func wide(_ tensor: Tensor) -> Tensor {
      guard tensor.type.isDense, tensor.type.element.isFloat else { return tensor }
      let result = Tensor(tensor.type.with(element: .f64))
      convertRow(tensor.view.bytes, tensor.type.element, into: result.mutableView.bytes, .f64)
      return result
    }
    return FunctionInputs(inputs: inputs.map(wide), states: states?.map(wide), symbols: symbols)
  }
}

extension FunctionInputs {
  /// Made-up inputs and states: numbers in about a normal distribution, whole numbers that index a table below its size,
  /// positions that leave room in the cache, other whole numbers 0 or 1, bytes of any value. Every symbol takes `size`,
  /// bounded by its range.
  package static func seeded(for graph: Graph, seed: UInt64, size: Int = 3) -> FunctionInputs {
    let symbols = sizes(for: graph, size)
    var generator = SplitMix64(seed: seed)
    func tensor(_ value: ValueID) -> Tensor {
      let type = graph.type(of: value).substituting { symbols[$0.name].map { .fixed($0) } }
      let tensor = Tensor(type)
      let bound = type.element.isInteger ? IndexBound(of: value, in: graph, symbols).largest : nil
      fill(tensor, bound: bound, isPosition: graph[value].name == "position", &generator)
      return tensor
    }
    let inputs = graph.inputs.map { tensor($0) }
    return FunctionInputs(inputs: inputs, states: graph.states.map { tensor($0.value) }, symbols: symbols)
  }

  /// Every symbol of a function as `size`, bounded by its range.
  package static func sizes(for graph: Graph, _ size: Int = 3) -> [String: Int] {
    var sizes: [String: Int] = [:]
    for symbol in graph.symbols { sizes[symbol.name] = min(max(size, symbol.minimum), symbol.maximum) }
    return sizes
  }

  private static func fill(_ tensor: Tensor, bound: Int?, isPosition: Bool, _ generator: inout SplitMix64) {
    let view = tensor.mutableView
    if case .block(let format) = tensor.type.encoding {
      let values = Tensor(.f32, view.sizes, (0..<view.count).map { _ in Float(normal(&generator)) })
      try? Quantize(format).evaluate([values.view], into: [view])
      return
    }
    guard tensor.type.isDense else { return }
    let element = tensor.type.element
    let numbers: [Double] = (0..<view.count).map { index in
      if element.isFloat { return normal(&generator) }
      if isPosition { return Double(max(0, min(2, (bound ?? 3) - 1))) }
      if let bound { return Double(generator.int(below: max(1, bound))) }
      switch element {
      case .u8: return Double(generator.int(below: 256))
      case .i8: return Double(generator.int(below: 256) - 128)
      // The first is set, so that a mask leaves something to see.
      default: return index == 0 ? 1 : Double(generator.int(below: 2))
      }
    }
    numbers.withUnsafeBytes { convertRow($0, .f64, into: view.bytes, element) }
  }

  /// The sum of twelve uniform numbers less six, which is about normally distributed (Irwin-Hall).
  private static func normal(_ generator: inout SplitMix64) -> Double {
    (0..<12).reduce(-6.0) { sum, _ in sum + generator.uniform() }
  }
}

/// What the whole numbers of a value must stay below, from what they index.
private struct IndexBound {
  private(set) var largest: Int?

  init(of value: ValueID, in graph: Graph, _ symbols: [String: Int]) {
    func size(_ dim: Dim) -> Int? { dim.substituting { symbols[$0.name].map { .fixed($0) } }.fixedValue }
    var seen: Set<ValueID> = []
    // Values with what may have been added to the number on the way.
    var stack = [(value: value, added: 0)]
    while let (value, added) = stack.popLast() {
      guard seen.insert(value).inserted, !graph.type(of: value).element.isFloat else { continue }
      for use in graph[value].uses {
        guard case .operand(let node, let operand) = use else { continue }
        let (op, inputs) = (graph[node].op, graph[node].inputs)
        switch op {
        case let gather as Gather:
          let shape = graph.type(of: inputs[0]).shape
          guard operand == 1, let axis = shape.normalizedAxis(gather.axis), let rows = size(shape[axis]) else { break }
          lower(to: rows - added)
        case is CacheUpdate:
          guard operand == 2, let rows = size(graph.type(of: inputs[0]).shape[0]),
            let new = size(graph.type(of: inputs[1]).shape[0])
          else { break }
          lower(to: rows - new + 1 - added)
        case is Cast, is Reshape, is Slice, is Concat, is Transpose, is Expand, is Select, is Minimum:
          stack += graph[node].results.map { ($0, added) }
        case is Add:
          // To a position the places within a call are added.
          let longest = graph.type(of: graph[node].results[0]).shape.dims.compactMap { size($0) }.max() ?? 1
          stack += graph[node].results.map { ($0, added + longest) }
        default: break
        }
      }
    }
  }

  private mutating func lower(to bound: Int) { largest = max(1, min(largest ?? bound, bound)) }
}
