import Base
import IR
import Tensors

/// From a model of the stage `transform` to a program: the steps that need to know the processor.
package struct CodeGenerator: Sendable {
  /// The targets, best first; a program for several chooses at start.
  package let targets: [Target]
  /// The language of the kernels.
  package let language: KernelLanguage
  /// What was measured on this machine, by target, if kernels are to be chosen by it.
  private let records: [String: MachineRecord]
  private let levels: KernelLevels

  /// A generator of code for a target, with kernels in a language, chosen by what was measured on this machine.
  package init(target: Target, kernels language: KernelLanguage = .c, record: MachineRecord? = nil) {
    self.init(targets: [target], kernels: language, records: record.map { [target.name: $0] } ?? [:])
  }

  /// A generator of code for targets that `TargetRegistry.targets(named:)` gave.
  package init(targets: [Target], kernels language: KernelLanguage = .c, records: [String: MachineRecord] = [:]) {
    self.targets = targets
    self.language = language
    self.records = records
    levels = KernelLevels(targets, records)
  }

  /// The names of the targets.
  package var targetName: String { TargetRegistry.name(of: targets) }

  // MARK: Lower and schedule

  /// The passes of lowering, in order.
  package var loweringPasses: [any Pass] {
    [Specialize(), FuseLMHead(target: targetName)] + (targets.count > 1 ? [SplitLevels(targets: targetName)] : [])
      + [Decompose(target: targetName), ChannelsLast(), SelectKernels(target: targetName, records: records)]
  }

  /// What a model of the stage `transform` asks of the kernels, with all candidates.
  package func survey(_ model: Model) throws -> KernelSurvey {
    var model = model
    var context = PassContext()
    model.stage = .lower
    try PassManager().run(Pipeline(Array(loweringPasses.dropLast())), on: &model, &context)
    return try KernelSelection(levels).survey(model)
  }

  /// The ways to compute a query on the target of an index.
  package func choices(for query: KernelQuery, level: Int = 0) throws -> [KernelChoice] {
    try levels.choices(for: query, level: level)
  }

  /// Lowers a model of the stage `transform`.
  package func lower(_ model: inout Model, _ context: inout PassContext) throws {
    try PassManager().run(Pipeline(loweringPasses), on: &model, &context)
  }

  /// The schedule of a lowered model.
  ///
  /// - Throws: `CompileError` of kind `.usage` if the model was lowered for another target.
  package func schedule(_ model: Model) throws -> Schedule {
    if let other = model[metadata: "target"], other != targetName {
      throw CompileError(
        .usage, "the model was lowered for the target '\(other)', which is not '\(targetName)'",
        notes: ["name the target with --target"])
    }
    return try Scheduler(levels).schedule(model)
  }

  // MARK: Emit

  /// Everything a program is made of besides machine code.
  package struct Emission: Sendable {
    package var sources: GeneratedSources
    package var schedule: Schedule
    package var model: Model
    package var manifest: JSON
    /// The bundle without its weights.
    package var contents: Bundle.Contents
  }

  /// The sources and the data of a program.
  package func emit(_ schedule: Schedule, of model: Model, manifest: Manifest) throws -> Emission {
    let json = manifest.json(schedule, of: model, targets: targets)
    // The C compiler is told in the manifest but does not decide what belongs together.
    var salt = manifest
    salt.cCompiler = ""
    let emitter = ModelEmitter(
      schedule, of: model, targets: targets, kernels: language, compiler: manifest.compiler)
    let sources = try emitter.sources(salt: salt.json(schedule, of: model, targets: targets).text())
    let tokenizer = sources.face != .network ? try model.tokenizer.map { try TokenizerSection.encode($0) } ?? [] : []
    let settings = sources.face == .languageModel ? SettingsSection.encode(model.generation, model.tokenizer) : []
    return Emission(
      sources: sources, schedule: schedule, model: model, manifest: json,
      contents: Bundle.Contents(
        identity: sources.identity, weightsBytes: schedule.weightsBytes, tokenizer: tokenizer,
        manifest: json.bytes(pretty: true), settings: settings))
  }

  /// The name of the program in files: that of the model, with what file names do not bear replaced.
  private static func programName(_ model: Model) -> String {
    let name = Identifiers.sanitized(model.name)
    return name == "model" || name == "kernels" ? name + "_program" : name
  }

  /// Writes the folder of `--emit c`: sources, runtime, `bundle.bin` and a Makefile.
  ///
  /// - Throws: `CompileError` of kind `.create` or `.io` if a file cannot be written.
  package func writeSources(
    _ emission: Emission, to path: String, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
  ) throws {
    let folder = try WorkFolder(keepingAt: path)
    let runtime = RuntimeSources.files(of: emission.sources.face)
    for file in emission.sources.sources + emission.sources.headers + runtime {
      try AtomicFile.write(file.text, to: folder.file(file.name))
    }
    let bundle = try AtomicFile(path: folder.file("bundle.bin"))
    try Bundle.append(emission.contents, to: bundle) { offset in
      try Materializer(emission.schedule, of: emission.model).write(to: bundle, at: offset, progress: progress)
    }
    try bundle.commit()
    let makefile = Makefile.text(
      program: Self.programName(emission.model), sources: emission.sources.sources,
      runtime: runtime.filter { $0.name.hasSuffix(".c") }, targets: targets)
    try AtomicFile.write(makefile, to: folder.file("Makefile"))
  }

  // MARK: Build

  /// What a build did.
  package struct BuildReport: Hashable, Sendable {
    package var toolchain: Toolchain.Report
    /// Bytes of machine code, of the bundle, and of the file.
    package var codeBytes: Int
    package var bundleBytes: Int
    package var fileBytes: Int { codeBytes + bundleBytes }
  }

  /// The translation units of a program.
  package func units(_ sources: GeneratedSources) -> (units: [CompileUnit], headers: [String: String]) {
    let runtime = RuntimeSources.files(of: sources.face)
    var headers: [String: String] = [:]
    for file in sources.headers + runtime where file.name.hasSuffix(".h") { headers[file.name] = file.text }
    let c = runtime.filter { $0.name.hasSuffix(".c") }
    let units = (sources.sources + c).map { file in
      // Swift files do not say what they include: each has the header of its name.
      let isSwift = file.name.hasSuffix(".swift")
      let includes = isSwift ? "#include \"\(file.name.dropLast("swift".count))h\"" : file.text
      return CompileUnit(
        name: file.name, text: file.text, headers: RuntimeSources.headers(of: includes, among: headers),
        flags: file.flags)
    }
    return (units, headers)
  }

  /// Compiles the program and writes it with its bundle to one executable file.
  ///
  /// - Parameters:
  ///   - emission: what ``emit(_:of:manifest:)`` gave.
  ///   - output: the path of the program.
  ///   - toolchain: the compiler.
  ///   - folder: where sources and objects go.
  ///   - progress: receives the bytes of weights written so far and those of all.
  /// - Returns: sizes, and how much was compiled.
  /// - Throws: `CompileError` of kind `.toolchain`, `.create` or `.io`; no output is left behind.
  package func build(
    _ emission: Emission, to output: String, toolchain: Toolchain, in folder: WorkFolder,
    progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
  ) async throws -> BuildReport {
    // An output that cannot be written is found before anything is compiled.
    let file = try AtomicFile(path: output, permissions: 0o777)
    let (units, headers) = units(emission.sources)
    let program = folder.file("program")
    let report = try await toolchain.build(units, headers: headers, output: program, in: folder)
    try file.append(try MappedFile.contents(path: program))
    try file.pad(to: Bundle.page)
    let codeBytes = file.offset
    let trailer = try Bundle.append(emission.contents, to: file) { offset in
      try Materializer(emission.schedule, of: emission.model).write(to: file, at: offset, progress: progress)
    }
    try file.commit()
    return BuildReport(toolchain: report, codeBytes: codeBytes, bundleBytes: trailer.bundleBytes)
  }
}
