import Base
import CodeGen
import Formats
import IR
import Tensors

/// Runs the stages of a compilation, from a file to a program.
package struct Compiler {
  private let options: CompileOptions
  private let progress = Progress()
  private var summary = Summary()

  package init(_ options: CompileOptions) { self.options = options }

  /// The model at `path` at a stage that has a text form.
  package static func model(
    _ path: String, at stage: Stage, _ options: FrontendOptions, target: String = "native"
  ) throws -> Model {
    var compiler = Compiler(CompileOptions())
    var frontend = Frontend(options)
    var model = try frontend.run(path, to: min(stage, .transform))
    guard model.stage <= stage else {
      throw CompileError(
        .usage, "'\(path)' is of the stage '\(model.stage.rawValue)', which is later than '\(stage.rawValue)'")
    }
    if stage == .lower, model.stage < .lower {
      try compiler.lower(&model, CodeGenerator(targets: TargetRegistry.targets(named: target)), options)
    }
    return model
  }

  /// Compiles the model at `path`; the summary of what was done.
  package mutating func compile(_ path: String) async throws -> Summary {
    defer { progress.clear() }
    let watch = Stopwatch()
    progress.update("reading \(path)")
    try options.checkOutputs()
    if let folder = options.dumpFolder { try WorkFolder.create(folder) }
    let targets = try TargetRegistry.targets(named: options.target)
    var model = try runFrontend(path, targets)
    summary.bitsPerWeight = BitsPerWeight(model)
    summary.recipe = model[metadata: "quantization"]
    if options.lastStage <= .transform { return try finish(model, watch) }

    let records = try await self.records(targets, model)
    let generator = CodeGenerator(targets: targets, kernels: options.kernels, records: records)
    if options.refusesSlowTypes { try NarrowTypeCheck(generator).check(model, options.frontend) }
    summary.target = generator.targetName
    if model.stage < .lower {
      progress.update("choosing kernels")
      try lower(&model, generator, options.frontend)
    }
    if options.lastStage == .lower { return try finish(model, watch) }

    var stage = Stopwatch()
    let schedule = try generator.schedule(model)
    summary.stages.append((.schedule, stage.seconds))
    summary.weightsBytes = schedule.weightsBytes
    summary.arenaBytes = schedule.arenaBytes
    summary.cacheBytesPerToken = schedule.cacheBytesPerToken
    summary.fixedStateBytes = schedule.fixedStateBytes
    if options.lastStage == .schedule {
      try write("\(schedule)\n")
      summary.seconds = watch.seconds
      return summary
    }

    stage = Stopwatch()
    progress.update("writing C")
    let architecture = targets.lazy.compactMap(\.architecture).first
    let compiler = options.lastStage == .emit ? nil : try await CCompiler.find(for: architecture)
    let swiftCompiler =
      options.kernels == .swift && options.artefact == .exe && compiler != nil
      ? try await SwiftCompiler.find(for: architecture) : nil
    var manifest = Manifest(
      compiler: "mcc \(Version.number)", cCompiler: options.artefact == .exe ? compiler?.version ?? "" : "",
      passes: summary.passes.map {
        Manifest.PassRecord(
          name: $0.name, options: $0.text, fidelity: $0.fidelity.rawValue, check: $0.certificate?.json)
      },
      sources: try sources(of: model))
    manifest.machine = records[targets[0].name]?.summary
    let emission = try generator.emit(schedule, of: model, manifest: manifest)
    summary.stages.append((.emit, stage.seconds))

    guard let output = options.output else { throw CompileError(.usage, "an output is needed; name it with -o") }
    stage = Stopwatch()
    let showWeights: @Sendable (Int, Int) -> Void = { [progress] done, total in
      progress.update("writing weights", done: done, of: total)
    }
    if options.writesSources {
      try generator.writeSources(emission, to: output, progress: showWeights)
    } else if let compiler {
      progress.update("compiling C")
      let folder = try options.keep.map { try WorkFolder(keepingAt: $0) } ?? WorkFolder()
      let cache = Measurements.folder(options.cacheFolder).map { ObjectCache(folder: $0) }
      let toolchain = Toolchain(
        compiler: compiler, swiftCompiler: swiftCompiler, jobs: options.jobs, cache: cache)
      let report = try await generator.build(
        emission, to: output, toolchain: toolchain, in: folder, progress: showWeights)
      summary.fileBytes = report.fileBytes
      summary.objects = report.toolchain
    }
    summary.stages.append((.build, stage.seconds))
    summary.seconds = watch.seconds
    return summary
  }

  /// What is known of this machine, by target; with `--tune` the candidates that were never timed are timed first.
  private func records(_ targets: [Target], _ model: Model) async throws -> [String: MachineRecord] {
    let cache = Measurements.folder(options.cacheFolder)
    var records: [String: MachineRecord] = [:]
    for target in targets {
      records[target.name] = Measurements.record(target, cache: cache)
      if options.tunes, model.stage < .lower {
        progress.update("timing kernels")
        var known = try await Measurements.measured(target, cache: cache)
        _ = try await Measurements.tune(model, target, &known, cache: cache)
        records[target.name] = known
      }
    }
    return records
  }

  private mutating func runFrontend(_ path: String, _ targets: [Target]) throws -> Model {
    var frontend = Frontend(options.frontend)
    let cache = Measurements.folder(options.cacheFolder)
    var records: [String: MachineRecord] = [:]
    for target in targets { records[target.name] = Measurements.record(target, cache: cache) }
    let generator = CodeGenerator(targets: targets, kernels: options.kernels, records: records)
    frontend.programBytes = { try ProgramSize.bytes($0, generator) }
    var stages: [(Stage, Double)] = []
    let folder = options.dumpFolder
    frontend.reached = { stage, model, seconds in
      stages.append((stage, seconds))
      if let folder { try Self.dump(model, to: folder) }
    }
    let model = try frontend.run(path, to: min(options.lastStage, .transform))
    summary.stages = stages
    summary.passes = frontend.reports
    summary.notes = frontend.notes
    return model
  }

  private mutating func lower(_ model: inout Model, _ generator: CodeGenerator, _ options: FrontendOptions) throws {
    let watch = Stopwatch()
    model.stage = .lower
    var context = PassContext()
    context.workFolder = options.reproducerFolder
    try generator.lower(&model, &context)
    summary.stages.append((.lower, watch.seconds))
    summary.notes += context.remarks.map(\.text)
    if let folder = self.options.dumpFolder { try Self.dump(model, to: folder) }
  }

  /// Writes `02-simplify.mir` and so on.
  private static func dump(_ model: Model, to folder: String) throws {
    let number = model.stage.number
    let path = "\(folder)/\(number < 10 ? "0" : "")\(number)-\(model.stage.rawValue).mir"
    try AtomicFile.write(try Printer.print(model, relativeTo: folder), to: path)
  }

  private mutating func finish(_ model: Model, _ watch: Stopwatch) throws -> Summary {
    try write(try Printer.print(model, relativeTo: options.output.map { ArchivePath.folder(of: $0) }))
    summary.seconds = watch.seconds
    return summary
  }

  private func write(_ text: String) throws {
    progress.clear()
    if let output = options.output { try AtomicFile.write(text, to: output) } else { Standard.write(text, to: 1) }
  }

  /// The files of constants with their hashes.
  private func sources(of model: Model) throws -> [Manifest.SourceRecord] {
    try model.archives.map { archive in
      progress.update("hashing \(archive.file.path)")
      var hash = SHA256()
      let step = 16 << 20
      for start in stride(from: 0, to: archive.file.size, by: step) {
        let range = start..<min(start + step, archive.file.size)
        hash.update(try archive.file.slice(range))
        archive.file.release(range)
      }
      return Manifest.SourceRecord(
        name: ArchivePath.name(of: archive.file.path), sha256: hash.hexDigest(), bytes: archive.file.size)
    }
  }
}
