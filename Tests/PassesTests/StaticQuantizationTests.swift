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

  /// Ranges of a network of one input on samples.
  private func calibration(_ graph: Graph, _ constants: ConstantTable, _ samples: [[Float]]) throws -> Calibration {
    var model = Model(name: "net")
    (model.functions, model.constants) = ([graph], constants)
    let sizes = graph.type(of: graph.inputs[0]).shape.maximumSizes
    var context = PassContext()
    context.samples = { _, _ in samples.map { [Tensor(.f32, sizes, $0)] } }
    try PassManager().run(Pipeline(parsing: "calibrate{samples=\"s\"}", registry: .all), on: &model, &context)
    return try #require(context.calibration)
  }

  /// What is no number is refused where it comes up first, in an input or on the way; infinities of masks are not.
  @Test func refusesWhatIsNoNumber() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [1, 4]))
    let mask = builder.constant(.inline("m", .f32, [4], [0, 0, 0, -Float.infinity]))
    let ratio = try builder.emit(Divide(), x, x, name: "ratio")
    let masked = try builder.emit(Add(), ratio, mask, name: "masked")
    builder.output("y", try builder.emit(Softmax(axis: -1), masked, name: "weights"))
    let good: [Float] = [1, 2, 3, 4]
    let found = try calibration(builder.graph, builder.constants, [good, good])
    #expect(found["main", "masked"]?.range == 1...1 && found["main", "masked"]?.count == 6)
    for (bad, value) in [([1, .nan, 3, 4], "%x"), ([1, 2, 0, 4], "%ratio")] as [([Float], String)] {
      let error = #expect(throws: CompileError.self) {
        try calibration(builder.graph, builder.constants, [good, bad])
      }
      #expect(error?.kind == .input && error?.message == "'\(value)' is not a number (NaN) on sample 1 of 's'")
    }
  }

  @Test func refusesWhatDoesNotGoTogether() throws {
    for spec in ["w4", "w8a4"] {
      let error = #expect(throws: CompileError.self) { try run("calibrate{samples=\"s\"},quantize{spec=\(spec)}") }
      #expect(error?.message.contains("activations with measured ranges go with 8-bit weights") == true, "\(spec)")
    }
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

  /// Few large numbers are given up where that makes the squared error of all smaller: no range of a fine grid is much
  /// better.
  @Test func rangesOfLeastError() throws {
    var generator = SplitMix64(seed: 4)
    for (low, high, outlier) in [(Float(-1), Float(1), Float(3)), (0, 1, 4), (-2, 0.5, -7)] {
      let values = generator.floats(40000, in: low...high) + [outlier]
      var histogram = Histogram()
      values.withUnsafeBufferPointer { histogram.add($0) }
      func error(_ range: ClosedRange<Float>) -> Double {
        let code = AffineCode(covering: range)
        return values.reduce(0.0) { sum, value in
          let steps = (value / code.scale).rounded(.toNearestOrEven)
          let kept = max(-Float(code.zeroPoint), min(255 - Float(code.zeroPoint), steps)) * code.scale
          return sum + Double(value - kept) * Double(value - kept)
        }
      }
      let found = try #require(histogram.rangeOfLeastError())
      let full = try #require(histogram.extremes)
      var least = Double.infinity
      for part in 1...40 {
        let share = Float(part) / 40
        let range =
          outlier > 0
          ? min(full.lowerBound, 0)...full.upperBound * share : full.lowerBound * share...max(full.upperBound, 0)
        least = min(least, error(range))
      }
      #expect(error(found) < 0.98 * error(full), "\(found) \(full)")
      #expect(error(found) <= 1.02 * least, "\(found): \(error(found)) \(least)")
    }
    var nothing = Histogram()
    #expect(nothing.rangeOfLeastError() == nil && nothing.rangeOfLeastDivergence() == nil)
    [Float](repeating: 0, count: 3).withUnsafeBufferPointer { nothing.add($0) }
    #expect(nothing.rangeOfLeastError() == 0...0 && nothing.rangeOfLeastDivergence() == 0...0)
  }

  /// The divergence leaves out a few numbers far from all others, and nothing of numbers that fill their range.
  @Test func rangesOfLeastDivergence() throws {
    var generator = SplitMix64(seed: 5)
    let even = generator.floats(60000, in: -1...1)
    var histogram = Histogram()
    even.withUnsafeBufferPointer { histogram.add($0) }
    let all = try #require(histogram.rangeOfLeastDivergence())
    #expect(all.lowerBound < -0.9 && all.upperBound > 0.9, "\(all)")
    let bell = (0..<60000).map { _ in (0..<6).reduce(Float(-3)) { sum, _ in sum + Float(generator.uniform()) } }
    var second = Histogram()
    (bell + [8, 8.1, -8]).withUnsafeBufferPointer { second.add($0) }
    let found = try #require(second.rangeOfLeastDivergence())
    #expect(found.upperBound < 6 && found.upperBound > 1, "\(found)")
  }

  /// A percentile of the numbers other than 0 is the same however many zeros there are.
  @Test func zerosDoNotCount() throws {
    var generator = SplitMix64(seed: 6)
    let values = generator.floats(20000, in: -1...2)
    var dense = Histogram(), sparse = Histogram()
    values.withUnsafeBufferPointer {
      dense.add($0)
      sparse.add($0)
    }
    [Float](repeating: 0, count: 400_000).withUnsafeBufferPointer { sparse.add($0) }
    #expect(sparse.range(percent: 99, countingZeros: false) == dense.range(percent: 99))
    let cut = try #require(sparse.range(percent: 99)), kept = try #require(dense.range(percent: 99))
    #expect(cut.upperBound < 0.8 * kept.upperBound, "\(cut) \(kept)")
  }

  /// The spellings of ranges.
  @Test func spellingsOfRanges() throws {
    for text in ["minmax", "mse", "entropy", "percentile:99.5", "sparse-minmax:99.0"] {
      let range = try Calibrate.Range(parsing: text)
      #expect(try AttributeCoder.encode(range) == .string(text))
    }
    #expect(try Calibrate.Range(parsing: "percentile") == .percentile(99.99))
    #expect(try Calibrate.Range(parsing: "sparse-minmax") == .sparseMinmax(99.99))
    for text in ["", "max", "mse:3", "percentile:", "percentile:50", "percentile:101", "sparse-minmax:x", "minmax:99"] {
      #expect(throws: CompileError.self, "\(text)") { try Calibrate.Range(parsing: text) }
    }
  }

  /// The mean square of the difference after a pipeline, over that of the results, on one made-up input.
  private func error(_ text: String, _ pipeline: String, _ samples: [[Tensor]]) throws -> Double {
    let before = try Parser.parse(text)
    var after = before
    var context = PassContext()
    context.samples = { _, _ in samples }
    try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    var difference = 0.0, size = 0.0
    for inputs in samples {
      let wanted = try Evaluator(before).run(inputs).outputs[0].view.doubles
      let found = try Evaluator(after).run(inputs).outputs[0].view.doubles
      for (x, y) in zip(found, wanted) {
        difference += (x - y) * (x - y)
        size += y * y
      }
    }
    return difference / size
  }

  /// A layer whose input is 0 in nine places of ten: the divergence is that of the zeros, and cuts into the rest.
  @Test func sparseInputs() throws {
    let text = """
      model @net {
        func @main role = main (%x: f32[64, 40]) -> (y: f32[64, 24]) {
          %w = constant random(seed = 1, deviation = 0.3) : f32[24, 40]
          %y = matmul(%x, %w) {transposeB = true}
          return %y
        }
      }
      """
    var generator = SplitMix64(seed: 7)
    let samples = (0..<8).map { _ in
      let numbers = (0..<64 * 40).map { _ -> Float in
        let value = (0..<12).reduce(-6.0) { sum, _ in sum + generator.uniform() }
        return generator.uniform() < 0.9 ? 0 : Float(value)
      }
      return [Tensor(.f32, [64, 40], numbers)]
    }
    func loss(_ range: String) throws -> Double {
      try error(text, "calibrate{samples=\"s\",range=\"\(range)\"},quantize{spec=w8},fuse-quantized", samples)
    }
    let sparse = try loss("sparse-minmax"), entropy = try loss("entropy"), percentile = try loss("percentile:99.9")
    #expect(sparse < 0.5 * entropy, "\(sparse) \(entropy)")
    #expect(sparse < percentile, "\(sparse) \(percentile)")
    #expect(try loss("mse") <= 1.05 * loss("minmax"))
  }

  /// Two operands of a concatenation, the second a hundredth of the first with weights that make up for it: with scales
  /// of their own they keep what a common one loses. Where weights do not make up for it the scales stay together.
  @Test func concatenationsAreSplit() throws {
    func text(_ second: Double, _ weight: Double) -> String {
      """
      model @net {
        func @main role = main (%x: f32[1, 6, 8, 8]) -> (y: f32[1, 5, 8, 8]) {
          %u = constant random(seed = 1, deviation = 0.3) : f32[8, 6, 3, 3]
          %v = constant random(seed = 2, deviation = \(second)) : f32[8, 6, 3, 3]
          %p = constant random(seed = 3, deviation = 0.3) : f32[5, 8, 1, 1]
          %q = constant random(seed = 4, deviation = \(weight)) : f32[5, 8, 1, 1]
          %w = concat(%p, %q) {axis = 1}
          %a = conv2d(%x, %u) {padding = [1, 1, 1, 1], epilogue = {activation = relu}}
          %b = conv2d(%x, %v) {padding = [1, 1, 1, 1]}
          %c = concat(%a, %b) {axis = 1}
          %m = max_pool2d(%c) {kernel = [3, 3], padding = [1, 1, 1, 1]}
          %y = conv2d(%m, %w)
          return %y
        }
      }
      """
    }
    let graph = try Parser.parse(text(0.3, 0.3)).functions[0]
    let samples = (0..<6).map { SeededRun.inputs(of: graph, seed: UInt64(20 + $0)) }
    func run(_ text: String, _ concats: String) throws -> (error: Double, counters: [PassContext.Counter], Graph) {
      var model = try Parser.parse(text)
      var context = PassContext()
      context.samples = { _, _ in samples }
      let pipeline = "calibrate{samples=\"s\"},quantize{spec=w8,concats=\(concats)},fuse-quantized"
      let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &model, &context)
      return (try error(text, pipeline, samples), reports[1].counters, model.functions[0])
    }
    let planted = text(0.003, 30)
    let split = try run(planted, "split"), joint = try run(planted, "joint")
    #expect(split.error < 0.05 * joint.error, "\(split.error) \(joint.error)")
    #expect(split.counters.contains { $0.name == "concatenations split" && $0.count == 1 })
    // All of it in bytes: three layers, one rounding of the input, none in between.
    let operators = split.2.topologicalOrder().map { split.2[$0].op.name }
    #expect(operators.filter { $0 == "quantized_conv2d" }.count == 3)
    #expect(operators.filter { $0 == "quantize_linear" }.count == 1 && !operators.contains("dequantize_linear"))
    for (second, weight) in [(0.3, 0.3), (0.003, 0.3)] {
      let split = try run(text(second, weight), "split"), joint = try run(text(second, weight), "joint")
      #expect(split.error <= 1.05 * joint.error, "\(second): \(split.error) \(joint.error)")
    }
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
