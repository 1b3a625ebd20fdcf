import Base
import CodeGen
import Formats
import IR
import Passes

/// What brings a model from its file to the stage `transform`.
package struct FrontendOptions: Sendable {
  package var load = LoadOptions()
  /// How much is done where no pipeline is given.
  package var level = Presets.Level.o1
  /// Quantization of the linear layers; nil for the checkpoint's own types.
  package var quantization: QuantizationSpec?
  /// Samples to measure the ranges of activations on, for the quantization; nil for ranges taken at run time.
  package var calibration: Calibrate?
  /// Turns activations and weights before the quantization; nil for not at all.
  package var rotation: Rotate?
  /// Passes that replace the preset and the quantization.
  package var pipeline: Pipeline?
  package var rewriteLimit: Int?
  package var tracesRewrites = false
  package var verifiesEachRewrite = false
  /// How the passes are checked; nil for not at all.
  package var check: CheckOptions?
  /// A pass or rule whose refusals are printed to standard error.
  package var explained: String?
  /// Where a reproducer goes when a pass fails inside; nil for nowhere.
  package var reproducerFolder: String? = "."

  package init() {}
}

/// Loads a model and runs the passes that know nothing of a CPU.
package struct Frontend {
  package var options: FrontendOptions
  /// Called when a stage has been reached, with the model and the seconds it took.
  package var reached: ((Stage, Model, Double) throws -> Void)?
  /// What the passes did.
  package private(set) var reports: [PassManager.Report] = []
  /// Sentences for the user.
  package private(set) var notes: [String] = []

  package init(_ options: FrontendOptions) { self.options = options }

  /// The model at `path`, at `last` or at the later stage that a `.mir` file is in.
  package mutating func run(_ path: String, to last: Stage = .transform) throws -> Model {
    let watch = Stopwatch()
    var model = try ModelLoader.load(path, options.load)
    notes += model.metadata.filter { $0.key == Model.noteKey }.map(\.value)
    if model.stage == .import { try reached?(.import, model, watch.seconds) }
    if model.stage < .simplify, last >= .simplify {
      try advance(&model, to: .simplify, options.pipeline ?? Presets.simplify(options.level))
    }
    if model.stage < .transform, last >= .transform {
      let transform =
        try options.pipeline == nil
        ? options.quantization.map { try Presets.quantize($0, calibration: options.calibration) } : nil
      let rotation: [any Pass] = options.pipeline == nil ? options.rotation.map { [$0] } ?? [] : []
      try advance(&model, to: .transform, Pipeline(rotation + (transform?.passes ?? [])))
    }
    return model
  }

  private mutating func advance(_ model: inout Model, to stage: Stage, _ pipeline: Pipeline) throws {
    let watch = Stopwatch()
    model.stage = stage
    try run(pipeline, on: &model)
    try reached?(stage, model, watch.seconds)
  }

  /// Runs a pipeline and keeps its reports.
  package mutating func run(_ pipeline: Pipeline, on model: inout Model) throws {
    if certifier == nil { certifier = options.check?.certifier() }
    var manager = PassManager()
    manager.certifier = certifier
    var context = PassContext()
    context.workFolder = options.reproducerFolder
    context.samples = { try TensorArchives.samples($0, of: $1) }
    let progress = Progress()
    context.progress = progress
    defer { progress.clear() }
    context.rewriteLimit = options.rewriteLimit.map { $0 - rewrites }
    context.verifiesEachRewrite = options.verifiesEachRewrite
    let refusals = try explain(pipeline, &context)
    defer { refusals?.finish() }
    if options.tracesRewrites { context.traceRewrite = { Standard.error($0) } }
    defer {
      rewrites += context.rewriteCount
      notes += context.remarks.map(\.text)
    }
    reports += try manager.run(pipeline, on: &model, &context)
  }

  private var rewrites = 0
  private var certifier: Certifier?

  /// Lets `context` print why the explained pass or rule leaves places as they are.
  private func explain(_ pipeline: Pipeline, _ context: inout PassContext) throws -> Refusals? {
    guard let name = options.explained else { return nil }
    let passes = Presets.registry.types
    if Presets.registry[name] != nil {
      context.explainedPass = name
    } else {
      let rules = passes.flatMap { $0.init().ruleNames }
      guard rules.contains(name) else {
        let suggestion = Base.suggestion(for: name, in: passes.map { $0.name } + rules)
        throw CompileError(.usage, "--explain names the unknown pass or rule '\(name)'\(suggestion)")
      }
      context.explainedRule = name
    }
    // The passes of a quantization are a pipeline of their own.
    guard pipeline.passes.contains(where: { $0.name == name || $0.ruleNames.contains(name) }) else { return nil }
    let refusals = Refusals(name)
    context.explainRefusal = { refusals.add($0) }
    return refusals
  }
}
