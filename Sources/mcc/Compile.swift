import ArgumentParser
import Base
import CodeGen
import Driver
import IR
import Tensors

extension Artefact: ExpressibleByArgument {}
extension KernelLanguage: ExpressibleByArgument {}

/// `mcc compile`: from a checkpoint to a program.
struct Compile: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compiles a model into an executable, C sources or IR.",
    discussion: """
      The model is a Hugging Face folder, a GGUF file, an ONNX graph, or a .mir file of any stage, from which \
      compilation goes on.
      """)

  @Argument(help: "A checkpoint or a .mir file.")
  var model: String

  @Option(
    name: .shortAndLong, help: "The file or folder to write. (default: the model's name; standard output for mir)")
  var output: String?

  @Option(help: "What to write.")
  var emit: Artefact = .exe

  @Option(help: "The CPU to compile for, or several with commas; 'mcc targets' lists them.")
  var target = "native"

  @Option(help: "The language that kernels are written in.")
  var kernels: KernelLanguage = .c

  @Option(help: "Compilations at a time.")
  var jobs: Int = availableThreads

  @Option(help: ArgumentHelp("Keeps sources and objects in a folder.", valueName: "folder"))
  var keep: String?

  @Option(help: "The folder of the object cache. (default: mcc in XDG_CACHE_HOME or ~/.cache)")
  var cacheDir: String?

  @Option(help: "The last stage: import, simplify, transform, lower, schedule, emit or build.")
  var stopAfter: Stage?

  @Option(help: ArgumentHelp("Writes the IR after every stage, such as 02-simplify.mir.", valueName: "folder"))
  var dumpStages: String?

  @Flag(help: "Times the kernels that have not been timed on this machine, and chooses by their times.")
  var tune = false

  @Flag(help: "Compiles a narrow type even if a wider one is faster on the target.")
  var force = false

  @Flag(help: "Prints the summary as JSON.")
  var json = false

  @Flag(name: .shortAndLong, help: "Prints no summary.")
  var quiet = false

  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments
  @OptionGroup var checks: CheckArguments

  func run() async throws {
    var options = CompileOptions()
    options.frontend = try passes.options(load)
    options.frontend.check = try checks.options()
    options.artefact = emit
    options.target = target
    options.kernels = kernels
    guard jobs > 0 else { throw CompileError(.usage, "--jobs is \(jobs), expected at least 1") }
    options.jobs = jobs
    options.keep = keep
    options.cacheFolder = cacheDir
    options.dumpFolder = dumpStages
    options.lastStage = stopAfter ?? (emit == .mir ? .transform : .build)
    if emit == .mir, !options.lastStage.hasText {
      throw CompileError(.usage, "the stage '\(options.lastStage.rawValue)' has no text form")
    }
    options.tunes = tune
    options.refusesSlowTypes = !force
    options.output = output
    if output == nil, options.lastStage >= .emit { options.output = Self.defaultOutput(model, emit) }
    if let dumpStages {
      options.frontend.spillPath = PassArguments.spillPath(output: dumpStages + "/stages", model: model)
    } else if options.lastStage.hasText {
      options.frontend.spillPath = PassArguments.spillPath(output: output, model: model)
    }
    try options.checkOutputs()
    try await options.frontend.readTexts(for: model)
    var compiler = Compiler(options)
    let summary = try await compiler.compile(model)
    if quiet { return }
    if options.output == nil {
      for line in summary.notes { Standard.error("note: \(line)") }
    } else if json {
      printJSON(summary.json)
    } else {
      for line in summary.lines { Standard.output(line) }
    }
  }

  /// The model's name in the working folder, without its extension.
  private static func defaultOutput(_ model: String, _ artefact: Artefact) -> String {
    let name = ArchivePath.name(of: model)
    let stem = name.lastIndex(of: ".").flatMap { $0 == name.startIndex ? nil : String(name[..<$0]) } ?? name
    let base = stem.isEmpty || stem == "." || stem == ".." ? "model" : stem
    return artefact == .c ? base + "-c" : base
  }
}
