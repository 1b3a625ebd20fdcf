import ArgumentParser
import Base
import Driver
import IR

/// `mcc opt`: runs passes on text IR or a checkpoint and prints the result.
struct Opt: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a pipeline of passes on a model and prints the IR.")

  @Argument(help: "A checkpoint or a .mir file.")
  var model: String

  @Option(name: .shortAndLong, help: "Writes to a file. (default: standard output)")
  var output: String?

  @Flag(help: "Prints how often each rule fired to standard error.")
  var statistics = false

  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments
  @OptionGroup var checks: CheckArguments

  func run() async throws {
    var options = try passes.options(load)
    options.check = try checks.options()
    if let output { try OutputPath.check(file: output) }
    try await options.readTexts(for: self.model)
    options.spillPath = PassArguments.spillPath(output: output, model: self.model)
    var frontend = Frontend(options)
    var model = try frontend.load(self.model)
    let pipeline =
      try options.pipeline ?? frontend.transformation(of: model) ?? Presets.simplify(options.level)
    try frontend.run(pipeline, on: &model)
    if statistics || options.check != nil { for line in Summary.passes(frontend.reports) { Standard.error(line) } }
    let text = try Printer.print(model, relativeTo: output.map { ArchivePath.folder(of: $0) })
    if let output { try AtomicFile.write(text, to: output) } else { Standard.write(text, to: 1) }
  }
}
