import Base
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Caches of a bounded number of rows.
@Suite struct BoundCacheTests {
  private static func run(
    _ path: String, _ pipeline: String, cache: CacheType = .f32, context rows: Int? = 160, size: Int = 96
  ) throws -> CachePassOutcome {
    try CachePassOutcome(
      path, pipeline, of: BoundCache.name, seed: 40, cache: cache, context: rows, size: size)
  }

  /// The rows of all layers add up to the budget, whatever the policy; caches have that many, in their own type.
  @Test(arguments: [("prefix", 0.5), ("prefix", 0.3), ("equal", 0.3), ("window", 0.25), ("prefix", 0.2)])
  func rowsAddUpToTheBudget(_ policy: String, _ keep: Double) throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let options = "keep=\(keep),policy=\(policy),recent=16,text=\"t\""
    let outcome = try Self.run(path, "bound-cache{\(options)}", cache: .f16)
    #expect(outcome.rows.count == 5 && outcome.count("caches bounded") == 5)
    #expect(outcome.count("of rows") == 5 * 160)
    let sum = outcome.rows.reduce(0, +)
    #expect(abs(Double(sum) - keep * 800) <= 0.01 * keep * 800, "\(outcome.rows)")
    #expect(outcome.count("rows kept") == sum)
    #expect(outcome.rows.allSatisfy { $0 >= 20 && $0 <= 160 })
    if policy != "prefix" { #expect(Set(outcome.rows).count == 1) } else { #expect(Set(outcome.rows).count > 1) }
    let graph = outcome.after.functions[0]
    let types = graph.states.map { graph.type(of: $0.value) }
    for (layer, rows) in outcome.rows.enumerated() {
      #expect(types[2 * layer] == TensorType(.f16, [4, rows, 8]) && types[2 * layer + 1] == types[2 * layer])
      #expect(types[10 + layer] == TensorType(.f32, [4, 2, rows]))
    }
    #expect(try Parser.parse(Printer.print(outcome.after)) == outcome.after)
    let last = graph.nodeIDs.compactMap { graph[$0].op as? BoundedAttention }.map(\.recent)
    #expect(last == outcome.rows.map { policy == "window" ? $0 - 4 : 16 })
  }

  /// A text that fits gives what it gave: keys are scored in the same order.
  @Test(arguments: [
    "stories260K/hf", "architectures/qwen2", "architectures/gpt2", "architectures/gpt-neox", "pycode7m",
  ])
  func keepsTheFunctionOfShortTexts(_ name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let outcome = try Self.run(path, "bound-cache{keep=0.5,policy=equal,recent=8}", context: 64)
    #expect(outcome.count("caches bounded") > 0, "\(outcome.refusals)")
    let (short, long) = (
      try RotateTests.outputs(outcome.after, size: 32), try RotateTests.outputs(outcome.after, size: 33)
    )
    // Sums in another order.
    #expect(maxRelativeError(short, try RotateTests.outputs(outcome.before, size: 32)) <= 1e-5)
    #expect(maxRelativeError(long, try RotateTests.outputs(outcome.before, size: 33)) > 1e-5)
  }

  /// All of the rows, or as many as there are: nothing changes.
  @Test func keepsWholeCaches() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    for options in ["keep=1,text=\"t\"", "keep=1,policy=equal", "rows=[160, 160, 160, 160, 160]"] {
      let outcome = try Self.run(path, "bound-cache{\(options)}")
      #expect(outcome.after == outcome.before)
    }
    let some = try Self.run(path, "bound-cache{rows=[160, 50, 160, 36, 160]}")
    #expect(some.count("caches bounded") == 2 && some.rows == [160, 50, 160, 36, 160])
  }

  /// Two attentions: one whose queries find a few keys, and one that looks everywhere alike. The first gets few rows, the
  /// second the rest, and both retain the same share of the attention on the samples.
  @Test func rowsFollowAttention() throws {
    let text = """
      model @planted {
        func @main <T in 1...200> (
          %q: f32[T, 4], %k: f32[T, 4], %position: i32[1]
        ) state(%k0: f32[200, 4], %v0: f32[200, 4], %k1: f32[200, 4], %v1: f32[200, 4]) -> (y: f32[T, 4], z: f32[T, 4]) {
          %k0_new = cache_update(%k0, %k, %position)
          %v0_new = cache_update(%v0, %k, %position)
          %y = attention(%q, %k0_new, %v0_new, %position) {heads = 1, kvHeads = 1, scale = 8}
          %k1_new = cache_update(%k1, %k, %position)
          %v1_new = cache_update(%v1, %k, %position)
          %z = attention(%q, %k1_new, %v1_new, %position) {heads = 1, kvHeads = 1, scale = 0}
          update %k0 = %k0_new
          update %v0 = %v0_new
          update %k1 = %k1_new
          update %v1 = %v1_new
          return %y, %z
        }
      }
      """
    let model = try Parser.parse(text)
    let outcome = try CachePassOutcome(
      model, "bound-cache{keep=0.4,sinks=0,recent=2,text=\"t\"}", of: BoundCache.name, seed: 40, size: 200)
    #expect(outcome.rows.reduce(0, +) == 160 && outcome.rows[0] * 3 < outcome.rows[1], "\(outcome.rows)")
    let graph = model.functions[0]
    let nodes = graph.topologicalOrder().filter { graph[$0].op is Attention }
    var retained: [Double] = []
    for (node, rows) in zip(nodes, outcome.rows) {
      let op = try #require(graph[node].op as? Attention)
      var shares: [Double] = []
      for sample in SeededRun.begun(graph, 3, seed: 40, size: 200) {
        let (q, k) = (sample.inputs[0].view, sample.inputs[1].view)
        let received = try op.received([q, k, k, sample.inputs[2].view]).map(Double.init).sorted(by: >)
        shares.append(received[..<rows].reduce(0, +) / received.reduce(0, +))
      }
      retained.append(shares.reduce(0, +) / 3)
    }
    // A row is a two-hundredth of the flat one's attention, and more of the other's.
    #expect(abs(retained[0] - retained[1]) <= 0.02, "\(retained)")
  }

  @Test func saysWhyCachesStay() throws {
    func refusals(_ name: String, _ pipeline: String = "", cache: CacheType = .f32) throws -> CachePassOutcome? {
      guard let path = Fixtures.path(name) else { return nil }
      return try Self.run(path, pipeline + "bound-cache{policy=equal,recent=8}", cache: cache, context: 64, size: 30)
    }
    for (name, pipeline, cache, reason) in [
      ("stories260K/hf", "", CacheType.i8, "the cache of keys holds codes"),
      ("stories260K/hf", "", .i4, "the last tokens lie apart from the cache"),
      ("stories260K/hf", "center-keys{text=\"t\"},", .f32, "keys lie in the cache without their mean"),
      ("stories260K/hf", "quantize-attention,", .f32, "the attention computes in bytes"),
      ("architectures/bert", "", .f32, "queries see all keys"),
    ] {
      guard let outcome = try refusals(name, pipeline, cache: cache) else { return }
      #expect(
        outcome.count("caches bounded") == 0 && outcome.refusals.contains { $0.contains(reason) }, "\(outcome.refusals)"
      )
      #expect(outcome.remarks.contains { $0.hasPrefix("no KV cache is bounded") })
    }
    guard let some = try refusals("architectures/gemma2") else { return }
    #expect(
      some.refusals.contains { $0.contains("queries see a window of the keys") } && some.count("caches bounded") > 0)
  }

  @Test func refusesBadOptions() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    for (options, message) in [
      ("keep=0,policy=equal", "'keep' of 'bound-cache' is 0.0"),
      ("keep=1.5,policy=equal", "'keep' of 'bound-cache' is 1.5"),
      ("keep=nan,policy=equal", "keep"), ("sinks=-1,policy=equal", "'sinks' of 'bound-cache' is -1"),
      ("recent=0,policy=equal", "'recent' of 'bound-cache' is 0"), ("recent=9000000,policy=equal", "'recent' of"),
      ("", "needs a text"), ("rows=[40, 40]", "has 2 numbers for 5 caches"),
      ("rows=[40, 40, 40, 40, 35]", "names 35 rows of 160, expected at least 36"),
      ("rows=[40, 40, 40, 40, 161]", "names 161 rows of 160"),
      ("keep=0.2,policy=equal", "keeping 0.2 of 800 rows leaves less than 36 for each of 5 caches"),
      ("keep=0.2,text=\"t\"", "keep at least 0.225"), ("policy=best", "policy"),
    ] {
      let error = #expect(throws: CompileError.self, "\(options)") {
        _ = try Self.run(path, "bound-cache" + (options.isEmpty ? "" : "{\(options)}"))
      }
      #expect(error?.description.contains(message) == true, "\(options): \(error?.description ?? "")")
    }
  }
}

extension CachePassOutcome {
  /// The rows of the caches, one after the other.
  fileprivate var rows: [Int] { report.figures.map { Int($0.value) } }
}
