import Base
import Glibc
import TestSupport

/// The `mcc` executable of the build that the tests belong to.
enum MCCProgram {
  /// Its path; nil if there is none beside the test bundle.
  static let path: String? = {
    guard let resolved = realpath("/proc/self/exe", nil) else { return nil }
    defer { free(resolved) }
    let folder = String(cString: resolved).split(separator: "/", omittingEmptySubsequences: false).dropLast()
    let path = folder.joined(separator: "/") + "/mcc"
    return access(path, X_OK) == 0 ? path : nil
  }()

  /// Runs `mcc` with arguments.
  static func run(_ arguments: [String]) throws -> Command.Outcome {
    guard let path else { throw CompileError(.check, "there is no mcc executable beside the tests") }
    return try Command.run(path, arguments)
  }
}
