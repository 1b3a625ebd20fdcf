import Base
import IR
import Passes
import Tensors
import Testing

/// Means of channels that rounding moved.
@Suite struct CorrectBiasTests {
  /// A depthwise layer behind positive numbers, whose small weights all lose half of a step, and a point behind it.
  private static let network = """
    model @net {
      func @main role = main (%x: f32[1, 2, 10, 10]) -> (y: f32[1, 2, 10, 10], z: f32[1, 3, 10, 10]) {
        %w = constant [0.5, 0.1, -0.1, 0.5] : f32[2, 2, 1, 1]
        %b = constant [3.0, 4.0] : f32[2]
        %v = constant [1.27, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 0.0149, 1.27, 0.0149, 0.0149, 0.0149, 0.0149] : f32[2, 1, 3, 3]
        %u = constant random(seed = 4, deviation = 0.3) : f32[3, 2, 1, 1]
        %t = constant random(seed = 5, deviation = 0.3) : f32[3]
        %a = conv2d(%x, %w, %b) {epilogue = {bias = true, activation = relu}}
        %y = conv2d(%a, %v) {padding = [1, 1, 1, 1], groups = 2}
        %z = conv2d(%y, %u, %t) {epilogue = {bias = true, activation = relu}}
        return %y, %z
      }
    }
    """

  private static func run(_ pipeline: String, samples: Int = 16) throws -> (model: Model, PassContext) {
    var model = try Parser.parse(network)
    var context = PassContext()
    context.samples = { _, graph in (0..<samples).map { SeededRun.inputs(of: graph, seed: UInt64(10 + $0)) } }
    try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &model, &context)
    return (model, context)
  }

  /// The mean error of each channel of an output on inputs that were not samples.
  private static func meanErrors(_ model: Model, output: Int, channels: Int) throws -> [Double] {
    let original = try Parser.parse(network)
    var means = [Double](repeating: 0, count: channels)
    for seed in 1...8 {
      let wanted = try SeededRun.outputs(of: original, function: "main", seed: UInt64(seed))[output]
      let found = try SeededRun.outputs(of: model, function: "main", seed: UInt64(seed))[output]
      for (index, (x, y)) in zip(found, wanted).enumerated() { means[index / 100] += (x - y) / 800 }
    }
    return means
  }

  @Test func removesThePlantedMean() throws {
    let quantize = "calibrate{samples=\"s\"},quantize{spec=w8}"
    let plain = try Self.run(quantize).model
    let corrected = try Self.run(quantize + ",correct-bias{samples=\"s\"},fuse-quantized").model
    // Of the depthwise layer, whose errors add up, and of the point behind it, which sees less than it would otherwise.
    for (output, channels, least) in [(0, 2, 0.05), (1, 3, 0.002)] {
      let before = try Self.meanErrors(plain, output: output, channels: channels).map(abs).max() ?? 0
      let after = try Self.meanErrors(corrected, output: output, channels: channels).map(abs).max() ?? 1
      #expect(before > least && after < 0.15 * before, "\(output): \(before) \(after)")
    }
    let graph = corrected.functions[0]
    let layers = graph.topologicalOrder().compactMap { graph[$0].op as? QuantizedConv2D }
    #expect(layers.count == 3 && layers.allSatisfy { $0.epilogue.bias })
  }

  /// Equal samples give equal bytes; weights alone in codes are corrected as well; without rounded weights nothing happens.
  @Test func isReproducibleAndNeedsRounding() throws {
    let pipeline = "calibrate{samples=\"s\"},quantize{spec=w8},correct-bias{samples=\"s\"}"
    let first = try Printer.print(Self.run(pipeline).model), second = try Printer.print(Self.run(pipeline).model)
    #expect(first == second)
    let (untouched, context) = try Self.run("correct-bias{samples=\"s\"}")
    #expect(try Printer.print(untouched) == Printer.print(Parser.parse(Self.network)))
    #expect(context.remarks.contains { $0.text.contains("no layer has rounded weights") })
    let (_, alone) = try Self.run(pipeline, samples: 1)
    #expect(alone.remarks.contains { $0.text.contains("one sample does not tell") })
    #expect(throws: CompileError.self) { try Self.run(pipeline, samples: 0) }
    #expect(throws: CompileError.self) { try Self.run("quantize{spec=w8},correct-bias{samples=\"s\",count=0}") }
  }

  /// A number that is not finite on a sample is an error that names the value.
  @Test func refusesNumbersThatAreNotFinite() throws {
    var model = try Parser.parse(Self.network)
    var context = PassContext()
    context.samples = { _, graph in
      let inputs = SeededRun.inputs(of: graph, seed: 1)
      inputs[0].mutableView.elements(as: Float.self)[7] = .infinity
      return [inputs, SeededRun.inputs(of: graph, seed: 2)]
    }
    let error = #expect(throws: CompileError.self) {
      try PassManager().run(
        Pipeline(
          parsing: "calibrate{samples=\"s\"},quantize{spec=w8},correct-bias{samples=\"s\"}", registry: .all),
        on: &model, &context)
    }
    #expect(error?.kind == .input && error?.message.contains("not finite") == true, "\(String(describing: error))")
  }
}
