import ArgumentParser
import Base
import Driver
import Formats
import IR

/// `mcc run`: the evaluator on arrays from files.
struct Run: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a model through the evaluator, the reference meaning of the IR.")

  @Argument(help: "A checkpoint or a .mir file.")
  var model: String

  @Option(help: "A .npy or .npz file, or name=file; may be repeated.")
  var input: [String] = []

  @Option(help: "The .npz file for the outputs.")
  var output: String

  @Option(name: .customLong("symbol"), help: ArgumentHelp("A size that no input has.", valueName: "name=N"))
  var symbols: [String] = []

  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments

  func run() async throws {
    var options = try passes.options(load)
    try OutputPath.check(file: output)
    try await options.readTexts(for: self.model)
    var frontend = Frontend(options)
    let changes = options.pipeline != nil || options.quantization != nil || passes.level != nil
    let model = try frontend.run(self.model, to: changes ? .transform : .import)
    guard let function = model.function(role: "main") ?? model.functions.first else {
      throw CompileError(.input, "'\(self.model)' has no function")
    }
    var binding: [String: Int] = [:]
    for text in symbols {
      guard let equals = text.firstIndex(of: "="), let value = Int(text[text.index(after: equals)...]) else {
        throw CompileError(.usage, "--symbol is '\(text)', expected name=N")
      }
      binding[String(text[..<equals])] = value
    }
    let inputs = try TensorArchives.inputs(input, of: function)
    let results = try Evaluator(model, function: function.name).run(inputs, symbols: binding)
    var archive = NumPyArchive()
    for (name, tensor) in zip(function.outputNames, results.outputs) { archive[name] = NumPyArray(tensor.view) }
    try archive.write(to: output)
  }
}
