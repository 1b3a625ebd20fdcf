import Base
import TestSupport
import Testing

/// A seeded sample of the node tests of the `onnx` package; `make test-onnx-backend` runs all of them.
@Suite(.serialized) struct ONNXBackendTests {
  /// Through the evaluator, and, fewer, as programs.
  @Test(arguments: [["--sample", "60", "--seed", "3"], ["--program", "--sample", "12", "--seed", "5"]])
  func noNodeTestIsWrong(_ options: [String]) throws {
    guard Fixtures.python(["numpy", "onnx.backend.test"]) else { return }
    let mcc = try #require(MCCProgram.path)
    let script = Fixtures.packageRoot + "/Tests/Python/onnx_backend.py"
    let outcome = try Command.run("python3", [script, "--mcc", mcc, "--jobs", "2"] + options, timeout: 300)
    #expect(outcome.exitCode == 0, "\(outcome.text)\(outcome.errors)")
    // Some of them must pass for the others to mean anything.
    #expect(outcome.text.contains(" passed"), "\(outcome.text)")
  }
}
