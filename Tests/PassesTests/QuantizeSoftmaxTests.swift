import Base
import Formats
import Foundation
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Softmax weights in codes of few bits.
@Suite struct QuantizeSoftmaxTests {
  /// Attention in plain loops, of queries `[B, T, heads * D]`, keys `[B, S, kvHeads * D]` and values.
  private struct PlainAttention {
    var heads, kvHeads: Int
    var scale: Double
    var batches = 1
    var q, k, v: [Float]
    var queries, keys: Int
    /// What is added to the score of a batch, head, query and key.
    var mask: (Int, Int, Int, Int) -> Double = { _, _, _, _ in 0 }

    /// `[B, heads, T, S]`; zeros for a query that sees no key.
    func weights() -> [Double] {
      let (width, kWidth) = (q.count / batches / queries, k.count / batches / keys)
      let depth = width / heads
      var result: [Double] = []
      for b in 0..<batches {
        for h in 0..<heads {
          let group = h * kvHeads / heads
          for i in 0..<queries {
            let scores = (0..<keys).map { j in
              var sum = 0.0
              for d in 0..<depth {
                sum +=
                  Double(q[(b * queries + i) * width + h * depth + d])
                  * Double(k[(b * keys + j) * kWidth + group * depth + d])
              }
              return sum * scale + mask(b, h, i, j)
            }
            let largest = scores.max() ?? 0
            let powers = scores.map { largest == -.infinity ? 0 : exp($0 - largest) }
            let sum = powers.reduce(0, +)
            result += powers.map { sum == 0 ? 0 : $0 / sum }
          }
        }
      }
      return result
    }

    /// `[B, T, heads * D]` for such weights.
    func result(_ weights: [Double]) -> [Double] {
      let vWidth = v.count / batches / keys
      let depth = vWidth / kvHeads
      var result = [Double](repeating: 0, count: batches * queries * heads * depth)
      for b in 0..<batches {
        for h in 0..<heads {
          let group = h * kvHeads / heads
          for i in 0..<queries {
            for j in 0..<keys {
              let weight = weights[((b * heads + h) * queries + i) * keys + j]
              for d in 0..<depth {
                result[(b * queries + i) * heads * depth + h * depth + d] +=
                  weight * Double(v[(b * keys + j) * vWidth + group * depth + d])
              }
            }
          }
        }
      }
      return result
    }
  }

  /// What a code makes of a weight, from the formula as it is written.
  private static func rounded(_ p: Double, _ code: SoftmaxCode, shift other: Double? = nil) -> Double {
    let last = exp2(Double(code.bits)) - 1, largest = Double(code.largest), shift = other ?? Double(code.shift)
    func place(_ x: Double) -> Double { min(max(x.rounded(.toNearestOrEven), 0), last) }
    if p == 0 { return 0 }
    switch code.kind {
    case .uniform: return place(p * last / largest) * largest / last
    case .log2: return largest * exp2(-place(-log2(p / largest)))
    case .sulq:
      let least = -log2(largest + shift), step = (-log2(shift) - least) / last
      return exp2(-(least + step * place((-log2(p + shift) - least) / step))) - shift
    }
  }

  private static func meanSquaredError(_ kind: SoftmaxCode.Kind, _ bits: Int, _ weights: [Float]) throws -> Double {
    let code = try #require(SoftmaxCode(kind, bits: bits, fitting: weights))
    let errors = weights.map { weight in
      let difference = rounded(Double(weight), code) - Double(weight)
      return difference * difference
    }
    return errors.reduce(0, +) / Double(weights.count)
  }

  // MARK: Errors of codes

  /// The weights of each attention of MiniLM on recorded sentences, by name, computed from recorded queries and keys.
  private static func recordedMaps() throws -> [(name: String, weights: [Float])]? {
    guard let path = Fixtures.path("minilm"), let recorded = Fixtures.path("minilm/expected.json") else { return nil }
    let model = try FormatRegistry.load(path, LoadOptions())
    let graph = try #require(model.functions.first)
    var names: [String] = []
    var maps: [String: [Float]] = [:]
    for sentence in try #require(try JSON.read(path: recorded).array) {
      let ids = try #require(sentence["input_ids"]?.array).compactMap { $0.int.map { Int32($0) } }
      var tensors: [ValueID: Tensor] = [:]
      let evaluator = try Evaluator(model)
      evaluator.observer = { node, results in
        for (value, tensor) in zip(graph[node].results, results) { tensors[value] = tensor }
        guard let op = graph[node].op as? Attention else { return }
        let operands = try graph[node].inputs.map { try #require(tensors[$0]).array(of: Float.self) }
        try #require(operands.count == 3)
        let plain = PlainAttention(
          heads: op.heads, kvHeads: op.kvHeads, scale: Double(op.scale), q: operands[0], k: operands[1], v: operands[2],
          queries: ids.count, keys: ids.count)
        let name = graph[graph[node].results[0]].name
        if maps[name] == nil { names.append(name) }
        maps[name, default: []] += plain.weights().map { Float($0) }
      }
      _ = try evaluator.run([Tensor(.i32, [ids.count], ids)])
    }
    return names.map { ($0, maps[$0] ?? []) }
  }

  /// On the weights of each layer the shifted logarithm loses less than even steps and than powers of two.
  @Test(arguments: [3, 4]) func losesLeastOnRecordedMaps(_ bits: Int) throws {
    guard let maps = try Self.recordedMaps() else { return }
    #expect(maps.count == 6)
    for (name, weights) in maps {
      #expect(weights.count > 10000)
      let errors = try SoftmaxCode.Kind.allCases.map { try Self.meanSquaredError($0, bits, weights) }
      #expect(errors[0] < errors[1] && errors[0] < errors[2], "\(name): \(errors)")
    }
  }

  /// The same of softmax over 197 keys whose scores are spread widely.
  @Test(arguments: [3, 4]) func losesLeastOnAHeavyTail(_ bits: Int) throws {
    var random = SplitMix64(seed: 5)
    let weights = (0..<64).flatMap { _ in
      let powers = (0..<197).map { _ in
        exp(3 * (-2 * log(1 - random.uniform())).squareRoot() * cos(2 * .pi * random.uniform()))
      }
      let sum = powers.reduce(0, +)
      return powers.map { Float($0 / sum) }
    }
    let errors = try SoftmaxCode.Kind.allCases.map { try Self.meanSquaredError($0, bits, weights) }
    #expect(errors[0] < errors[1] && errors[0] < errors[2], "\(errors)")
    // A shift of four times or a fourth is worse.
    let best = try #require(SoftmaxCode(.sulq, bits: bits, fitting: weights))
    #expect(best.shift > 0 && best.largest == weights.max())
    for factor in [0.25, 4] {
      let other = weights.map { weight in
        let difference = Self.rounded(Double(weight), best, shift: Double(best.shift) * factor) - Double(weight)
        return difference * difference
      }
      #expect(errors[0] < other.reduce(0, +) / Double(weights.count))
    }
  }

  // MARK: Networks

  private static let sizes = (batches: 2, queries: 5, keys: 7, depth: 4)

  private static func numbers(_ count: Int, seed: UInt64, _ scale: Float = 2) -> [Float] {
    var random = SplitMix64(seed: seed)
    return random.floats(count).map { $0 * scale }
  }

  private struct Outcome {
    var before, after: Model
    var counts: [String: Int]
    var figures: [PassContext.Figure]
    var refusals: [String]
  }

  private final class Lines { var all: [String] = [] }

  /// Runs the pass on a network, measured on `samples`.
  private static func run(_ text: String, _ options: String, _ samples: [[Tensor]]) throws -> Outcome {
    let before = try Parser.parse(text)
    var after = before
    let lines = Lines()
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in
      model.functions.map { _ in samples.map { FunctionInputs(inputs: $0) } }
    }
    context.explainedPass = QuantizeSoftmax.name
    context.explainRefusal = { lines.all.append($0) }
    let pipeline = try Pipeline(parsing: "quantize-softmax{text=\"t\",\(options)}", registry: .all)
    let reports = try PassManager().run(pipeline, on: &after, &context)
    let counts = Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
    #expect(try Parser.parse(Printer.print(after)) == after)
    return Outcome(
      before: before, after: after, counts: counts, figures: reports.flatMap(\.figures), refusals: lines.all)
  }

  private static func evaluate(_ model: Model, _ inputs: [Tensor]) throws -> [Double] {
    try Evaluator(model).run(inputs).outputs[0].view.doubles
  }

  /// Weights of the numbers that a code stands for, as the network computes them in f32, and in f64 here: sums of at most 7
  /// products, logarithms and powers of numbers up to 17 times the largest weight. No weight of these seeds lies so close to
  /// a border between codes that its code differs.
  private static let tolerance = 2e-5

  static let codes: [(SoftmaxCode.Kind, Int)] = SoftmaxCode.Kind.allCases.flatMap { kind in
    [2, 3, 4, 8].map { (kind, $0) }
  }

  private static func check(
    _ text: String, _ kind: SoftmaxCode.Kind, _ bits: Int, _ inputs: [Tensor], _ plain: PlainAttention,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try run(text, "kind=\(kind.rawValue),bits=\(bits)", [inputs])
    #expect(outcome.counts == ["softmax results rounded": 1], sourceLocation: sourceLocation)
    let weights = plain.weights()
    let exact = try evaluate(outcome.before, inputs)
    #expect(maxRelativeError(exact, plain.result(weights)) <= 1e-5, sourceLocation: sourceLocation)
    let code = try #require(SoftmaxCode(kind, bits: bits, fitting: weights.map { Float($0) }))
    let expected = weights.map { rounded($0, code) }
    let found = try evaluate(outcome.after, inputs)
    #expect(found.allSatisfy { $0.isFinite }, sourceLocation: sourceLocation)
    let error = maxRelativeError(found, plain.result(expected))
    #expect(error <= tolerance, "\(kind) \(bits): \(error)", sourceLocation: sourceLocation)
    // The figure of the pass is the relative error of these weights; weights beside a border between codes may count as those
    // of the neighbour.
    let squares = zip(weights, expected).map { ($0 - $1) * ($0 - $1) }.reduce(0, +)
    let relative = (squares / weights.map { $0 * $0 }.reduce(0, +)).squareRoot()
    let figure = try #require(outcome.figures.first?.value)
    #expect(abs(figure - relative) <= 0.02 * relative, "\(figure) \(relative)", sourceLocation: sourceLocation)
  }

  private static func operands(heads: Int, kvHeads: Int, batches: Int) -> [Tensor] {
    [(sizes.queries, heads, 1), (sizes.keys, kvHeads, 2), (sizes.keys, kvHeads, 3)].map { rows, heads, seed in
      let columns = heads * sizes.depth
      let shape = batches == 0 ? [rows, columns] : [batches, rows, columns]
      return Tensor(.f32, shape, numbers(shape.reduce(1, *), seed: UInt64(seed)))
    }
  }

  private static func plain(
    _ inputs: [Tensor], heads: Int, kvHeads: Int, scale: Double, batches: Int
  ) -> PlainAttention {
    let rows = inputs.map { $0.array(of: Float.self) }
    return PlainAttention(
      heads: heads, kvHeads: kvHeads, scale: scale, batches: max(1, batches), q: rows[0], k: rows[1], v: rows[2],
      queries: sizes.queries, keys: sizes.keys)
  }

  /// Groups of queries, a batch, and a mask of truth values that hides all keys from a query.
  @Test(arguments: codes) func groupsOfABatch(kind: SoftmaxCode.Kind, bits: Int) throws {
    let text = """
      model @net {
        func @main <T in 1...9> (
          %q: f32[2, T, 16], %k: f32[2, 7, 8], %v: f32[2, 7, 8], %m: f32[2, 1, T, 7]
        ) -> (y: f32[2, T, 16]) {
          %zero = constant splat(0.0) : f32[]
          %seen = greater(%m, %zero)
          %y = attention(%q, %k, %v, %seen) {heads = 4, kvHeads = 2, scale = 0.5, causal = false}
          return %y
        }
      }
      """
    var inputs = Self.operands(heads: 4, kvHeads: 2, batches: 2)
    var mask = Self.numbers(2 * 5 * 7, seed: 4).map { $0 + 1 }
    for key in 0..<7 { mask[(1 * 5 + 3) * 7 + key] = -1 }
    inputs.append(Tensor(.f32, [2, 1, 5, 7], mask))
    var plain = Self.plain(inputs, heads: 4, kvHeads: 2, scale: 0.5, batches: 2)
    plain.mask = { b, _, i, j in mask[(b * 5 + i) * 7 + j] > 0 ? 0 : -.infinity }
    try Self.check(text, kind, bits, inputs, plain)
    let found = try Self.evaluate(
      Self.run(text, "kind=\(kind.rawValue),bits=\(bits)", [inputs]).after, inputs)
    #expect(found[((5 + 3) * 16)..<((5 + 4) * 16)].allSatisfy { $0 == 0 })
  }

  /// No batch, and a mask of numbers for each head, negative infinities among them.
  @Test(arguments: codes) func masksOfNumbers(kind: SoftmaxCode.Kind, bits: Int) throws {
    let text = """
      model @net {
        func @main (%q: f32[5, 12], %k: f32[7, 12], %v: f32[7, 12], %m: f32[3, 5, 7]) -> (y: f32[5, 12]) {
          %y = attention(%q, %k, %v, %m) {heads = 3, kvHeads = 3, scale = 1.0, causal = false}
          return %y
        }
      }
      """
    var inputs = Self.operands(heads: 3, kvHeads: 3, batches: 0)
    let mask = Self.numbers(3 * 5 * 7, seed: 6).enumerated().map { index, number in
      index / 7 == 4 || number < -1.2 ? -Float.infinity : number
    }
    inputs.append(Tensor(.f32, [3, 5, 7], mask))
    var plain = Self.plain(inputs, heads: 3, kvHeads: 3, scale: 1, batches: 0)
    plain.mask = { _, h, i, j in Double(mask[(h * 5 + i) * 7 + j]) }
    try Self.check(text, kind, bits, inputs, plain)
  }

  /// A network that writes attention out; the softmax of its classes stays.
  @Test(arguments: codes) func primitives(kind: SoftmaxCode.Kind, bits: Int) throws {
    let text = """
      model @net {
        func @main (%q: f32[5, 4], %k: f32[7, 4], %v: f32[7, 4]) -> (y: f32[5, 4]) {
          %s = matmul(%q, %k) {transposeB = true}
          %p = softmax(%s) {axis = -1}
          %y = matmul(%p, %v)
          return %y
        }
      }
      """
    let inputs = Self.operands(heads: 1, kvHeads: 1, batches: 0)
    try Self.check(text, kind, bits, inputs, Self.plain(inputs, heads: 1, kvHeads: 1, scale: 1, batches: 0))
  }

  /// With one key all weights are 1, with a query that sees nothing 0: every code keeps both. A second run finds nothing to do.
  @Test(arguments: SoftmaxCode.Kind.allCases) func zeroAndOneStay(_ kind: SoftmaxCode.Kind) throws {
    let text = """
      model @net {
        func @main (%q: f32[2, 4], %k: f32[1, 4], %v: f32[1, 4], %m: f32[2, 1]) -> (y: f32[2, 4]) {
          %y = attention(%q, %k, %v, %m) {heads = 1, kvHeads = 1, scale = 1.0, causal = false}
          return %y
        }
      }
      """
    let values: [Float] = [1, -2, 3, -4]
    let inputs = [
      Tensor(.f32, [2, 4], Self.numbers(8, seed: 1)), Tensor(.f32, [1, 4], Self.numbers(4, seed: 2)),
      Tensor(.f32, [1, 4], values), Tensor(.f32, [2, 1], [0, -Float.infinity]),
    ]
    for bits in 2...8 {
      let outcome = try Self.run(text, "kind=\(kind.rawValue),bits=\(bits)", [inputs])
      let found = try Self.evaluate(outcome.after, inputs)
      #expect(zip(found[..<4], values).allSatisfy { abs($0 - Double($1)) <= 1e-5 }, "\(found)")
      #expect(found[4...].allSatisfy { $0 == 0 }, "\(found)")
      let again = try Self.run(Printer.print(outcome.after), "kind=\(kind.rawValue),bits=\(bits)", [inputs])
      #expect(again.after == outcome.after && again.counts.isEmpty)
    }
    // Where no query of the samples sees a key there is nothing to fit a code to.
    var hidden = inputs
    hidden[3] = Tensor(.f32, [2, 1], [-Float.infinity, -Float.infinity])
    let none = try Self.run(text, "kind=\(kind.rawValue)", [hidden])
    #expect(none.after == none.before && none.refusals.contains { $0.contains("all weights are 0 on the samples") })
    hidden[3] = Tensor(.f32, [2, 1], [Float.nan, 0])
    #expect(throws: CompileError.self) { try Self.run(text, "kind=\(kind.rawValue)", [hidden]) }
  }

  @Test func saysWhyWeightsStay() throws {
    let section = try #require(try CaseFile("quantize-softmax.mir").sections.last)
    var model = try Parser.parse(section.text)
    let lines = Lines()
    var context = PassContext()
    context.explainedPass = QuantizeSoftmax.name
    context.explainRefusal = { lines.all.append($0) }
    try PassManager().run(
      Pipeline(parsing: "quantize-softmax{text=\"t\"}", registry: .all), on: &model, &context)
    let reasons = lines.all.compactMap { $0.split(separator: ": ", maxSplits: 2).last.map(String.init) }
    #expect(
      reasons == [
        "the attention is causal: what it reads may be a cache", "the scores have a soft cap",
        "the attention computes in bytes", "queries are numbers in f16", "keys are codes",
        "its result weighs no values that are computed", "its result weighs no values that are computed",
        "it is not along the last axis",
      ])
  }

  @Test(arguments: ["bits=1", "bits=9", "kind=log", "kind=SULQ", "shift=1"]) func refuses(_ options: String) throws {
    let text = "model @m { func @main (%x: f32[2, 4]) -> (y: f32[2, 4]) { %y = relu(%x) return %y } }"
    let error = #expect(throws: CompileError.self) { try Self.run(text, options, []) }
    #expect(error?.kind == .usage, "\(String(describing: error))")
  }
}
