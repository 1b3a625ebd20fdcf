import Base
import Glibc

/// A C compiler on this machine.
package struct CCompiler: Hashable, Sendable {
  /// Which command line it understands.
  package enum Family: String, Hashable, Sendable {
    case clang, gcc
  }

  /// The path of the executable.
  package var path: String
  package var family: Family
  /// The first line of what it says about itself, such as `clang version 21.0.0`.
  package var version: String
  /// What tells this compiler from another one of the same version: size and time of change of the executable.
  package var stamp: String
  /// Arguments before all others: the machine to compile for, where that is another one.
  package var arguments: [String] = []

  /// What object files depend on.
  package var identity: String { ([path, version, stamp] + arguments).joined(separator: "\n") }

  /// The first of: the compiler named by the variable `CC`, clang in `PATH`, the clang beside the Swift compiler, gcc and
  /// cc in `PATH`; for another architecture than this machine's, clang where it finds that one's C library, then the cross
  /// compiler of gcc.
  ///
  /// - Parameters:
  ///   - architecture: what to compile for; nil for this machine.
  ///   - environment: variables.
  /// - Returns: the compiler, which has been run.
  /// - Throws: `CompileError` of kind `.toolchain` if there is none or the one asked for does not run.
  package static func find(
    for architecture: Architecture? = nil, environment: [String: String] = currentEnvironment()
  ) async throws -> CCompiler {
    let folders = (environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":").map(String.init)
    let foreign = architecture == Architecture.host ? nil : architecture
    if let asked = environment["CC"], !asked.isEmpty {
      guard let path = executable(asked, in: folders) else {
        throw CompileError(.toolchain, "the C compiler '\(asked)' named by the variable CC is not there")
      }
      guard let foreign else { return try await probe(path) }
      if let compiler = try await probe(path).compiling(for: foreign) { return compiler }
      throw CompileError(
        .toolchain, "the C compiler '\(asked)' named by the variable CC does not make programs for \(foreign.rawValue)",
        notes: ["install \(foreign.crossPackage) (Debian, Ubuntu) and leave CC empty, or name another one"])
    }
    var candidates = [executable("clang", in: folders)]
    if let swift = executable("swiftc", in: folders), let real = resolved(swift), let slash = real.lastIndex(of: "/") {
      candidates.append(executable(String(real[..<slash]) + "/clang", in: []))
    }
    candidates += (foreign.map { ["\($0.triple)-gcc"] } ?? ["gcc", "cc"]).map { executable($0, in: folders) }
    for case let path? in candidates {
      guard let compiler = try? await probe(path) else { continue }
      guard let foreign else { return compiler }
      if let compiler = try await compiler.compiling(for: foreign) { return compiler }
    }
    guard let foreign else {
      throw CompileError(
        .toolchain, "no C compiler was found: install clang or gcc, or name one with the variable CC")
    }
    throw CompileError(
      .toolchain, "no C compiler with a C library for \(foreign.rawValue) was found",
      notes: ["install \(foreign.crossPackage) (Debian, Ubuntu), or name a compiler with the variable CC"])
  }

  /// This compiler with what makes it compile for another architecture; nil if it does not, or finds no C library.
  private func compiling(for architecture: Architecture) async throws -> CCompiler? {
    var compiler = self
    let machine = try await run(["-dumpmachine"], in: nil).output
    if !machine.hasPrefix(architecture.rawValue) {
      guard family == .clang else { return nil }
      compiler.arguments = ["--target=" + architecture.triple]
    }
    let folder = try WorkFolder()
    try AtomicFile.write(
      "#include <math.h>\nint main(int n, char **s) { return (int)sqrt(n); }\n", to: folder.file("a.c"))
    let answer = try await compiler.run(["a.c", "-o", "a", "-lm", "-lpthread"], in: folder.path)
    return answer.succeeded ? compiler : nil
  }

  /// The compiler at `path`.
  ///
  /// - Throws: `CompileError` of kind `.toolchain` if it does not run.
  package static func probe(_ path: String) async throws -> CCompiler {
    let answer = try await ChildProcess.run(path, ["--version"], in: nil)
    let line = answer.output.split(separator: "\n").first.map(String.init) ?? ""
    guard answer.succeeded, !line.isEmpty else {
      throw CompileError(.toolchain, "the C compiler '\(path)' does not tell its version")
    }
    return CCompiler(
      path: path, family: answer.output.contains("clang") ? .clang : .gcc, version: line, stamp: stamp(of: path))
  }

  /// Size and time of change of a file.
  static func stamp(of path: String) -> String {
    var status = stat()
    guard stat(path, &status) == 0 else { return "" }
    return "\(status.st_size) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
  }

  /// Runs the compiler in a working folder.
  ///
  /// - Parameters:
  ///   - arguments: the command line without the name.
  ///   - folder: the working folder; nil for that of this process.
  /// - Returns: what it said.
  /// - Throws: `CompileError` of kind `.toolchain` if it cannot be started.
  package func run(_ arguments: [String], in folder: String?) async throws -> ChildProcess.Answer {
    try await ChildProcess.run(path, self.arguments + arguments, in: folder)
  }

  /// The variables of this process.
  package static func currentEnvironment() -> [String: String] {
    var variables: [String: String] = [:]
    for name in ["PATH", "CC", "SWIFT_EXEC", "HOME", "XDG_CACHE_HOME", "TMPDIR"] {
      if let value = getenv(name) { variables[name] = String(cString: value) }
    }
    return variables
  }

  /// The path of a program: `name` itself if it has a slash, else the first executable file of that name in `folders`.
  static func executable(_ name: String, in folders: [String]) -> String? {
    func isExecutable(_ path: String) -> Bool {
      var status = stat()
      return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }
    if name.contains("/") { return isExecutable(name) ? name : nil }
    return folders.lazy.map { ($0.isEmpty ? "." : $0) + "/" + name }.first(where: isExecutable)
  }

  private static func resolved(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }
}
