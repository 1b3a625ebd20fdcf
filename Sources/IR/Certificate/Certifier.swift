import Base
import Tensors

/// Translation validation: runs a model before and after each pass on the same inputs and compares what leaves its functions.
///
/// An exact pass may change a number by what roundings account for, and no more. How much that is follows from the
/// operations: with the number of roundings `n` that stand between the operands of a node and a number of its result
/// (``RoundingCount``) the result of the node is off by about `sqrt(n) u` (Higham and Mary, 2019), relative to the number
/// itself, or for sums to the largest number of the tensor; `u` is 2^-24 in f32. How these errors travel to the outputs
/// depends on the network, so it is measured: the function is run in f64 with every number of every result moved by that much,
/// up or down by chance, and the largest distance that results is the spread `s`. Two runs in f32, before and after, must agree
/// within `4 (s_before + s_after)`, and two in f64 within 2^-29 of that, the ratio of the units. What a pass computes and
/// keeps, constants and attributes, is rounded to f32; the spread of one such rounding at each constant and each operator that
/// the pass made is added in f64.
///
/// Models that are too large for f64 are compared in f32 alone, those too large for the evaluator not at all.
package final class Certifier {
  package struct Options {
    /// Seeds of made-up inputs.
    package var seeds: [UInt64] = [1]
    /// Inputs of a function from the user; none for functions that they are not for.
    package var inputs: ((Graph) throws -> [FunctionInputs])?
    /// The largest mean divergence of next tokens from the model as it was read, in nats.
    package var maximumDivergence: Double?
    /// The largest relative error (root of the mean square) of an output from that of the model as it was read.
    package var maximumError: Double?
    /// Bytes of constants up to which a model is run at all; nil for any.
    package var memoryLimit: Int? = 2 << 30
    /// Bytes of constants in f64 up to which a model is run in f64 too.
    package var wideLimit = 256 << 20

    package init() {}
  }

  /// Where an output is: the function, the place among the inputs of that function, and the place among its tensors.
  struct Place: Hashable {
    var function: Int
    var run: Int
    var tensor: Int
  }

  /// Everything that was computed of a version of the model, by function and run.
  struct Outcome {
    var model: Model
    var wide: Model?
    var single: [[FunctionRun]] = []
    var double: [[FunctionRun]] = []
    /// For each tensor, how far roundings move it in f32.
    var spread: [[[Double]]] = []
  }

  let options: Options
  /// The inputs, by function.
  private(set) var inputs: [[FunctionInputs]] = []
  private(set) var original: Outcome?
  private var latest: Outcome?

  package init(_ options: Options = Options()) { self.options = options }

  /// Runs the model before the first pass. Throws if that cannot be done.
  package func begin(_ model: Model) throws {
    guard original == nil else { return }
    try checkSize(model)
    var wide = true
    let numbers = model.constants.constants.reduce(0) { $0 + $1.type.maximumCount }
    if numbers > options.wideLimit / 8 { wide = false }
    for graph in model.functions {
      var all = options.seeds.map { FunctionInputs.seeded(for: graph, seed: $0) }
      all += try options.inputs?(graph) ?? []
      inputs.append(all)
    }
    do {
      original = try outcome(of: model, wide: wide)
    } catch let error as CompileError where error.kind != .internal {
      throw CompileError(
        .unsupported, "the model cannot be checked, as it does not run on the inputs", subject: error.subject,
        notes: error.notes, cause: error.message)
    }
    latest = original
  }

  private func checkSize(_ model: Model) throws {
    let bytes = model.constants.constants.reduce(0) { $0 + $1.type.maximumByteCount }
    guard let limit = options.memoryLimit, bytes > limit else { return }
    throw CompileError(
      .unsupported,
      "checking takes the \(bytes >> 20) MiB of the weights through the evaluator, more than \(limit >> 20) MiB",
      notes: ["--check-large checks it all the same"])
  }

  // MARK: Running

  private func outcome(of model: Model, wide isWide: Bool) throws -> Outcome {
    var result = Outcome(model: model)
    if isWide { result.wide = try model.widened() }
    for index in model.functions.indices {
      var (single, double, spread): ([FunctionRun], [FunctionRun], [[Double]]) = ([], [], [])
      let graph = model.functions[index]
      let bases = model.bases(of: graph)
      let evaluator = try Evaluator(model, function: graph.name)
      for inputs in self.inputs[index] {
        let run = try FunctionRun(evaluator, graph, inputs, bases: bases)
        single.append(run)
        let reference: FunctionRun
        let disturbed: [FunctionRun]
        if let wide = result.wide {
          let wideGraph = wide.functions[index]
          let evaluator = try Evaluator(wide, function: graph.name, keepsRecipes: false)
          let inputs = inputs.widened()
          reference = try FunctionRun(evaluator, wideGraph, inputs, bases: bases)
          double.append(reference)
          disturbed = try Self.signs.map { try FunctionRun(evaluator, wideGraph, inputs, bases: bases, .all, seed: $0) }
        } else {
          reference = run
          disturbed = try Self.signs.map { try FunctionRun(evaluator, graph, inputs, bases: bases, .all, seed: $0) }
        }
        spread.append(Self.spread(of: disturbed, around: reference))
      }
      result.single.append(single)
      result.double.append(double)
      result.spread.append(spread)
    }
    return result
  }

  /// Seeds of the signs of disturbances.
  private static let signs: [UInt64] = [11, 12]

  /// The largest distance of each tensor from the reference.
  private static func spread(of runs: [FunctionRun], around reference: FunctionRun) -> [Double] {
    reference.tensors.indices.map { tensor in
      var largest = 0.0
      for run in runs {
        for (x, y) in zip(run.tensors[tensor], reference.tensors[tensor]) where x.isFinite && y.isFinite {
          largest = max(largest, (x - y).magnitude)
        }
      }
      return largest
    }
  }

  // MARK: Comparing

  /// Compares the model after a pass, in which `rewrites` rules fired, with that before. `again` runs the pass on the model
  /// before with at most so many firings, and gives the model and the last firing. Throws an error of kind `.check` if an
  /// exact pass is none, or a gate is exceeded.
  func check(
    _ pass: any Pass, before: Model, after: Model, rewrites: Int,
    again: (Int) throws -> (Model, PassContext.Rewrite?)
  ) throws -> PassCertificate {
    try begin(before)
    guard let original else { throw CompileError(.internal, "nothing was run before the first pass") }
    let isWide = original.wide != nil
    let old: Outcome
    if let latest, latest.model.functions == before.functions, latest.model.constants == before.constants {
      old = latest
    } else {
      old = try outcome(of: before, wide: isWide)
    }
    try checkInterface(before, after)
    let new: Outcome
    do {
      new = try outcome(of: after, wide: isWide)
    } catch let error as CompileError {
      throw CompileError(
        .check, "after the pass '\(pass.name)' the model does not run any more", subject: error.subject,
        notes: error.notes, cause: error.message)
    }
    let comparison = Comparison(
      pass: pass, original: original, old: old, new: new, inputs: inputs, madeUp: options.seeds.count)
    let made = pass.fidelity == .exact && isWide ? try madeSpread(old, new) : nil
    let certificate = comparison.certificate(made: made)
    if let fault = comparison.fault(made: made, options) {
      throw try explain(fault, comparison, rewrites: rewrites, again: again)
    }
    latest = new
    return certificate
  }

  private func checkInterface(_ before: Model, _ after: Model) throws {
    func interface(_ model: Model) -> [[String]] {
      model.functions.map { graph in
        [graph.name] + graph.outputNames + (graph.inputs + graph.states.map(\.value)).map { "\(graph.type(of: $0))" }
      }
    }
    guard interface(before) == interface(after) else {
      throw CompileError(.check, "the functions of the model take or give other tensors than before the pass")
    }
  }

  /// For each tensor, how far one rounding to f32 at each constant and operator that `new` has and `old` has not moves it, and
  /// at each small recipe of `old`, which may have become such a constant.
  private func madeSpread(_ old: Outcome, _ new: Outcome) throws -> [[[Double]]] {
    guard let oldWide = old.wide, let newWide = new.wide else { return [] }
    let known = Set(old.model.constants.constants.map { [AnyHashable($0.type), AnyHashable($0.source)] })
    var hasNewConstants = false
    return try newWide.functions.indices.map { index in
      let (before, after) = (oldWide.functions[index], newWide.functions[index])
      var operators: Set<AnyHashable> = []
      for node in before.nodeIDs {
        let op = before[node].op
        operators.insert(AnyHashable(op))
      }
      var nodes: Set<NodeID> = []
      for node in after.nodeIDs {
        let op = after[node].op
        if let input = after[node].inputs.first, let id = after.constant(of: input), op is Cast {
          let constant = newWide.constants[id]
          if known.contains([AnyHashable(constant.type), AnyHashable(constant.source)]) { continue }
          hasNewConstants = true
          nodes.insert(node)
        } else if !operators.contains(AnyHashable(op)) {
          nodes.insert(node)
        }
      }
      var folded: Set<NodeID> = []
      if hasNewConstants {
        for node in before.nodeIDs {
          // A constant behind its cast was not computed.
          let isStored = before[node].op is Cast && before[node].inputs.contains { before.constant(of: $0) != nil }
          guard !isStored, let result = before[node].results.first,
            before.type(of: result).maximumCount <= Constant.inlineLimit,
            ConstantEvaluator.isRecipe(result, in: before)
          else { continue }
          folded.insert(node)
        }
      }
      return try inputs[index].indices.map { run in
        var sum = [Double](repeating: 0, count: new.double[index][run].tensors.count)
        let sides = [
          (newWide, after, nodes, new.double[index][run]), (oldWide, before, folded, old.double[index][run]),
        ]
        for (model, graph, nodes, reference) in sides where !nodes.isEmpty {
          let evaluator = try Evaluator(model, function: graph.name, keepsRecipes: false)
          let disturbed = try FunctionRun(
            evaluator, graph, inputs[index][run].widened(), bases: model.bases(of: graph), .only(nodes),
            seed: Self.signs[0])
          for (tensor, value) in Self.spread(of: [disturbed], around: reference).enumerated() { sum[tensor] += value }
        }
        return sum
      }
    }
  }

  /// The tensors of one run of a version of the model, in f64 where that is computed.
  func run(_ model: Model, at place: Place, wide: Bool) throws -> FunctionRun {
    let model = wide ? try model.widened() : model
    let graph = model.functions[place.function]
    let evaluator = try Evaluator(model, function: graph.name, keepsRecipes: !wide)
    let inputs = inputs[place.function][place.run]
    return try FunctionRun(evaluator, graph, wide ? inputs.widened() : inputs, bases: model.bases(of: graph))
  }
}
