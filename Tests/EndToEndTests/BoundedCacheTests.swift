import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Programs whose caches have a bounded number of rows.
@Suite(.serialized) struct BoundedCacheTests {
  /// Rows of different layers follow from a text; the bytes of all caches are said. A program reads 250 tokens in two calls,
  /// the evaluator in one, and both keep the same rows: sums in f32 differ by about 1e-6.
  @Test func programAndEvaluatorAgree() async throws {
    let folder = try TemporaryFolder()
    let program = folder.path("program")
    let text = try folder.write("text.txt", CalibratedProgramTests.text)
    let outcome = try MCCProgram.run([
      "compile", CompiledModels.stories, "--context", "256", "--kv-keep", "0.3", "--calibrate", text, "-o", program,
    ])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    #expect(outcome.text.contains("rows kept 384, of rows 1280, caches bounded 5"), "\(outcome.text)")
    // 384 rows for each of 4 heads: 8 numbers of keys and of values in f32, two of what they received.
    let bytes = 384 * 4 * (2 * 8 * 4 + 2 * 4)
    #expect(outcome.text.contains("KV cache: \(Quantity.bytes(bytes)) for any number of tokens"), "\(outcome.text)")
    #expect(try await CompiledModels.check(program, tokens: 250, seed: 17) <= 1e-4)
  }

  /// In f16 a last bit of a sum may round a row to its neighbour, 1e-3 of a number, in each of five layers.
  @Test func narrowRowsAgree() async throws {
    let (program, summary) = try await CompiledModels.compile(
      "bounded-f16", cache: .f16, context: 256, pass: "bound-cache{policy=equal,keep=0.25,recent=16}")
    #expect(summary.fixedStateBytes == 5 * 64 * 4 * (2 * 8 * 2 + 2 * 4) && summary.cacheBytesPerToken == 0)
    #expect(try await CompiledModels.check(program, tokens: 200, seed: 17) <= 5e-3)
  }

  /// What was generated token by token is the likeliest continuation when all tokens are read at once.
  @Test func decodingAndReadingAgree() async throws {
    let (program, _) = try await CompiledModels.compile(
      "bounded-equal", cache: .f32, context: 256, pass: "bound-cache{policy=equal,keep=0.25,recent=16}")
    // A near tie may turn.
    #expect(try CompiledModels.likeliestShare(program, tokens: 230) >= 0.98)
  }

  @Test func refusesBadOptions() throws {
    let folder = try TemporaryFolder()
    let text = Fixtures.packageRoot + "/README.md"
    for (arguments, message) in [
      (["--kv-keep", "0.3"], "--kv-keep needs a text"), (["--kv-keep", "0", "--calibrate", text], "--kv-keep is 0.0"),
      (["--kv-keep", "1.5", "--calibrate", text], "--kv-keep is 1.5"),
      (["--kv-keep", "0.3", "--kv", "8", "--calibrate", text], "--kv-keep needs a cache of numbers"),
      (["--kv-keep", "0.3", "--quantize", "w8kv4", "--calibrate", text], "--kv-keep needs a cache of numbers"),
      (["--kv-keep", "0.3", "--quantize", "w8at8", "--calibrate", text], "exclude each other"),
      (["--kv-keep", "0.3", "--calibrate", text, "--pipeline", "fuse"], "name 'bound-cache{keep=...}'"),
      (["--kv-keep", "0.01", "--calibrate", text], "less than 36 for each of 5 caches"),
    ] {
      let outcome = try MCCProgram.run(["compile", CompiledModels.stories, "-o", folder.path("none")] + arguments)
      #expect(outcome.exitCode == 64, "\(arguments): \(outcome.exitCode)")
      #expect(outcome.errors.contains(message), "\(arguments): \(outcome.errors)")
    }
  }
}
