import Base
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Caches of levels: fitted tables, keys before rotary embedding by channel, outliers apart.
@Suite struct ChannelCacheTests {
  private static func run(
    _ path: String, _ options: String, cache: CacheType = .n4, context rows: Int = 64
  ) throws -> CachePassOutcome {
    try CachePassOutcome(
      path, "channel-cache{\(options),text=\"t\"}", of: ChannelCache.name, seed: 60, cache: cache, context: rows,
      size: 48)
  }

  /// A model whose caches hold numbers in place of codes.
  private static func exact(_ model: Model) throws -> Model {
    let parts = try Printer.print(model).split(separator: " block<q", omittingEmptySubsequences: false)
    let text = parts.dropFirst().reduce(String(parts[0])) { $0 + ($1.split(separator: ">", maxSplits: 1).last ?? "") }
    return try Parser.parse(text)
  }

  /// Without the rounding of codes nothing changes: keys that turn as halves and as neighbours, in part and not at all, with
  /// biases and norms of heads; groups of heads; no outliers and many; tokens before and behind the last rows.
  @Test(arguments: [
    "stories260K/hf", "pycode7m", "architectures/llama", "architectures/qwen2", "architectures/qwen3",
    "architectures/phi3", "architectures/gpt2", "architectures/gpt-neox", "architectures/olmo2",
    "architectures/mixtral", "architectures/llama3-rope",
  ])
  func keepsTheFunctionButForCodes(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    for options in ["levels=given", "levels=given,outliers=0.1", "levels=given,channels=false,outliers=0.02"] {
      let outcome = try Self.run(path, options)
      #expect(outcome.count("attentions fitted") > 0, "\(outcome.refusals)")
      let (before, after) = (try Self.exact(outcome.before), try Self.exact(outcome.after))
      for size in [5, 33, 60] {
        // Outliers lie in f16.
        let error = maxRelativeError(
          try RotateTests.outputs(after, size: size), try RotateTests.outputs(before, size: size))
        #expect(error <= (options.contains("outliers") ? 2e-3 : 1e-4), "\(options) \(size): \(error)")
      }
      #expect(try Parser.parse(Printer.print(outcome.after)) == outcome.after)
    }
  }

  /// Each cache has a table of its own, whose levels ascend, with the bits that it had.
  @Test(arguments: [CacheType.n4, .n3, .n2]) func fitsTables(_ type: CacheType) throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let outcome = try Self.run(path, "outliers=0.05", cache: type)
    let graph = outcome.after.functions[0]
    let tables = graph.states.compactMap { state -> CodeLevels? in
      guard case .block(let format) = graph.type(of: state.value).encoding else { return nil }
      return format.levels
    }
    #expect(tables.count == 10 && Set(tables.map(\.name)).count > 5)
    #expect(tables.allSatisfy { $0.isAscending && $0.isOwn && $0.bits == type.levels?.bits })
    // Pairs of caches, last rows of both, and outliers of both.
    #expect(graph.states.count == 30)
    #expect(try Self.run(path, "outliers=0.05", cache: type).after == outcome.after)
  }

  /// Keys of one head with unlike channels, a large offset in one of them, and values with a number that is far larger than
  /// the others in each row.
  private struct Planted {
    var spread: Float = 1
    var offset: Float = 0
    var spike: Float = 0

    func model(_ type: CacheType) throws -> Model {
      let (width, rows, inputs) = (32, 100, 40)
      let tokens = Symbol("T", in: 1...100)
      var builder = GraphBuilder(name: "main", symbols: [tokens])
      let x = builder.input("x", TensorType(.f32, Shape([.symbol(tokens), .fixed(inputs)])))
      let position = builder.input("position", TensorType(.i32, [1]))
      let frequencies = builder.constant(
        .inline("frequencies", .f32, [width / 2], (0..<width / 2).map { 1 / Float(3 * $0 + 1) }))
      let table = try builder.emit(RopeTable(length: .symbol(tokens)), position, frequencies)
      var random = SplitMix64(seed: 8)
      func project(_ name: String, _ scale: (Int) -> Float) throws -> ValueID {
        let numbers = (0..<inputs * width).map { Float(random.uniform() - 0.5) * scale($0 % width) }
        return try builder.emit(
          MatMul(transposeB: false), x, builder.constant(.inline(name, .f32, [inputs, width], numbers)))
      }
      // Only one of the two columns of a pair is larger, so that nothing that acts on pairs evens them.
      let isLarge = { (column: Int) in column < width / 2 && column % 4 == 0 }
      let q = try builder.emit(Rope(headDim: width), project("wq") { _ in 0.5 }, table, name: "q")
      var keys = try project("wk") { isLarge($0) ? spread : 1 }
      let shift = (0..<width).map { $0 == 5 ? offset : 0 }
      keys = try builder.emit(Add(), keys, builder.constant(.inline("shift", .f32, [width], shift)))
      let k = try builder.emit(Rope(headDim: width), keys, table, name: "k")
      // Numbers that are rare and large: one column by the power of five of what it is.
      var v = try project("wv") { _ in 1 }
      if spike > 0 {
        let two = try builder.emit(Multiply(), v, v)
        let four = try builder.emit(Multiply(), two, two)
        let scale = builder.constant(.inline("spike", .f32, [], [spike]))
        v = try builder.emit(Add(), v, builder.emit(Multiply(), builder.emit(Multiply(), four, v), scale))
      }
      func cached(_ value: ValueID, _ name: String) throws -> ValueID {
        let number = builder.graph.states.count
        let state = builder.state(
          name,
          TensorType(
            type.element ?? .f32, [rows, width], encoding: type.format(headDim: width).map { .block($0) } ?? .dense))
        let update = try builder.emit(CacheUpdate(), state, value, position)
        builder.graph.setUpdate(ofState: number, to: update)
        return update
      }
      let inputsOfAll = try [q, cached(k, "k0"), cached(v, "v0"), position]
      let last = try [
        builder.lastRows(4, before: k, state: "recent_k0"), builder.lastRows(4, before: v, state: "recent_v0"),
      ]
      builder.output(
        "y", try builder.emit(Attention(heads: 1, kvHeads: 1, scale: 0.05, recent: 4), inputsOfAll + last, name: "a"))
      var model = Model(name: "planted")
      (model.functions, model.constants) = ([builder.graph], builder.constants)
      return model
    }

    /// The square error of the results that the cache costs, over their square.
    func error(_ type: CacheType, _ options: String?) throws -> Double {
      var model = try model(type)
      if let options {
        model = try CachePassOutcome(
          model, "channel-cache{\(options),text=\"t\"}", of: ChannelCache.name, seed: 60, size: 90
        ).after
      }
      let wanted = try ChannelCacheTests.outputs(self.model(.f32)), found = try ChannelCacheTests.outputs(model)
      let lost = zip(found, wanted).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
      return lost / wanted.reduce(0) { $0 + $1 * $1 }
    }
  }

  private static func outputs(_ model: Model) throws -> [Double] {
    let graph = model.functions[0]
    let sample = SeededRun.begun(graph, 1, seed: 77, size: 90)[0]
    return try Evaluator(model, function: graph.name).run(
      sample.inputs, states: sample.states, symbols: sample.symbols
    ).outputs[0].view.doubles
  }

  /// Codes of keys before they turn lose less than those behind, and less with scales that balance columns than with even
  /// ranges; fitted tables less than given ones; outliers apart a fraction where there are some.
  @Test(arguments: [CacheType.n4, .n3, .n2]) func plantedStructureIsFound(_ type: CacheType) throws {
    let unlike = Planted(spread: 8, offset: 20)
    let (turned, channels) = (try unlike.error(type, "channels=false"), try unlike.error(type, "channels=true"))
    #expect(channels < 0.7 * turned, "\(channels) \(turned)")
    // A scale for all columns of a head: even ranges of unlike columns are not what costs least.
    let wide = Planted(spread: 30)
    let (plain, balanced) = (try wide.error(type, "metric=plain"), try wide.error(type, "metric=readers"))
    #expect(balanced < 0.7 * plain, "\(balanced) \(plain)")
    let even = Planted()
    let (given, fitted) = (try even.error(type, "levels=given"), try even.error(type, "levels=layer"))
    #expect(fitted < given, "\(fitted) \(given)")
    let spiked = Planted(spike: 0.1)
    let (whole, apart) = (try spiked.error(type, "outliers=0"), try spiked.error(type, "outliers=0.1"))
    #expect(apart < 0.5 * whole, "\(apart) \(whole)")
  }

  /// Caches without tables, without last rows, turned ones; options out of range.
  @Test func saysWhatStays() throws {
    guard let path = Fixtures.path("stories260K/hf"), let gemma = Fixtures.path("architectures/gemma2") else { return }
    let plain = try Self.run(path, "outliers=0.01", cache: .f16)
    #expect(plain.count("attentions fitted") == 0 && plain.remarks.contains { $0.contains("no KV cache of levels") })
    #expect(plain.refusals.contains { $0.contains("the last tokens do not lie beside the cache") }, "\(plain.refusals)")
    let four = try Self.run(path, "outliers=0.01", cache: .i4)
    #expect(four.refusals.contains { $0.contains("the codes of the cache are no places in a table") })
    let windows = try Self.run(gemma, "outliers=0.01")
    #expect(windows.refusals.contains { $0.contains("a window of the keys") }, "\(windows.refusals)")
    let twice = try CachePassOutcome(
      path, "channel-cache{text=\"t\"},channel-cache{text=\"t\"}", of: ChannelCache.name, seed: 60, cache: .n3,
      context: 64, size: 48)
    #expect(twice.refusals.contains { $0.contains("another form already") }, "\(twice.refusals)")
    for (options, message) in [
      ("outliers=-0.1,text=\"t\"", "'outliers' of 'channel-cache' is -0.1"), ("outliers=0.3,text=\"t\"", "is 0.3"),
      ("outliers=0.1", "channel-cache needs a text"),
    ] {
      let error = #expect(throws: CompileError.self) {
        _ = try CachePassOutcome(
          path, "channel-cache{\(options)}", of: ChannelCache.name, seed: 60, cache: .n3, context: 64)
      }
      #expect(error?.kind == .usage && error?.message.contains(message) == true, "\(error?.message ?? "")")
    }
  }
}
