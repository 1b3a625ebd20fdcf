import Base

/// Runs pipelines: verifies after every pass, measures, and keeps what is needed to reproduce a failure.
package struct PassManager {
  /// What one pass did.
  package struct Report: Sendable {
    /// The name of the pass.
    package let name: String
    /// The name with the options that differ from the default, as in a pipeline.
    package let text: String
    package let fidelity: Fidelity
    package let seconds: Double
    /// How often each rule fired, and what else the pass counted.
    package let counters: [PassContext.Counter]
    package let figures: [PassContext.Figure]
    /// The number of nodes before and after, over all functions.
    package let nodesBefore: Int
    package let nodesAfter: Int
    /// Whether the model was changed.
    package let hasChanged: Bool
    /// What the comparison of the model before and after gave; nil without a certifier and where nothing changed.
    package fileprivate(set) var certificate: PassCertificate?
  }

  /// Called after each pass with its report and the verified model, to print or dump it.
  package var afterPass: ((Report, Model) throws -> Void)?

  /// Compares what the model computes before and after each pass; nil for no comparison.
  package var certifier: Certifier?

  /// A manager that calls `afterPass` after each pass.
  package init(afterPass: ((Report, Model) throws -> Void)? = nil) { self.afterPass = afterPass }

  /// Runs the passes of `pipeline` on `model`, which is in canonical form afterwards.
  ///
  /// - Throws: whatever a pass throws, with a note that names the pass. On a defect (an error of kind `.internal`, a model
  ///   that does not verify) the model before that pass and the rest of the pipeline are written to
  ///   `<model>.repro.mir` in the context's work folder, if there is one. An error of kind `.check` if the certifier finds
  ///   that a pass changed what it must not change.
  @discardableResult
  package func run(_ pipeline: Pipeline, on model: inout Model, _ context: inout PassContext) throws -> [Report] {
    try Verifier.verify(model)
    model.compact()
    try certifier?.begin(model)
    var reports: [Report] = []
    for (index, pass) in pipeline.passes.enumerated() {
      let (before, contextBefore) = (model, context)
      do {
        var report = try run(pass, on: &model, &context)
        if report.hasChanged {
          report.certificate = try certify(pass, before, model, contextBefore, context)
        }
        reports.append(report)
      } catch {
        throw failure(error, in: pass, before, Pipeline(Array(pipeline.passes[index...])), context)
      }
      try afterPass?(reports[reports.count - 1], model)
    }
    return reports
  }

  private func run(_ pass: any Pass, on model: inout Model, _ context: inout PassContext) throws -> Report {
    let before = model
    let stopwatch = Stopwatch()
    context.begin(pass.name)
    try pass.run(&model, &context)
    let seconds = stopwatch.seconds
    do {
      try Verifier.verify(model)
    } catch let error as CompileError {
      var error = error
      error.kind = .internal
      throw error.noting("the model does not verify")
    }
    model.compact()
    return Report(
      name: pass.name, text: Pipeline.text(of: pass), fidelity: pass.fidelity, seconds: seconds,
      counters: context.counters, figures: context.figures,
      nodesBefore: before.functions.reduce(0) { $0 + $1.nodeCount },
      nodesAfter: model.functions.reduce(0) { $0 + $1.nodeCount }, hasChanged: model != before)
  }

  /// What the certifier says of a pass.
  private func certify(
    _ pass: any Pass, _ before: Model, _ after: Model, _ contextBefore: PassContext, _ contextAfter: PassContext
  ) throws -> PassCertificate? {
    guard let certifier else { return nil }
    return try certifier.check(
      pass, before: before, after: after, rewrites: contextAfter.rewriteCount - contextBefore.rewriteCount
    ) { count in
      var model = before
      var context = contextBefore.trial(firing: count)
      context.begin(pass.name)
      try pass.run(&model, &context)
      model.compact()
      return (model, context.lastRewrite)
    }
  }

  /// The error of a pass with its place, and with a reproducer if it is a defect.
  private func failure(
    _ error: any Error, in pass: any Pass, _ before: Model, _ rest: Pipeline, _ context: PassContext
  ) -> any Error {
    let known = error as? CompileError ?? CompileError(.internal, "unexpected error: \(error)")
    var result = known.noting("in the pass '\(pass.name)'")
    guard result.kind == .internal, let folder = context.workFolder else { return result }
    do {
      let path = try Reproducer.write(before, rest, into: folder)
      result.notes.append("'\(path)' reproduces this")
    } catch {
      result.notes.append("no reproducer could be written: \(error)")
    }
    return result
  }
}
