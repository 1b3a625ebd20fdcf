import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport

/// Programs compiled once per test run, and what the tests ask of them.
enum CompiledModels {
  /// The folder of the programs and of their object cache, inside the build folder.
  static func folder() throws -> WorkFolder {
    try WorkFolder(keepingAt: Fixtures.packageRoot + "/.build/end-to-end")
  }

  /// Compiles `model` in this process and gives the path of the program, which this machine `runs` or not.
  static func compile(
    _ model: String, _ name: String, quantize: String? = nil, calibration: Calibrate? = nil, target: String = "native",
    kernels: KernelLanguage = .c, dimensions: [String: ClosedRange<Int>] = [:], runs: Bool = true
  ) async throws -> String {
    let folder = try folder()
    var options = CompileOptions()
    options.output = folder.file(name)
    options.target = target
    options.kernels = kernels
    options.cacheFolder = folder.file("cache")
    options.frontend.quantization = try quantize.map { try QuantizationSpec(parsing: $0) }
    options.frontend.calibration = calibration
    options.frontend.load.dimensions = dimensions
    options.frontend.reproducerFolder = nil
    var compiler = Compiler(options)
    _ = try await compiler.compile(model)
    // Waits until no other child holds the file open for writing, see `Command.run`.
    if runs { _ = try run(folder.file(name), ["--version"]) }
    return folder.file(name)
  }

  /// The bundled checkpoint.
  static let stories = Fixtures.packageRoot + "/Examples/stories260K"

  /// What `program` prints; a failure of the program is an error.
  static func run(_ program: String, _ arguments: [String], input: [UInt8] = []) throws -> String {
    let outcome = try Command.run(program, arguments, input: input)
    guard outcome.exitCode == 0 else {
      throw CompileError(
        .check, "'\(program) \(arguments.joined(separator: " "))' exits with \(outcome.exitCode): \(outcome.errors)")
    }
    return outcome.text
  }
}
