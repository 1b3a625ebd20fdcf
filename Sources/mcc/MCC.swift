import ArgumentParser
import Base
import Driver

/// The command line of mcc.
@main
struct MCC: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mcc",
    abstract: "Compiles trained models into programs.",
    discussion: """
      A checkpoint (a Hugging Face folder, a GGUF file or an ONNX graph) becomes IR; passes improve it; generated C \
      becomes one executable that holds its weights:

        mcc compile Examples/stories260K -o story
        ./story "Once upon a time"
      """,
    version: Version.number,
    subcommands: [
      Compile.self, Convert.self, Merge.self, Dump.self, Opt.self, Inspect.self, AuditFiles.self, Run.self, Eval.self,
      SweepRecipes.self,
      Verify.self,
      Profile.self, BenchKernels.self, Cache.self, ListPasses.self, ListKernels.self, ListFormats.self,
      ListTargets.self,
    ])

  static func main() async {
    do {
      try checkName()
      var command = try parseAsRoot()
      if var asynchronous = command as? AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch let error as CompileError {
      Standard.error("error: \(error.message)\(error.placeAndNotes)")
      exit(withError: ExitCode(error.kind.exitCode))
    } catch {
      exit(withError: error)
    }
  }

  /// Throws if the first argument looks like a command but is none; a name that is like it is suggested.
  private static func checkName() throws {
    let names = configuration.subcommands.map { $0._commandName } + ["help"]
    guard let name = CommandLine.arguments.dropFirst().first, !name.hasPrefix("-"), !names.contains(name) else {
      return
    }
    let near = nearest(name, in: names).map { ["did you mean '\($0)'?"] } ?? []
    throw CompileError(
      .usage, "unknown command '\(name)'", notes: near + ["commands: \(names.joined(separator: ", "))"])
  }
}

extension CompileError {
  /// What follows the message: the place in brackets, the cause, and a line for each note.
  fileprivate var placeAndNotes: String {
    var text = ""
    if let subject, !subject.description.isEmpty { text += " (\(subject))" }
    if let cause { text += ": \(cause)" }
    for note in notes { text += "\nnote: \(note)" }
    return text
  }
}
