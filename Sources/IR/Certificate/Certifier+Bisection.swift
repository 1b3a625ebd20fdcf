import Base
import Tensors

extension Certifier {
  /// The error for a tensor that differs too much, with the rule and the tensor that do it.
  func explain(
    _ fault: Comparison.Fault, _ comparison: Comparison, rewrites: Int,
    again: (Int) throws -> (Model, PassContext.Rewrite?)
  ) throws -> CompileError {
    let graph = comparison.new.model.functions[fault.place.function]
    let name = "output '\(graph.tensorName(fault.place.tensor))' of '@\(graph.name)'"
    let pass = comparison.pass.name
    let message =
      switch fault.limit {
      case .bound(let limit, let wide):
        "the exact pass '\(pass)' changes \(name) by \(fault.found.figure), more than the \(limit.figure) that "
          + "roundings in \(wide ? "f64" : "f32") account for"
      case .error(let limit):
        "after the pass '\(pass)' \(name) has the relative error \(fault.found.figure), more than \(limit.figure)"
      case .divergence(let limit):
        "after the pass '\(pass)' the KL divergence of \(name) is \(fault.found.figure), more than \(limit.figure)"
      }
    var error = CompileError(.check, message)
    if let rewrite = try firing(fault, comparison, rewrites: rewrites, again: again) {
      error.notes.append("rewrite \(rewrite.number), by the rule '\(rewrite.rule)', does it at '\(rewrite.place)'")
    } else if let tensor = try firstTensor(fault, comparison) {
      error.notes.append(
        comparison.pass.fidelity == .exact
          ? "the first tensor that differs is '%\(tensor)'" : "most of the error comes in at '%\(tensor)'")
    }
    return error
  }

  /// The firing that makes the difference: bisection between no firing and all of them. Nil for a pass that does it without.
  private func firing(
    _ fault: Comparison.Fault, _ comparison: Comparison, rewrites: Int,
    again: (Int) throws -> (Model, PassContext.Rewrite?)
  ) throws -> PassContext.Rewrite? {
    let limit: Double
    var wide = false
    switch fault.limit {
    case .bound(let value, let isWide):
      limit = value
      wide = isWide
    case .error(let value), .divergence(let value): limit = value
    }
    func fails(_ count: Int) throws -> Bool {
      let model = try again(count).0
      guard model.functions.indices.contains(fault.place.function) else { return true }
      // A version that does not run is no good one.
      guard let tensors = try? run(model, at: fault.place, wide: wide),
        tensors.tensors.indices.contains(fault.place.tensor)
      else { return true }
      return comparison.measure(tensors, fault) > limit
    }
    guard rewrites > 0, try !fails(0) else { return nil }
    var (good, bad) = (0, rewrites)
    while bad - good > 1 {
      let middle = good + (bad - good) / 2
      if try fails(middle) { bad = middle } else { good = middle }
    }
    return try again(bad).1
  }

  /// The name of the first value, in the order of computation, that both versions have and that differs much; for what is not
  /// exact that where most of the error comes in.
  private func firstTensor(_ fault: Comparison.Fault, _ comparison: Comparison) throws -> String? {
    let wide = comparison.new.wide != nil
    let before = wide ? comparison.old.wide ?? comparison.old.model : comparison.old.model
    let after = wide ? comparison.new.wide ?? comparison.new.model : comparison.new.model
    let inputs = inputs[fault.place.function][fault.place.run]
    let reference = try values(before, fault.place, wide ? inputs.widened() : inputs)
    let found = try values(after, fault.place, wide ? inputs.widened() : inputs)
    var errors: [String: Double] = [:]
    for (name, numbers) in found.numbers {
      guard let other = reference.numbers[name], other.count == numbers.count else { continue }
      errors[name] = TensorDifference(numbers, other).relativeRMS
    }
    let graph = after.functions[fault.place.function]
    let largest = errors.values.filter(\.isFinite).max() ?? 0
    if comparison.pass.fidelity == .exact {
      return found.order.first { (errors[$0] ?? 0) > max(largest * 1e-3, wide ? 1e-12 : 1e-6) }
    }
    var worst: (name: String, growth: Double)?
    for node in graph.topologicalOrder() {
      let before = graph[node].inputs.compactMap { errors[graph[$0].name] }.max() ?? 0
      for result in graph[node].results {
        guard let error = errors[graph[result].name], error - before > worst?.growth ?? 0 else { continue }
        worst = (graph[result].name, error - before)
      }
    }
    return worst?.name
  }

  /// The numbers of all values of a function by name, and the names in the order of computation.
  private func values(
    _ model: Model, _ place: Place, _ inputs: FunctionInputs
  ) throws -> (numbers: [String: [Double]], order: [String]) {
    let graph = model.functions[place.function]
    let evaluator = try Evaluator(model, function: graph.name, keepsRecipes: false)
    var numbers: [String: [Double]] = [:]
    var order: [String] = []
    evaluator.observer = { node, results in
      for (value, tensor) in zip(graph[node].results, results) where tensor.type.isDense && tensor.view.count <= 1 << 22
      {
        order.append(graph[value].name)
        numbers[graph[value].name] = tensor.view.doubles
      }
    }
    _ = try evaluator.run(inputs.inputs, states: inputs.states, symbols: inputs.symbols)
    return (numbers, order)
  }
}
