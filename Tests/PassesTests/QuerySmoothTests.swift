import Base
import Foundation
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Scale between queries and keys, alike within the pairs that a rotary embedding turns.
@Suite struct QuerySmoothTests {
  private static func run(
    _ passes: String, on model: Model, size: Int = 40, certifier: Certifier? = nil
  ) throws -> (model: Model, counts: [String: Int], refused: [String]) {
    final class Lines { var all: [String] = [] }
    let lines = Lines()
    var model = model
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in [OutlierRotationTests.samples(of: model.functions[0], size: size)] }
    context.explainedPass = "smooth"
    context.explainRefusal = { lines.all.append($0) }
    var manager = PassManager()
    manager.certifier = certifier
    let reports = try manager.run(Pipeline(parsing: passes, registry: .all), on: &model, &context)
    let counts = Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
    return (model, counts, lines.all)
  }

  private static let smooth = "smooth{at=[queries],text=\"t\",spec=w4g32kv4t}"

  /// Two heads of queries for one of keys, all in one product, a rotary embedding of 12 of 16 numbers and a bias. The
  /// pair of channels `(2, 8)` of the first head of keys is 30 times as large as the others, the same channels of its
  /// queries as much smaller.
  private static func planted(interleaved: Bool) throws -> Model {
    let (width, heads, shared) = (16, 2, 2)
    let pairs = RotaryPairs(headDim: width, pairs: 6, interleaved: interleaved)
    var random = SplitMix64(seed: 4)
    var weights = random.floats((heads * shared + 2 * heads) * width * 24)
    var bias = random.floats((heads * shared + 2 * heads) * width)
    func scale(_ row: Int, _ factor: Float) {
      for i in row * 24..<(row + 1) * 24 { weights[i] *= factor }
      bias[row] *= factor
    }
    for channel in [2, try #require(pairs.partner(of: 2))] {
      scale(heads * shared * width + channel, 30)
      for head in 0..<shared { scale(head * width + channel, 1 / 30) }
    }
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [20, 24]))
    let position = builder.input("position", TensorType(.i32, [1]))
    let frequencies = builder.constant(.inline("f", .f32, [6], [1, 0.5, 0.2, 0.1, 0.05, 0.01] as [Float]))
    let table = try builder.emit(RopeTable(length: 20), position, frequencies)
    let all = try builder.emit(
      MatMul(transposeB: true, epilogue: Epilogue(bias: true)), x,
      builder.constant(.inline("w", .f32, [bias.count, 24], weights)),
      builder.constant(.inline("b", .f32, [bias.count], bias)))
    func part(_ start: Int, _ size: Int, _ name: String) throws -> ValueID {
      try builder.emit(Slice(axis: -1, start: .fixed(start), size: .fixed(size)), all, name: name)
    }
    let queries = heads * shared * width, keys = heads * width
    let rope = Rope(headDim: width, interleaved: interleaved)
    let q = try builder.emit(rope, part(0, queries, "q_part"), table, name: "q")
    let k = try builder.emit(rope, part(queries, keys, "k_part"), table, name: "k")
    let v = try part(queries + keys, keys, "v")
    builder.output(
      "y", try builder.emit(Attention(heads: heads * shared, kvHeads: heads, scale: 0.02), q, k, v, name: "a"))
    var model = Model(name: "planted")
    (model.functions, model.constants) = ([builder.graph], builder.constants)
    return model
  }

  /// The square error of the products of queries and keys, keys rounded as a cache does, over their square.
  private static func errorOfProducts(_ model: Model) throws -> Double {
    let graph = model.functions[0]
    let evaluator = try Evaluator(model, function: graph.name)
    var seen: [String: [Double]] = [:]
    evaluator.observer = { node, results in
      for (value, tensor) in zip(graph[node].results, results) where ["q", "k"].contains(graph[value].name) {
        seen[graph[value].name] = tensor.view.doubles
      }
    }
    let sample = OutlierRotationTests.samples(of: graph, count: 1)[0]
    _ = try evaluator.run(sample.inputs)
    let q = try #require(seen["q"]), k = try #require(seen["k"])
    let format = BlockFormat.cache4PerToken(16)
    let codes = Tensor(TensorType(.f32, [20, 32], encoding: .block(format)))
    let back = Tensor(TensorType(.f32, [20, 32]))
    try Quantize(format).evaluate([Tensor(.f32, [20, 32], k.map { Float($0) }).view], into: [codes.mutableView])
    try Dequantize(.f32).evaluate([codes.view], into: [back.mutableView])
    let rounded = back.view.doubles
    var (error, square) = (0.0, 0.0)
    for i in 0..<20 {
      for j in 0..<20 {
        for head in 0..<4 {
          var (lost, sum) = (0.0, 0.0)
          for c in 0..<16 {
            let place = j * 32 + head / 2 * 16 + c
            lost += q[i * 64 + head * 16 + c] * (rounded[place] - k[place])
            sum += q[i * 64 + head * 16 + c] * k[place]
          }
          (error, square) = (error + lost * lost, square + sum * sum)
        }
      }
    }
    return error / square
  }

  /// The planted pair is found; the function stays (two more roundings of each weight), and products lose a tenth of
  /// what they lost.
  @Test(arguments: [false, true]) func plantedPairsAreEvened(interleaved: Bool) throws {
    let model = try Self.planted(interleaved: interleaved)
    let (smoothed, counts, _) = try Self.run(Self.smooth, on: model)
    #expect(counts["keys smoothed"] == 1, "\(counts)")
    #expect(maxRelativeError(try RotateTests.outputs(smoothed), try RotateTests.outputs(model)) <= 1e-4)
    let (before, after) = (try Self.errorOfProducts(model), try Self.errorOfProducts(smoothed))
    #expect(after < 0.1 * before, "\(before) \(after)")
  }

  /// Factors that differ within a pair cannot stand before the embedding.
  @Test func pairsKeepTheirFactorsTogether() {
    let halves = RotaryPairs(headDim: 8, pairs: 3, interleaved: false)
    let neighbours = RotaryPairs(headDim: 8, pairs: 3, interleaved: true)
    #expect((0..<8).map { halves.partner(of: $0) } == [3, 4, 5, 0, 1, 2, nil, nil])
    #expect((8..<16).map { neighbours.partner(of: $0) } == [9, 8, 11, 10, 13, 12, nil, nil])
    #expect(halves.keep([2, 3, 4, 2, 3, 4, 5, 6]) && neighbours.keep([2, 2, 3, 3, 4, 4, 5, 6]))
    #expect(!halves.keep([2, 2, 3, 3, 4, 4, 5, 6]) && !neighbours.keep([2, 3, 4, 2, 3, 4, 5, 6]))
    #expect(!halves.keep([2, 3, 4, 2, 3, 4, 5]))
    #expect(RotaryPairs(headDim: 2, pairs: 0, interleaved: false).keep([1, 2, 3, 4]))
  }

  /// Trained and untrained models with caches: the function stays, and the check compares the states as they were.
  @Test(arguments: ["stories260K/hf", "architectures/qwen2"]) func keepsTheFunction(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let before = try RotateTests.model(path, "eliminate-dead-code").after
    let (after, counts, refused) = try Self.run(Self.smooth, on: before, certifier: Certifier())
    #expect(counts["keys smoothed", default: 0] > 0 && refused.isEmpty, "\(counts) \(refused)")
    #expect(maxRelativeError(try RotateTests.outputs(after), try RotateTests.outputs(before)) <= 1e-4)
    let graph = after.functions[0]
    let scales = graph.states.compactMap { after.scales(ofState: graph[$0.value].name, in: graph.name) }
    #expect(scales.count == counts["keys smoothed"])
    #expect(try Parser.parse(Printer.print(after)).metadata == after.metadata)
    // A rotation of the scaled keys comes behind.
    let turned = try Self.run("rotate{at=[queries]}", on: after, certifier: Certifier())
    #expect(turned.counts["queries turned"] == graph.nodeIDs.count { graph[$0].op is Attention })
  }

  /// Caches of numbers, norms of keys and keys that are turned already stay, and it is said why; without a text nothing
  /// is known.
  @Test func refusesAndSaysWhy() throws {
    guard let path = Fixtures.path("stories260K/hf"), let normed = Fixtures.path("architectures/qwen3") else { return }
    let model = try RotateTests.model(path, "eliminate-dead-code").after
    let plain = try Self.run("smooth{at=[queries],text=\"t\"}", on: model)
    #expect(plain.refused.count == 5 && plain.refused.allSatisfy { $0.contains("keeps keys as they are") })
    let turned = try Self.run("rotate{at=[queries]}," + Self.smooth, on: model)
    #expect(turned.refused.count == 5 && turned.counts["keys smoothed"] == nil, "\(turned.refused)")
    let norms = try Self.run(Self.smooth, on: RotateTests.model(normed, "eliminate-dead-code").after)
    #expect(norms.refused.count == 3 && norms.refused.allSatisfy { $0.contains("no layer with constant weights") })
    let error = #expect(throws: CompileError.self) {
      _ = try Self.run("smooth{at=[queries],spec=w4g32kv4t}", on: model)
    }
    #expect(error?.kind == .usage && error?.message.contains("needs a text") == true)
  }
}
