import Base
import IR
import Passes
import Tensors
import Testing

/// Measured ranges, and activations in bytes.
@Suite struct StaticQuantizationTests {
  private static let network = """
    model @net {
      func @main role = main (%x: f32[1, 4, 8, 8]) -> (y: f32[1, 10]) {
        %w0 = constant random(seed = 1, deviation = 0.3) : f32[8, 4, 3, 3]
        %w1 = constant random(seed = 2, deviation = 0.3) : f32[8, 1, 3, 3]
        %w2 = constant random(seed = 3, deviation = 0.3) : f32[8, 8, 1, 1]
        %w3 = constant random(seed = 4, deviation = 0.3) : f32[128, 10]
        %b = constant random(seed = 5, deviation = 1.0) : f32[8]
        %a = conv2d(%x, %w0, %b) {padding = [1, 1, 1, 1], epilogue = {bias = true, activation = relu}}
        %c = conv2d(%a, %w1, %b) {padding = [1, 1, 1, 1], groups = 8, epilogue = {bias = true, activation = relu6}}
        %d = conv2d(%c, %w2, %b, %a) {epilogue = {bias = true, residual = before_activation}}
        %m = max_pool2d(%d) {kernel = [2, 2], strides = [2, 2]}
        %f = reshape(%m) {shape = [1, 128]}
        %y = matmul(%f, %w3)
        return %y
      }
    }
    """

  private func run(_ pipeline: String, samples count: Int = 16) throws -> (before: Model, after: Model, PassContext) {
    let before = try Parser.parse(Self.network)
    var after = before
    var context = PassContext()
    context.samples = { _, graph in (0..<count).map { SeededRun.inputs(of: graph, seed: UInt64(10 + $0)) } }
    try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    return (before, after, context)
  }

  /// Bytes keep a network of a few layers to within two percent of its largest result, before and after fusing; the fused
  /// one computes nothing in f32 but the last result.
  @Test func keepsANetwork() throws {
    for range in ["minmax", "percentile:99.99"] {
      let options = "calibrate{samples=\"s\",range=\"\(range)\"},quantize{spec=w8}"
      let (before, rounded, _) = try run(options)
      let (_, fused, _) = try run(options + ",fuse-quantized")
      let expected = try SeededRun.outputs(of: before, function: "main")[0]
      let largest = expected.map(abs).max() ?? 0
      for model in [rounded, fused] {
        let found = try SeededRun.outputs(of: model, function: "main")[0]
        let worst = zip(found, expected).map { abs($0 - $1) }.max() ?? 1
        #expect(worst < 0.02 * largest && worst > 0, "\(range): \(worst) of \(largest)")
      }
      let graph = fused.functions[0]
      let operators = graph.topologicalOrder().map { graph[$0].op.name }
      #expect(operators.filter { $0 == "quantized_conv2d" }.count == 4)
      #expect(operators.filter { $0 == "quantize_linear" }.count == 1)
      #expect(!operators.contains("dequantize_linear") && !operators.contains("conv2d"))
      // Fused sums are the same numbers but for the order of f32 sums: results differ by steps of few values.
      let a = try SeededRun.outputs(of: rounded, function: "main")[0]
      let b = try SeededRun.outputs(of: fused, function: "main")[0]
      #expect(zip(a, b).allSatisfy { abs($0 - $1) < 0.01 * largest })
    }
  }

  /// Each value has the range that was seen; values that pools and reshapes hand on share one code.
  @Test func sharesCodes() throws {
    let (_, model, context) = try run("calibrate{samples=\"s\"},quantize{spec=w8}")
    let calibration = try #require(context.calibration)
    let relu6 = try #require(calibration["main", "c"])
    #expect(relu6.range.lowerBound >= 0 && relu6.range.upperBound <= 6 && relu6.count == 16 * 512)
    let graph = model.functions[0]
    let codes = graph.topologicalOrder().compactMap { (graph[$0].op as? QuantizeLinear)?.code }
    // x, a, c, d; the pool and the reshape have none of their own.
    #expect(codes.count == 4)
    #expect(codes.filter { $0.zeroPoint == 0 }.count == 2)
  }

  @Test func refusesWhatDoesNotGoTogether() throws {
    #expect(throws: CompileError.self) { try run("calibrate{samples=\"s\"},quantize{spec=w4}") }
    #expect(throws: CompileError.self) { try run("calibrate{samples=\"s\",range=\"median\"}") }
    #expect(throws: CompileError.self) { try run("calibrate{samples=\"s\"}", samples: 0) }
  }

  @Test func keepsExcludedLayers() throws {
    let (_, model, _) = try run("calibrate{samples=\"s\"},quantize{spec=w8,exclude=[\"w0\"]},fuse-quantized")
    let names = model.functions[0].topologicalOrder().map { model.functions[0][$0].op.name }
    #expect(names.filter { $0 == "conv2d" }.count == 1 && names.filter { $0 == "quantized_conv2d" }.count == 3)
  }

  /// Against sorted numbers: extremes, and percentiles to the width of a bin.
  @Test func histogramsFindRanges() {
    var generator = SplitMix64(seed: 3)
    var histogram = Histogram()
    var all: [Float] = []
    for round in 1...20 {
      let values = generator.floats(500, in: -Float(round)...Float(2 * round)) + [.nan, .infinity, 0]
      values.withUnsafeBufferPointer { histogram.add($0) }
      all += values.filter(\.isFinite)
    }
    all.sort()
    #expect(histogram.extremes == all[0]...all[all.count - 1])
    #expect(histogram.range(percent: 100) == histogram.extremes)
    for percent in [99.9, 99, 90] {
      let skipped = Int(Double(all.count) * (1 - percent / 100))
      let found = histogram.range(percent: percent) ?? 0...0
      let width: Float = 2 * 40 / 4096
      #expect(abs(found.lowerBound - all[skipped]) <= width, "\(percent): \(found) \(all[skipped])")
      #expect(abs(found.upperBound - all[all.count - 1 - skipped]) <= width, "\(percent): \(found)")
    }
    var nothing = Histogram()
    [Float.nan].withUnsafeBufferPointer { nothing.add($0) }
    #expect(nothing.extremes == nil && nothing.range(percent: 99) == nil)
    var zeros = Histogram()
    [Float](repeating: 0, count: 5).withUnsafeBufferPointer { zeros.add($0) }
    #expect(zeros.range(percent: 99) == 0...0)
  }

  /// Ranges without extent, of huge and of tiny numbers give codes that can be computed with.
  @Test func codesOfOddRanges() {
    let most = Float.greatestFiniteMagnitude
    for range: ClosedRange<Float> in [0...0, 0...Float.leastNonzeroMagnitude, -most...most, 3...5, -7 ... -6] {
      let code = AffineCode(covering: range)
      #expect(code.scale.isNormal && code.scale > 0 && (0...255).contains(code.zeroPoint), "\(range): \(code)")
    }
    #expect(AffineCode(covering: 3...5) == AffineCode(scale: 5 / 255, zeroPoint: 0))
    #expect(AffineCode(covering: -7 ... -6) == AffineCode(scale: 7 / 255, zeroPoint: 255))
  }
}
