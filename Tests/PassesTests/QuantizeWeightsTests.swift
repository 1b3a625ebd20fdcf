import Base
import Formats
import IR
import Passes
import TestSupport
import Testing

/// What rounding weights does to results.
@Suite struct QuantizeWeightsTests {
  private func model(columns: Int, rows: Int) throws -> Model {
    try Parser.parse(
      """
      model @linear {
        func @main (%x: f32[4, \(columns)]) -> (y: f32[4, \(rows)]) {
          %w = constant random(seed = 1, deviation = 1.0) : f32[\(rows), \(columns)]
          %y = matmul(%x, %w) {transposeB = true}
          return %y
        }
      }
      """)
  }

  /// The root of the mean square of the differences, relative to that of the numbers.
  private func relativeError(_ found: [Double], _ expected: [Double]) -> Double {
    let difference = zip(found, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    return (difference / expected.reduce(0) { $0 + $1 * $1 }).squareRoot()
  }

  /// Normal numbers in groups of 32 reach about 2.1 deviations. Rounding to steps of `s` has the error `s / sqrt(12)`:
  /// with 127 steps to the largest number 0.5%, with 8 steps 8 to 9%. Larger groups reach further: 2.4 and 2.8.
  @Test(
    arguments: [
      ("w8g32a32", 0.003, 0.007), ("w8a32", 0.003, 0.012), ("w4g32a32", 0.06, 0.11), ("w4g64a32", 0.07, 0.125),
      ("w4g128a32", 0.08, 0.14), ("w8g32a8", 0.004, 0.012), ("w6a32", 0.015, 0.028), ("w5a32", 0.03, 0.055),
      ("w3a32", 0.13, 0.22),
      ("w2a32", 0.28, 0.6), ("w4za32", 0.06, 0.11), ("w4g128za32", 0.08, 0.14), ("wta32", 0.35, 0.6),
      // Levels where the numbers are, and scales that are searched for; powers of two cost some of it.
      ("wnf4a32", 0.06, 0.1), ("wiq4nla32", 0.06, 0.1), ("wtl4a32", 0.07, 0.13), ("wcb4a32", 0.055, 0.095),
      ("wcb3a32", 0.12, 0.2), ("wtl3a32", 0.13, 0.24), ("wmxfp4a32", 0.08, 0.14), ("wnvfp4a32", 0.07, 0.12),
      ("wcb4g128", 0.06, 0.11), ("wfp8", 0.018, 0.033),
      // 63, 31, 15 and 7 steps to the largest number of an activation's group.
      ("w8g32a7", 0.006, 0.014), ("w8g32a6", 0.012, 0.026), ("w8g32a5", 0.024, 0.052), ("w8g32a4", 0.055, 0.11),
      ("wf16", 0, 0.0005), ("wf32", 0, 0),
    ], [64, 100, 31]) func roundsToNearest(_ format: (spec: String, low: Double, high: Double), columns: Int) throws
  {
    let before = try model(columns: columns, rows: 48)
    var after = before
    var context = PassContext()
    let pass = QuantizeWeights(try QuantizationSpec(parsing: format.spec))
    let reports = try PassManager().run(Pipeline([pass]), on: &after, &context)
    let expected = try SeededRun.outputs(of: before, function: "main")[0]
    let error = relativeError(try SeededRun.outputs(of: after, function: "main")[0], expected)
    #expect(error >= format.low * 0.8 && error <= format.high, "\(format.spec), \(columns) columns: \(error)")
    #expect(reports[0].fidelity == (format.spec == "wf32" ? .exact : format.spec == "wf16" ? .rounding : .lossy))
  }

  /// The whole network in 8 bits stays close to itself: the logits of a trained model lie within a few percent.
  @Test func keepsATrainedNetwork() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let before = try FormatRegistry.load(path)
    let expected = try SeededRun.outputs(of: before, function: "main")[0]
    var errors: [Double] = []
    for spec in ["w8a32", "w8", "w4a32", "w4"] {
      var after = before
      var context = PassContext()
      try PassManager().run(
        Pipeline(parsing: "canonicalize,fuse,merge-matmuls,quantize{spec=\(spec)}", registry: .all), on: &after,
        &context)
      // Each layer: QKV, output, gate with up, down; then the head, which is the embedding.
      #expect(context.counters.first { $0.name == "weights quantized" }?.count == 21)
      errors.append(relativeError(try SeededRun.outputs(of: after, function: "main")[0], expected))
    }
    #expect(errors[0] > 0 && errors[0] < 0.02, "w8a32: \(errors[0])")
    #expect(errors[1] > 0 && errors[1] < 0.03, "w8: \(errors[1])")
    #expect(errors[2] > errors[0] && errors[2] < 0.25, "w4a32: \(errors[2])")
    #expect(errors[3] > errors[1] && errors[3] < 0.25, "w4: \(errors[3])")
  }

  /// Attention in bytes is part of the word, in a pipeline as on the command line.
  @Test(arguments: [("w8at8", true, "w8gca8at8"), ("w8", false, "w8gca8"), ("wf32at8", true, "wf32at8")])
  func attentionFollowsTheWord(_ spec: String, _ isInBytes: Bool, _ name: String) throws {
    var model = try Parser.parse(
      """
      model @attention {
        func @main (%q: f32[5, 8], %k: f32[5, 4], %v: f32[5, 4]) -> (y: f32[5, 8]) {
          %y = attention(%q, %k, %v) {heads = 2, kvHeads = 1, scale = 0.5, causal = false}
          return %y
        }
      }
      """)
    var context = PassContext()
    let reports = try PassManager().run(
      Pipeline(parsing: "quantize{spec=\(spec)}", registry: .all), on: &model, &context)
    let graph = model.functions[0]
    let op = try #require(graph.nodeIDs.lazy.compactMap { graph[$0].op as? Attention }.first)
    #expect((op.int8 != nil) == isInBytes && model[metadata: "quantization"] == name)
    #expect(reports[0].fidelity == .lossy)
  }

  /// Passes behind it do not undo or repeat it.
  @Test func isDoneOnce() throws {
    var model = try model(columns: 64, rows: 8)
    var context = PassContext()
    let pass = try Pipeline(parsing: "quantize{spec=w4},eliminate-common-subexpressions", registry: .all)
    try PassManager().run(pass, on: &model, &context)
    let once = model
    try PassManager().run(pass, on: &model, &context)
    #expect(model == once)
  }
}
