import Base
import IR
import Tensors

/// From a model of the stage `transform` to a program: the steps that need to know the processor.
package struct CodeGenerator: Sendable {
  package let target: Target
  /// The language of the kernels.
  package let language: KernelLanguage
  private let registry: KernelRegistry
  /// What was measured on this machine, if kernels are to be chosen by it.
  private let record: MachineRecord?

  /// A generator of code for a target, with kernels in a language, chosen by what was measured on this machine.
  package init(target: Target, kernels language: KernelLanguage = .c, record: MachineRecord? = nil) {
    self.target = target
    self.language = language
    self.record = record
    registry = KernelRegistry(target: target)
  }

  // MARK: Lower and schedule

  /// The passes of lowering, in order.
  package var loweringPasses: [any Pass] {
    [Specialize(), Decompose(target: target.name), ChannelsLast(), SelectKernels(target: target.name, record: record)]
  }

  /// What a model of the stage `transform` asks of the kernels, with all candidates.
  package func survey(_ model: Model) throws -> KernelSurvey {
    var model = model
    var context = PassContext()
    model.stage = .lower
    try PassManager().run(Pipeline(Array(loweringPasses.dropLast())), on: &model, &context)
    return try KernelSelection(KernelRegistry.library(target, record)).survey(model)
  }

  /// Lowers a model of the stage `transform`.
  package func lower(_ model: inout Model, _ context: inout PassContext) throws {
    try PassManager().run(Pipeline(loweringPasses), on: &model, &context)
  }

  /// The schedule of a lowered model.
  ///
  /// - Throws: `CompileError` of kind `.usage` if the model was lowered for another target.
  package func schedule(_ model: Model) throws -> Schedule {
    if let other = model[metadata: "target"], other != target.name {
      throw CompileError(
        .usage, "the model was lowered for the target '\(other)', which is not '\(target.name)'",
        notes: ["name the target with --target"])
    }
    return try Scheduler(registry).schedule(model)
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
    let json = manifest.json(schedule, of: model, target: target)
    // The C compiler is told in the manifest but does not decide what belongs together.
    var salt = manifest
    salt.cCompiler = ""
    let emitter = ModelEmitter(
      schedule, of: model, target: target, kernels: language, compiler: manifest.compiler)
    let sources = try emitter.sources(salt: salt.json(schedule, of: model, target: target).text())
    let tokenizer = sources.isLanguageModel ? try model.tokenizer.map { try TokenizerSection.encode($0) } ?? [] : []
    let settings = sources.isLanguageModel ? SettingsSection.encode(model.generation, model.tokenizer) : []
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
    let runtime = RuntimeSources.files(isLanguageModel: emission.sources.isLanguageModel)
    for file in emission.sources.sources + emission.sources.headers + runtime {
      try AtomicFile.write(file.text, to: folder.file(file.name))
    }
    let bundle = try AtomicFile(path: folder.file("bundle.bin"))
    try Bundle.append(emission.contents, to: bundle) { offset in
      try Materializer(emission.schedule, of: emission.model).write(to: bundle, at: offset, progress: progress)
    }
    try bundle.commit()
    let makefile = Makefile.text(
      program: Self.programName(emission.model), sources: emission.sources.sources.map(\.name),
      runtime: runtime.map(\.name).filter { $0.hasSuffix(".c") }, target: target)
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
    let runtime = RuntimeSources.files(isLanguageModel: sources.isLanguageModel)
    var headers: [String: String] = [:]
    for file in sources.headers + runtime where file.name.hasSuffix(".h") { headers[file.name] = file.text }
    let modelFlags = ["-std=gnu11", "-O3"] + target.compilerFlags
    let units =
      sources.sources.map { file in
        guard file.name.hasSuffix(".swift") else {
          return CompileUnit(
            name: file.name, text: file.text, headers: RuntimeSources.headers(of: file.text, among: headers),
            flags: modelFlags)
        }
        // Swift files do not say what they include: each has the header of its name.
        let header = file.name.dropLast("swift".count) + "h"
        return CompileUnit(
          name: file.name, text: file.text,
          headers: RuntimeSources.headers(of: "#include \"\(header)\"", among: headers),
          flags: SwiftRenderer.compilerFlags(target: target))
      }
      + runtime.filter { $0.name.hasSuffix(".c") }.map {
        CompileUnit(
          name: $0.name, text: $0.text, headers: RuntimeSources.headers(of: $0.text, among: headers),
          flags: ["-std=gnu11", "-O2"])
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
