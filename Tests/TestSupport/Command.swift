import Base
import Glibc

/// Runs programs in tests and collects what they write.
package struct Command: Sendable {
  /// What a program left behind.
  package struct Outcome: Sendable {
    /// The exit code; 128 plus the signal if one ended the program.
    package var exitCode: Int32
    /// Standard output.
    package var output: [UInt8]
    /// Standard error.
    package var errors: String
    /// Wall-clock time.
    package var seconds: Double

    /// Standard output as text; invalid UTF-8 is replaced.
    package var text: String { String(decoding: output, as: UTF8.self) }
  }

  /// Runs a program and waits for its end.
  ///
  /// - Parameters:
  ///   - executable: a path, or a name that is looked for in PATH.
  ///   - arguments: without the program's name.
  ///   - environment: variables set on top of the inherited ones.
  ///   - input: given on standard input.
  ///   - timeout: seconds after which the program is killed, which is an error.
  /// - Returns: the exit code and the output.
  /// - Throws: `CompileError` if the program cannot be started or runs out of time.
  package static func run(
    _ executable: String, _ arguments: [String] = [], environment: [String: String] = [:], input: [UInt8] = [],
    timeout: Double = 120
  ) throws -> Outcome {
    let folder = try TemporaryFolder()
    let inputPath = try folder.write("in", input)
    let outputPath = try folder.write("out", []), errorPath = try folder.write("err", [])

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, inputPath, O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_APPEND, 0)
    posix_spawn_file_actions_addopen(&actions, 2, errorPath, O_WRONLY | O_APPEND, 0)

    // Test threads block signals; the program begins as from a shell.
    var attributes = posix_spawnattr_t(), signals = sigset_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))

    var argv = ([executable] + arguments).map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] = []
    var entry = environ
    while let variable = entry.pointee {
      let name = String(String(cString: variable).prefix { $0 != "=" })
      if environment[name] == nil { variables.append(strdup(variable)) }
      entry += 1
    }
    variables += environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for pointer in argv + variables { free(pointer) } }

    let watch = Stopwatch()
    var process: pid_t = 0
    var code = posix_spawnp(&process, executable, &actions, &attributes, &argv, &variables)
    // A program just written is busy while a child that another thread started then has not yet begun its own program.
    while code == ETXTBSY, watch.seconds < 5 {
      usleep(20_000)
      code = posix_spawnp(&process, executable, &actions, &attributes, &argv, &variables)
    }
    guard code == 0 else { throw CompileError(.toolchain, "cannot run '\(executable)': \(describeErrno(code))") }
    var status: Int32 = 0
    var pause: UInt32 = 200
    while waitpid(process, &status, WNOHANG) == 0 {
      guard watch.seconds < timeout else {
        kill(process, SIGKILL)
        waitpid(process, &status, 0)
        throw CompileError(.toolchain, "'\(executable)' ran longer than \(timeout) s")
      }
      usleep(pause)
      pause = min(pause * 2, 10_000)
    }
    let seconds = watch.seconds
    let signal = status & 0x7F
    return Outcome(
      exitCode: signal == 0 ? (status >> 8) & 0xFF : 128 + signal,
      output: try MappedFile.contents(path: outputPath),
      errors: String(decoding: try MappedFile.contents(path: errorPath), as: UTF8.self), seconds: seconds)
  }
}
