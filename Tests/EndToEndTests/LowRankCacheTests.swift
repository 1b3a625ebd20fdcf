import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Programs whose old rows of caches have the first numbers of a head alone.
@Suite(.serialized) struct LowRankCacheTests {
  private static func compile(
    _ name: String, _ options: String, cache: CacheType = .f32
  ) async throws -> (program: String, summary: Summary) {
    let text = Fixtures.packageRoot + "/README.md"
    return try await CompiledModels.compile(
      name, cache: cache, context: 256, pass: "factor-cache{\(options),text=\"\(text)\"}")
  }

  /// A program reads 250 tokens in two calls, the evaluator in one. The bytes of a token are those of the numbers that are
  /// left: of 8 in each of 4 heads of keys and of values in 5 layers half.
  @Test func programAndEvaluatorAgree() async throws {
    let folder = try TemporaryFolder()
    let program = folder.path("program")
    let text = try folder.write("text.txt", CalibratedProgramTests.text)
    let outcome = try MCCProgram.run([
      "compile", CompiledModels.stories, "--context", "256", "--kv-rank", "0.5", "--calibrate", text, "-o", program,
    ])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    #expect(outcome.text.contains("caches factored 10"), "\(outcome.text)")
    let (growing, fixed) = (5 * 2 * 4 * 4 * 4, 5 * 2 * 32 * 4 * 8 * 4)
    #expect(
      outcome.text.contains(
        "KV cache: \(Quantity.bytes(growing)) per token, and \(Quantity.bytes(fixed)) for any number of tokens"),
      "\(outcome.text)")
    // Sums in f32 differ by about 1e-6.
    #expect(try await CompiledModels.check(program, tokens: 250, seed: 17) <= 1e-4)
  }

  /// With features of two layers results depend on calls: program and evaluator read the same ones, of 1, 20 and 32 tokens.
  /// With all numbers they are those of the model as it is, whatever the calls.
  @Test func layersWithCommonRowsAgree() async throws {
    let (program, summary) = try await Self.compile("lowrank-layers", "rank=0.5,layers=2")
    #expect(summary.cacheBytesPerToken == 5 * 2 * 16 * 4 && summary.fixedStateBytes == 5 * 2 * 32 * 32 * 4)
    for chunk in [1, 20, nil] {
      #expect(try await CompiledModels.check(program, tokens: 90, seed: 17, chunk: chunk) <= 1e-4)
    }
    let (whole, _) = try await Self.compile("lowrank-whole", "rank=1,layers=5")
    for chunk in [1, 33, 256] {
      let error = try await CompiledModels.check(whole, tokens: 90, seed: 17, chunk: chunk, original: true)
      #expect(error <= 1e-4, "\(chunk): \(error)")
    }
  }

  /// In f16 a last bit of a sum may round a row to its neighbour, 1e-3 of a number, in each of five layers; a code may
  /// move by a step, as with whole rows.
  @Test(arguments: [(CacheType.f16, 2, 0, 5e-3), (.i8, 1, 4, 0.03), (.i4t, 0, 6, 0.1), (.i4, 0, 5, 0.1)])
  func narrowRowsAgree(_ type: CacheType, _ bytes: Int, _ header: Int, _ tolerance: Double) async throws {
    let (program, summary) = try await Self.compile("lowrank-\(type)", "rank=0.5,window=32", cache: type)
    #expect(summary.cacheBytesPerToken == 5 * 2 * 4 * (4 * bytes + header))
    #expect(summary.fixedStateBytes == 5 * 2 * 32 * 32 * 4)
    #expect(try await CompiledModels.check(program, tokens: 200, seed: 17) <= tolerance)
  }

  /// The same with features of a layer, eight of which have a scale.
  @Test(arguments: [(CacheType.f16, 16.0, 5e-3), (.i8, 12, 0.03), (.i4t, 8, 0.1), (.i4, 7, 0.1)])
  func narrowFeaturesAgree(_ type: CacheType, _ eight: Double, _ tolerance: Double) async throws {
    let (program, summary) = try await Self.compile("lowrank-layer-\(type)", "rank=0.5,layers=1", cache: type)
    #expect(summary.cacheBytesPerToken == Int(5 * 2 * 2 * eight))
    #expect(try await CompiledModels.check(program, tokens: 200, seed: 17) <= tolerance)
  }

  /// What was generated token by token is the likeliest continuation when all tokens are read at once.
  @Test func decodingAndReadingAgree() async throws {
    let (program, _) = try await Self.compile("lowrank-decode", "rank=0.75,window=16")
    // A near tie may turn.
    #expect(try CompiledModels.likeliestShare(program, tokens: 230) >= 0.98)
  }

  @Test func refusesBadOptions() throws {
    let folder = try TemporaryFolder()
    let text = Fixtures.packageRoot + "/README.md"
    for (arguments, message) in [
      (["--kv-rank", "0.5"], "--kv-rank needs a text"), (["--kv-rank", "0", "--calibrate", text], "--kv-rank is 0.0"),
      (["--kv-rank", "1.5", "--calibrate", text], "--kv-rank is 1.5"),
      (["--kv-rank", "0.5", "--kv-keep", "0.5", "--calibrate", text], "--kv-rank and --kv-keep exclude each other"),
      (["--kv-rank", "0.5", "--quantize", "w8at8", "--calibrate", text], "--kv-rank and attention in bytes"),
      (["--kv-rank", "0.5", "--calibrate", text, "--pipeline", "fuse"], "name 'factor-cache{rank=...}'"),
      (["--kv-rank", "0.1", "--calibrate", text], "less than 8 numbers for a row"),
      (["--kv-rank", "0.1", "--kv-layers", "0", "--calibrate", text], "less than 4 numbers for a head"),
      (["--kv-layers", "2"], "--kv-layers needs --kv-rank"),
      (["--kv-rank", "0.5", "--kv-layers", "2000", "--calibrate", text], "--kv-layers is 2000"),
      (["--pipeline", "factor-cache{length=0,text=\"\(text)\"}"], "'length' of the pass 'factor-cache' is 0"),
      (["--pipeline", "center-keys{samples=-1,text=\"\(text)\"}"], "'samples' of the pass 'center-keys' is -1"),
    ] {
      let outcome = try MCCProgram.run(["compile", CompiledModels.stories, "-o", folder.path("none")] + arguments)
      #expect(outcome.exitCode == 64, "\(arguments): \(outcome.exitCode)")
      #expect(outcome.errors.contains(message), "\(arguments): \(outcome.errors)")
    }
  }
}
