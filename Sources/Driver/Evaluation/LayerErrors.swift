import Base
import CodeGen
import Formats
import IR
import Tensors

/// How far the linear layers and convolutions of a model that passes changed are from those of the original, in order.
///
/// Both run through the evaluator on the first tokens of a text or the first sample. Layers are found by the names of their
/// results, which passes keep; one that a pass replaced by another is left out.
package struct LayerErrors {
  /// The most tokens of a text.
  private static let tokens = 256

  /// A layer by its place in the checkpoint, and the root mean square of its difference from the original, relative to the
  /// original's.
  package struct Layer: Hashable, Sendable {
    package var name: String
    package var error: Double
  }

  package var options = FrontendOptions()

  package init() {}

  /// The layers of the model at `path` after the passes of the options, against the model as it was read.
  package func run(_ path: String, on input: ModelEvaluation.Input) async throws -> [Layer] {
    var options = self.options
    try await options.readTexts(for: path)
    let original = try model(path, ModelEvaluation.exact(options))
    guard let function = original.function(role: "main") ?? original.functions.first else {
      throw CompileError(.input, "'\(path)' has no function")
    }
    let file =
      switch input {
      case .text(let file), .data(let file): file
      }
    guard let sample = try await CalibrationSamples(original, count: 1, length: Self.tokens).read(file).first else {
      throw CompileError(.input, "'\(file)' holds no sample")
    }
    var wanted: [String: Tensor] = [:]
    try Self.walk(original, function, sample) { name, _, tensor in wanted[name] = tensor }
    var layers: [Layer] = []
    let changed = try model(path, options)
    guard let other = changed.functions.first(where: { $0.name == function.name }) else { return [] }
    try Self.walk(changed, other, sample) { name, origin, tensor in
      guard let reference = wanted[name], reference.type == tensor.type else { return }
      layers.append(
        Layer(
          name: origin ?? name,
          error: TensorDifference(NumPyArray(tensor.view).doubles, NumPyArray(reference.view).doubles).relativeRMS))
    }
    return layers
  }

  private func model(_ path: String, _ options: FrontendOptions) throws -> Model {
    var frontend = Frontend(options)
    return try frontend.run(path, to: .transform)
  }

  /// Runs a function and shows the results of its layers.
  private static func walk(
    _ model: Model, _ function: Graph, _ sample: FunctionInputs,
    _ show: @escaping (_ name: String, _ origin: String?, Tensor) -> Void
  ) throws {
    let evaluator = try Evaluator(model, function: function.name)
    evaluator.observer = { node, results in
      let op = function[node].op
      guard op is MatMul || op is Conv2D || op is ExpertMatMul || op is QuantizedConv2D, let result = results.first,
        result.type.isDense, result.type.element.isFloat
      else { return }
      show(function[function[node].results[0]].name, function[node].origin?.text, result)
    }
    _ = try evaluator.run(sample.inputs, symbols: sample.symbols)
  }
}
