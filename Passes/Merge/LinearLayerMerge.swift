import Base
import IR
import Tensors

/// Merges the linear layers of models that share a graph, by ``RegressionMean``, on sample inputs of each.
///
/// The graph is walked node by node, all samples at once, so that the statistics of one layer exist at a time. A linear
/// layer is a `matmul` whose right factor is a matrix of the checkpoint that nothing else uses.
///
/// - RegMean: the samples of each model go through that model.
/// - RegMean++ (Nguyen and others, 2025): they go through the merged model, whose earlier layers are those found so far; other
///   parameters are means.
package struct LinearLayerMerge {
  /// Whether the inputs of a layer are those that the merged model gives, as in RegMean++.
  package var usesMergedInputs = false
  /// What the numbers off the diagonal of the statistics are multiplied by.
  package var scale = 1.0
  /// Whether a constant is to be merged.
  package var selects: (Constant) -> Bool = { _ in true }

  package init() {}

  /// What was done with one layer.
  package struct Layer: Hashable, Sendable {
    /// The constant.
    package var name: String
    /// The rows of input seen by each model.
    package var rows: [Int]
    /// What was added to the diagonal of the statistics, as a share of its mean.
    package var damping: Double
  }

  /// Merges the layers in the order of the graph and hands each to `sink`, in the element type of the first model.
  ///
  /// - Parameters:
  ///   - models: the models.
  ///   - samples: for each model its samples.
  ///   - progress: shows how far the work is.
  ///   - sink: receives the name of a constant and its merged numbers.
  /// - Returns: what was done, in the order of the graph.
  /// - Throws: `CompileError` if the graphs differ or inputs do not fit.
  package func run(
    _ models: [Model], _ samples: [[FunctionInputs]], progress: Progress? = nil, sink: (String, Tensor) throws -> Void
  ) throws -> [Layer] {
    precondition(models.count == samples.count && !models.isEmpty, "samples for each model")
    let graphs = try Self.graphs(of: models)
    let graph = graphs[0]
    var walks = try models.indices.map { try SampleWalk(models[$0], graphs[$0], samples[$0]) }
    let order = walks[0].order
    let layers = order.map { layer(at: $0, of: models[0], walks[0]) }
    guard let end = layers.lastIndex(where: { $0 != nil }) else { return [] }

    var report: [Layer] = []
    for step in 0...end {
      let node = graph[order[step]]
      progress?.update("merging", done: step, of: end + 1)
      var weight: Tensor?
      if let constant = layers[step] {
        let (tensor, layer) = try merge(node, constant, walks)
        try sink(constant.name, tensor)
        report.append(layer)
        if usesMergedInputs { weight = tensor }
      }
      if step == end { break }
      var others: [ValueID: Tensor] = [:]
      if usesMergedInputs {
        for input in Set(node.inputs) where walks[0].isRecipe(input) {
          others[input] = try mean(of: input, walks, models[0])
        }
        if let weight { others[node.inputs[1]] = weight }
      }
      for model in walks.indices { try walks[model].advance(replacing: others) }
    }
    return report
  }

  // MARK: The graph

  /// The function of each model, which must be the same but for the bytes of constants.
  private static func graphs(of models: [Model]) throws -> [Graph] {
    let graphs = try models.map { model in
      guard let graph = model.functions.first, model.functions.count == 1 else {
        throw CompileError(
          .unsupported, "model '\(model.name)' has \(model.functions.count) functions, statistics are of one")
      }
      return graph
    }
    for (model, graph) in zip(models, graphs) where !isSame(graphs[0], models[0], graph, model) {
      throw CompileError(.input, "models '\(models[0].name)' and '\(model.name)' have different graphs")
    }
    return graphs
  }

  private static func isSame(_ a: Graph, _ first: Model, _ b: Graph, _ second: Model) -> Bool {
    guard a.nodeIDs == b.nodeIDs, a.valueIDs == b.valueIDs else { return false }
    let areNodesEqual = a.nodeIDs.allSatisfy { a[$0].op.isEqual(to: b[$0].op) && a[$0].inputs == b[$0].inputs }
    return areNodesEqual
      && a.valueIDs.allSatisfy { value in
        guard a.type(of: value) == b.type(of: value) else { return false }
        guard let id = a.constant(of: value) else { return b.constant(of: value) == nil }
        return b.constant(of: value).map { second.constants[$0].name } == first.constants[id].name
      }
  }

  /// The weight of a linear layer that is to be merged.
  private func layer(at id: NodeID, of model: Model, _ walk: SampleWalk) -> Constant? {
    let graph = walk.graph, node = graph[id]
    guard node.op is MatMul, let constant = graph.constant(of: node.inputs[1]).map({ model.constants[$0] }),
      constant.type.isDense, constant.type.element.isFloat, constant.type.rank == 2,
      !walk.isRecipe(node.inputs[0]), graph.users(of: node.inputs[1]) == [id],
      !graph.outputs.contains(node.inputs[1]), selects(constant)
    else { return nil }
    return constant
  }

  // MARK: A node

  /// Collects the statistics of a layer and merges its weights, a block of outputs at a time.
  private func merge(
    _ node: Node, _ constant: Constant, _ walks: [SampleWalk]
  ) throws -> (Tensor, Layer) {
    guard let sizes = constant.type.shape.fixedSizes, let op = node.op as? MatMul else {
      throw CompileError(.internal, "'\(constant.name)' is no weight of a linear layer")
    }
    let (outputs, depth) = op.transposeB ? (sizes[0], sizes[1]) : (sizes[1], sizes[0])
    let result = Tensor(constant.type)
    guard outputs > 0, depth > 0 else { return (result, Layer(name: constant.name, rows: [], damping: 0)) }
    var statistics = RegressionMean(order: depth, count: walks.count)
    for (model, walk) in walks.enumerated() {
      for sample in 0..<walk.count { statistics.add(try walk.tensor(node.inputs[0], of: sample).view, of: model) }
    }
    do {
      try statistics.factor(scale: scale)
    } catch let error as CompileError {
      throw error.located(.init(object: "the layer of '\(constant.name)'"))
    }
    let weights = try walks.map { try $0.recipe(node.inputs[1]) }
    let block = max(1, (1 << 21) / depth)
    for first in stride(from: 0, to: outputs, by: block) {
      let rows = first..<min(first + block, outputs)
      let parts = weights.map { weight in
        MatrixRows.load(weight.view, rows, areColumns: !op.transposeB)
      }
      let merged = statistics.merged(parts, count: rows.count)
      MatrixRows.store(merged, rows, of: result.mutableView, areColumns: !op.transposeB)
    }
    return (result, Layer(name: constant.name, rows: statistics.rows, damping: statistics.damping))
  }

  /// The mean of a recipe over the models, if it is of numbers that are merged, else that of the first.
  private func mean(of value: ValueID, _ walks: [SampleWalk], _ model: Model) throws -> Tensor {
    let graph = walks[0].graph
    let type = graph.type(of: value)
    var isSelected = false
    var stack = [value]
    while let next = stack.popLast() {
      if let id = graph.constant(of: next) { isSelected = isSelected || selects(model.constants[id]) }
      if let producer = graph.definingNode(of: next) { stack += graph[producer].inputs }
    }
    let first = try walks[0].recipe(value)
    guard isSelected, type.isDense, type.element.isFloat, walks.count > 1 else { return first }
    let others = try walks.dropFirst().map { try $0.recipe(value) }
    let result = Tensor(first.type)
    let share = 1 / Double(walks.count)
    TensorMerge.weightedSum(([first] + others).map(\.view), walks.map { _ in share }, into: result.mutableView)
    return result
  }
}
