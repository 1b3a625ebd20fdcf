import Base
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// The mean of keys outside of the cache leaves the function as it is.
@Suite struct CenterKeysTests {
  /// Windows of ids from the first call on.
  private static func samples(_ graph: Graph, _ count: Int) -> [FunctionInputs] {
    SeededRun.begun(graph, count, seed: 20, size: 48)
  }

  private struct Outcome {
    var before, after: Model
    var reports: [PassManager.Report]
    var refusals: [String]
  }

  private final class Lines: @unchecked Sendable { var all: [String] = [] }

  private static func run(
    _ path: String, _ pipeline: String, cache: CacheType = .f32, explaining pass: String = CenterKeys.name
  ) throws -> Outcome {
    var options = LoadOptions()
    options.cacheType = cache
    var before = try FormatRegistry.load(path, options)
    var context = PassContext()
    try PassManager().run(
      Pipeline(parsing: FixtureTests.pipeline.joined(separator: ","), registry: .all), on: &before, &context)
    context.tokenSamples = { _, _, _, model in model.functions.map { samples($0, 4) } }
    let lines = Lines()
    context.explainedPass = pass
    context.explainRefusal = { lines.all.append($0) }
    var after = before
    let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    return Outcome(before: before, after: after, reports: reports, refusals: lines.all)
  }

  private static func centered(_ outcome: Outcome) -> Int {
    outcome.reports.flatMap(\.counters).filter { $0.name == "attentions centered" }.reduce(0) { $0 + $1.count }
  }

  /// Pairs of halves and of neighbours, heads that turn in part, biases, norms of heads, capped scores, layers with
  /// windows; the number of attentions.
  @Test(arguments: [
    ("stories260K/hf", 5), ("stories260K/stories260K-f32.gguf", 5), ("pycode7m", 8), ("architectures/llama", 3),
    ("architectures/qwen2", 3),
    ("architectures/qwen3-moe", 3), ("architectures/phi3", 3), ("architectures/gpt-neox", 3),
    ("architectures/gemma2", 3),
    ("architectures/olmo2", 3), ("architectures/llama3-rope", 3), ("architectures/qwen3", 3),
    ("architectures/mistral", 3),
  ])
  func keepsTheFunction(_ name: String, _ count: Int) throws {
    guard let path = Fixtures.path(name) else { return }
    let outcome = try Self.run(path, "center-keys{text=\"t\"}")
    #expect(Self.centered(outcome) == count, "\(outcome.refusals)")
    #expect(outcome.reports.last?.figures.count == count)
    // Keys and their means are rounded apart, and scores are sums of both.
    #expect(
      maxRelativeError(
        try RotateTests.outputs(outcome.after, size: 60), try RotateTests.outputs(outcome.before, size: 60)) <= 1e-4)
    #expect(try Parser.parse(Printer.print(outcome.after)) == outcome.after)
  }

  /// Where keys do not come from a rotary embedding, or do not lie as it gives them, they stay.
  @Test func saysWhyKeysStay() throws {
    guard let stories = Fixtures.path("stories260K/hf"), let gpt2 = Fixtures.path("architectures/gpt2") else { return }
    let learned = try Self.run(gpt2, "center-keys{text=\"t\"}")
    #expect(
      Self.centered(learned) == 0 && learned.refusals.contains { $0.contains("no rotary embedding gives the keys") })
    let turned = try Self.run(stories, "rotate{at=[queries]},center-keys{text=\"t\"}")
    #expect(Self.centered(turned) == 0 && turned.refusals.contains { $0.contains("lies turned already") })
    let twice = try Self.run(stories, "center-keys{text=\"t\"},center-keys{text=\"t\"}")
    #expect(Self.centered(twice) == 5 && twice.refusals.contains { $0.contains("the mean is taken out already") })
    let late = try Self.run(stories, "center-keys{text=\"t\"},rotate{at=[queries]}", explaining: "rotate")
    #expect(late.refusals.contains { $0.contains("the keys lie less their mean") })
    #expect(!late.reports.flatMap(\.counters).contains { $0.name == "queries turned" && $0.count > 0 })
  }

  /// The same bytes every time.
  @Test func isDeterministic() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let first = try Self.run(path, "center-keys{text=\"t\"}").after
    #expect(try Self.run(path, "center-keys{text=\"t\"}").after == first)
  }
}
