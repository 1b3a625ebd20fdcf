import Base
import Foundation
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Smoothing leaves the function as it is, and what planted outliers cost comes back.
@Suite struct SmoothTests {
  @Test(arguments: ["stories260K/hf", "architectures/qwen2", "architectures/mixtral", "architectures/gpt2"])
  func keepsTheFunction(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    for kind in ["smoothquant", "awq"] {
      let (before, after, counts) = try RotateTests.model(path, "smooth{kind=\(kind),steps=5,spec=w4g32}")
      #expect(counts["places smoothed", default: 0] > 0, "\(counts)")
      // Each weight is rounded once more on both sides.
      #expect(maxRelativeError(try RotateTests.outputs(after), try RotateTests.outputs(before)) <= 1e-4)
    }
  }

  /// The mean divergence of the next tokens of two models.
  private func divergence(_ model: Model, _ right: [Double], vocabulary: Int) throws -> Double {
    let found = try RotateTests.outputs(model, size: 40)
    var sum = 0.0
    for row in stride(from: 0, to: right.count, by: vocabulary) {
      func logarithms(_ logits: ArraySlice<Double>) -> [Double] {
        let largest = logits.max() ?? 0
        let total = logits.reduce(0) { $0 + exp($1 - largest) }
        return logits.map { $0 - largest - log(total) }
      }
      let p = logarithms(right[row..<row + vocabulary]), q = logarithms(found[row..<row + vocabulary])
      sum += zip(p, q).reduce(0) { $0 + exp($1.0) * ($1.0 - $1.1) }
    }
    return sum * Double(vocabulary) / Double(right.count)
  }

  /// Channels of all norms times 64 and the weights behind by a 64th: rounding to the nearest of 15 steps loses what
  /// they held, and rotation or smoothing before it recovers at least 95 percent of that (Pan and others, 2023): behind
  /// the pass the outliers cost at most a twentieth of what they cost without it.
  @Test(arguments: ["rotate{at=[residual]}", "rotate{kind=random,seed=2}", "smooth{at=[norms]}", "smooth{kind=awq}"])
  func plantedOutliersAreRecovered(_ pass: String) throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let original = try RotateTests.model(path, "eliminate-dead-code").after
    let right = try RotateTests.outputs(original, size: 40)
    var planted = original
    #expect(try PlantedStructure.outlierChannels(&planted, channels: [3, 11, 17, 30, 40, 52], factor: 64) >= 10)
    func rounded(_ model: Model, _ passes: String) throws -> Double {
      var model = model
      var context = PassContext()
      try PassManager().run(
        Pipeline(parsing: passes + "quantize{spec=w4g32a32,embeddings=keep,head=keep}", registry: .all), on: &model,
        &context)
      return try divergence(model, right, vocabulary: 512)
    }
    let plain = try rounded(original, ""), worse = try rounded(planted, "")
    let (usual, repaired) = (try rounded(original, pass + ","), try rounded(planted, pass + ","))
    #expect(worse > 5 * plain, "\(worse) \(plain)")
    #expect(repaired - usual <= 0.05 * (worse - plain), "\(plain) \(worse) \(usual) \(repaired)")
  }

  /// Scales from measured activations: a channel that is large at run time, though its gain says nothing of it.
  @Test func measuredChannelsCount() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [4, 32]))
    let gain = builder.constant(Constant(name: "g", type: TensorType(.f32, [32]), source: .splat(1.0)))
    let weight = builder.constant(
      Constant(name: "w", type: TensorType(.f32, [16, 32]), source: .random(seed: 1, deviation: 0.1)))
    let norm = try builder.emit(RMSNorm(epsilon: 1e-5), x, gain, name: "n")
    builder.output("y", try builder.emit(MatMul(transposeB: true), norm, weight))
    var model = Model(name: "m")
    (model.functions, model.constants) = ([builder.graph], builder.constants)
    var random = SplitMix64(seed: 2)
    var numbers = random.floats(128)
    for row in 0..<4 { numbers[32 * row + 5] *= 100 }
    let samples = [Tensor(.f32, [4, 32], numbers)]
    func error(_ passes: String) throws -> Double {
      var changed = model
      var context = PassContext()
      context.samples = { _, _ in [samples] }
      if !passes.isEmpty {
        try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &changed, &context)
        #expect(context.calibration?.channels["main"]?["n"]?.rows == 4)
      }
      // With what was measured `quantize` would put activations into bytes.
      context.calibration = nil
      try PassManager().run(Pipeline(parsing: "quantize{spec=w3g32a32}", registry: .all), on: &changed, &context)
      let found = try Evaluator(changed, function: "main").run(samples).outputs[0]
      let right = try Evaluator(model, function: "main").run(samples).outputs[0]
      var sum = 0.0
      for (x, y) in zip(found.view.doubles, right.view.doubles) { sum += (x - y) * (x - y) }
      return sum
    }
    var statistics = ChannelStatistics()
    statistics.add(samples[0].view)
    #expect(statistics.rows == 4 && statistics.maxima[5] > 10 && statistics.meanSquares[5] > 100)
    let (plain, left) = (try error(""), try error("calibrate{samples=\"s\"},smooth{spec=w3g32}"))
    #expect(left < 0.5 * plain, "\(left) \(plain)")
  }

  @Test func badNumbersAreRefused() throws {
    var model = Model(name: "m")
    var context = PassContext()
    let error = #expect(throws: CompileError.self) {
      try PassManager().run(Pipeline(parsing: "smooth{steps=0}", registry: .all), on: &model, &context)
    }
    #expect(error?.kind == .usage)
    // Numbers that are not finite are no maxima.
    var statistics = ChannelStatistics()
    statistics.add(Tensor(.f32, [2, 2], [1, .nan, -3, 2] as [Float]).view)
    #expect(statistics.rows == 1 && statistics.maxima == [3, 2])
  }
}
