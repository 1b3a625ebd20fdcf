import Base

/// The Swift compiler of this machine, for kernels in Swift.
package struct SwiftCompiler: Hashable, Sendable {
  /// The path of the executable.
  package var path: String
  /// The first line of what it says about itself.
  package var version: String
  /// What tells this compiler from another one of the same version.
  package var stamp: String

  /// What object files depend on.
  package var identity: String { "\(path)\n\(version)\n\(stamp)" }

  /// The compiler named by the variable `SWIFT_EXEC`, else swiftc in `PATH`.
  ///
  /// - Parameters:
  ///   - architecture: what to compile for; nil for this machine.
  ///   - environment: variables.
  /// - Returns: the compiler, which has been run.
  /// - Throws: `CompileError` of kind `.toolchain` if there is none or the one asked for does not run, and of kind
  ///   `.usage` for another architecture than this machine's.
  package static func find(
    for architecture: Architecture? = nil, environment: [String: String] = CCompiler.currentEnvironment()
  ) async throws -> SwiftCompiler {
    if let architecture, architecture != Architecture.host {
      throw CompileError(
        .usage, "kernels in Swift are compiled for this machine's architecture, which is not \(architecture.rawValue)",
        notes: ["leave out '--kernels swift'"])
    }
    let folders = (environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").map(String.init)
    if let asked = environment["SWIFT_EXEC"], !asked.isEmpty {
      guard let path = CCompiler.executable(asked, in: folders) else {
        throw CompileError(.toolchain, "the Swift compiler '\(asked)' named by the variable SWIFT_EXEC is not there")
      }
      return try await probe(path)
    }
    guard let path = CCompiler.executable("swiftc", in: folders) else {
      throw CompileError(
        .toolchain, "no Swift compiler was found: install swiftc, or name one with the variable SWIFT_EXEC",
        notes: ["kernels in C need none: leave out '--kernels swift'"])
    }
    return try await probe(path)
  }

  /// The compiler at `path`.
  ///
  /// - Throws: `CompileError` of kind `.toolchain` if it does not run.
  package static func probe(_ path: String) async throws -> SwiftCompiler {
    let answer = try await ChildProcess.run(path, ["--version"], in: nil)
    let line = (answer.output + "\n" + answer.messages).split(separator: "\n").first { $0.contains("Swift version") }
    guard answer.succeeded, let line else {
      throw CompileError(.toolchain, "the Swift compiler '\(path)' does not tell its version")
    }
    return SwiftCompiler(path: path, version: String(line), stamp: CCompiler.stamp(of: path))
  }
}
