import Base
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Codes of whole networks chosen on samples.
@Suite struct ChooseCodesTests {
  /// Two layers with a sum around the second, and a table that the result is multiplied by as well.
  private static let network = """
    model @net {
      func @main role = main <T in 1...64> (%tokens: i32[T]) -> (y: f32[T, 50]) {
        %table = constant random(seed = 1, deviation = 0.5) : f32[50, 40]
        %w1 = constant random(seed = 2, deviation = 0.3) : f32[72, 40]
        %w2 = constant random(seed = 3, deviation = 0.3) : f32[40, 72]
        %x = gather(%table, %tokens) {axis = 0}
        %h = matmul(%x, %w1) {transposeB = true, epilogue = {activation = relu}}
        %s = matmul(%h, %w2, %x) {transposeB = true, epilogue = {residual = after_activation}}
        %y = matmul(%s, %table) {transposeB = true}
        return %y
      }
    }
    """

  /// Samples that use a tenth of the vocabulary most of the time.
  private static func samples(_ count: Int, of graph: Graph, seed: UInt64 = 1) -> [FunctionInputs] {
    var random = SplitMix64(seed: seed)
    return (0..<count).map { _ in
      let ids = (0..<48).map { _ in Int32(random.uniform() < 0.8 ? random.int(below: 5) : random.int(below: 50)) }
      return FunctionInputs(inputs: [Tensor(.i32, [48], ids)])
    }
  }

  private struct Outcome {
    var before, after: Model
    var context: PassContext
    var reports: [PassManager.Report]
  }

  private static func run(
    _ text: String, _ pipeline: String, samples: @escaping (Graph) -> [FunctionInputs]
  ) throws -> Outcome {
    let before = try Parser.parse(text)
    var after = before
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in [samples(model.functions[0])] }
    let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    return Outcome(before: before, after: after, context: context, reports: reports)
  }

  private static func run(_ pipeline: String, _ text: String = network) throws -> Outcome {
    try run(text, pipeline) { samples(8, of: $0) }
  }

  /// The mean square of the differences on samples that were not used, over that of the numbers.
  private static func error(_ found: Model, _ wanted: Model) throws -> Double {
    let (a, b) = (try Evaluator(found), try Evaluator(wanted))
    var difference = 0.0, size = 0.0
    for sample in samples(8, of: wanted.functions[0], seed: 99) {
      let x = try a.run(sample.inputs, symbols: sample.symbols).outputs[0].array(of: Float.self)
      let y = try b.run(sample.inputs, symbols: sample.symbols).outputs[0].array(of: Float.self)
      for (x, y) in zip(x, y) {
        difference += Double((x - y) * (x - y))
        size += Double(y * y)
      }
    }
    return difference / size
  }

  /// Every layer of a network gets codes that cost less on samples, and its results come closer to the original's than
  /// with codes to the nearest, on other samples as well. The table keeps one constant for both uses.
  @Test(arguments: ["w4a32", "w4za32", "w3a32", "w4a8"]) func comesCloserThanRounding(spec: String) throws {
    let quantize = "quantize{spec=\(spec)}"
    let nearest = try Self.run(quantize)
    let rounded = try Self.error(nearest.after, nearest.before)
    for options in [
      "", ",inputs=original", ",inputs=corrected", ",inputs=sequential", ",order=full", ",order=none",
      ",method=adaptive",
    ] {
      let outcome = try Self.run(quantize + ",gptq{text=\"t\"\(options)}")
      let found = try Self.error(outcome.after, outcome.before)
      // Activations of eight bits have an error of their own.
      #expect(found < 0.7 * rounded, "\(spec)\(options): \(found) of \(rounded)")
      let figures = try #require(outcome.reports.last).figures
      #expect(figures.count == 3 && figures.allSatisfy { $0.value > 0 && $0.value < 0.8 }, "\(figures)")
      let graph = outcome.after.functions[0]
      let weights = graph.nodeIDs.filter { graph[$0].op is Quantize && graph.constant(of: graph[$0].inputs[0]) != nil }
      #expect(weights.isEmpty, "a weight is still rounded to the nearest")
      let table = try #require(graph.nodeIDs.first { graph[$0].op is Gather }.map { graph[$0].inputs[0] })
      #expect(graph.constant(of: table) != nil && graph.users(of: table).count == 2)
    }
  }

  /// Counting the means of samples brings the means of the results closer, which is what a mean over a text is made of,
  /// and leaves single rows farther off.
  @Test func countsMeans() throws {
    let text = """
      model @means {
        func @main role = main <T in 1...64> (%tokens: i32[T]) -> (y: f32[T, 24]) {
          %table = constant random(seed = 1, deviation = 0.5) : f32[50, 64]
          %w = constant random(seed = 2, deviation = 0.3) : f32[24, 64]
          %x = gather(%table, %tokens) {axis = 0}
          %y = matmul(%x, %w) {transposeB = true}
          return %y
        }
      }
      """
    func errors(_ options: String) throws -> (mean: Double, rows: Double) {
      let outcome = try Self.run("quantize{spec=w3a32,embeddings=keep},gptq{text=\"t\"\(options)}", text)
      var mean = 0.0, rows = 0.0
      let (a, b) = (try Evaluator(outcome.after), try Evaluator(outcome.before))
      for sample in Self.samples(8, of: outcome.before.functions[0], seed: 99) {
        let x = try a.run(sample.inputs).outputs[0].array(of: Float.self)
        let y = try b.run(sample.inputs).outputs[0].array(of: Float.self)
        let difference = zip(x, y).map { Double($0 - $1) }
        rows += difference.reduce(0) { $0 + $1 * $1 }
        for column in 0..<24 {
          let sum = stride(from: column, to: difference.count, by: 24).reduce(0.0) { $0 + difference[$1] }
          mean += sum * sum
        }
      }
      return (mean, rows)
    }
    let plain = try errors(""), counted = try errors(",means=30")
    #expect(counted.mean < 0.7 * plain.mean && counted.rows > plain.rows, "\(plain) \(counted)")
  }

  /// The same recipe on the same samples gives the same bytes; other samples give others.
  @Test func isReproducible() throws {
    let pipeline = "quantize{spec=w4},gptq{text=\"t\"}"
    func bytes(_ model: Model) throws -> [[UInt8]] {
      try model.constants.constants.indices.compactMap { index in
        try model.withBytes(of: ConstantID(index: Int32(index))) { Array($0) }
      }
    }
    let first = try bytes(Self.run(pipeline).after), second = try bytes(Self.run(pipeline).after)
    #expect(first == second && first.count == 3)
    let other = try Self.run(Self.network, pipeline) { Self.samples(8, of: $0, seed: 5) }
    #expect(try bytes(other.after) != first)
  }

  /// Convolutions, depthwise and grouped ones too, by what their windows see: no layer is worse than rounded to the
  /// nearest, and in few bits the network is better.
  @Test(arguments: ["first", "last"]) func choosesForConvolutions(_ layout: String) throws {
    let (image, result) = layout == "first" ? ("1, 4, 9, 9", "1, 6, 3, 3") : ("1, 9, 9, 4", "1, 3, 3, 6")
    let text = """
      model @convolutions {
        func @main role = main (%x: f32[\(image)]) -> (y: f32[\(result)]) {
          %w1 = constant random(seed = 2, deviation = 0.3) : f32[8, 4, 3, 3]
          %w2 = constant random(seed = 3, deviation = 0.3) : f32[8, 1, 3, 3]
          %w3 = constant random(seed = 4, deviation = 0.3) : f32[6, 4, 1, 1]
          %a = conv2d(%x, %w1) {padding = [1, 1, 1, 1], layout = \(layout), epilogue = {activation = relu}}
          %b = conv2d(%a, %w2) {padding = [1, 1, 1, 1], strides = [2, 2], groups = 8, layout = \(layout), epilogue = {activation = relu}}
          %y = conv2d(%b, %w3) {strides = [2, 2], groups = 2, layout = \(layout)}
          return %y
        }
      }
      """
    let before = try Parser.parse(text)
    let samples = (0..<12).map { FunctionInputs.seeded(for: before.functions[0], seed: UInt64(30 + $0)) }
    func run(_ passes: String) throws -> (model: Model, figures: [PassContext.Figure]) {
      var model = before
      var context = PassContext()
      context.samples = { _, _ in samples.map(\.inputs) }
      context.tokenSamples = { _, _, _, _ in [samples.map { FunctionInputs(inputs: $0.inputs) }] }
      let pipeline = try Pipeline(
        parsing: "calibrate{samples=\"s\"},quantize{spec=w8}" + passes, registry: .all)
      let reports = try PassManager().run(pipeline, on: &model, &context)
      return (model, reports.last?.figures ?? [])
    }
    func error(_ model: Model) throws -> Double {
      var sum = 0.0
      for seed in 1...8 {
        let inputs = FunctionInputs.seeded(for: before.functions[0], seed: UInt64(seed)).inputs
        let wanted = try Evaluator(before).run(inputs).outputs[0].view.doubles
        let found = try Evaluator(model).run(inputs).outputs[0].view.doubles
        sum += zip(found, wanted).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      }
      return sum
    }
    let nearest = try run(""), chosen = try run(",gptq{text=\"t\"}")
    #expect(chosen.figures.count == 3 && chosen.figures.allSatisfy { $0.value <= 1 && $0.value > 0 })
    #expect(try error(chosen.model) < error(nearest.model))
    let graph = chosen.model.functions[0]
    #expect(!graph.nodeIDs.contains { graph[$0].op is Quantize })
  }

  /// Each expert is chosen for the tokens that reach it.
  @Test func choosesForExperts() throws {
    let text = """
      model @experts {
        func @main role = main <T in 1...64> (%tokens: i32[T]) -> (y: f32[T, 24]) {
          %table = constant random(seed = 1, deviation = 0.5) : f32[50, 40]
          %w = constant random(seed = 2, deviation = 0.3) : f32[4, 24, 40]
          %router = constant random(seed = 3, deviation = 1.0) : f32[4, 40]
          %x = gather(%table, %tokens) {axis = 0}
          %scores = matmul(%x, %router) {transposeB = true}
          %ids, %weights = route(%scores) {count = 2, normalizes = true}
          %y = expert_matmul(%x, %w, %ids, %weights)
          return %y
        }
      }
      """
    let nearest = try Self.run("quantize{spec=w4a32,embeddings=keep}", text)
    let rounded = try Self.error(nearest.after, nearest.before)
    let outcome = try Self.run("quantize{spec=w4a32,embeddings=keep},gptq{text=\"t\"}", text)
    #expect(try Self.error(outcome.after, outcome.before) < 0.7 * rounded)
    #expect(outcome.reports.last?.figures.count == 1)
  }

  /// Attention that a token receives changes what is chosen.
  @Test func weighsTokensByAttention() throws {
    let text = """
      model @attention {
        func @main role = main <T in 1...64> (%tokens: i32[T]) -> (y: f32[T, 32]) {
          %table = constant random(seed = 1, deviation = 1.0) : f32[50, 32]
          %w = constant random(seed = 2, deviation = 0.3) : f32[32, 32]
          %x = gather(%table, %tokens) {axis = 0}
          %a = attention(%x, %x, %x) {heads = 2, kvHeads = 2, scale = 0.5, causal = true}
          %y = matmul(%a, %w) {transposeB = true}
          return %y
        }
      }
      """
    func codes(_ options: String) throws -> Model {
      try Self.run("quantize{spec=w3a32,embeddings=keep},gptq{text=\"t\"\(options)}", text).after
    }
    let plain = try codes(""), weighted = try codes(",tokenWeight=attention")
    let error = try (Self.error(plain, Parser.parse(text)), Self.error(weighted, Parser.parse(text)))
    #expect(error.0 != error.1 && error.1 < 2 * error.0, "\(error)")
  }

  /// Tokens that later ones attend to lie in one subspace, most others in another, and both share the columns of a
  /// layer: with weights of tokens the results for those that are attended to come closer, at the others' expense.
  @Test func attendedTokensComeCloser() throws {
    let (attended, tokens, columns) = (10, 50, 32)
    var random = SplitMix64(seed: 12)
    func rows(_ count: Int, rank: Int) -> [Float] {
      let basis = (0..<rank).map { _ in random.floats(columns) }
      return (0..<count).flatMap { _ -> [Float] in
        let factors = random.floats(rank)
        return (0..<columns).map { column in zip(factors, basis).reduce(0) { $0 + $1.0 * $1.1[column] } }
      }
    }
    let table = rows(attended, rank: 12) + rows(tokens - attended, rank: 24)
    // Scores of 8 for those that are attended to, of 0 for the others.
    let keys = (0..<tokens).flatMap { token in
      (0..<columns).map { Float($0 == 0 && token < attended ? 8 : 0) }
    }
    let queries = (0..<tokens * columns).map { Float($0 % columns == 0 ? 1 : 0) }
    let length = Symbol("T", in: 1...64)
    var builder = GraphBuilder(name: "main", role: "main", symbols: [length])
    let ids = builder.input("tokens", TensorType(.i32, [.symbol(length)]))
    func gathered(_ name: String, _ numbers: [Float]) throws -> ValueID {
      try builder.emit(Gather(axis: 0), builder.constant(.inline(name, .f32, [tokens, columns], numbers)), ids)
    }
    let x = try gathered("table", table)
    let (q, k) = (try gathered("queries", queries), try gathered("keys", keys))
    // What attention adds is 0, so that the rows stay as they are.
    let none = try gathered("values", [Float](repeating: 0, count: tokens * columns))
    let added = try builder.emit(Attention(heads: 1, kvHeads: 1, scale: 1), q, k, none)
    let sum = try builder.emit(Add(), x, added)
    let weight = builder.constant(
      Constant(name: "w", type: TensorType(.f32, [24, columns]), source: .random(seed: 2, deviation: 0.3)))
    builder.output("y", try builder.emit(MatMul(transposeB: true), sum, weight))
    var before = Model(name: "attended")
    (before.functions, before.constants) = ([builder.graph], builder.constants)
    func errors(_ options: String) throws -> (attended: Double, others: Double) {
      var after = before
      var context = PassContext()
      context.tokenSamples = { _, _, _, model in [Self.spread(8, of: model.functions[0], seed: 1)] }
      let passes = "quantize{spec=w3a32,embeddings=keep},gptq{text=\"t\"\(options)}"
      try PassManager().run(Pipeline(parsing: passes, registry: .all), on: &after, &context)
      let (a, b) = (try Evaluator(after), try Evaluator(before))
      var sums = (attended: 0.0, others: 0.0)
      for sample in Self.spread(8, of: before.functions[0], seed: 99) {
        let found = try a.run(sample.inputs).outputs[0].array(of: Float.self)
        let wanted = try b.run(sample.inputs).outputs[0].array(of: Float.self)
        for (place, id) in sample.inputs[0].array(of: Int32.self).enumerated() {
          let range = place * 24..<(place + 1) * 24
          let error = zip(found[range], wanted[range]).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
          if id < attended { sums.attended += error } else { sums.others += error }
        }
      }
      return sums
    }
    let plain = try errors(""), weighted = try errors(",tokenWeight=attention")
    #expect(weighted.attended < 0.9 * plain.attended && weighted.others > plain.others, "\(plain) \(weighted)")
  }

  /// Samples of which a fifth are the first ten tokens.
  private static func spread(_ count: Int, of graph: Graph, seed: UInt64) -> [FunctionInputs] {
    var random = SplitMix64(seed: seed)
    return (0..<count).map { _ in
      let ids = (0..<48).map { _ in Int32(random.uniform() < 0.2 ? random.int(below: 10) : 10 + random.int(below: 40)) }
      return FunctionInputs(inputs: [Tensor(.i32, [48], ids)])
    }
  }

  /// The attention that keys receive is that of the definition: the sums of the softmax's columns.
  @Test func sumsReceivedAttention() throws {
    var random = SplitMix64(seed: 4)
    let (tokens, heads, depth) = (5, 2, 3)
    let q = random.floats(tokens * heads * depth), k = random.floats(tokens * heads * depth)
    let op = Attention(heads: heads, kvHeads: heads, scale: 0.7)
    let (a, b) = (Tensor(.f32, [tokens, heads * depth], q), Tensor(.f32, [tokens, heads * depth], k))
    var sums = [Double](repeating: 0, count: tokens)
    for head in 0..<heads {
      for i in 0..<tokens {
        let scores = (0...i).map { j in
          0.7
            * (0..<depth).reduce(0.0) { sum, d in
              sum + Double(q[(i * heads + head) * depth + d]) * Double(k[(j * heads + head) * depth + d])
            }
        }
        let powers = scores.map { power($0) }
        for j in 0...i { sums[j] += powers[j] / powers.reduce(0, +) }
      }
    }
    #expect(maxRelativeError(try op.received([a.view, b.view, b.view]).map { Double($0) }, sums) < 1e-6)
  }

  /// e to the power of a small number.
  private func power(_ x: Double) -> Double {
    var (sum, term) = (1.0, 1.0)
    for n in 1..<30 {
      term *= x / Double(n)
      sum += term
    }
    return sum
  }

  private func message(_ body: () throws -> Void) -> String {
    do {
      try body()
      return ""
    } catch let error as CompileError {
      return "\(error.kind): \(error.message) \(error.subject.map { "\($0)" } ?? "")"
    } catch { return "\(error)" }
  }

  @Test func refusesWhatItCannotUse() throws {
    #expect(message { _ = try Self.run("quantize{spec=w4},gptq") }.contains("gptq needs a text"))
    #expect(message { _ = try Self.run("gptq{text=\"t\",damping=-1.0}") }.contains("'damping'"))
    #expect(message { _ = try Self.run("gptq{text=\"t\",means=-1.0}") }.contains("'means'"))
    #expect(message { _ = try Self.run("gptq{text=\"t\",samples=0}") }.contains("'samples'"))
    #expect(
      message { _ = try Self.run(Self.network, "quantize{spec=w4},gptq{text=\"t\"}") { _ in [] } }
        .contains("holds no samples"))
    // Numbers that overflow on the way are named.
    let text = Self.network.replacing("deviation = 0.5", with: "deviation = 1e38")
    let overflow = message { _ = try Self.run("quantize{spec=w4a32},gptq{text=\"t\"}", text) }
    #expect(overflow.hasPrefix("input") && overflow.contains("not finite"), "\(overflow)")
    // Without anything quantized there is nothing to do.
    let none = try Self.run("gptq{text=\"t\"}")
    var before = none.before
    before.compact()
    #expect(none.after == before && none.context.remarks.count == 1)
  }
}
