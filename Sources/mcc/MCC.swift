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
      Compile.self, Convert.self, Merge.self, Dump.self, Opt.self, Inspect.self, AuditFiles.self, Run.self, Verify.self,
      Profile.self, BenchKernels.self, Cache.self, ListPasses.self, ListKernels.self, ListFormats.self,
      ListTargets.self,
    ])

  static func main() async {
    do {
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
