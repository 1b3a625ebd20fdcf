import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Rotations leave the function as it is, on networks of every kind, and tell why they stop.
@Suite struct RotateTests {
  /// Runs the passes that keep the function, then `pipeline`.
  static func model(
    _ path: String, _ pipeline: String, cache: CacheType = .f32
  ) throws -> (before: Model, after: Model, counts: [String: Int]) {
    var options = LoadOptions()
    // Numbers that a cache rounds are others after a rotation.
    options.cacheType = cache
    var before = try FormatRegistry.load(path, options)
    var context = PassContext()
    let exact = FixtureTests.pipeline.joined(separator: ",")
    try PassManager().run(Pipeline(parsing: exact, registry: .all), on: &before, &context)
    var after = before
    let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    let counts = Dictionary(reports.flatMap(\.counters).map { ($0.name, $0.count) }, uniquingKeysWith: +)
    return (before, after, counts)
  }

  /// The outputs of a first function on some tokens, from empty states on.
  static func outputs(_ model: Model, size: Int = 7) throws -> [Double] {
    let graph = model.functions[0]
    let inputs = SeededRun.begun(graph, 1, seed: 5, size: size)[0]
    let results = try Evaluator(model, function: graph.name).run(inputs.inputs, symbols: inputs.symbols)
    return results.outputs.flatMap { $0.view.doubles }
  }

  struct Network: Sendable, CustomTestStringConvertible {
    var path: String
    /// Streams, turns at run time, attentions and hidden layers.
    var streams: Int
    var crossings: Int
    var values: Int
    var hidden: Int

    var testDescription: String { path }
  }

  /// Tied tables of the stories and of pycode are read and left at run time.
  static let networks = [
    Network(path: "stories260K/hf", streams: 1, crossings: 2, values: 5, hidden: 5),
    Network(path: "pycode7m", streams: 1, crossings: 2, values: 8, hidden: 8),
    Network(path: "architectures/llama", streams: 1, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/mixtral", streams: 1, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/qwen2", streams: 1, crossings: 2, values: 3, hidden: 3),
    Network(path: "architectures/qwen3-moe", streams: 1, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/phi3", streams: 1, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/gpt-neox", streams: 1, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/gemma2", streams: 0, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/olmo2", streams: 0, crossings: 0, values: 3, hidden: 3),
    Network(path: "architectures/mamba", streams: 1, crossings: 2, values: 0, hidden: 3),
  ]

  /// The rows of the last tokens are turned with the cache: 20 tokens are not rounded at all, and of 120 no more goes
  /// astray than by 4 bits without a rotation.
  @Test func turnsTheLastRowsToo() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let (before, after, counts) = try Self.model(path, "rotate{at=[values,queries]}", cache: .i4)
    #expect(counts["values turned"] == 5 && counts["queries turned"] == 5, "\(counts)")
    #expect(maxRelativeError(try Self.outputs(after, size: 20), try Self.outputs(before, size: 20)) <= 1e-4)
    #expect(maxRelativeError(try Self.outputs(after, size: 120), try Self.outputs(before, size: 120)) <= 0.2)
  }

  @Test(arguments: networks) func keepsTheFunction(_ network: Network) throws {
    guard let path = Fixtures.path(network.path) else { return }
    for kind in ["hadamard", "random"] {
      let (before, after, counts) = try Self.model(
        path, "rotate{kind=\(kind),at=[residual,values,queries,down],seed=4}")
      #expect(counts["streams turned", default: 0] == network.streams, "\(counts)")
      #expect(counts["turns at run time", default: 0] == network.crossings, "\(counts)")
      #expect(counts["values turned", default: 0] == network.values, "\(counts)")
      #expect(counts["hidden layers turned", default: 0] == network.hidden, "\(counts)")
      // Roundings of the weights to f32 and of longer sums, through all layers.
      #expect(maxRelativeError(try Self.outputs(after), try Self.outputs(before)) <= 1e-4)
    }
  }

  /// The same bytes every time.
  @Test func isDeterministic() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    func bytes() throws -> [UInt8] {
      let model = try Self.model(path, "rotate{kind=random,seed=9},quantize{spec=w4g32}").after
      let graph = model.functions[0]
      let evaluator = PassContext().constantEvaluator(for: graph, in: model)
      return try graph.topologicalOrder().filter { graph[$0].op is Quantize }.map { graph[$0].results[0] }
        .filter { ConstantEvaluator.isRecipe($0, in: graph) }.flatMap { value in
          let tensor = try evaluator.tensor(value)
          return withExtendedLifetime(tensor) { Array(tensor.view.bytes) }
        }
    }
    let first = try bytes()
    #expect(try !first.isEmpty && bytes() == first)
  }

  /// Every published width, through a layer that writes a stream and one that reads it. The columns of inputs and
  /// outputs are few; sums of up to 53248 terms in another order.
  @Test(arguments: [
    1536, 2560, 3584, 4864, 5120, 6912, 8960, 9728, 10240, 10944, 11008, 13696, 13824, 14336, 17408, 18944, 25600,
    27648, 28672, 29568, 53248, 33, 172,
  ])
  func anyWidth(_ width: Int) throws {
    var builder = GraphBuilder(name: "main")
    func weight(_ name: String, _ sizes: [Int], _ seed: UInt64) -> ValueID {
      builder.constant(
        Constant(name: name, type: TensorType(.f32, sizes), source: .random(seed: seed, deviation: 0.1)))
    }
    let x = builder.input("x", TensorType(.f32, [2, 3]))
    let bias = weight("b", [width], 1), gain = weight("g", [width], 2)
    let stream = try builder.emit(
      MatMul(transposeB: true, epilogue: Epilogue(bias: true)), x, weight("w", [width, 3], 3), bias)
    let norm = try builder.emit(RMSNorm(epsilon: 1e-5), stream, gain)
    builder.output("y", try builder.emit(MatMul(), norm, weight("v", [width, 4], 4)))
    var model = Model(name: "chain")
    (model.functions, model.constants) = ([builder.graph], builder.constants)
    let expected = try Self.outputs(model)
    var context = PassContext()
    let reports = try PassManager().run(Pipeline(parsing: "rotate{kind=random}", registry: .all), on: &model, &context)
    #expect(reports[0].counters.contains { $0.name == "streams turned" && $0.count == 1 })
    #expect(maxRelativeError(try Self.outputs(model), expected) <= 1e-4)
  }

  /// Caches that hold turned rows are compared in the basis that they had.
  @Test(arguments: ["stories260K/hf", "architectures/qwen2"]) func passesTheCheck(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    var model = try FormatRegistry.load(path)
    var context = PassContext()
    var manager = PassManager()
    manager.certifier = Certifier()
    let pipeline = "canonicalize,fuse,rotate{at=[residual,values,queries,down]}"
    let reports = try manager.run(Pipeline(parsing: pipeline, registry: .all), on: &model, &context)
    #expect(reports.last?.certificate != nil)
    #expect(model.basis(ofState: "k0", in: model.functions[0].name)?.blocks.isEmpty == false)
    #expect(try Parser.parse(Printer.print(model)) == model)
  }
}
