import Base
import Foundation
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Rotations that know the directions in which activations stand out.
@Suite struct OutlierRotationTests {
  /// Seeded samples from empty states on.
  static func samples(of graph: Graph, count: Int = 3, size: Int = 24) -> [FunctionInputs] {
    SeededRun.begun(graph, count, seed: 60, size: size)
  }

  /// A model after passes that measure on seeded samples, what they counted, and what `rotate` refused.
  static func run(
    _ passes: String, on model: Model, size: Int = 24
  ) throws -> (model: Model, counts: [String: Int], refused: [String]) {
    final class Lines { var all: [String] = [] }
    let lines = Lines()
    var model = model
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in [samples(of: model.functions[0], size: size)] }
    context.explainedPass = "rotate"
    context.explainRefusal = { lines.all.append($0) }
    let reports = try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &model, &context)
    let counts = Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
    return (model, counts, lines.all)
  }

  /// Folded into weights, crossed at run time (tied tables) and, in an encoder, with values that no cache keeps.
  /// Weights are rounded to f32 once more behind each reflection.
  @Test(arguments: ["stories260K/hf", "architectures/bert"])
  func keepsTheFunction(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let before = try RotateTests.model(path, "eliminate-dead-code").after
    let (after, counts, _) = try Self.run("rotate{kind=\"outlier-aware\",text=\"t\"}", on: before)
    #expect(counts["streams turned", default: 0] + counts["values turned", default: 0] > 0, "\(counts)")
    #expect(counts["directions reflected", default: 0] > 0, "\(counts)")
    #expect(maxRelativeError(try RotateTests.outputs(after), try RotateTests.outputs(before)) <= 1e-4)
  }

  /// What a cache keeps is turned by a Hadamard matrix alone, which the metadata can tell; where nothing is measured no
  /// text is asked.
  @Test func cachesKeepTheirBasis() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let before = try RotateTests.model(path, "eliminate-dead-code").after
    let (after, counts, refused) = try Self.run("rotate{kind=\"outlier-aware\",at=[values],text=\"t\"}", on: before)
    #expect(counts["values turned"] == 5 && counts["directions reflected"] == nil, "\(counts)")
    #expect(refused.count == 5 && refused.allSatisfy { $0.contains("a cache keeps the values") }, "\(refused)")
    let plain = try Self.run("rotate{at=[values]}", on: before).model
    #expect(try RotateTests.outputs(after) == RotateTests.outputs(plain))
    let hidden = try Self.run("rotate{kind=\"outlier-aware\",at=[down]}", on: before)
    #expect(hidden.counts["hidden layers turned"] == 5)
  }

  /// A table whose rows have four channels that are `size` times as large as the others, all at once, behind it a norm
  /// and a layer.
  static func planted(_ size: Float) throws -> Model {
    var builder = GraphBuilder(name: "main", role: "main")
    var random = SplitMix64(seed: 3)
    var table = random.floats(256 * 64)
    for row in 0..<256 { for channel in [5, 13, 22, 50] { table[row * 64 + channel] = size } }
    let ids = builder.input("ids", TensorType(.i32, [24]))
    let rows = builder.constant(.inline("table", .f32, [256, 64], table))
    let gain = builder.constant(Constant(name: "gain", type: TensorType(.f32, [64]), source: .splat(1.0)))
    let weight = builder.constant(
      Constant(name: "w", type: TensorType(.f32, [48, 64]), source: .random(seed: 1, deviation: 0.1)))
    let x = try builder.emit(Gather(axis: 0), rows, ids)
    let norm = try builder.emit(RMSNorm(epsilon: 1e-6), x, gain, name: "norm")
    builder.output("y", try builder.emit(MatMul(transposeB: true), norm, weight))
    var model = Model(name: "planted")
    (model.functions, model.constants) = ([builder.graph], builder.constants)
    return model
  }

  /// The square error of what the norm gives, rounded row by row to 15 steps, over its square.
  static func errorOf4Bits(_ model: Model) throws -> Double {
    let graph = model.functions[0]
    let evaluator = try Evaluator(model, function: graph.name)
    final class Sums { var (error, square) = (0.0, 0.0) }
    let sums = Sums()
    evaluator.observer = { node, results in
      guard graph[node].op is RMSNorm else { return }
      let numbers = results[0].view.doubles
      for first in stride(from: 0, to: numbers.count, by: 64) {
        let row = numbers[first..<first + 64]
        let step = (row.map(\.magnitude).max() ?? 0) / 7
        for number in row {
          let difference = (number / step).rounded() * step - number
          sums.error += difference * difference
          sums.square += number * number
        }
      }
    }
    _ = try evaluator.run(samples(of: graph, count: 1)[0].inputs)
    return sums.error / sums.square
  }

  /// Outliers that come together: a Hadamard matrix alone adds them up to new peaks, behind the reflection they are even.
  @Test func plantedOutliersBecomeEven() throws {
    let model = try Self.planted(12)
    let (turned, counts, _) = try Self.run("rotate{kind=\"outlier-aware\",at=[residual],text=\"t\"}", on: model)
    #expect(counts["directions reflected"] == 1, "\(counts)")
    #expect(counts["turns at run time"] == nil)
    let plain = try Self.errorOf4Bits(model)
    let hadamard = try Self.errorOf4Bits(Self.run("rotate{at=[residual]}", on: model).model)
    let aware = try Self.errorOf4Bits(turned)
    #expect(hadamard < 0.75 * plain && aware < 0.75 * hadamard, "\(plain) \(hadamard) \(aware)")
    #expect(maxRelativeError(try RotateTests.outputs(turned), try RotateTests.outputs(model)) <= 1e-4)
  }

  /// Nothing stands out: no reflection, the matrix alone.
  @Test func withoutOutliersItIsTheMatrix() throws {
    let model = try Self.planted(0.3)
    let (turned, counts, _) = try Self.run("rotate{kind=\"outlier-aware\",at=[residual],text=\"t\"}", on: model)
    #expect(counts["streams turned"] == 1 && counts["directions reflected"] == nil, "\(counts)")
    let plain = try Self.run("rotate{at=[residual]}", on: model).model
    #expect(try RotateTests.outputs(turned) == RotateTests.outputs(plain))
  }

  /// Mild and salient outliers in the stream itself: what is chosen on samples is at most a twentieth worse than the
  /// best fixed choice.
  @Test(arguments: [0.3, 3, 12] as [Float]) func theChoiceIsNoWorse(size: Float) throws {
    let model = try Self.planted(size)
    let right = try RotateTests.outputs(model)
    func loss(_ rotate: String) throws -> Double {
      let rounded = try Self.run((rotate.isEmpty ? "" : rotate + ",") + "quantize{spec=w4g32a8}", on: model).model
      let found = try RotateTests.outputs(rounded)
      var (error, square) = (0.0, 0.0)
      for (x, y) in zip(found, right) { (error, square) = (error + (x - y) * (x - y), square + y * y) }
      return error / square
    }
    let kinds = ["", "hadamard", "random", "\"outlier-aware\""]
    let fixed = try kinds.map { try loss($0.isEmpty ? "" : "rotate{kind=\($0),at=[residual],text=\"t\"}") }
    let chosen = try loss("rotate{kind=auto,at=[residual],text=\"t\",spec=w4g32a8}")
    let best = try #require(fixed.min())
    #expect(chosen <= 1.05 * best, "\(size): \(chosen) of \(fixed)")
  }

  /// The values of an encoder: one direction of each head, folded into the projections on both sides.
  @Test func valuesWithoutACacheAreReflected() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    func weight(_ sizes: [Int], _ seed: UInt64) -> ValueID {
      builder.constant(
        Constant(name: "w\(seed)", type: TensorType(.f32, sizes), source: .random(seed: seed, deviation: 0.3)))
    }
    // Two heads of 16 values for four of queries; two channels of the first head are far from 0.
    var bias = [Float](repeating: 0, count: 32)
    (bias[3], bias[9]) = (40, -40)
    let x = builder.input("x", TensorType(.f32, [9, 24]))
    let product = MatMul(transposeB: true)
    let q = try builder.emit(product, x, weight([64, 24], 1))
    let k = try builder.emit(product, x, weight([32, 24], 2))
    let v = try builder.emit(
      MatMul(transposeB: true, epilogue: Epilogue(bias: true)), x, weight([32, 24], 3),
      builder.constant(.inline("b", .f32, [32], bias)), name: "v")
    let a = try builder.emit(Attention(heads: 4, kvHeads: 2, scale: 0.25, causal: false), q, k, v)
    builder.output("y", try builder.emit(product, a, weight([24, 64], 4)))
    var model = Model(name: "encoder")
    (model.functions, model.constants) = ([builder.graph], builder.constants)
    let (turned, counts, _) = try Self.run("rotate{kind=\"outlier-aware\",at=[values],text=\"t\"}", on: model)
    #expect(counts["values turned"] == 1 && counts["directions reflected"] == 1, "\(counts)")
    #expect(maxRelativeError(try RotateTests.outputs(turned), try RotateTests.outputs(model)) <= 1e-4)
  }

  @Test func needsAText() throws {
    let error = #expect(throws: CompileError.self) {
      _ = try Self.run("rotate{kind=\"outlier-aware\"}", on: Self.planted(1))
    }
    #expect(error?.kind == .usage && error?.message.contains("needs a text") == true)
  }
}
