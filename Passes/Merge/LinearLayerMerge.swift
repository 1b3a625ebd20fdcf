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

  /// The inputs of one run, in order, and the symbols that do not follow from their sizes.
  package struct Sample: Sendable {
    package var inputs: [Tensor]
    package var symbols: [String: Int]

    package init(_ inputs: [Tensor], symbols: [String: Int] = [:]) {
      self.inputs = inputs
      self.symbols = symbols
    }
  }

  /// What was done with one layer.
  package struct Layer: Hashable, Sendable {
    /// The constant.
    package var name: String
    /// The rows of input seen by each model.
    package var rows: [Int]
    /// What was added to the diagonal of the statistics, as a share of its mean.
    package var damping: Double
  }

  /// A sample on its way through the graph.
  private struct Run {
    var binding: [String: Int]
    var tensors: [ValueID: Tensor]
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
    _ models: [Model], _ samples: [[Sample]], progress: Progress? = nil, sink: (String, Tensor) throws -> Void
  ) throws -> [Layer] {
    precondition(models.count == samples.count && !models.isEmpty, "samples for each model")
    let graphs = try Self.graphs(of: models)
    let graph = graphs[0]
    let constants = zip(models, graphs).map { ConstantEvaluator($0, $1) }
    let evaluator = try Evaluator(models[0], function: graph.name)
    let states = try evaluator.initialStates()
    var runs = try samples.map { samples in
      try samples.map { sample in
        let binding = try evaluator.bind(sample.inputs, sample.symbols)
        let values = zip(graph.inputs + graph.states.map(\.value), sample.inputs + states)
        return Run(binding: binding, tensors: Dictionary(values, uniquingKeysWith: { first, _ in first }))
      }
    }
    let order = graph.topologicalOrder()
    let recipes = RecipeSet(graph)
    let layers = order.map { layer(at: $0, of: graph, in: models[0], recipes) }
    guard let end = layers.lastIndex(where: { $0 != nil }) else { return [] }
    var lastUse: [ValueID: Int] = [:]
    for (step, node) in order.enumerated() {
      for input in graph[node].inputs { lastUse[input] = step }
    }

    var report: [Layer] = []
    for step in 0...end {
      let node = graph[order[step]]
      if node.results.allSatisfy({ recipes.contains($0) }) { continue }
      progress?.update("merging", done: step, of: end + 1)
      var weight: Tensor?
      if let constant = layers[step] {
        let (tensor, layer) = try merge(node, constant, runs, constants)
        try sink(constant.name, tensor)
        report.append(layer)
        if usesMergedInputs { weight = tensor }
      }
      if step == end { break }
      try evaluate(node, graph, constants, recipes, merged: weight, models, &runs)
      for input in node.inputs where lastUse[input] == step {
        for model in runs.indices {
          for index in runs[model].indices { runs[model][index].tensors[input] = nil }
        }
      }
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
  private func layer(at id: NodeID, of graph: Graph, in model: Model, _ recipes: RecipeSet) -> Constant? {
    let node = graph[id]
    guard node.op is MatMul, let constant = graph.constant(of: node.inputs[1]).map({ model.constants[$0] }),
      constant.type.isDense, constant.type.element.isFloat, constant.type.rank == 2,
      !recipes.contains(node.inputs[0]), graph.users(of: node.inputs[1]) == [id],
      !graph.outputs.contains(node.inputs[1]), selects(constant)
    else { return nil }
    return constant
  }

  // MARK: A node

  /// Collects the statistics of a layer and merges its weights, a block of outputs at a time.
  private func merge(
    _ node: Node, _ constant: Constant, _ runs: [[Run]], _ constants: [ConstantEvaluator]
  ) throws -> (Tensor, Layer) {
    guard let sizes = constant.type.shape.fixedSizes, let op = node.op as? MatMul else {
      throw CompileError(.internal, "'\(constant.name)' is no weight of a linear layer")
    }
    let (outputs, depth) = op.transposeB ? (sizes[0], sizes[1]) : (sizes[1], sizes[0])
    let result = Tensor(constant.type)
    guard outputs > 0, depth > 0 else { return (result, Layer(name: constant.name, rows: [], damping: 0)) }
    var statistics = RegressionMean(order: depth, count: runs.count)
    for (model, runs) in runs.enumerated() {
      for run in runs {
        guard let x = run.tensors[node.inputs[0]] else {
          throw CompileError(.internal, "the input of '\(constant.name)' has not been computed")
        }
        statistics.add(x.view, of: model)
      }
    }
    do {
      try statistics.factor(scale: scale)
    } catch let error as CompileError {
      throw error.located(.init(object: "the layer of '\(constant.name)'"))
    }
    let weights = try constants.map { try $0.tensor(node.inputs[1]) }
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

  /// Computes a node for all samples of all models. `merged` takes the place of the right factor.
  private func evaluate(
    _ node: Node, _ graph: Graph, _ constants: [ConstantEvaluator], _ recipes: RecipeSet, merged: Tensor?,
    _ models: [Model], _ runs: inout [[Run]]
  ) throws {
    var operands: [ValueID: Tensor] = [:]
    if usesMergedInputs {
      for input in Set(node.inputs) where recipes.contains(input) {
        operands[input] = try mean(of: input, graph, constants, models[0])
      }
      if let merged { operands[node.inputs[1]] = merged }
    }
    for model in runs.indices {
      if !usesMergedInputs {
        operands = [:]
        for input in Set(node.inputs) where recipes.contains(input) {
          operands[input] = try constants[model].tensor(input)
        }
      }
      for index in runs[model].indices {
        let binding = runs[model][index].binding
        let op = (node.op as? any DimensionAttributes)?.substituting { binding[$0.name].map { .fixed($0) } } ?? node.op
        let inputs = try node.inputs.map { input in
          guard let tensor = operands[input] ?? runs[model][index].tensors[input] else {
            throw CompileError(.internal, "'%\(graph[input].name)' is used before it is computed")
          }
          return tensor
        }
        let results = try op.inferTypes(inputs.map(\.type)).map { Tensor($0) }
        try op.evaluate(inputs.map(\.view), into: results.map(\.mutableView))
        for (value, tensor) in zip(node.results, results) { runs[model][index].tensors[value] = tensor }
      }
    }
  }

  /// The mean of a recipe over the models, if it is of numbers that are merged, else that of the first.
  private func mean(
    of value: ValueID, _ graph: Graph, _ constants: [ConstantEvaluator], _ model: Model
  ) throws -> Tensor {
    let type = graph.type(of: value)
    var isSelected = false
    var stack = [value]
    while let next = stack.popLast() {
      if let id = graph.constant(of: next) { isSelected = isSelected || selects(model.constants[id]) }
      if let producer = graph.definingNode(of: next) { stack += graph[producer].inputs }
    }
    let first = try constants[0].tensor(value)
    guard isSelected, type.isDense, type.element.isFloat, constants.count > 1 else { return first }
    let others = try constants.dropFirst().map { try $0.tensor(value) }
    let result = Tensor(first.type)
    let share = 1 / Double(constants.count)
    TensorMerge.weightedSum(
      ([first] + others).map(\.view), constants.map { _ in share }, into: result.mutableView)
    return result
  }
}
