import Base
import IR
import Tensors

/// Gives a language model its two functions.
///
/// A function with inputs `tokens: i32[T]` and `position: i32[1]`, a symbol `L` for the rows of logits that are wanted and
/// caches as states becomes
///
///     @decode   T = L = 1
///     @prefill  T in 1 ... chunk, L in 1 ... chunk, fewer for a large vocabulary
///
/// which share constants and states. Other functions get the role `main` unless they have one; their symbols stay.
package struct Specialize: Pass {
  package static let name = "specialize"
  package static let summary = "make the functions 'decode' and 'prefill' of a language model"
  package static let legality = "where a function takes 'tokens' and 'position' and has states and the symbol T"
  package static let source = "mcc"

  /// The largest number of tokens of one call of `prefill`.
  package var chunk: Int = 128
  /// The largest number of logits of one call of `prefill`: rows of which there are fewer for a large vocabulary.
  package var logits: Int = 1 << 20

  package init() {}

  package init(chunk: Int) { self.chunk = chunk }

  package var fidelity: Fidelity { .exact }

  /// Whether a function is that of a language model and not specialised yet.
  package static func isLanguageModel(_ graph: Graph) -> Bool {
    !["decode", "prefill", "score"].contains(graph.role) && graph.symbols.contains { $0.name == "T" }
      && graph.inputs.contains { graph[$0].name == "tokens" } && graph.inputs.contains { graph[$0].name == "position" }
      && !graph.states.isEmpty
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard logits >= 1 else { throw CompileError(.input, "specialize: 'logits' is \(logits), expected at least 1") }
    guard chunk >= 1 else { throw CompileError(.input, "specialize: 'chunk' is \(chunk), expected at least 1") }
    var functions: [Graph] = []
    for graph in model.functions {
      guard Self.isLanguageModel(graph) else {
        var copy = graph
        if copy.role == nil { copy.role = "main" }
        functions.append(copy)
        continue
      }
      let rows = graph.cacheRows ?? chunk
      let limit = min(chunk, rows)
      let wanted = max(1, logits / max(1, graph.outputs.first.map { graph.type(of: $0).shape.last.maximum } ?? 1))
      let one = try graph.specialized(name: "decode", role: "decode") { ["T", "L"].contains($0.name) ? 1 : nil }
      let many = try graph.specialized(name: "prefill", role: "prefill") { symbol in
        guard ["T", "L"].contains(symbol.name) else { return nil }
        let most = symbol.name == "L" ? min(limit, wanted) : limit
        return .symbol(Symbol(symbol.name, in: 1...max(1, min(most, symbol.maximum))))
      }
      functions += [one, many]
      context.count("specialized")
    }
    model.functions = functions
  }
}

extension Graph {
  /// The states that grow by a row per token, by name: those updated by `cache_update` at a position that changes.
  var caches: Set<String> {
    var names: Set<String> = []
    for state in states {
      guard let node = definingNode(of: viewRoot(of: state.update)), isCacheUpdate(self[node]),
        constant(of: self[node].inputs[2]) == nil
      else { continue }
      names.insert(self[state.value].name)
    }
    return names
  }

  /// Whether a node, lowered or not, writes rows into a cache.
  func isCacheUpdate(_ node: Node) -> Bool {
    ((node.op as? KernelCall)?.operation.op ?? node.op) is CacheUpdate
  }

  /// The rows of the shortest cache; nil without caches.
  package var cacheRows: Int? {
    let caches = caches
    return states.filter { caches.contains(self[$0.value].name) }
      .compactMap { type(of: $0.value).shape.dims.first?.fixedValue }.min()
  }

  /// The function for other sizes: symbols replaced in types and attributes, and operators that do nothing for these
  /// sizes left out.
  package func specialized(name: String, role: String?, _ replacement: (Symbol) -> Dim?) throws -> Graph {
    var graph = self
    graph.name = name
    graph.role = role
    graph.substituteTypes(replacement)
    for id in graph.topologicalOrder() {
      if let op = graph[id].op as? any DimensionAttributes { graph.setOperator(op.substituting(replacement), of: id) }
      let node = graph[id]
      let types = try node.op.inferTypes(node.inputs.map { graph.type(of: $0) })
      for (result, type) in zip(node.results, types) { graph.setType(type, of: result) }
      if node.results.count == 1, node.inputs.count == 1, node.op is Slice || node.op is Reshape,
        graph.type(of: node.inputs[0]) == graph.type(of: node.results[0])
      {
        graph.replaceUses(of: node.results[0], with: node.inputs[0])
        graph.erase(id)
      }
    }
    return graph
  }

  /// Erases nodes whose results nobody uses, and then constants that nobody uses.
  package mutating func eraseDeadNodes() {
    for id in topologicalOrder().reversed() where self[id].results.allSatisfy({ self[$0].uses.isEmpty }) { erase(id) }
    for id in valueIDs where constant(of: id) != nil && self[id].uses.isEmpty { eraseConstant(id) }
  }

  /// For each value slot, whether the value depends on constants alone and is no output.
  package func recipeFlags() -> [Bool] { RecipeSet(self, outputs: false).flags }
}
