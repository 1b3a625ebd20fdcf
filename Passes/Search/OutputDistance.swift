import Base
import IR
import Tensors

/// How far the results of a changed model of one function are from the original's on samples: the mean divergence of
/// the next token's distribution where it has logits; else the mean square of the difference of its last output, over
/// that of the output.
struct OutputDistance {
  private let samples: [FunctionInputs]
  private let reference: [Tensor]
  /// The number of logits; nil where the output is something else.
  private let columns: Int?
  private let output: Int

  /// - Throws: `CompileError` of kind `.unsupported` if there is no output of numbers.
  init(_ model: Model, _ samples: [FunctionInputs]) throws {
    self.samples = samples
    let graph = model.functions[0]
    let hasLogits = graph.outputNames.first == "logits"
    output = hasLogits ? 0 : graph.outputs.count - 1
    columns = hasLogits ? graph.type(of: graph.outputs[0]).shape.last.fixedValue : nil
    guard output >= 0 else { throw CompileError(.unsupported, "the model has no output to compare") }
    reference = try Self.outputs(of: model, output, samples)
  }

  /// The distance of `model`.
  func callAsFunction(_ model: Model) throws -> Double {
    let found = try Self.outputs(of: model, output, samples)
    var divergence = LogitDivergence()
    var difference = 0.0, size = 0.0
    for (found, wanted) in zip(found, reference) {
      let (x, y) = (found.view.elements(as: Float.self), wanted.view.elements(as: Float.self))
      guard let columns, columns > 0 else {
        for (x, y) in zip(x, y) {
          difference += (Double(x) - Double(y)) * (Double(x) - Double(y))
          size += Double(y) * Double(y)
        }
        continue
      }
      for start in stride(from: 0, to: x.count - x.count % columns, by: columns) {
        let row = start..<(start + columns)
        divergence.add(
          LogitRow(UnsafeBufferPointer(rebasing: x[row])), reference: LogitRow(UnsafeBufferPointer(rebasing: y[row])))
      }
    }
    return columns == nil ? (size > 0 ? difference / size : difference) : divergence.mean
  }

  private static func outputs(of model: Model, _ output: Int, _ samples: [FunctionInputs]) throws -> [Tensor] {
    let evaluator = try Evaluator(model, function: model.functions[0].name)
    return try samples.map { sample in
      let results = try evaluator.run(sample.inputs, states: sample.states, symbols: sample.symbols).outputs
      guard output < results.count, results[output].type.element == .f32, results[output].type.isDense else {
        throw CompileError(.unsupported, "the model has no output of type f32 to compare")
      }
      return results[output]
    }
  }
}
