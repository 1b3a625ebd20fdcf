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
  /// - Throws: `CompileError` of kind `.toolchain` if there is none, or the one found does not run or cannot compile for
  ///   the architecture.
  package static func find(
    for architecture: Architecture? = nil, environment: [String: String] = CCompiler.currentEnvironment()
  ) async throws -> SwiftCompiler {
    let compiler = try await find(environment)
    if let architecture, architecture != Architecture.host { try await compiler.requireLibrary(for: architecture) }
    return compiler
  }

  /// Compiles nothing for another architecture, which needs the library of Embedded Swift for it.
  private func requireLibrary(for architecture: Architecture) async throws {
    let folder = try WorkFolder()
    try AtomicFile.write("public func twice(_ x: Float) -> Float { x + x }\n", to: folder.file("a.swift"))
    let flags = SwiftRenderer.foreignFlags(architecture)
    let answer = try await ChildProcess.run(
      path, ["-parse-as-library", "-wmo", "-O"] + flags + ["-c", "a.swift", "-o", "a.o"], in: folder.path)
    guard answer.succeeded else {
      throw CompileError(
        .toolchain, "the Swift compiler '\(path)' has no library of Embedded Swift for \(architecture.rawValue)",
        notes: ["kernels in C need none: leave out '--kernels swift'"])
    }
  }

  private static func find(_ environment: [String: String]) async throws -> SwiftCompiler {
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
