import ArgumentParser
import Base
import Driver
import IR

/// `mcc dump`: the text IR of a model at a stage.
struct Dump: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Prints the IR of a model at a stage.")

  @Argument(help: "A checkpoint or a .mir file.")
  var model: String

  @Option(help: "import, simplify, transform or lower.")
  var stage: Stage = .import

  @Option(help: "The CPU that 'lower' is for.")
  var target = "native"

  @Option(name: .shortAndLong, help: "Writes to a file. (default: standard output)")
  var output: String?

  @Flag(help: "Prints the functions as JSON.")
  var json = false

  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments

  func run() async throws {
    guard stage.hasText else {
      throw CompileError(
        .usage,
        "the stage '\(stage.rawValue)' has no text form; stages: \(Stage.withText.map(\.rawValue).joined(separator: ", "))"
      )
    }
    var options = try passes.options(load)
    if let output { try OutputPath.check(file: output) }
    try await options.readTexts(for: self.model)
    options.spillPath = json ? nil : PassArguments.spillPath(output: output, model: self.model)
    let model = try Compiler.model(self.model, at: stage, options, target: target)
    let text =
      json
      ? ModelReport(model).json.text(pretty: true)
      : try Printer.print(model, relativeTo: output.map { ArchivePath.folder(of: $0) })
    if let output { try AtomicFile.write(text, to: output) } else { Standard.write(text, to: 1) }
  }
}
