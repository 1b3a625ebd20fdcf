import Base
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Caches whose old rows have the first numbers of a head alone.
@Suite struct FactorCacheTests {
  private static func run(
    _ path: String, _ pipeline: String, cache: CacheType = .f32, context rows: Int? = 160, size: Int = 96,
    explaining pass: String? = nil
  ) throws -> CachePassOutcome {
    try CachePassOutcome(
      path, pipeline, of: FactorCache.name, seed: 60, cache: cache, context: rows, size: size, explaining: pass)
  }

  private static let decoders = [
    "stories260K/hf", "pycode7m", "architectures/llama", "architectures/qwen2", "architectures/qwen3",
    "architectures/phi3", "architectures/gpt2", "architectures/gpt-neox", "architectures/olmo2",
    "architectures/mixtral",
  ]

  /// With all numbers nothing is lost, whatever the order of queries, keys and values in their projections, with biases,
  /// groups of heads, norms, embeddings that turn or do not; tokens before, on and behind the window.
  @Test(arguments: decoders)
  func keepsTheFunctionAtFullRank(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let outcome = try Self.run(path, "factor-cache{rank=1,window=8,text=\"t\"}", context: 64, size: 48)
    #expect(outcome.count("caches factored") > 0, "\(outcome.refusals)")
    #expect(2 * outcome.count("value projections changed") == outcome.count("caches factored"), "\(outcome.refusals)")
    #expect(2 * outcome.count("output projections changed") == outcome.count("caches factored"), "\(outcome.refusals)")
    for size in [5, 8, 9, 40] {
      let error = maxRelativeError(
        try RotateTests.outputs(outcome.after, size: size), try RotateTests.outputs(outcome.before, size: size))
      #expect(error <= 1e-4, "\(size): \(error)")
    }
    #expect(try Parser.parse(Printer.print(outcome.after)) == outcome.after)
  }

  /// The same with features of a layer, and of two layers, whose calls go on from one another.
  @Test(arguments: decoders)
  func featuresKeepTheFunctionAtFullRank(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    for layers in [1, 2] {
      let outcome = try Self.run(
        path, "factor-cache{rank=1,layers=\(layers),window=8,text=\"t\"}", context: 64, size: 48)
      #expect(outcome.count("caches factored") > 0, "\(outcome.refusals)")
      let (before, after) = (outcome.before.functions[0], outcome.after.functions[0])
      // A pair of caches, and the last rows of each layer.
      let caches = outcome.count("caches factored")
      let groups = (caches / 2 + layers - 1) / layers
      #expect(before.states.count == caches && after.states.count == 2 * groups + caches)
      for calls in [[48], [5, 30, 1, 1, 11]] {
        let error = maxRelativeError(
          try Self.logits(outcome.after, calls: calls), try Self.logits(outcome.before, calls: calls))
        // Keys are turned by a sum of two angles.
        #expect(error <= 1e-4, "\(layers) \(calls): \(error)")
      }
      #expect(try Parser.parse(Printer.print(outcome.after)) == outcome.after)
    }
  }

  /// What a model gives after tokens that come in calls of these lengths.
  private static func logits(_ model: Model, calls: [Int]) throws -> [Double] {
    let graph = model.functions[0]
    var generator = SplitMix64(seed: 71)
    let evaluator = try Evaluator(model, function: graph.name)
    var (states, position, result): ([Tensor]?, Int, [Double]) = (nil, 0, [])
    for count in calls {
      let ids = (0..<count).map { _ in Int32(generator.int(below: 90)) }
      let found = try evaluator.run(
        [Tensor(.i32, [count], ids), Tensor(.i32, [1], [Int32(position)])], states: states, symbols: ["L": count])
      result += found.outputs[0].view.doubles
      (states, position) = (found.states, position + count)
    }
    return result
  }

  /// Where features are those of one layer, calls make no difference; where they are those of several, all rows of a call
  /// are whole, and calls of a token see as many last rows as those.
  @Test func callsDecideForSeveralLayers() throws {
    guard let path = Fixtures.path("pycode7m") else { return }
    func difference(_ layers: Int, _ a: [Int], _ b: [Int]) throws -> Double {
      let outcome = try Self.run(path, "factor-cache{rank=0.25,layers=\(layers),window=8,text=\"t\"}", context: 64)
      return maxRelativeError(try Self.logits(outcome.after, calls: a), try Self.logits(outcome.after, calls: b))
    }
    let ones = [Int](repeating: 1, count: 40)
    #expect(try difference(1, [40], ones) <= 1e-4)
    #expect(try difference(1, [17, 23], ones) <= 1e-4)
    #expect(try difference(4, [40], ones) > 1e-3)
    let outcome = try Self.run(path, "factor-cache{rank=0.25,layers=4,window=8,text=\"t\"}", context: 64)
    // The first call has all its rows as they are.
    #expect(
      maxRelativeError(try Self.logits(outcome.after, calls: [40]), try Self.logits(outcome.before, calls: [40]))
        <= 1e-4)
  }

  /// Keys of all heads that lie in few dimensions before they turn, and values: features of the layer hold them, heads by
  /// themselves do not. What a second layer has in common with it takes no numbers of its own.
  @Test func featuresHoldWhatHeadsHaveInCommon() throws {
    let planted = Shared(layers: 1)
    #expect(try planted.error("rank=0.5,layers=1") <= 1e-4)
    #expect(try planted.error("rank=0.5,layers=0") > 0.02)
    let two = Shared(layers: 2)
    #expect(try two.error("rank=0.25,layers=2", calls: [40, 1, 1, 1]) <= 1e-4)
    #expect(try two.error("rank=0.25,layers=1", calls: [40, 1, 1, 1]) > 0.02)
  }

  /// Attentions one behind the other whose keys, before rotary embedding, and values are linear in the first half of what comes in.
  private struct Shared {
    var layers: Int

    func model() throws -> Model {
      let (heads, kvHeads, width, inputs, shared) = (4, 2, 16, 32, 16)
      let tokens = Symbol("T", in: 1...200)
      var builder = GraphBuilder(name: "main", symbols: [tokens])
      let x = builder.input("x", TensorType(.f32, Shape([.symbol(tokens), .fixed(inputs)])))
      let position = builder.input("position", TensorType(.i32, [1]))
      let frequencies = builder.constant(
        .inline("frequencies", .f32, [width / 2], (0..<width / 2).map { 1 / Float(3 * $0 + 1) }))
      let table = try builder.emit(RopeTable(length: .symbol(tokens)), position, frequencies)
      func rows(_ source: ValueID, _ count: Int, of inputs: Int, seed: UInt64) throws -> ValueID {
        let weight = builder.constant(
          Constant(
            name: "w\(seed)", type: TensorType(.f32, [inputs, count * width]),
            source: .random(seed: seed, deviation: 0.4)))
        return try builder.emit(MatMul(transposeB: false), source, weight)
      }
      let common = try builder.emit(Slice(axis: 1, start: 0, size: .fixed(shared)), x)
      var stream = x
      for layer in 0..<layers {
        let seed = UInt64(10 * layer)
        let q = try builder.emit(Rope(headDim: width), rows(stream, heads, of: inputs, seed: seed + 1), table)
        // Nothing but an order: the keys of a layer wait for the result of the one before.
        var source = common
        if layer > 0 {
          let part = try builder.emit(Slice(axis: 1, start: 0, size: .fixed(shared)), stream)
          let zero = builder.constant(.inline("zero", .f32, [], [Float(0)]))
          source = try builder.emit(Add(), common, builder.emit(Multiply(), part, zero))
        }
        let k = try builder.emit(Rope(headDim: width), rows(source, kvHeads, of: shared, seed: seed + 2), table)
        let v = try rows(source, kvHeads, of: shared, seed: seed + 3)
        let updates = try [("k\(layer)", k), ("v\(layer)", v)].enumerated().map { index, cache in
          let state = builder.state(cache.0, TensorType(.f32, [200, kvHeads * width]))
          let update = try builder.emit(CacheUpdate(), state, cache.1, position)
          builder.graph.setUpdate(ofState: 2 * layer + index, to: update)
          return update
        }
        let y = try builder.emit(
          Attention(heads: heads, kvHeads: kvHeads, scale: 0.25), [q, updates[0], updates[1], position])
        let weight = builder.constant(
          Constant(
            name: "o\(layer)", type: TensorType(.f32, [heads * width, inputs]),
            source: .random(seed: seed + 4, deviation: 0.3)))
        stream = try builder.emit(Add(), stream, builder.emit(MatMul(transposeB: false), y, weight))
      }
      builder.output("y", stream)
      var model = Model(name: "shared")
      (model.functions, model.constants) = ([builder.graph], builder.constants)
      return model
    }

    /// The largest error of the last token after calls of these lengths.
    func error(_ options: String, calls: [Int] = [43]) throws -> Double {
      let outcome = try CachePassOutcome(
        model(), "factor-cache{\(options),window=4,text=\"t\"}", of: FactorCache.name, seed: 60, size: 120)
      #expect(outcome.count("caches factored") == 2 * layers, "\(outcome.refusals)")
      func last(_ model: Model) throws -> [Double] {
        let evaluator = try Evaluator(model, function: "main")
        let all = Tensor.random([calls.reduce(0, +), 32], seed: 33).array(of: Float.self)
        var (states, position, result): ([Tensor]?, Int, [Double]) = (nil, 0, [])
        for count in calls {
          let part = Array(all[position * 32..<(position + count) * 32])
          let found = try evaluator.run(
            [Tensor(.f32, [count, 32], part), Tensor(.i32, [1], [Int32(position)])], states: states)
          (states, position, result) = (found.states, position + count, Array(found.outputs[0].view.doubles.suffix(32)))
        }
        return result
      }
      return maxRelativeError(try last(outcome.after), try last(outcome.before))
    }
  }

  /// Ranks of features are multiples of a part of their columns and keep the share of all numbers; caches of codes have a
  /// scale for each part.
  @Test(arguments: [(1, 0.5, CacheType.f16), (2, 0.25, .f32), (2, 0.75, .i8), (1, 0.5, .i4), (3, 0.5, .i4t)])
  func featuresAddUpToTheShare(_ layers: Int, _ share: Double, _ cache: CacheType) throws {
    guard let path = Fixtures.path("architectures/llama") else { return }
    let outcome = try Self.run(
      path, "factor-cache{rank=\(share),layers=\(layers),text=\"t\"}", cache: cache, context: 64, size: 48)
    let before = outcome.before.functions[0], after = outcome.after.functions[0]
    let op = try #require(before.nodeIDs.compactMap { before[$0].op as? Attention }.first)
    let old = before.states.filter { !before[$0.value].name.hasPrefix("recent") }
    let columns = try #require(before.type(of: old[0].value).shape.last.fixedValue)
    #expect(columns % (4 * op.kvHeads) == 0 && outcome.count("caches factored") == old.count)
    let all = columns * old.count
    let sum = outcome.ranks.reduce(0, +)
    #expect(sum <= Int((share * Double(all)).rounded()) && Double(sum) > share * Double(all) - 32, "\(outcome.ranks)")
    let kept = after.states.filter { !after[$0.value].name.hasPrefix("recent") }
    #expect(kept.count == outcome.ranks.count)
    for (state, rank) in zip(kept, outcome.ranks) {
      let type = after.type(of: state.value)
      #expect(type.shape == [64, .fixed(rank)] && rank % 4 == 0)
      #expect(type.isDense == (cache.element != nil))
      if case .block(let format) = type.encoding { #expect(rank % (format.group ?? 1) == 0) }
    }
    let attentions = after.nodeIDs.compactMap { after[$0].op as? Attention }
    #expect(attentions.allSatisfy { $0.latent != nil && $0.recent == 32 })
    // A layer that is left over is by itself.
    let alone = layers == 1 ? attentions.count : attentions.count % layers == 1 ? 1 : 0
    #expect(attentions.count { $0.latent?.wholeCalls == false } == alone)
  }

  /// Ranks are multiples of 4 and keep the share of all numbers; caches have the type of what is left, and the last rows
  /// are whole.
  @Test(arguments: [
    ("energy", 0.75, CacheType.f16), ("energy", 0.5, .f32), ("equal", 0.5, .f16), ("energy", 0.6, .i8),
    ("energy", 0.5, .i4), ("equal", 0.75, .i4t),
  ])
  func numbersAddUpToTheShare(_ policy: String, _ share: Double, _ cache: CacheType) throws {
    guard let path = Fixtures.path("architectures/llama") else { return }
    let outcome = try Self.run(
      path, "factor-cache{rank=\(share),ranks=\(policy),text=\"t\"}", cache: cache, context: 64, size: 48)
    let before = outcome.before.functions[0], after = outcome.after.functions[0]
    let op = try #require(before.nodeIDs.compactMap { before[$0].op as? Attention }.first)
    let old = before.states.filter { !before[$0.value].name.hasPrefix("recent") }
    let width = try #require(before.type(of: old[0].value).shape.last.fixedValue) / op.kvHeads
    #expect(outcome.ranks.count == old.count && outcome.count("caches factored") == old.count)
    #expect(outcome.ranks.allSatisfy { $0 % 4 == 0 && $0 >= 4 && $0 <= width })
    let (sum, all) = (outcome.ranks.reduce(0, +), width * old.count)
    #expect(sum <= Int((share * Double(all)).rounded()) && Double(sum) > share * Double(all) - 4, "\(outcome.ranks)")
    if policy == "equal" { #expect(Set(outcome.ranks).count == 1) }
    for (state, rank) in zip(old, outcome.ranks) {
      let name = before[state.value].name
      let value = try #require(after.value(named: name))
      let kept = cache.element.map { TensorType($0, [64, op.kvHeads * rank]) }
      let codes = cache.format(headDim: rank).map {
        TensorType(.f32, [64, op.kvHeads * rank], encoding: .block($0))
      }
      #expect(after.type(of: value) == kept ?? codes)
      let last = try #require(after.value(named: "recent_" + name))
      #expect(after.type(of: last) == TensorType(.f32, [32, op.kvHeads * width]))
    }
    #expect(try Parser.parse(Printer.print(outcome.after)) == outcome.after)
  }

  // MARK: Planted structure

  /// One attention of two heads of keys and four of queries, whose queries, keys and values are linear in the input.
  private struct Planted {
    static let (heads, kvHeads, width, inputs) = (4, 2, 16, 24)
    /// Factors of the numbers of a head of queries, keys and values, before each head is turned by a matrix of its own.
    var queries, keys, values: [Float]
    /// Whether a layer of constant weights gives the values and reads the result.
    var isFoldable = true

    func model() throws -> Model {
      let (heads, kvHeads, width, inputs) = (Self.heads, Self.kvHeads, Self.width, Self.inputs)
      let tokens = Symbol("T", in: 1...200)
      var builder = GraphBuilder(name: "main", symbols: [tokens])
      let x = builder.input("x", TensorType(.f32, Shape([.symbol(tokens), .fixed(inputs)])))
      let position = builder.input("position", TensorType(.i32, [1]))
      // `[inputs, count * width]`: for each head random columns times the factors, behind an orthogonal matrix that
      // heads of a group share.
      func rows(_ count: Int, _ factors: [Float], seed: UInt64) throws -> ValueID {
        var numbers = [Float](repeating: 0, count: inputs * count * width)
        let random = Tensor.random([inputs, count * width], seed: seed).array(of: Float.self)
        for head in 0..<count {
          // A reflection, which queries and keys of a head share.
          var unit = Tensor.random([width], seed: UInt64(500 + head * kvHeads / count)).array(of: Float.self)
          let length = unit.reduce(0) { $0 + $1 * $1 }.squareRoot()
          unit = unit.map { $0 / length }
          for row in 0..<inputs {
            let start = (row * count + head) * width
            var number = (0..<width).map { random[start + $0] * factors[$0] }
            let product = zip(number, unit).reduce(0) { $0 + $1.0 * $1.1 }
            for i in 0..<width { number[i] -= 2 * product * unit[i] }
            for i in 0..<width { numbers[start + i] = number[i] }
          }
        }
        let weight = builder.constant(.inline("w\(seed)", .f32, [inputs, count * width], numbers))
        return try builder.emit(MatMul(), x, weight)
      }
      let q = try rows(heads, queries, seed: 1), k = try rows(kvHeads, keys, seed: 2)
      var v = try rows(kvHeads, values, seed: 3)
      if !isFoldable { v = try builder.emit(Tanh(), v) }
      let updates = try [("k0", k), ("v0", v)].enumerated().map { index, cache in
        let state = builder.state(cache.0, TensorType(.f32, [200, kvHeads * width]))
        let update = try builder.emit(CacheUpdate(), state, cache.1, position)
        builder.graph.setUpdate(ofState: index, to: update)
        return update
      }
      let y = try builder.emit(
        Attention(heads: heads, kvHeads: kvHeads, scale: 0.25), [q, updates[0], updates[1], position])
      if isFoldable {
        let weight = builder.constant(
          Constant(name: "o", type: TensorType(.f32, [heads * width, 12]), source: .random(seed: 4, deviation: 1.0)))
        builder.output("y", try builder.emit(MatMul(), y, weight))
      } else {
        builder.output("y", y)
      }
      var model = Model(name: "planted")
      (model.functions, model.constants) = ([builder.graph], builder.constants)
      return model
    }

    /// The error of the pass with some options.
    func error(_ options: String) throws -> (error: Double, outcome: CachePassOutcome) {
      let outcome = try CachePassOutcome(
        model(), "factor-cache{\(options),window=4,text=\"t\"}", of: FactorCache.name, seed: 60, size: 120)
      let error = maxRelativeError(
        try RotateTests.outputs(outcome.after, size: 120), try RotateTests.outputs(outcome.before, size: 120))
      return (error, outcome)
    }
  }

  private static func factors(_ first: Float, _ count: Int, _ rest: Float) -> [Float] {
    (0..<Planted.width).map { $0 < count ? first : rest }
  }

  /// Keys and values that lie in 8 of 16 dimensions lose nothing at half of the numbers, and much at a quarter.
  @Test func losesNothingOfLowRank() throws {
    let planted = Planted(
      queries: Self.factors(1, 16, 1), keys: Self.factors(1, 8, 0), values: Self.factors(1, 8, 0))
    let half = try planted.error("rank=0.5")
    #expect(half.error <= 1e-4 && half.outcome.ranks == [8, 8], "\(half.error) \(half.outcome.ranks)")
    #expect(try planted.error("rank=0.25").error > 0.05)
  }

  /// Keys have their numbers where queries look, values all over: the ranks follow.
  @Test func ranksFollowTheEnergy() throws {
    let planted = Planted(
      queries: Self.factors(1, 16, 1), keys: Self.factors(1, 4, 0), values: Self.factors(1, 12, 0))
    let found = try planted.error("rank=0.5")
    #expect(found.outcome.ranks == [4, 12] && found.error <= 1e-4, "\(found.error) \(found.outcome.ranks)")
    #expect(try planted.error("rank=0.5,ranks=equal").error > 0.05)
  }

  /// Keys are largest where queries do not look: what queries look at is kept, and the directions of the keys alone lose it.
  @Test func readersDecide() throws {
    let planted = Planted(
      queries: Self.factors(0.002, 8, 1), keys: Self.factors(3, 8, 1), values: Self.factors(1, 8, 0))
    let readers = try planted.error("rank=0.5").error
    let plain = try planted.error("rank=0.5,metric=plain").error
    #expect(readers < 0.05 && plain > 5 * readers, "\(readers) \(plain)")
  }

  /// Values behind a function, and a result that nothing multiplies, change when the program runs.
  @Test func changesValuesAtRunTime() throws {
    let planted = Planted(
      queries: Self.factors(1, 16, 1), keys: Self.factors(1, 8, 0), values: Self.factors(1, 16, 1), isFoldable: false)
    let whole = try planted.error("rank=1")
    #expect(whole.error <= 1e-4, "\(whole.error)")
    #expect(whole.outcome.count("value projections changed") == 0 && whole.outcome.count("caches factored") == 2)
    #expect(whole.outcome.refusals.contains { $0.contains("values change at run time") })
    #expect(whole.outcome.refusals.contains { $0.contains("results change at run time") })
    #expect(try planted.error("rank=0.75").error <= 0.2)
  }

  /// Half of the numbers of old rows lose less than leaving these rows out.
  @Test(arguments: ["stories260K/hf", "pycode7m"]) func oldRowsAreWorthIt(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let outcome = try Self.run(path, "factor-cache{rank=0.5,window=8,text=\"t\"}", size: 96)
    var alone = outcome.before
    for id in alone.functions[0].topologicalOrder() {
      guard var op = alone.functions[0][id].op as? Attention else { continue }
      op.window = 8
      alone.functions[0].setOperator(op, of: id)
    }
    let wanted = try RotateTests.outputs(outcome.before, size: 90)
    func error(_ model: Model) throws -> Double {
      zip(try RotateTests.outputs(model, size: 90), wanted).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    }
    let (factored, window) = (try error(outcome.after), try error(alone))
    #expect(factored < 0.5 * window, "\(factored) \(window)")
  }

  // MARK: Refusals

  @Test func saysWhyCachesStay() throws {
    for (name, pipeline, cache, reason) in [
      ("stories260K/hf", "center-keys{text=\"t\"},", CacheType.f32, "keys lie in the cache without their mean"),
      ("stories260K/hf", "quantize-attention,", .f32, "the attention computes in bytes"),
      ("stories260K/hf", "bound-cache{policy=equal,keep=0.7},", .f32, "a bounded number of rows"),
      ("stories260K/hf", "rotate{at=[queries]},", .f32, "lies turned already"),
      ("stories260K/hf", "factor-cache{rank=0.5,text=\"t\"},", .f32, "the last rows"),
      ("architectures/bert", "", .f32, "queries see all keys"),
    ] {
      guard let path = Fixtures.path(name) else { return }
      let outcome = try Self.run(
        path, pipeline + "factor-cache{rank=0.5,text=\"t\"}", cache: cache, context: 64, size: 30)
      #expect(
        outcome.count("caches factored") == 0 && outcome.refusals.contains { $0.contains(reason) },
        "\(pipeline) \(outcome.refusals)")
      #expect(outcome.remarks.contains { $0.hasPrefix("no KV cache is factored") })
    }
    guard let gemma = Fixtures.path("architectures/gemma2"), let stories = Fixtures.path("stories260K/hf") else {
      return
    }
    let some = try Self.run(gemma, "factor-cache{rank=0.5,window=8,text=\"t\"}", context: 64, size: 30)
    #expect(
      some.refusals.contains { $0.contains("queries see a window of the keys") } && some.count("caches factored") > 0)
    let short = try Self.run(stories, "factor-cache{rank=0.5,window=64,text=\"t\"}", context: 64, size: 30)
    #expect(short.refusals.contains { $0.contains("the cache has 64 rows, of which 64 stay in any case") })
    // Heads whose caches lie in such bases are not turned any more.
    let late = try Self.run(
      stories, "factor-cache{rank=0.5,text=\"t\"},rotate{at=[queries,values]}", context: 64, size: 30,
      explaining: "rotate")
    #expect(late.refusals.contains { $0.contains("the last rows") })
  }

  @Test func refusesBadOptions() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    for (options, message) in [
      ("rank=0,text=\"t\"", "'rank' of 'factor-cache' is 0.0"),
      ("rank=1.5,text=\"t\"", "'rank' of 'factor-cache' is 1.5"),
      ("rank=nan,text=\"t\"", "rank"), ("window=0,text=\"t\"", "'window' of 'factor-cache' is 0"),
      ("window=9000000,text=\"t\"", "'window' of"), ("", "needs a text"), ("ranks=best,text=\"t\"", "ranks"),
      ("rank=0.25,text=\"t\"", "less than 4 numbers for a head; the least is 0.5"),
      ("rank=0.25,ranks=equal,text=\"t\"", "less than 4 numbers for a head; the least is 0.5"),
      ("rank=0.1,layers=1,text=\"t\"", "less than 8 numbers for a row; the least is 0.25"),
      ("layers=-1,text=\"t\"", "'layers' of 'factor-cache' is -1"),
      ("layers=2000,text=\"t\"", "'layers' of 'factor-cache' is 2000"),
    ] {
      let error = #expect(throws: CompileError.self, "\(options)") {
        _ = try Self.run(path, "factor-cache" + (options.isEmpty ? "" : "{\(options)}"))
      }
      #expect(error?.description.contains(message) == true, "\(options): \(error?.description ?? "")")
    }
  }

  /// The same bytes every time.
  @Test func isDeterministic() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    for layers in [0, 1, 3] {
      let pipeline = "factor-cache{rank=0.5,layers=\(layers),text=\"t\"}"
      #expect(try Self.run(path, pipeline).after == Self.run(path, pipeline).after)
    }
  }
}

extension CachePassOutcome {
  /// The ranks of the caches, keys and values in turn.
  fileprivate var ranks: [Int] { report.figures.filter { $0.name.hasPrefix("rank of ") }.map { Int($0.value) } }
}
