import Base
import IR
import Passes
import Synchronization
import TestSupport
import Tensors
import Testing

/// Passes on samples: functions that go on with the states of others, tables, results that are kept, channels.
@Suite struct SampledFunctionsTests {
  /// A source whose numbers a second function reads, through a weight that both have.
  private static let network = """
    model @answers {
      func @cross role = cross <S in 1...32> (%tokens: i32[S]) state(%c: f32[32, 64]) -> (output: f32[S, 64]) {
        %table = constant random(seed = 1, deviation = 0.5) : f32[50, 64]
        %shared = constant random(seed = 2, deviation = 0.2) : f32[64, 64]
        %w = constant random(seed = 3, deviation = 0.2) : f32[64, 64]
        %x = gather(%table, %tokens) {axis = 0}
        %h = matmul(%x, %shared) {transposeB = true, epilogue = {activation = relu}}
        %k = matmul(%h, %w) {transposeB = true}
        %zero = constant [0] : i32[1]
        %u = cache_update(%c, %k, %zero)
        update %c = %u
        return %h
      }
      func @main role = main <T in 1...32> (%tokens: i32[T]) state(%c: f32[32, 64]) -> (y: f32[T, 48]) {
        %table = constant random(seed = 1, deviation = 0.5) : f32[50, 64]
        %shared = constant random(seed = 2, deviation = 0.2) : f32[64, 64]
        %v = constant random(seed = 4, deviation = 0.2) : f32[48, 64]
        %x = gather(%table, %tokens) {axis = 0}
        %q = matmul(%x, %shared) {transposeB = true, epilogue = {activation = relu}}
        %a = attention(%q, %c, %c) {heads = 2, kvHeads = 2, scale = 0.5, causal = false}
        %s = add(%a, %x)
        %y = matmul(%s, %v) {transposeB = true}
        return %y
      }
    }
    """

  private static func samples(_ count: Int, seed: UInt64 = 1) -> [[FunctionInputs]] {
    var random = SplitMix64(seed: seed)
    func ids() -> FunctionInputs {
      let ids = (0..<32).map { _ in Int32(random.uniform() < 0.8 ? random.int(below: 6) : random.int(below: 50)) }
      return FunctionInputs(inputs: [Tensor(.i32, [32], ids)])
    }
    return [(0..<count).map { _ in ids() }, (0..<count).map { _ in ids() }]
  }

  private struct Outcome {
    var model: Model
    var reports: [PassManager.Report]
    var context: PassContext

    func counter(_ name: String) -> Int? { reports.last?.counters.first { $0.name == name }?.count }
  }

  private static func run(
    _ pipeline: String, _ text: String = network, cache: (any ResultCache)? = nil, samples: [[FunctionInputs]]? = nil
  ) throws -> Outcome {
    var model = try Parser.parse(text)
    var context = PassContext()
    context.results = cache
    context.tokenSamples = { _, _, _, model in samples ?? Array(self.samples(8).suffix(model.functions.count)) }
    let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &model, &context)
    return Outcome(model: model, reports: reports, context: context)
  }

  /// The results of the last function on other samples, which goes on where the first one ends.
  private static func outputs(_ model: Model) throws -> [Float] {
    let samples = self.samples(6, seed: 77)
    var outputs: [Float] = []
    for index in samples[0].indices {
      var states: [Tensor]?
      for (graph, runs) in zip(model.functions, samples.suffix(model.functions.count)) {
        let results = try Evaluator(model, graph).run(runs[index].inputs, states: states, symbols: runs[index].symbols)
        states = results.states
        if graph.name == "main" { outputs += results.outputs[0].array(of: Float.self) }
      }
    }
    return outputs
  }

  private static func error(_ found: Model, _ wanted: Model) throws -> Double {
    var difference = 0.0, size = 0.0
    for (x, y) in zip(try outputs(found), try outputs(wanted)) {
      difference += Double((x - y) * (x - y))
      size += Double(y * y)
    }
    return difference / size
  }

  /// The layers of all functions are chosen, those behind with what the chosen codes of those before give; a weight of
  /// several functions stays one constant.
  @Test(arguments: ["", ",inputs=original", ",inputs=sequential"]) func functionsFollowOneAnother(
    options: String
  ) throws {
    let original = try Parser.parse(Self.network)
    let rounded = try Self.error(Self.run("quantize{spec=w3a32}").model, original)
    let outcome = try Self.run("quantize{spec=w3a32},gptq{text=\"t\"\(options)}")
    let found = try Self.error(outcome.model, original)
    #expect(found < 0.7 * rounded, "\(options): \(found) of \(rounded)")
    // Three weights, the table, and the shared one once.
    #expect(outcome.counter("weights chosen") == 4)
    let names = try outcome.model.functions.map { graph -> Set<ConstantID> in
      let codes = graph.nodeIDs.filter { graph[$0].op is Dequantize }.compactMap {
        graph.constant(of: graph[$0].inputs[0])
      }
      let tables = graph.nodeIDs.filter { graph[$0].op is Gather }.compactMap {
        graph.constant(of: graph[$0].inputs[0])
      }
      try #require(codes.count == 2 && tables.count == 1)
      return Set(codes + tables)
    }
    #expect(names[0].intersection(names[1]).count == 2)
  }

  /// Rows of a table are closer to the original than those to the nearest code of the usual scale, and come out the same.
  @Test func choosesTables() throws {
    let text = """
      model @table {
        func @main role = main <T in 1...32> (%tokens: i32[T]) -> (y: f32[T, 64]) {
          %table = constant random(seed = 1, deviation = 0.5) : f32[50, 64]
          %y = gather(%table, %tokens) {axis = 0}
          return %y
        }
      }
      """
    let original = try Parser.parse(text)
    let rounded = try Self.error(Self.run("quantize{spec=w3}", text).model, original)
    let outcome = try Self.run("quantize{spec=w3},gptq{text=\"t\"}", text)
    let found = try Self.error(outcome.model, original)
    #expect(found < 0.95 * rounded, "\(found) of \(rounded)")
    #expect(outcome.reports.last?.figures.first.map { $0.value < 0.95 && $0.value > 0 } == true)
    let left = try Self.run("quantize{spec=w3},gptq{text=\"t\",tables=false}", text)
    #expect(left.counter("weights chosen") == nil && left.context.remarks.count == 1)
  }

  /// The means of a layer's results are those of the original model on the samples, by its bias, up to roundings; codes
  /// alone leave them further away. What is kept has the bias as well.
  @Test(arguments: [
    "matmul(%x, %w, %b) {transposeB = true, epilogue = {bias = true}}",
    "matmul(%x, %w, %b, %x) {transposeB = true, epilogue = {bias = true, residual = after_activation}}",
  ]) func biasesKeepMeans(layer: String) throws {
    let text = """
      model @biases {
        func @main role = main <T in 1...32> (%tokens: i32[T]) -> (y: f32[T, 64]) {
          %table = constant random(seed = 1, deviation = 0.5) : f32[50, 64]
          %w = constant random(seed = 3, deviation = 0.2) : f32[64, 64]
          %b = constant random(seed = 4, deviation = 0.2) : f32[64]
          %x = gather(%table, %tokens) {axis = 0}
          %y = \(layer)
          return %y
        }
      }
      """
    let original = try Parser.parse(text), samples = Self.samples(8)[1]
    func distance(_ model: Model) throws -> Double {
      var difference = [Double](repeating: 0, count: 64)
      for sample in samples {
        let found = try Evaluator(model).run(sample.inputs).outputs[0].array(of: Float.self)
        let wanted = try Evaluator(original).run(sample.inputs).outputs[0].array(of: Float.self)
        for (place, (x, y)) in zip(found, wanted).enumerated() { difference[place % 64] += Double(x - y) / 256 }
      }
      return difference.map(\.magnitude).max() ?? 0
    }
    let shelf = Shelf(), pipeline = "quantize{spec=w3a32},gptq{text=\"t\""
    let outcome = try Self.run(pipeline + ",bias=true}", text, cache: shelf)
    let without = try distance(Self.run(pipeline + "}", text).model)
    // Sums of 256 numbers of about 1 in f32.
    #expect(try distance(outcome.model) < 3e-6 && without > 3e-5, "\(without)")
    let again = try Self.run(pipeline + ",bias=true}", text, cache: shelf)
    #expect(again.counter("weights from the cache") == 2)
    #expect(try Self.codes(again.model) == Self.codes(outcome.model))
  }

  /// Keeps results in memory.
  private final class Shelf: ResultCache {
    let salt = "test"
    let results = Mutex<[String: CachedResult]>([:])

    func find(_ key: String) -> CachedResult? { results.withLock { $0[key] } }
    func keep(_ result: CachedResult, under key: String) { results.withLock { $0[key] = result } }
  }

  private static func codes(_ model: Model) throws -> [[UInt8]] {
    try model.constants.constants.indices.compactMap { index in
      try model.withBytes(of: ConstantID(index: Int32(index))) { Array($0) }
    }
  }

  /// The same model, options and samples find the codes that were kept, anything else does not; what does not fit is
  /// not taken.
  @Test func findsWhatWasKept() throws {
    let shelf = Shelf(), pipeline = "quantize{spec=w4},gptq{text=\"t\"}"
    let first = try Self.run(pipeline, cache: shelf)
    #expect(first.counter("weights from the cache") == nil && shelf.results.withLock { $0.count } == 1)
    let second = try Self.run("quantize{spec=w4},gptq{text=\"other\"}", cache: shelf)
    #expect(second.counter("weights from the cache") == 4)
    #expect(try Self.codes(second.model) == Self.codes(first.model))
    #expect(second.reports.last?.figures == first.reports.last?.figures)
    let others: [(String, String, [[FunctionInputs]])] = [
      ("quantize{spec=w4},gptq{text=\"t\",damping=0.02}", Self.network, Self.samples(8)),
      ("quantize{spec=w3},gptq{text=\"t\"}", Self.network, Self.samples(8)),
      (pipeline, Self.network.replacing("seed = 4", with: "seed = 5"), Self.samples(8)),
      (pipeline, Self.network, Self.samples(8, seed: 2)), (pipeline, Self.network, Self.samples(7)),
    ]
    for (number, (pipeline, text, samples)) in others.enumerated() {
      let other = try Self.run(pipeline, text, cache: shelf, samples: samples)
      #expect(other.counter("weights from the cache") == nil, "\(number)")
    }
    #expect(shelf.results.withLock { $0.count } == 6)
    for facts: JSON in [.null, ["layers": []], ["layers": [["function": "main", "codes": "y"]]]] {
      shelf.results.withLock { results in
        for key in results.keys { results[key] = CachedResult(facts: facts) }
      }
      let again = try Self.run(pipeline, cache: shelf)
      #expect(again.counter("weights from the cache") == nil)
      #expect(try Self.codes(again.model) == Self.codes(first.model))
    }
  }

  /// A channel that is large although the gain of its norm is not: the gains say nothing of it, the samples do.
  @Test(arguments: ["smoothquant", "awq"]) func smoothsWhatSamplesShow(kind: String) throws {
    let text = """
      model @channels {
        func @main role = main <T in 1...32> (%tokens: i32[T]) -> (y: f32[T, 64]) {
          %table = constant random(seed = 1, deviation = 0.5) : f32[50, 64]
          %few = constant random(seed = 2, deviation = 4.0) : f32[50, 4]
          %g = constant splat(1.0) : f32[64]
          %w = constant random(seed = 3, deviation = 0.2) : f32[64, 64]
          %a = gather(%table, %tokens) {axis = 0}
          %s = slice(%a) {axis = 1, start = 4, size = 60, step = 1}
          %b = gather(%few, %tokens) {axis = 0}
          %x = concat(%b, %s) {axis = 1}
          %n = rms_norm(%x, %g)
          %y = matmul(%n, %w) {transposeB = true}
          return %y
        }
      }
      """
    let original = try Parser.parse(text)
    func error(_ smooth: String) throws -> Double {
      let pipeline = smooth + "quantize{spec=w3a32,embeddings=keep}"
      return try Self.error(Self.run(pipeline, text).model, original)
    }
    let plain = try error(""), blind = try error("smooth{kind=\(kind),spec=w3},")
    let measured = try error("smooth{kind=\(kind),spec=w3,text=\"t\"},")
    // Scales that follow from the weights alone help a little as well.
    #expect(measured < 0.8 * plain && (kind != "awq" || measured < 0.8 * blind), "\(plain) \(blind) \(measured)")
    // Without rounding nothing has changed but for the roundings of the scales.
    #expect(try Self.error(Self.run("smooth{kind=\(kind),spec=w3,text=\"t\"}", text).model, original) < 1e-10)
  }

  /// Numbers that overflow on the way end with the name of the value.
  @Test func namesValuesThatAreNotFinite() throws {
    let text = Self.network.replacing("seed = 4, deviation = 0.2", with: "seed = 4, deviation = 0.3")
      .replacing("seed = 1, deviation = 0.5", with: "seed = 1, deviation = 2e38")
    let error = #expect(throws: CompileError.self) {
      _ = try Self.run("quantize{spec=w4a32,embeddings=keep},gptq{text=\"t\"}", text)
    }
    #expect(error?.kind == .input && error?.message.contains("'%") == true, "\(String(describing: error))")
    #expect(error?.message.contains("not finite") == true)
  }

  /// Samples that span less than the columns, without damping: it is raised, and said with the layer.
  @Test func saysWhereDampingWasRaised() throws {
    let samples = [[Self.samples(1)[0][0]], [Self.samples(1)[1][0]]]
    let outcome = try Self.run("quantize{spec=w4a32},gptq{text=\"t\",damping=0.0}", samples: samples)
    let remark = try #require(outcome.context.remarks.first?.text)
    #expect(remark.contains("depend on one another") && remark.contains("was added to it, at '"), "\(remark)")
  }
}
