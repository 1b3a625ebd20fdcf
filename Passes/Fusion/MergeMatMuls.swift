import Base
import IR
import Tensors

/// Multiplies one input by several weights at once: the projections to queries, keys and values become one.
///
///     %q = matmul(%x, %wq) {transposeB = true}
///     %k = matmul(%x, %wk) {transposeB = true}
///     %v = matmul(%x, %wv) {transposeB = true}
///     // -> %w = concat(%wq, %wk, %wv) {axis = 0}
///     //    %y = matmul(%x, %w) {transposeB = true}
///     //    %q = slice(%y) {axis = -1, start = 0, ...}, and so on
///
/// The weights are recipes with one row per output column, of one type and one way of storing (quantized ones are
/// stacked as codes); the epilogues are equal and have no residual. A weight that something else uses too, such as a
/// tied embedding, stays by itself.
package struct MergeMatMuls: Pass {
  package static let name = "merge-matmuls"
  package static let summary = "multiplies one input by several weights at once (queries, keys and values)"
  package static let legality =
    "where products of one input have equal epilogues without residual, and weights that are recipes of one "
    + "type and encoding with no other user"
  package static let source = "mcc"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    for index in model.functions.indices {
      for group in Self.groups(in: model.functions[index]) {
        try Self.merge(group, in: &model.functions[index])
        context.count("matmuls merged", by: group.count)
      }
      _ = model.functions[index].eraseDeadCode()
    }
  }

  /// What matmuls have in common that can be merged.
  private struct Key: Hashable {
    var input: ValueID
    var op: MatMul
    var element: DType
    var encoding: Encoding
    var columns: Dim
    var bias: DType?
  }

  /// The groups of at least two matmuls, in the order of the graph.
  private static func groups(in graph: Graph) -> [[NodeID]] {
    let lookup = RecipeGraph(graph)
    var groups: [Key: Int] = [:]
    var result: [[NodeID]] = []
    for id in graph.topologicalOrder() {
      guard let key = key(of: id, in: lookup) else { continue }
      if let index = groups[key] {
        result[index].append(id)
      } else {
        groups[key] = result.count
        result.append([id])
      }
    }
    return result.filter { $0.count > 1 }
  }

  private static func key(of id: NodeID, in graph: RecipeGraph) -> Key? {
    let node = graph[id]
    guard let op = node.op as? MatMul, op.transposeB, op.epilogue.residual == .none, !op.epilogue.gated else {
      return nil
    }
    let weight = graph.type(of: node.inputs[1])
    guard weight.rank == 2, weight.shape.isFixed, graph.isUsedOnce(node.inputs[1]),
      graph.isRecipe(node.inputs[1]), !graph.isRecipe(node.inputs[0])
    else { return nil }
    var bias: DType?
    if let index = op.epilogue.biasIndex {
      guard graph.isRecipe(node.inputs[index]) else { return nil }
      bias = graph.type(of: node.inputs[index]).element
    }
    return Key(
      input: node.inputs[0], op: op, element: weight.element, encoding: graph.storedEncoding(of: node.inputs[1]),
      columns: weight.shape[1], bias: bias)
  }

  private static func merge(_ group: [NodeID], in graph: inout Graph) throws {
    let nodes = group.map { graph[$0] }
    guard let first = nodes.first, let op = first.op as? MatMul else { return }
    let origin = Self.origin(nodes.compactMap(\.origin))
    func emit(_ op: any Operator, _ inputs: [ValueID], _ name: String) throws -> ValueID {
      let node = try graph.addNode(op, inputs, names: [name], origin: origin)
      return graph[node].results[0]
    }

    let names = nodes.map { graph[$0.results[0]].name }
    let weights = nodes.map { $0.inputs[1] }
    let weight: ValueID
    if let (codes, dequantize) = graph.commonCodes(of: weights) {
      weight = try emit(dequantize, [emit(Concat(axis: 0), codes, "weight_codes")], "weight")
    } else {
      weight = try emit(Concat(axis: 0), weights, "weight")
    }
    var inputs = [first.inputs[0], weight]
    if let index = op.epilogue.biasIndex {
      inputs.append(try emit(Concat(axis: 0), nodes.map { $0.inputs[index] }, "bias"))
    }
    let product = try emit(op, inputs, names.joined(separator: "_"))
    var start = 0
    for (index, node) in nodes.enumerated() {
      let old = node.results[0]
      guard let size = graph.type(of: old).shape.last.fixedValue else {
        throw CompileError(.internal, "the columns of '%\(names[index])' are no number")
      }
      let part = try emit(Slice(axis: -1, start: .fixed(start), size: .fixed(size)), [product], names[index])
      start += size
      graph.replaceUses(of: old, with: part)
      graph.erase(group[index])
      graph.rename(part, to: names[index])
    }
  }

  /// One origin for several: `model.layers.0.self_attn.{q_proj,k_proj,v_proj}`.
  static func origin(_ origins: [Origin]) -> Origin? {
    let parts = origins.map { $0.text.split(separator: ".", omittingEmptySubsequences: false) }
    guard let first = parts.first else { return nil }
    var shared = 0
    while parts.allSatisfy({ shared < $0.count - 1 && $0[shared] == first[shared] }) { shared += 1 }
    let prefix = first[..<shared].map { $0 + "." }.joined()
    let rest = parts.map { $0[shared...].joined(separator: ".") }
    return Origin(rest.count == 1 ? origins[0].text : "\(prefix){\(rest.joined(separator: ","))}")
  }
}
