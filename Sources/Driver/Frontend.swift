import Base
import CodeGen
import Formats
import IR
import Passes

/// What brings a model from its file to the stage `transform`.
package struct FrontendOptions: Sendable {
  package var load = LoadOptions()
  /// The outputs that stay; nil for all.
  package var outputs: SelectOutputs?
  /// How much is done where no pipeline is given.
  package var level = Presets.Level.o1
  /// Quantization of the linear layers; nil for the checkpoint's own types.
  package var quantization: QuantizationSpec?
  /// Samples for the quantization: of a model of language to choose codes on, of other networks to measure the ranges of
  /// activations on; nil for codes to the nearest and ranges taken at run time.
  package var calibration: Calibrate?
  /// How the codes of a quantization are chosen; nil for the best that the calibration allows.
  package var method: QuantizationMethod?
  /// The texts that passes read, by path, as ``readTexts(for:)`` finds them.
  package var texts: [String: TokenText] = [:]
  /// Keeps what passes compute on samples; nil for nowhere.
  package var calibrationCache: CalibrationCache?
  /// The file that keeps new data of passes; nil for one that goes away with the model.
  package var spillPath: String?
  /// Gives each layer a format of its own in place of one quantization for all; nil for not at all.
  package var budget: QuantizationBudget?
  /// Turns activations and weights before the quantization; nil for not at all.
  package var rotation: Rotate?
  /// Moves scale between activations and weights before the quantization; nil for not at all.
  package var smoothing: Smooth?
  /// The share of the rows of KV caches that is kept, by the attention that they receive on the samples; nil for all.
  package var cacheShare: Double?
  /// The share of their numbers that old rows of KV caches keep, in bases measured on the samples; nil for all.
  package var cacheRank: Double?
  /// How many successive layers then have rows in common; 0 for rows of heads.
  package var cacheLayers = 1
  /// The share of the numbers of a row that lies beside caches of levels, where a text says what these are like.
  package var cacheOutliers = 0.01
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
  /// The bytes that a model of the stage `transform` takes in the program that is asked for.
  package var programBytes: (Model) throws -> Int = { model in
    try ProgramSize.bytes(model, CodeGenerator(targets: TargetRegistry.targets(named: "native")))
  }
  /// What the passes did.
  package private(set) var reports: [PassManager.Report] = []
  /// Sentences for the user.
  package private(set) var notes: [String] = []

  package init(_ options: FrontendOptions) { self.options = options }

  /// The model at `path`, at `last` or at the later stage that a `.mir` file is in.
  package mutating func run(_ path: String, to last: Stage = .transform) throws -> Model {
    let watch = Stopwatch()
    return try run(load(path), watch, to: last)
  }

  /// The model, which was read since `watch` began, at `last` or at the later stage that it is in.
  package mutating func run(
    _ model: Model, _ watch: Stopwatch = Stopwatch(), to last: Stage = .transform
  ) throws -> Model {
    var model = model
    notes += model.metadata.filter { $0.key == Model.noteKey }.map(\.value)
    if model.stage == .import { try reached?(.import, model, watch.seconds) }
    if model.stage < .simplify, last >= .simplify {
      try advance(&model, to: .simplify, options.pipeline ?? Presets.simplify(options.level))
    }
    if model.stage < .transform, last >= .transform {
      try advance(&model, to: .transform, transformation(of: model) ?? Pipeline([]))
      if options.pipeline == nil { try options.budget?.check(model, takes: programBytes(model)) }
    }
    return model
  }

  /// The model at `path` with the outputs that are asked for.
  package func load(_ path: String) throws -> Model {
    var model = try ModelLoader.load(path, options.load)
    guard let outputs = options.outputs else { return model }
    guard model.stage < .lower else {
      throw CompileError(.usage, "'\(path)' is of the stage '\(model.stage.rawValue)', too late for --outputs")
    }
    // Not one of the passes: what it leaves is the model that these are held against.
    var context = PassContext()
    try outputs.run(&model, &context)
    model.compact()
    return model
  }

  /// The passes that change a model on purpose as the options say, but for those of a pipeline; nil for none.
  package func transformation(of model: Model) throws -> Pipeline? {
    let passes = try preparation(of: model) + (quantization(of: model)?.passes ?? []) + bounding(of: model)
    return passes.isEmpty ? nil : Pipeline(passes)
  }

  /// The passes that change the numbers of a model so that they round well.
  private func preparation(of model: Model) throws -> [any Pass] {
    guard options.pipeline == nil else { return [] }
    var passes: [any Pass] = []
    // Before a rotation, which would turn the heads of a cache in a basis of its own.
    if let rank = options.cacheRank {
      guard let calibration = options.calibration, isLanguage(model) else {
        throw CompileError(
          .usage, "bases of the cache are measured on a text, for a model that reads it; name one with --calibrate")
      }
      passes.append(FactorCache(rank: rank, layers: options.cacheLayers, text: calibration.samples))
    }
    if var rotation = options.rotation {
      if rotation.kind == .auto || rotation.kind == .outlierAware {
        guard let calibration = options.calibration, isLanguage(model) else {
          throw CompileError(
            .usage,
            "--rotate \(rotation.kind.rawValue) measures on a text; name one with --calibrate, for a model that reads it"
          )
        }
        rotation.text = calibration.samples
        if let spec = options.quantization, spec.weights.isQuantized { rotation.spec = spec }
      }
      passes.append(rotation)
    }
    if var smoothing = options.smoothing {
      if let calibration = options.calibration {
        guard isLanguage(model) else {
          throw CompileError(
            .usage,
            "--smooth and --calibrate go together for models that read text; in a pipeline write 'calibrate,smooth'")
        }
        smoothing.text = calibration.samples
      }
      if let spec = options.quantization, spec.weights.isQuantized { smoothing.spec = spec }
      passes.append(smoothing)
    }
    // Behind a rotation, which would turn what attention adds to the keys.
    if options.cacheRank == nil, let text = options.calibration?.samples,
      let type = model[metadata: "cache"].flatMap({ CacheType(rawValue: $0) }), isLanguage(model)
    {
      if type == .i4 { passes.append(CenterKeys(text: text)) }
      if type.levels != nil { passes.append(ChannelCache(outliers: options.cacheOutliers, text: text)) }
    }
    return passes
  }

  /// What bounds the caches, behind all that looks for attention over whole ones.
  private func bounding(of model: Model) throws -> [any Pass] {
    guard options.pipeline == nil, let keep = options.cacheShare else { return [] }
    guard let calibration = options.calibration, isLanguage(model) else {
      throw CompileError(
        .usage, "rows of the cache are kept by the attention that they receive on a text, for a model that reads it")
    }
    return [BoundCache(keep: keep, text: calibration.samples)]
  }

  private func isLanguage(_ model: Model) -> Bool {
    model.functions.first.map { CalibrationSamples.takesTokens($0) } ?? false
  }

  /// The passes that quantize a model as the options say; nil for none.
  private func quantization(of model: Model) throws -> Pipeline? {
    guard options.pipeline == nil else { return nil }
    if let budget = options.budget {
      guard let calibration = options.calibration else {
        throw CompileError(.usage, "bits are given to layers by what they do to a text; name one with --calibrate")
      }
      return try budget.pipeline(calibration, method: options.method ?? .best, for: model)
    }
    guard let spec = options.quantization else { return nil }
    return try Presets.quantize(
      spec, calibration: options.calibration, method: options.method ?? .best,
      isLanguage: isLanguage(model), embeds: model.embedsTexts)
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
    context.spillPath = options.spillPath
    context.results = options.calibrationCache
    context.programBytes = programBytes
    context.samples = { try TensorArchives.samples($0, of: $1) }
    context.tokenSamples = { [texts = options.texts] in try FrontendOptions.windows($0, $1, $2, $3, texts) }
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
