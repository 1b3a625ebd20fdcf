import Base
import IR
import Tensors

/// Lets attention of several queries compute with products of bytes (``ByteAttention``).
///
///     %y = attention(%q, %k, %v) {heads = 8, kvHeads = 8, scale = 0.125}
///     // -> %y = attention(%q, %k, %v) {heads = 8, kvHeads = 8, scale = 0.125, int8 = {block = 64, smooth = true}}
///
/// Where a text is named, each attention is computed both ways on its operands in `samples` windows of `length` tokens
/// (or the samples of an archive), and one whose results differ by more than `maxError`, the root of the mean square of
/// the differences over that of the results, stays as it is. The quantization in the metadata gets `at8`. `block` and
/// `smooth` are those of ``ByteAttention``.
package struct QuantizeAttention: TokenSampled {
  package static let name = "quantize-attention"
  package static let summary = "compute attention of several queries with products of bytes"
  package static let legality =
    "where there may be several queries, no last tokens lie apart, and keys and values are numbers or 8-bit codes"
  package static let source = "J. Zhang and others (SageAttention2), 2024, arXiv:2411.10958"

  package var block: Int = 64
  package var smooth: Bool = true
  /// The largest relative error that is taken where errors are measured.
  package var maxError: Double = 0.05
  /// What errors are measured on; empty for nothing.
  package var text: String = ""
  /// Windows; nil for 4 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the usual number.
  package var length: Int?

  private static let usualSamples = 4

  package init() {}

  package init(text: String) { self.text = text }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard ByteAttention.blocks.contains(block) else {
      throw CompileError(.usage, "'block' of '\(Self.name)' is \(block), expected a multiple of 16 up to 256")
    }
    guard maxError >= 0 else {
      throw CompileError(.usage, "'maxError' of '\(Self.name)' is \(maxError), expected a number that is not negative")
    }
    let form = ByteAttention(block: block, smooth: smooth)
    var places = model.functions.map { graph in
      graph.topologicalOrder().filter { node in
        guard let op = graph[node].op as? Attention, op.int8 == nil else { return false }
        guard let reason = refusal(node, op, in: graph) else { return true }
        context.explain(Self.name, at: "'%\(graph[graph[node].results[0]].name)'", reason)
        return false
      }
    }
    if !text.isEmpty, places.contains(where: { !$0.isEmpty }) { try measure(model, form, &places, &context) }
    for (index, nodes) in places.enumerated() {
      for node in nodes {
        guard var op = model.functions[index][node].op as? Attention else { continue }
        op.int8 = form
        model.functions[index].setOperator(op, of: node)
        context.count("attentions in int8")
      }
    }
    guard places.contains(where: { !$0.isEmpty }), let known = model[metadata: "quantization"],
      var spec = try? QuantizationSpec(parsing: known)
    else { return }
    spec.attentionBits = 8
    model[metadata: "quantization"] = spec.description
  }

  /// Why an attention stays as it is; nil if it need not.
  private func refusal(_ node: NodeID, _ op: Attention, in graph: Graph) -> String? {
    let types = graph[node].inputs.map { graph.type(of: $0) }
    if op.recent != nil { return "the last tokens lie apart from the cache" }
    if op.angleBlock != nil { return "keys lie in the cache without their mean" }
    if types[0].shape[types[0].rank - 2] == 1 { return "there is one query" }
    for (type, role) in zip(types[1...2], ["keys", "values"]) {
      if case .block(let format) = type.encoding, format.bits != 8 { return "\(role) are codes of \(format.bits) bits" }
    }
    return nil
  }

  /// Takes out of the places those with too large an error on samples. States go on from function to function.
  private func measure(
    _ model: Model, _ form: ByteAttention, _ places: inout [[NodeID]], _ context: inout PassContext
  ) throws {
    let runs = try windows(for: model, context, usual: Self.usualSamples)
    var states: [[String: Tensor]] = []
    for (index, graph) in model.functions.enumerated() {
      let goesOn = index < model.functions.count - 1
      var walk = try SampleWalk(model, graph, runs[index].begun(states, model, graph), keepsStates: goesOn)
      let wanted = Set(places[index])
      guard let last = goesOn ? walk.order.indices.last : walk.order.lastIndex(where: { wanted.contains($0) }) else {
        continue
      }
      while let id = walk.next, walk.step <= last {
        if wanted.contains(id), let op = graph[id].op as? Attention {
          let error = try error(of: op, form, at: id, walk)
          let name = graph[graph[id].results[0]].name
          context.report(name, error)
          // One that is no number counts as too large.
          if !(error <= maxError) {
            places[index].removeAll { $0 == id }
            context.count("attentions left in f32")
          }
        }
        try walk.advance()
      }
      if goesOn { states = try (0..<walk.count).map { try walk.states(of: $0) } }
    }
  }

  /// The relative error of the results over all samples.
  private func error(of op: Attention, _ form: ByteAttention, at id: NodeID, _ walk: SampleWalk) throws -> Double {
    var rounded = op
    rounded.int8 = form
    var (difference, size) = (0.0, 0.0)
    for sample in 0..<walk.count {
      let operands = try walk.operands(of: id, of: sample)
      let results = try [op, rounded].map { op in
        let result = Tensor(try op.inferTypes(operands.map(\.type))[0])
        try op.evaluate(operands.map(\.view), into: [result.mutableView])
        return try result.numbers()
      }
      for (exact, found) in zip(results[0], results[1]) {
        let distance = Double(found) - Double(exact)
        difference += distance * distance
        size += Double(exact) * Double(exact)
      }
    }
    return size > 0 ? (difference / size).squareRoot() : difference.squareRoot()
  }
}
