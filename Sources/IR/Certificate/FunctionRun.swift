import Base
import Tensors

/// What one function gives on one set of inputs: its outputs, then its states.
struct FunctionRun {
  /// The numbers by tensor.
  var tensors: [[Double]]

  /// What is done to the results of a node.
  enum Disturbance {
    /// Every number of the result moves by the size of the roundings that were counted for its node, up or down by chance.
    case all
    /// Those of some nodes move by one rounding, relative to the number itself.
    case only(Set<NodeID>)
  }

  /// Runs a function with an evaluator of `graph`, with `disturbance` one that keeps no recipes, so that these are
  /// disturbed as well. `seed` gives the signs of the disturbance. States of `inputs` and of the run lie as they were
  /// imported; `bases` says how the function keeps each.
  init(
    _ evaluator: Evaluator, _ graph: Graph, _ inputs: FunctionInputs, bases: [StateBasis?] = [],
    _ disturbance: Disturbance? = nil, seed: UInt64 = 0
  ) throws {
    var generator = SplitMix64(seed: seed)
    evaluator.observer = nil
    if let disturbance {
      let sizes = try evaluator.bind(inputs.inputs, inputs.symbols)
      evaluator.observer = { node, results in
        let count: RoundingCount
        switch disturbance {
        case .all:
          let types = graph[node].inputs.map { graph.type(of: $0).substituting { sizes[$0.name].map { .fixed($0) } } }
          count = RoundingCount(graph[node].op, types, results.map(\.type))
        case .only(let nodes): count = nodes.contains(node) ? .each(1) : .none
        }
        for result in results { Self.disturb(result, count, &generator) }
      }
    }
    let states = try inputs.states.map { states in
      try states.enumerated().map { index, state in
        try bases.indices.contains(index) ? Self.turned(state, by: bases[index]) : state
      }
    }
    let results = try evaluator.run(inputs.inputs, states: states, symbols: inputs.symbols)
    evaluator.observer = nil
    let updates = try results.states.enumerated().map { index, state in
      let numbers = state.view.doubles
      guard bases.indices.contains(index), let basis = bases[index] else { return numbers }
      let wide = Tensor(.f64, state.view.sizes, numbers)
      return try basis.changed(wide, back: true).view.doubles
    }
    tensors = results.outputs.map(\.view.doubles) + updates
  }

  /// A state with its rows in another basis.
  private static func turned(_ state: Tensor, by basis: StateBasis?) throws -> Tensor {
    guard let basis else { return state }
    let wide = Tensor(.f64, state.view.sizes, state.view.doubles)
    let result = try basis.changed(wide, back: false)
    if state.type == wide.type { return result }
    let stored = Tensor(state.type)
    if case .block(let format) = state.type.encoding {
      try Quantize(format).evaluate([result.view], into: [stored.mutableView])
    } else {
      convertRow(result.view.bytes, .f64, into: stored.mutableView.bytes, state.type.element)
    }
    return stored
  }

  /// The unit roundoff of f32.
  static let unit = 0x1p-24

  private static func disturb(_ tensor: Tensor, _ count: RoundingCount, _ generator: inout SplitMix64) {
    guard tensor.type.isDense, tensor.view.count > 0 else { return }
    switch tensor.type.element {
    case .f32: disturb(tensor.mutableView.elements(as: Float.self), count, &generator)
    case .f64: disturb(tensor.mutableView.elements(as: Double.self), count, &generator)
    default: break
    }
  }

  private static func disturb<R: Real>(
    _ numbers: UnsafeMutableBufferPointer<R>, _ count: RoundingCount, _ generator: inout SplitMix64
  ) {
    let step: Double
    let isRelative: Bool
    switch count {
    case .none: return
    case .each(let roundings):
      // In f32 half a unit in the last place would be rounded away.
      step = (R.dtype == .f32 ? 2 : 1) * unit * Double(roundings).squareRoot()
      isRelative = true
    case .sums(let terms):
      var largest: R = 0
      for number in numbers where number.isFinite { largest = max(largest, number.magnitude) }
      step = unit * Double(terms).squareRoot() * Double(largest)
      isRelative = false
    }
    let by = R(rounding: step)
    var signs: UInt64 = 0
    for index in numbers.indices {
      if index % 64 == 0 { signs = generator.next() }
      let signed = signs & 1 == 0 ? by : -by
      signs >>= 1
      if numbers[index].isFinite { numbers[index] += isRelative ? numbers[index] * signed : signed }
    }
  }
}
