import Base
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// What a pass over caches makes of a model, with seeded samples in place of its text.
struct CachePassOutcome {
  let before, after: Model
  /// Of the pass that is tested.
  let report: PassManager.Report
  let remarks: [String]
  /// What was explained.
  let refusals: [String]

  func count(_ name: String) -> Int { report.counters.first { $0.name == name }?.count ?? 0 }

  private final class Lines: @unchecked Sendable { var all: [String] = [] }

  /// A model after `pipeline`, in which `pass` is tested, with three samples of `size` tokens; refusals are those of
  /// `explained`, or of the tested pass.
  init(
    _ model: Model, _ pipeline: String, of pass: String, seed: UInt64, size: Int = 96,
    explaining explained: String? = nil
  ) throws {
    var context = PassContext()
    context.tokenSamples = { _, _, _, model in
      model.functions.map { SeededRun.begun($0, 3, seed: seed, size: size) }
    }
    let lines = Lines()
    context.explainedPass = explained ?? pass
    context.explainRefusal = { lines.all.append($0) }
    var after = model
    let reports = try PassManager().run(Pipeline(parsing: pipeline, registry: .all), on: &after, &context)
    report = try #require(reports.last { $0.name == pass })
    (before, self.after) = (model, after)
    (remarks, refusals) = (context.remarks.map(\.text), lines.all)
  }

  /// The same for a checkpoint with a cache of so many rows, after exact passes.
  init(
    _ path: String, _ pipeline: String, of pass: String, seed: UInt64, cache: CacheType = .f32,
    context rows: Int? = 160,
    size: Int = 96, explaining explained: String? = nil
  ) throws {
    var options = LoadOptions()
    options.cacheType = cache
    options.context = rows
    var model = try FormatRegistry.load(path, options)
    var context = PassContext()
    try PassManager().run(
      Pipeline(parsing: FixtureTests.pipeline.joined(separator: ","), registry: .all), on: &model, &context)
    try self.init(model, pipeline, of: pass, seed: seed, size: size, explaining: explained)
  }
}
