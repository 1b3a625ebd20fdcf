import Base
import IR
import Tensors

/// Computes nodes that depend on small constants alone, and keeps their results as constants.
///
///     %s = sqrt(%c)                       // %c = constant inline [64.0]
///     %y = divide(%x, %s)                 // -> %y = divide(%x, constant inline [8.0])
///
/// A result has at most 64 elements; a node reads at most `nodeBytes` bytes, the pass at most `totalBytes`: large weights
/// are never read, what is done to them stays a recipe. A node whose evaluation fails stays too: it fails when it runs.
/// Moving the elements of a constant that is one number throughout gives such a constant of any size:
///
///     %o = expand(%c) {shape = [4096]}    // %c = constant splat 1.0 : f32[1]  ->  constant splat 1.0 : f32[4096]
package struct FoldConstants: Pass {
  package static let name = "fold-constants"
  package static let summary = "computes what depends on small constants alone"
  package static let legality =
    "where a node depends on constants alone, on no symbol, and its operands and result are small"
  package static let source = "mcc"

  /// The bytes that the inputs of a node may have together.
  package var nodeBytes: Int = 1 << 16
  /// The bytes that all folded nodes may read together.
  package var totalBytes: Int = 1 << 26

  package init() {}

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    var budget = totalBytes
    for index in model.functions.indices {
      let graph = model.functions[index]
      var folding = Folding(evaluator: ConstantEvaluator(model, graph), graph: graph, constants: model.constants)
      folding.run(nodeBytes: nodeBytes, budget: &budget)
      model.functions[index] = folding.graph
      model.constants = folding.constants
      context.count("nodes folded", by: folding.folded)
    }
  }
}

/// The folding of one function.
private struct Folding {
  /// Reads the constants that the function had before.
  let evaluator: ConstantEvaluator
  var graph: Graph
  var constants: ConstantTable
  var folded = 0
  private var tensors: [ValueID: Tensor] = [:]

  init(evaluator: ConstantEvaluator, graph: Graph, constants: ConstantTable) {
    self.evaluator = evaluator
    self.graph = graph
    self.constants = constants
  }

  mutating func run(nodeBytes: Int, budget: inout Int) {
    for id in graph.topologicalOrder() {
      let node = graph[id]
      guard !node.inputs.isEmpty, node.inputs.allSatisfy({ graph.constant(of: $0) != nil }), !node.op.namesSymbols
      else { continue }
      if let constant = moved(node) {
        replace(id, by: [constant])
        continue
      }
      let bytes = node.inputs.reduce(0) { $0 + (graph.type(of: $1).byteCount ?? .max / 64) }
      guard bytes <= nodeBytes, bytes <= budget, node.results.allSatisfy({ isSmall(graph.type(of: $0)) }) else {
        continue
      }
      budget -= bytes
      guard let results = evaluate(node) else { continue }
      replace(
        id,
        by: zip(node.results, results).map { result, tensor in
          Constant(
            name: graph[result].name, type: tensor.type,
            source: .inline(Array(tensor.view.bytes)))
        }, tensors: results)
    }
  }

  private func isSmall(_ type: TensorType) -> Bool {
    guard type.isDense, let sizes = type.shape.fixedSizes else { return false }
    return sizes.reduce(1, *) <= Constant.inlineLimit
  }

  /// The result of a node that moves the elements of a constant that is one number throughout.
  private func moved(_ node: Node) -> Constant? {
    guard node.op is Reshape || node.op is Transpose || node.op is Slice || node.op is Expand,
      let id = graph.constant(of: node.inputs[0]), case .splat(let bits) = constants[id].source
    else { return nil }
    let type = graph.type(of: node.results[0])
    guard type.shape.isFixed else { return nil }
    return Constant(name: graph[node.results[0]].name, type: type, source: .splat(bits))
  }

  /// The results of a node; nil if it cannot be evaluated.
  private mutating func evaluate(_ node: Node) -> [Tensor]? {
    do {
      let inputs = try node.inputs.map { input in
        if let tensor = tensors[input] { return tensor }
        let tensor = try splat(input) ?? evaluator.tensor(input)
        tensors[input] = tensor
        return tensor
      }
      let results = node.results.map { Tensor(graph.type(of: $0)) }
      try node.op.evaluate(inputs.map(\.view), into: results.map(\.mutableView))
      return results
    } catch {
      return nil
    }
  }

  /// The elements of a constant that is one number throughout, which may have been made here.
  private func splat(_ value: ValueID) -> Tensor? {
    guard let id = graph.constant(of: value), case .splat(let bits) = constants[id].source else { return nil }
    let tensor = Tensor(constants[id].type)
    let view = tensor.mutableView
    [Double](repeating: Double(bitPattern: bits), count: view.count).withUnsafeBytes {
      convertRow($0, .f64, into: view.bytes, view.type.element)
    }
    return tensor
  }

  private mutating func replace(_ id: NodeID, by results: [Constant], tensors: [Tensor] = []) {
    var replaced: [(value: ValueID, name: String)] = []
    for (index, constant) in results.enumerated() {
      let old = graph[id].results[index]
      let name = graph[old].name
      let new = graph.addConstant(constants.insert(constant), name, constant.type)
      if index < tensors.count { self.tensors[new] = tensors[index] }
      graph.replaceUses(of: old, with: new)
      replaced.append((new, name))
    }
    graph.erase(id)
    for (value, name) in replaced { graph.rename(value, to: name) }
    folded += 1
  }
}
