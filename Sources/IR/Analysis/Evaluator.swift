import Base
import Tensors

/// Runs a function of a model by the reference meaning of its operators.
///
/// Constants that depend on nothing else are computed once per evaluator and kept, so that repeated runs (the tokens of
/// a text) cost only what depends on the input.
package final class Evaluator {
  private let model: Model
  private let graph: Graph
  private let order: [NodeID]
  private let constants: ConstantEvaluator
  private var kept: [ValueID: Tensor] = [:]
  private let isConstant: [Bool]
  private let lastUse: [Int]
  /// Called after each node with its origin and result; for statistics and traces.
  package var observer: ((NodeID, [Tensor]) throws -> Void)?

  /// An evaluator of the function `name`; nil stands for the only or the `main` function. Without `keepsRecipes` what depends
  /// on constants alone is computed in every run like everything else, so that the observer sees it.
  package convenience init(_ model: Model, function name: String? = nil, keepsRecipes: Bool = true) throws {
    let chosen = name.map { name in model.functions.first { $0.name == name } }
    guard let graph = chosen ?? model.function(role: "main") ?? model.functions.first else {
      throw CompileError(.input, "model '\(model.name)' has no function\(name.map { " '@\($0)'" } ?? "")")
    }
    try self.init(model, graph, keepsRecipes: keepsRecipes)
  }

  /// An evaluator of `graph`, a function of `model` or one that reads the same constants.
  package init(_ model: Model, _ graph: Graph, keepsRecipes: Bool = true) throws {
    self.model = model
    self.graph = graph
    order = graph.topologicalOrder()
    constants = ConstantEvaluator(model, graph)
    isConstant = RecipeSet(graph, computed: keepsRecipes).flags
    var lastUse = graph.lastUses(in: order)
    for output in graph.outputs { lastUse[Int(output.index)] = .max }
    for state in graph.states { lastUse[Int(state.update.index)] = .max }
    self.lastUse = lastUse
  }

  /// The result of a run: outputs in order and the new values of the states.
  package struct Results {
    package var outputs: [Tensor]
    package var states: [Tensor]
  }

  /// The states before the first call: zeros.
  package func initialStates() throws -> [Tensor] {
    try graph.states.map { state in
      let type = graph.type(of: state.value)
      guard type.shape.isFixed else { throw CompileError(.unsupported, "a state of type \(type) has no fixed size") }
      return Tensor(type)
    }
  }

  /// Runs the function once on one tensor per input, in order; their sizes bind the symbols, and `symbols` gives those
  /// that no input has as a size. `states` has one tensor per state; they are zeros where it is left out. Throws if types
  /// do not fit or an operator refuses its operands.
  package func run(
    _ inputs: [Tensor], states: [Tensor]? = nil, symbols: [String: Int] = [:]
  ) throws -> Results {
    let binding = try bind(inputs, symbols)
    var tensors = [Tensor?](repeating: nil, count: graph.valueSlots)
    for (id, tensor) in zip(graph.inputs, inputs) { tensors[Int(id.index)] = tensor }
    for (state, tensor) in zip(graph.states, try states ?? initialStates()) {
      guard tensor.type == graph.type(of: state.value) else {
        throw CompileError(
          .input, "state '%\(graph[state.value].name)' is \(tensor.type), expected \(graph.type(of: state.value))")
      }
      tensors[Int(state.value.index)] = tensor
    }
    func tensor(_ id: ValueID) throws -> Tensor {
      if let tensor = tensors[Int(id.index)] ?? kept[id] { return tensor }
      guard isConstant[Int(id.index)] else {
        throw CompileError(.internal, "'%\(graph[id].name)' is used before it is computed")
      }
      let tensor = try constants.tensor(id)
      kept[id] = tensor
      return tensor
    }
    for (step, id) in order.enumerated() {
      let node = graph[id]
      if node.results.allSatisfy({ isConstant[Int($0.index)] }) { continue }
      let results = try graph.evaluate(id, try node.inputs.map { try tensor($0) }, binding)
      for (result, tensor) in zip(node.results, results) { tensors[Int(result.index)] = tensor }
      try observer?(id, results)
      for input in node.inputs where lastUse[Int(input.index)] == step { tensors[Int(input.index)] = nil }
    }
    return Results(
      outputs: try graph.outputs.map { try tensor($0) }, states: try graph.states.map { try tensor($0.update) })
  }

  /// The values of the symbols, from the sizes of the inputs and from `given`; throws if types do not fit.
  package func bind(_ inputs: [Tensor], _ given: [String: Int]) throws -> [String: Int] {
    guard inputs.count == graph.inputs.count else {
      throw CompileError(
        .input, "function '@\(graph.name)' takes \(graph.inputs.count) inputs, found \(inputs.count)")
    }
    var binding = given
    for (id, tensor) in zip(graph.inputs, inputs) {
      let wanted = graph.type(of: id)
      let name = graph[id].name
      guard tensor.type.element == wanted.element, tensor.type.rank == wanted.rank else {
        throw CompileError(.input, "input '\(name)' is \(tensor.type), expected \(wanted)")
      }
      for (dim, size) in zip(wanted.shape.dims, tensor.view.sizes) {
        if dim.terms.count == 1, dim.offset == 0, dim.terms[0].coefficient == 1,
          case .symbol(let symbol) = dim.terms[0].atom, binding[symbol.name] == nil
        {
          binding[symbol.name] = size
        }
      }
    }
    for symbol in graph.symbols {
      guard let value = binding[symbol.name] else {
        throw CompileError(
          .input, "the size '\(symbol.name)' is not known from the inputs",
          notes: ["mcc run takes it as --symbol \(symbol.name)=N"])
      }
      guard symbol.range.contains(value) else {
        throw CompileError(
          .input, "the size '\(symbol.name)' is \(value), expected \(symbol.minimum) to \(symbol.maximum)")
      }
    }
    for (id, tensor) in zip(graph.inputs, inputs) {
      let wanted = graph.type(of: id).substituting { binding[$0.name].map { .fixed($0) } }
      guard tensor.type == wanted else {
        throw CompileError(.input, "input '\(graph[id].name)' is \(tensor.type), expected \(wanted)")
      }
    }
    return binding
  }
}
