import ArgumentParser
import Base
import Driver
import Formats

/// `mcc audit`: whether a model file is what it says, before anything is done with it.
struct AuditFiles: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audit",
    abstract: "Looks through a model file or folder for damage and for what reaches beyond data.",
    discussion: """
      Nothing is run and no model is built; at most 64 MiB are allocated whatever the file says. The exit code is 1 if \
      anything speaks against the file.
      """)

  @Argument(help: "A checkpoint, a file of one, or a folder.")
  var path: String

  @Flag(help: "Prints JSON.")
  var json = false

  func run() throws {
    let report = try Audit.run(path)
    if json { printJSON(report.json) } else { for line in report.lines { Standard.output(line) } }
    guard report.isAccepted else { throw CompileError(.check, "'\(path)' is not to be trusted") }
    if !json { Standard.output("nothing speaks against '\(path)'") }
  }
}
