import Base
import Tensors

/// Runs a function on many samples at once, node by node, so that what happens at a node can depend on its inputs of all
/// samples, and only live values take memory.
///
/// States are zeros at the beginning of each sample. Samples run at the same time, each on one thread, so that results
/// do not depend on the number of threads. Outputs are not kept, and updated states only where they are asked for.
package struct SampleWalk {
  /// A sample on its way through the graph.
  private struct Run {
    var binding: [String: Int]
    var tensors: [ValueID: Tensor]
  }

  package let graph: Graph
  /// The nodes that are to be evaluated one after the other; recipes are left out.
  package let order: [NodeID]
  private let constants: ConstantEvaluator
  private let isRecipe: [Bool]
  private let lastUse: [Int]
  private var runs: [Run]
  /// How many nodes of `order` have been evaluated.
  package private(set) var step = 0

  /// A walk through `graph`, a function of `model` or one that reads the same constants. `order` has all nodes, each
  /// after those it depends on; nodes that `graph` does not have are passed over. With `keepsStates` the end has
  /// ``states(of:)``.
  ///
  /// - Throws: `CompileError` if the samples do not fit the inputs.
  package init(
    _ model: Model, _ graph: Graph, order: [NodeID]? = nil, _ samples: [FunctionInputs], keepsStates: Bool = false
  ) throws {
    self.graph = graph
    let flags = RecipeSet(graph).flags
    let order = (order ?? graph.topologicalOrder()).filter { id in
      graph.isLive(id) && !graph[id].results.allSatisfy { flags[Int($0.index)] }
    }
    self.order = order
    isRecipe = flags
    var lastUse = graph.lastUses(in: order)
    if keepsStates { for state in graph.states { lastUse[Int(state.update.index)] = .max } }
    self.lastUse = lastUse
    constants = ConstantEvaluator(model, graph)
    let evaluator = try Evaluator(model, graph)
    let states = try evaluator.initialStates()
    runs = try samples.map { sample in
      let binding = try evaluator.bind(sample.inputs, sample.symbols)
      let values = zip(graph.inputs + graph.states.map(\.value), sample.inputs + (sample.states ?? states))
      return Run(binding: binding, tensors: Dictionary(values, uniquingKeysWith: { first, _ in first }))
    }
  }

  /// The number of samples.
  package var count: Int { runs.count }

  /// The node that is evaluated next; nil at the end.
  package var next: NodeID? { step < order.count ? order[step] : nil }

  /// Whether a value depends on constants alone.
  package func isRecipe(_ value: ValueID) -> Bool { isRecipe[Int(value.index)] }

  /// A value that depends on constants alone.
  package func recipe(_ value: ValueID) throws -> Tensor { try constants.tensor(value) }

  /// A live value of a sample.
  package func tensor(_ value: ValueID, of sample: Int) throws -> Tensor {
    guard let tensor = runs[sample].tensors[value] else {
      throw CompileError(.internal, "'%\(graph[value].name)' is used before it is computed")
    }
    return tensor
  }

  /// The updated states of a sample by name, at the end of a walk that keeps them.
  package func states(of sample: Int) throws -> [String: Tensor] {
    try graph.states.reduce(into: [:]) { states, state in
      states[graph[state.value].name] =
        try isRecipe(state.update) ? recipe(state.update) : tensor(state.update, of: sample)
    }
  }

  /// Evaluates the next node for all samples, with other tensors in place of some recipes, and drops what is not read
  /// again.
  package mutating func advance(replacing others: [ValueID: Tensor] = [:]) throws {
    guard let id = next else { return }
    let node = graph[id]
    var recipes: [ValueID: Tensor] = [:]
    for input in node.inputs where isRecipe(input) && recipes[input] == nil {
      recipes[input] = try others[input] ?? weight(input, node)
    }
    let (graph, runs) = (self.graph, self.runs)
    let results = try parallelMap(runs.count) { index in
      let operands = try node.inputs.map { input in
        guard let tensor = recipes[input] ?? runs[index].tensors[input] else {
          throw CompileError(.internal, "'%\(graph[input].name)' is used before it is computed")
        }
        return tensor
      }
      return try graph.evaluate(id, operands, runs[index].binding)
    }
    let dropped = Set(node.inputs.filter { lastUse[Int($0.index)] == step })
    for index in self.runs.indices {
      for (value, tensor) in zip(node.results, results[index]) where lastUse[Int(value.index)] > step {
        self.runs[index].tensors[value] = tensor
      }
      for value in dropped { self.runs[index].tensors[value] = nil }
    }
    step += 1
  }

  /// A recipe as an operand; factors of products are widened once, not for each sample.
  private func weight(_ value: ValueID, _ node: Node) throws -> Tensor {
    let tensor = try constants.tensor(value)
    let element = tensor.type.element
    guard node.op is MatMul, tensor.type.isDense, element.isFloat, element != .f32, element != .f64,
      value != node.inputs[0]
    else { return tensor }
    let wide = Tensor(tensor.type.with(element: .f32))
    parallelConvert(tensor.view.bytes, element, into: wide.mutableView.bytes, .f32, count: tensor.view.count)
    return wide
  }
}
