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
    "expand-batch-norm", "fuse", "fold-affine", "collapse-linear", "fuse", "remove-dead-units", "merge-matmuls",
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

  /// Gains, biases and means of norms on networks with random or trained weights. The stories' last norm stands before the
  /// table that tokens are read from, so its gain stays.
  @Test(arguments: [
    ("stories260K/hf", ["rms_norm": 11, "layer_norm": 0], 1),
    ("architectures/gpt-neox", ["rms_norm": 7, "layer_norm": 0], 0),
  ])
  func foldsNorms(path: String, operators: [String: Int], gains: Int) throws {
    guard let path = Fixtures.path(path) else { return }
    let original = try FormatRegistry.load(path)
    var model = original
    _ = try PlantedStructureTests.run(
      "canonicalize,fold-constants,eliminate-common-subexpressions,fuse,fold-norm,eliminate-dead-code", on: &model)
    let counts = PlantedStructureTests.operators(of: model)
    for (name, count) in operators { #expect(counts[name, default: 0] == count, "\(counts)") }
    let graph = model.functions[0]
    let left = graph.nodeIDs.count { id in
      guard graph[id].op is RMSNorm else { return false }
      return graph.constant(of: graph[id].inputs[1]).map { model.constants[$0].source != .splat(1.0) } ?? true
    }
    #expect(left == gains)
    // As above; the norms scale errors up.
    #expect(try PlantedStructureTests.difference(model, original) <= 3e-5)
  }
}
