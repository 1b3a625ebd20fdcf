import Base
import TestSupport
import Testing

/// A seeded sample of the node tests of the `onnx` package through the program; `make test-onnx-backend` runs all of them.
@Suite struct ONNXBackendTests {
  @Test func noNodeTestFails() throws {
    guard try Command.run("python3", ["-c", "import numpy, onnx.backend.test"]).exitCode == 0 else {
      Fixtures.skip("needs the Python packages numpy and onnx")
      return
    }
    let mcc = try #require(MCCProgram.path)
    let script = Fixtures.packageRoot + "/Tests/Python/onnx_backend.py"
    let outcome = try Command.run(
      "python3", [script, "--mcc", mcc, "--sample", "60", "--seed", "3", "--jobs", "2"], timeout: 300)
    #expect(outcome.exitCode == 0, "\(outcome.text)\(outcome.errors)")
    // Some of them must pass for the others to mean anything.
    #expect(outcome.text.contains(" passed"), "\(outcome.text)")
  }
}
