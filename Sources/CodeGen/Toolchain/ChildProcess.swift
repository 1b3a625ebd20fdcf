import Base
import Subprocess

#if canImport(System)
  import System
#else
  import SystemPackage
#endif

/// Runs other programs to their end.
package enum ChildProcess {
  /// What a run gave.
  package struct Answer: Sendable {
    /// Whether it exited with status 0.
    package var succeeded: Bool
    /// Standard output.
    package var output: String
    /// Standard error.
    package var messages: String

    /// What it printed.
    ///
    /// - Throws: `CompileError` of kind `.check` with its first message if it failed; `name` is what the sentence calls it.
    package func printed(by name: String) throws -> String {
      guard succeeded else {
        throw CompileError(.check, "\(name) failed: \(messages.split(separator: "\n").first ?? "")")
      }
      return output
    }
  }

  /// The path that starts a program which is not looked for in `PATH`.
  package static func path(of program: String) -> String { program.contains("/") ? program : "./" + program }

  /// Runs the program at `path` in the working folder `folder`, with messages in English and further variables.
  ///
  /// It may print `outputLimit` bytes.
  ///
  /// - Throws: `CompileError` of kind `.toolchain` if it cannot be started.
  package static func run(
    _ path: String, _ arguments: [String], in folder: String? = nil, environment: [String: String] = [:],
    outputLimit: Int = 1 << 20
  ) async throws -> Answer {
    var variables: [Environment.Key: String?] = ["LC_ALL": "C"]
    for (name, value) in environment { variables[.init(stringLiteral: name)] = value }
    do {
      let result = try await Subprocess.run(
        .path(FilePath(path)), arguments: Arguments(arguments),
        environment: .inherit.updating(variables), workingDirectory: folder.map { FilePath($0) },
        output: .string(limit: outputLimit), error: .string(limit: 16 << 20))
      return Answer(
        succeeded: result.terminationStatus.isSuccess, output: result.standardOutput,
        messages: result.standardError)
    } catch {
      throw CompileError(.toolchain, "'\(path)' cannot be run", cause: "\(error)")
    }
  }
}
