import Base
import IR
import Passes
import Tensors
import Testing

/// What unlike ranges of channels cost comes back, and the function stays.
@Suite struct EqualizeTests {
  /// A convolution, a depthwise one and a point; every third channel between the first two is 100 times as large, and
  /// the weights that read it a hundredth.
  private static func network(planted: Bool) -> String {
    let factors = (0..<16).map { planted && $0 % 3 == 0 ? "100.0" : "1.0" }.joined(separator: ", ")
    return """
      model @net {
        func @main role = main (%x: f32[1, 4, 12, 12]) -> (y: f32[1, 8, 12, 12]) {
          %w = constant random(seed = 1, deviation = 0.3) : f32[16, 4, 3, 3]
          %b = constant random(seed = 2, deviation = 0.3) : f32[16]
          %v = constant random(seed = 3, deviation = 0.3) : f32[16, 1, 3, 3]
          %u = constant random(seed = 4, deviation = 0.3) : f32[8, 16, 1, 1]
          %f = constant [\(factors)] : f32[16]
          %g = reshape(%f) {shape = [16, 1, 1, 1]}
          %wf = multiply(%w, %g)
          %bf = multiply(%b, %f)
          %vf = divide(%v, %g)
          %a = conv2d(%x, %wf, %bf) {padding = [1, 1, 1, 1], epilogue = {bias = true, activation = relu}}
          %c = conv2d(%a, %vf) {padding = [1, 1, 1, 1], groups = 16, epilogue = {activation = relu}}
          %y = conv2d(%c, %u)
          return %y
        }
      }
      """
  }

  private static func run(_ text: String, _ pipeline: String) throws -> (before: Model, after: Model) {
    let before = try Parser.parse(text)
    var after = before
    var context = PassContext()
    context.samples = { _, graph in (0..<8).map { SeededRun.inputs(of: graph, seed: UInt64(10 + $0)) } }
    try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    return (before, after)
  }

  /// The root mean square of the error over that of the results, on inputs that were not samples.
  private static func error(_ text: String, _ pipeline: String) throws -> Double {
    let (before, after) = try run(text, pipeline)
    var difference = 0.0, size = 0.0
    for seed in 1...4 {
      let wanted = try SeededRun.outputs(of: before, function: "main", seed: UInt64(seed))[0]
      let found = try SeededRun.outputs(of: after, function: "main", seed: UInt64(seed))[0]
      for (x, y) in zip(found, wanted) {
        difference += (x - y) * (x - y)
        size += y * y
      }
    }
    return (difference / size).squareRoot()
  }

  /// Behind the pass, planted ranges cost at most a twentieth of what they cost without it, by the weights alone and by
  /// activations; in real arithmetic nothing changes (two more roundings of each weight).
  @Test(arguments: ["equalize", "calibrate{samples=\"s\"},equalize"])
  func plantedRangesAreRecovered(_ passes: String) throws {
    let (plain, planted) = (Self.network(planted: false), Self.network(planted: true))
    let exact = try Self.error(planted, passes)
    #expect(exact < 1e-5, "\(exact)")
    let quantize = "calibrate{samples=\"s\"},quantize{spec=w8},fuse-quantized"
    let best = try Self.error(plain, quantize), worse = try Self.error(planted, quantize)
    let usual = try Self.error(plain, passes + "," + quantize)
    let repaired = try Self.error(planted, passes + "," + quantize)
    #expect(worse > 5 * best, "\(worse) \(best)")
    #expect(repaired - usual <= 0.05 * (worse - best), "\(best) \(worse) \(usual) \(repaired)")
  }

  /// After a norm whose channels have unlike ranges, and middles far from 0: the layer behind takes factors and terms.
  @Test func normsGoChannelByChannel() throws {
    let gains = (0..<16).map { $0 % 5 == 0 ? "50.0" : "1.0" }.joined(separator: ", ")
    func text(bias: Bool) -> String {
      let terms = (0..<16).map { bias && $0 % 4 == 1 ? "40.0" : "0.5" }.joined(separator: ", ")
      return """
        model @net {
          func @main role = main (%x: f32[6, 16]) -> (y: f32[6, 12]) {
            %g = constant [\(gains)] : f32[16]
            %b = constant [\(terms)] : f32[16]
            %u = constant random(seed = 4, deviation = 0.3) : f32[12, 16]
            %f = divide(%u, %g)
            %t = constant random(seed = 5, deviation = 0.3) : f32[12]
            %n = layer_norm(%x, %g, %b)
            %y = matmul(%n, %f\(bias ? ", %t" : "")) {transposeB = true, epilogue = {bias = \(bias)}}
            return %y
          }
        }
        """
    }
    let calibrate = "calibrate{samples=\"s\"}"
    for bias in [false, true] {
      let exact = try Self.error(text(bias: bias), calibrate + ",equalize")
      #expect(exact < 1e-4, "\(exact)")
      let quantize = calibrate + ",quantize{spec=w8}"
      let plain = try Self.error(text(bias: bias), quantize)
      let left = try Self.error(text(bias: bias), calibrate + ",equalize," + quantize)
      #expect(left < 0.5 * plain, "\(bias): \(left) \(plain)")
    }
  }

  /// What was measured of a changed value is forgotten; the pass says why it leaves others.
  @Test func forgetsAndExplains() throws {
    var model = try Parser.parse(Self.network(planted: true))
    var context = PassContext()
    context.samples = { _, graph in [SeededRun.inputs(of: graph, seed: 1)] }
    var lines: [String] = []
    context.explainedPass = "equalize"
    context.explainRefusal = { lines.append($0) }
    let passes = "calibrate{samples=\"s\"},equalize"
    let reports = try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &model, &context)
    let counters = try #require(reports.last).counters
    #expect(counters.first { $0.name == "values equalized" }?.count == 2, "\(counters)")
    let calibration = try #require(context.calibration)
    #expect(calibration["main", "x"] != nil && calibration["main", "y"] != nil)
    #expect(calibration["main", "a"] == nil && calibration.channels["main"]?["a"] == nil)
    #expect(lines.count == 1 && lines[0].contains("%y") && lines[0].contains("is an output"), "\(lines)")
  }
}
