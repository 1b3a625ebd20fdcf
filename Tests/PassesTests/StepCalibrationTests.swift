import Base
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Ranges over the steps of a network that is run on what it gave.
@Suite struct StepCalibrationTests {
  /// `y = x (t + 1)`: at the steps 0, 1, 2, 3 what the layer reads grows to 1, 2, 6 and 24 times the sample.
  private static func network() throws -> Model {
    try Parser.parse(
      """
      model @steps {
        func @main role = main (%x: f32[6, 16], %t: f32[1]) -> (y: f32[6, 16], m: f32[6]) {
          %one = constant [1.0] : f32[1]
          %w = constant \(identity) : f32[16, 16]
          %g = add(%t, %one)
          %h = multiply(%x, %g)
          %y = matmul(%h, %w) {transposeB = true}
          %m = reduce(%y) {function = max, axes = [1]}
          return %y, %m
        }
      }
      """)
  }

  private static let identity: String = {
    let numbers = (0..<256).map { $0 % 17 == 0 ? "1.0" : "0.0" }
    return "[" + numbers.joined(separator: ", ") + "]"
  }()

  private static func sample(_ seed: UInt64) -> [Tensor] {
    var random = SplitMix64(seed: seed)
    return [Tensor(.f32, [6, 16], random.floats(96)), Tensor(.f32, [1], [0] as [Float])]
  }

  private static func run(_ passes: String) throws -> (model: Model, context: PassContext, counts: [String: Int]) {
    var model = try network()
    var context = PassContext()
    context.samples = { _, _ in (0..<4).map { sample(UInt64(20 + $0)) } }
    let reports = try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &model, &context)
    let counts = Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
    return (model, context, counts)
  }

  private static let steps = "calibrate{samples=\"s\",loop=[\"y:x\"],time=\"t\",steps=4}"

  @Test func rangesCoverAllSteps() throws {
    let (_, one, _) = try Self.run("calibrate{samples=\"s\"}")
    let (_, four, counts) = try Self.run(Self.steps)
    #expect(counts["samples"] == 4 && counts["steps"] == 16, "\(counts)")
    let first = try #require(one.calibration?["main", "h"]?.range),
      all = try #require(four.calibration?["main", "h"]?.range)
    // The last step is 2 * 3 * 4 times the first.
    #expect(abs(all.upperBound / first.upperBound - 24) < 1e-3 && abs(all.lowerBound / first.lowerBound - 24) < 1e-3)
    #expect(four.calibration?["main", "t"]?.range.upperBound == 3)
    #expect(four.calibration?["main", "x"]?.count == 4 * (one.calibration?["main", "x"]?.count ?? 0))
    // Backwards from another step.
    let back = try Self.run("calibrate{samples=\"s\",time=\"t\",steps=3,stride=-2}").context
    #expect(back.calibration?["main", "t"]?.range == -4...0)
  }

  /// Bytes with ranges of the first step alone cut off what later steps need.
  @Test func laterStepsKeepTheirNumbers() throws {
    func error(_ passes: String) throws -> Double {
      let rounded = try Self.run(passes + ",quantize{spec=w8}").model
      let (left, right) = (try Evaluator(rounded, function: "main"), try Evaluator(Self.network(), function: "main"))
      var inputs = Self.sample(99)
      var (difference, square) = (0.0, 0.0)
      for step in 0..<4 {
        inputs[1] = Tensor(.f32, [1], [Float(step)])
        let (found, wanted) = (try left.run(inputs).outputs[0], try right.run(inputs).outputs[0])
        for (x, y) in zip(found.view.doubles, wanted.view.doubles) {
          (difference, square) = (difference + (x - y) * (x - y), square + y * y)
        }
        inputs[0] = wanted
      }
      return (difference / square).squareRoot()
    }
    let (one, four) = (try error("calibrate{samples=\"s\"}"), try error(Self.steps))
    #expect(one > 0.5 && four < 0.05, "\(one) \(four)")
  }

  @Test(arguments: [
    ("steps=0", "expected 1 to 1000000"), ("steps=2", "need 'loop' or 'time'"),
    ("loop=[\"y\"],steps=2", "OUTPUT:INPUT"),
    ("loop=[\"z:x\"],steps=2", "no output 'z' (outputs: y, m)"),
    ("loop=[\"y:z\"],steps=2", "no input 'z' (inputs: x, t)"),
    ("loop=[\"m:x\"],steps=2", "is no input 'x'"), ("loop=[\"y:x\",\"y:x\"],steps=2", "two outputs"),
    ("time=\"x\",loop=[\"y:x\"],steps=2", "counts no steps"), ("loop=[\"m:t\"],steps=2", "has sizes [6]"),
  ])
  func badLoopsAreRefused(_ options: String, _ message: String) throws {
    let error = #expect(throws: CompileError.self) { _ = try Self.run("calibrate{samples=\"s\",\(options)}") }
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
  }
}
