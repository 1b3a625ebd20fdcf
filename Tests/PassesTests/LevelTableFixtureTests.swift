import Formats
import IR
import TestSupport
import Tensors
import Testing

/// What tables of levels lose on the weights of a trained model.
@Suite struct LevelTableFixtureTests {
  /// The mean square of the change by rounding, over that of the weights, of some matrices of the model.
  private static func losses(_ formats: [(name: String, format: BlockFormat, isFitted: Bool)]) throws -> [String:
    Double]?
  {
    guard let path = Fixtures.path("pycode7m") else { return nil }
    let model = try FormatRegistry.load(path)
    let graph = try #require(model.functions.first)
    let evaluator = ConstantEvaluator(model, graph)
    var changes: [String: Double] = [:]
    var energy = 0.0
    for id in graph.nodeIDs where graph[id].op is MatMul {
      let value = graph[id].inputs[1]
      let type = graph.type(of: value)
      guard ConstantEvaluator.isRecipe(value, in: graph), type.rank == 2, type.maximumCount < 1 << 18 else { continue }
      let tensor = try evaluator.tensor(value)
      let numbers = Tensor(TensorType(.f32, type.shape))
      try Cast(.f32).evaluate([tensor.view], into: [numbers.mutableView])
      let columns = try #require(numbers.view.sizes.last)
      let weights = withExtendedLifetime(numbers) { Array(numbers.view.elements(as: Float.self)) }
      for weight in weights { energy += Double(weight) * Double(weight) }
      for (name, format, isFitted) in formats {
        let own =
          isFitted ? try weights.withUnsafeBufferPointer { try format.fitted(to: $0, columns: columns) } : format
        var bytes = [UInt8](repeating: 0, count: weights.count / columns * own.rowBytes(columns: columns))
        var back = weights
        weights.withUnsafeBufferPointer { source in
          bytes.withUnsafeMutableBytes { own.quantize(source, columns: columns, into: $0) }
        }
        bytes.withUnsafeBytes { source in
          back.withUnsafeMutableBufferPointer { own.dequantize(source, columns: columns, into: $0) }
        }
        var change = 0.0
        for index in weights.indices {
          let difference = Double(weights[index] - back[index])
          change += difference * difference
        }
        changes[name, default: 0] += change
      }
    }
    return changes.mapValues { $0 / energy }
  }

  /// At the same size levels fitted to each matrix lose least, then quantiles of the normal distribution, then even steps;
  /// twin-log levels, dense around 0 and wide outside, lose more than these on weights that are nearly normal.
  @Test func fittedLevelsLoseLeast() throws {
    func format(_ text: String) throws -> (name: String, format: BlockFormat, isFitted: Bool) {
      let spec = try QuantizationSpec(parsing: text)
      return (text, try #require(spec.weightFormat), spec.weights.isFitted)
    }
    let names = ["w4", "w4z", "wnf4", "wiq4nl", "wtl4", "wcb4", "wmxfp4", "wnvfp4", "w3", "w3z", "wtl3", "wcb3"]
    let formats = try names.map { try format($0) }
    guard let losses = try Self.losses(formats) else { return }
    var all: [Double] = []
    for name in names { all.append(try #require(losses[name])) }
    let isSmall = all.allSatisfy { $0 > 0 && $0 < 0.1 }
    #expect(isSmall, "\(losses)")
    let (w4, nf4, iq4nl, tl4, cb4) = (all[0], all[2], all[3], all[4], all[5])
    #expect(cb4 < nf4 && cb4 < iq4nl && nf4 < w4 && iq4nl < w4 && cb4 < tl4, "\(losses)")
    #expect(all[11] < all[8] && all[11] < all[10], "\(losses)")
    // A scale of four significant bits for 16 numbers is worth more than a power of two for 32.
    #expect(all[7] < all[6], "\(losses)")
  }
}
