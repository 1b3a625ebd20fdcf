import Base
import IR
import Tensors

/// Runs of the reference evaluator on made-up inputs, to compare a model before and after passes.
enum SeededRun {
  /// Exact passes change the order of f32 sums (of at most a few thousand terms here) and of factors: an error of some
  /// tens of units in the last place of the largest value.
  static let exactTolerance = 1e-5

  /// The outputs and the updated states of a function, as numbers. Every symbol is 3 where its range allows.
  static func outputs(of model: Model, function name: String, seed: UInt64 = 1) throws -> [[Double]] {
    guard let graph = model.functions.first(where: { $0.name == name }) else {
      throw CompileError(.internal, "no function '\(name)'")
    }
    let made = FunctionInputs.seeded(for: graph, seed: seed)
    let results = try Evaluator(model, function: name).run(made.inputs, states: made.states, symbols: made.symbols)
    return (results.outputs + results.states).map(\.view.doubles)
  }

  /// Inputs of a function without symbols, made up like those of ``outputs(of:function:seed:)``.
  static func inputs(of graph: Graph, seed: UInt64) -> [Tensor] {
    FunctionInputs.seeded(for: graph, seed: seed).inputs
  }

  /// `count` inputs of a graph from empty states on, each of `size` tokens, made up from `seed` on.
  static func begun(_ graph: Graph, _ count: Int, seed: UInt64, size: Int) -> [FunctionInputs] {
    (0..<count).map { index in
      var inputs = FunctionInputs.seeded(for: graph, seed: seed + UInt64(index), size: size)
      inputs.states = nil
      for (index, input) in graph.inputs.enumerated() where graph[input].name == "position" {
        inputs.inputs[index] = Tensor(graph.type(of: input))
      }
      return inputs
    }
  }
}
