import Base
import Formats
import IR
import Passes
import TestSupport
import Testing

/// Passes on trained networks: they compute what they did, and what was to be joined is joined.
@Suite struct FixtureTests {
  /// The passes that keep the function, in the order of `-O1`.
  static let pipeline = [
    "canonicalize", "fold-constants", "eliminate-common-subexpressions", "fold-batch-norm", "fold-repconv",
    "expand-batch-norm", "fuse", "merge-matmuls",
    "canonicalize", "fold-constants", "fuse-elementwise", "eliminate-common-subexpressions", "eliminate-dead-code",
  ]

  struct Fixture: Sendable, CustomTestStringConvertible {
    var path: String
    /// How often operators stand in the result; those that are not named are not counted.
    var operators: [String: Int]

    var testDescription: String { path }
  }

  static let fixtures = [
    // Five layers of QKV, output, gate with up, and down; then the head.
    Fixture(
      path: "stories260K/hf",
      operators: ["matmul": 21, "rms_norm": 11, "attention": 5, "silu": 0, "add": 0, "multiply": 0, "slice": 16]),
    Fixture(
      path: "stories260K/stories260K-f32.gguf",
      operators: ["matmul": 21, "rms_norm": 11, "attention": 5, "silu": 0, "add": 0, "multiply": 0, "slice": 16]),
    Fixture(
      path: "mlperf-tiny/kws_ref_model_float32.onnx", operators: ["batch_norm": 0, "relu": 0, "add": 0, "pad": 0]),
    Fixture(
      path: "mlperf-tiny/pretrainedResnet.onnx", operators: ["batch_norm": 0, "relu": 0, "add": 0, "pad": 0]),
    Fixture(
      path: "mlperf-tiny/vww_96_float.onnx", operators: ["batch_norm": 0, "relu": 0, "add": 0, "clip": 0, "pad": 0]),
    Fixture(path: "mlperf-tiny/ad01_fp32.onnx", operators: ["batch_norm": 0, "relu": 0, "add": 0, "matmul": 10]),
  ]

  @Test(arguments: fixtures) func keepsWhatIsComputed(_ fixture: Fixture) throws {
    guard let path = Fixtures.path(fixture.path) else { return }
    var model = try FormatRegistry.load(path)
    let name = model.functions[0].name
    let expected = try SeededRun.outputs(of: model, function: name)
    var context = PassContext()
    for pass in Self.pipeline {
      let report = try PassManager().run(Pipeline(parsing: pass, registry: .all), on: &model, &context)
      guard report.contains(where: \.hasChanged) else { continue }
      let found = try SeededRun.outputs(of: model, function: name)
      // Folding a normalization into weights rounds each weight once more, which adds up over the layers.
      let error = zip(found, expected).map { maxRelativeError($0, $1) }.max() ?? 0
      #expect(found.count == expected.count && error <= 3e-5, "after \(pass): \(error)")
    }
    var counts: [String: Int] = [:]
    for id in model.functions[0].nodeIDs {
      let node = model.functions[0][id]
      if ConstantEvaluator.isRecipe(node.results[0], in: model.functions[0]) { continue }
      counts[node.op.name, default: 0] += 1
    }
    for (name, count) in fixture.operators { #expect(counts[name, default: 0] == count, "\(name): \(counts)") }
  }
}
