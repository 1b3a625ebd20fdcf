import Base
import Foundation
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Changes of basis by Kronecker products: the function stays, and rounding loses less than behind a rotation.
@Suite struct AffineTransformTests {
  private static func run(
    _ passes: String, on model: Model, size: Int = 24
  ) throws -> (model: Model, counts: [String: Int], figures: [String: Double], refused: [String]) {
    final class Lines { var all: [String] = [] }
    let lines = Lines()
    var model = model
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in [OutlierRotationTests.samples(of: model.functions[0], size: size)] }
    context.explainedPass = "affine"
    context.explainRefusal = { lines.all.append($0) }
    let reports = try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &model, &context)
    let counts = Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
    let figures = Dictionary(reports.flatMap(\.figures).map { ($0.name, $0.value) }, uniquingKeysWith: { $1 })
    return (model, counts, figures, lines.all)
  }

  /// Of every layer and of those that share a value; experts; a tied head stays. The factors have condition numbers of
  /// up to 16, and products of numbers in f32 are summed up twice more.
  @Test(arguments: ["stories260K/hf", "architectures/qwen2", "architectures/mixtral", "architectures/gpt2"])
  func keepsTheFunction(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let before = try RotateTests.model(path, "eliminate-dead-code").after
    let (after, counts, _, _) = try Self.run("affine{text=\"t\",share=2,refine=false}", on: before)
    #expect(counts["places transformed", default: 0] >= 12, "\(counts)")
    #expect(maxRelativeError(try RotateTests.outputs(after), try RotateTests.outputs(before)) <= 1e-4)
  }

  /// What a layer reads, with large channels in a row and a column of 8 x 8 and the largest where they cross, and
  /// weights that make up for a part of it.
  private static func planted() throws -> Model {
    var builder = GraphBuilder(name: "main", role: "main")
    var random = SplitMix64(seed: 8)
    let scales = (0..<64).map { channel -> Float in
      let left: Float = channel / 8 == 2 ? 8 : 1
      return channel % 8 == 3 ? 6 * left : left
    }
    var weights = random.floats(96 * 64)
    for i in weights.indices { weights[i] /= scales[i % 64].squareRoot() }
    let x = builder.input("x", TensorType(.f32, [48, 64]))
    let factor = builder.constant(.inline("scales", .f32, [64], scales))
    let weight = builder.constant(.inline("w", .f32, [96, 64], weights))
    let h = try builder.emit(Multiply(), x, factor, name: "h")
    builder.output("y", try builder.emit(MatMul(transposeB: true), h, weight))
    var model = Model(name: "planted")
    (model.functions, model.constants) = ([builder.graph], builder.constants)
    return model
  }

  /// The square error that rounding what layers read row by row to 15 steps leaves in what they give, over its square,
  /// in all products whose right factor `isMeasured` takes by the name of what they read.
  private static func errorOf4Bits(_ model: Model, size: Int = 24, _ isMeasured: (String) -> Bool) throws -> Double {
    let graph = model.functions[0]
    let constants = PassContext().constantEvaluator(for: graph, in: model)
    var seen: [ValueID: Tensor] = [:]
    let evaluator = try Evaluator(model, function: graph.name)
    evaluator.observer = { node, results in
      for (value, tensor) in zip(graph[node].results, results) { seen[value] = tensor }
    }
    let sample = OutlierRotationTests.samples(of: graph, count: 1, size: size)[0]
    _ = try evaluator.run(sample.inputs, symbols: sample.symbols)
    var (error, square) = (0.0, 0.0)
    for id in graph.nodeIDs {
      guard (graph[id].op as? MatMul)?.transposeB == true, isMeasured(graph[graph[id].inputs[0]].name),
        let x = seen[graph[id].inputs[0]], ConstantEvaluator.isRecipe(graph[id].inputs[1], in: graph)
      else { continue }
      let weight = try constants.tensor(graph[id].inputs[1])
      let (width, outputs) = (weight.view.sizes[1], weight.view.sizes[0])
      let (numbers, columns) = (x.view.doubles, weight.view.doubles)
      for first in stride(from: 0, to: numbers.count, by: width) {
        let row = numbers[first..<first + width]
        let step = max((row.map(\.magnitude).max() ?? 0) / 7, 1e-30)
        let lost = row.map { ($0 / step).rounded() * step - $0 }
        // Some of many outputs.
        for output in stride(from: 0, to: outputs, by: max(1, outputs / 32)) {
          var (difference, sum) = (0.0, 0.0)
          for i in 0..<width {
            difference += lost[i] * columns[output * width + i]
            sum += numbers[first + i] * columns[output * width + i]
          }
          error += difference * difference
          square += sum * sum
        }
      }
    }
    return try #require(square > 0 ? error / square : nil)
  }

  /// Planted outliers: a Hadamard matrix is better than nothing, and the product of two factors better than that.
  @Test func plantedOutliersLoseLess() throws {
    let model = try Self.planted()
    let (changed, counts, figures, _) = try Self.run("affine{text=\"t\",share=1,refine=false}", on: model)
    #expect(counts["places transformed"] == 1 && counts["weights transformed"] == 1, "\(counts)")
    #expect(figures["share of products at %h"] == 16.0 / 96)
    #expect(maxRelativeError(try RotateTests.outputs(changed), try RotateTests.outputs(model)) <= 1e-4)
    let turned = try Self.run("rotate{at=[down]}", on: model).model
    let plain = try Self.errorOf4Bits(model) { _ in true }
    let hadamard = try Self.errorOf4Bits(turned) { _ in true }
    let kron = try Self.errorOf4Bits(changed) { _ in true }
    #expect(hadamard < 0.5 * plain && kron < 0.5 * hadamard, "\(plain) \(hadamard) \(kron)")
    // What is searched is better than no change by the measure of the search.
    let refined = try Self.run("affine{text=\"t\",share=1}", on: model)
    let left = try #require(refined.figures["error left at %h"])
    #expect(left < 1, "\(left)")
    #expect(maxRelativeError(try RotateTests.outputs(refined.model), try RotateTests.outputs(model)) <= 1e-4)
  }

  /// What the gated layers of a trained model give, recorded on tokens that the factors were not chosen on: its peaks,
  /// which stand in other channels for every token, lose most of what they cost, as with a Hadamard matrix.
  @Test func recordedActivationsLoseLess() throws {
    guard let path = Fixtures.path("pycode7m") else { return }
    let model = try RotateTests.model(path, "eliminate-dead-code").after
    let graph = model.functions[0]
    let gated = Set(
      graph.nodeIDs.filter { (graph[$0].op as? MatMul)?.epilogue.gated == true }.map {
        graph[graph[$0].results[0]].name
      })
    try #require(gated.count == 8)
    func isMeasured(_ name: String) -> Bool {
      gated.contains { name == $0 || name == $0 + "_affine" || name == $0 + "_turned" }
    }
    let plain = try Self.errorOf4Bits(model, size: 30, isMeasured)
    let hadamard = try Self.errorOf4Bits(Self.run("rotate{at=[down]}", on: model).model, size: 30, isMeasured)
    let kron = try Self.errorOf4Bits(
      Self.run("affine{text=\"t\",share=2,refine=false}", on: model, size: 200).model, size: 30, isMeasured)
    #expect(hadamard < 0.5 * plain && kron < 0.5 * plain, "\(plain) \(hadamard) \(kron)")
  }

  /// Weights that others read, prime widths and changes that cost too much keep their basis, and it is said why.
  @Test func refusesAndSaysWhy() throws {
    let model = try Parser.parse(
      """
      model @refused {
        func @main (%x: f32[24, 16], %z: f32[24, 13]) -> (y: f32[24, 64], u: f32[24, 64], v: f32[24, 8], s: f32[16, 64]) {
          %w = constant random(seed = 1, deviation = 1.0) : f32[64, 16]
          %p = constant random(seed = 2, deviation = 1.0) : f32[64, 13]
          %q = constant random(seed = 3, deviation = 1.0) : f32[8, 64]
          %y = matmul(%x, %w) {transposeB = true}
          %a = slice(%x) {axis = 0, start = 0, size = 16}
          %s = matmul(%a, %w) {transposeB = true}
          %u = matmul(%z, %p) {transposeB = true}
          %v = matmul(%u, %q) {transposeB = true}
          return %y, %u, %v, %s
        }
      }
      """)
    let (changed, counts, _, refused) = try Self.run("affine{text=\"t\"}", on: model)
    #expect(counts["places transformed"] == nil)
    #expect(refused.contains { $0.contains("13 channels are no product of two factors") }, "\(refused)")
    #expect(refused.contains { $0.contains("would cost 200 % of the layers behind") }, "\(refused)")
    #expect(refused.contains { $0.hasPrefix("%y: affine: ") }, "\(refused)")
    #expect(!changed.functions[0].nodeIDs.contains { changed.functions[0][$0].op is KroneckerMatMul })
  }

  /// The same bytes every time.
  @Test func isDeterministic() throws {
    let model = try Self.planted()
    func outputs() throws -> [Double] {
      try RotateTests.outputs(Self.run("affine{text=\"t\",share=1},quantize{spec=w4g32}", on: model).model)
    }
    #expect(try outputs() == outputs())
  }
}
