import Base
import IR
import Tensors

/// Gives activations of few bits 8 again where these cost too much.
///
///     %c = quantize(%x) {format = {bits = 8, group = 32, scale = f32}, codeBits = 6}
///     // -> %c = quantize(%x) {format = {bits = 8, group = 32, scale = f32}}, for some
///
/// Stands behind `quantize{spec=w6a6}`. The distance (``OutputDistance``) is taken from the model as it is with all
/// activations in 8 bits, on windows of `text`: each rounding of activations is measured with its own bits while all others
/// have 8. One that costs more than `threshold` has 8 bits from then on; where no threshold is named, it is `factor` times the
/// median of all.
package struct WidenActivations: TokenSampled {
  package static let name = "widen-activations"
  package static let summary = "gives activations of few bits 8 again where these cost most"
  package static let legality =
    "where quantize rounded activations to fewer than 8 bits; for models of one function"
  package static let source = "H. Zhang and others, FlexQ, 2025, arXiv:2508.04405"

  /// The divergence of one rounding from which it gets 8 bits.
  package var threshold: Double?
  /// The same over the median.
  package var factor: Double = 4
  package var text: String = ""
  /// Windows; nil for 4 or as many as there are.
  package var samples: Int?
  /// Tokens of a window.
  package var length: Int? = 256

  private static let usualSamples = 4

  package init() {}

  package var fidelity: Fidelity { .lossy }

  /// A rounding of activations to few bits.
  private struct Place {
    var node: NodeID
    var name: String
    var bits: Int
    var cost = 0.0
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard !text.isEmpty else {
      throw CompileError(.usage, "\(Self.name) needs a text: \(Self.name){text=\"FILE\"}")
    }
    for (name, value) in [("threshold", threshold ?? 0), ("factor", factor)] where !(value >= 0 && value.isFinite) {
      throw CompileError(.usage, "'\(name)' of pass '\(Self.name)' is \(value), expected a number from 0 on")
    }
    let all = model.functions.flatMap { Self.places(in: $0) }
    guard !all.isEmpty else { return }
    let runs = try windows(for: model, context, "activations are measured", usual: Self.usualSamples)
    let places = try measured(all, model, runs, &context)
    let bound = threshold ?? factor * places.map(\.cost).sorted()[(places.count - 1) / 2]
    // A cost that is no number is too much.
    let widened = places.filter { !($0.cost <= bound) }
    model.functions[0].setCodeBits(nil, of: widened.map(\.node))
    context.count("activations in 8 bits", by: widened.count)
    context.count("activations in fewer", by: places.count - widened.count)
    context.remark(Self.table(places, bound))
    if let known = model[metadata: "quantization"], !widened.isEmpty {
      model[metadata: "quantization"] = "\(known), \(widened.count) of \(places.count) activations a8"
    }
  }

  private static func places(in graph: Graph) -> [Place] {
    graph.topologicalOrder().compactMap { node in
      guard let bits = (graph[node].op as? Quantize)?.codeBits, case let input = graph[node].inputs[0],
        !ConstantEvaluator.isRecipe(input, in: graph)
      else { return nil }
      return Place(node: node, name: graph[input].name, bits: bits)
    }
  }

  /// The places with what each costs alone.
  private func measured(
    _ places: [Place], _ model: Model, _ runs: [FunctionInputs], _ context: inout PassContext
  ) throws -> [Place] {
    var wide = model
    wide.functions[0].setCodeBits(nil, of: places.map(\.node))
    let distance = try OutputDistance(wide, runs)
    var places = places
    for (index, place) in places.enumerated() {
      context.progress?.update("weighing activations", done: index, of: places.count)
      var copy = wide
      copy.functions[0].setCodeBits(place.bits, of: [place.node])
      places[index].cost = try distance(copy)
      context.report("cost of \(place.bits) bits at %\(place.name)", places[index].cost)
    }
    return places
  }

  /// The costs, in the order of the model.
  private static func table(_ places: [Place], _ bound: Double) -> String {
    let lines = places.map { place in
      "  %\(place.name): \(Float(place.cost)) in \(place.bits) bits\(place.cost <= bound ? "" : ", has 8")"
    }
    return (["what activations of few bits cost alone, at most \(Float(bound)):"] + lines).joined(separator: "\n")
  }
}

extension Graph {
  /// Gives roundings codes of so many bits, nil for those of their formats.
  fileprivate mutating func setCodeBits(_ bits: Int?, of nodes: [NodeID]) {
    for node in nodes {
      guard var op = self[node].op as? Quantize else { continue }
      op.codeBits = bits
      setOperator(op, of: node)
    }
  }
}
