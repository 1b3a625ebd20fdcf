import Base
import CodeGen
import Driver
import Formats
import Glibc
import IR
import TestSupport
import Tensors
import Testing

/// Programs whose weights are chosen on a text.
@Suite(.serialized) struct CalibratedProgramTests {
  private static let model = CompiledModels.stories

  /// A text of about 1100 tokens of the bundled model.
  static let text = String(
    repeating: """
      Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, \
      red ball. She wanted to play with it, but it was too high. Her friend Tom came to help her. "Do not be sad," he said. \
      They found a long stick and pushed the ball down. They were very happy and played until the sun went down. Lily's mom \
      gave them some cake, and they thanked her with a hug.\n
      """, count: 10)

  private func expect(
    _ arguments: [String], exits code: Int32, says text: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let outcome = try MCCProgram.run(arguments)
    #expect(
      outcome.exitCode == code && outcome.errors.contains(text), "\(outcome.exitCode): \(outcome.errors)",
      sourceLocation: sourceLocation)
  }

  /// The program computes what the evaluator makes of the same codes, which choosing them again gives; with activations
  /// of eight bits up to a code here and there, which f32 sums in another order may turn.
  @Test(arguments: [("w4a32", 1e-4), ("w4", 0.02), ("w3zg64a32", 1e-4)])
  func programHasTheChosenCodes(spec: String, bound: Double) async throws {
    let folder = try TemporaryFolder()
    let text = try folder.write("text.txt", Self.text), program = folder.path("program")
    let outcome = try MCCProgram.run([
      "compile", Self.model, "--quantize", spec == "w3zg64a32" ? "w3g64za32" : spec, "--calibrate", text, "-o", program,
    ])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    #expect(outcome.text.contains("gptq") && outcome.text.contains("weights chosen 21"), "\(outcome.text)")
    let result = try await ProgramCheck().run(model: Self.model, program: program)
    #expect(try #require(result.differences.map(\.relative).max()) <= bound)
  }

  /// Choosing codes on a text gives the same bytes again, on one processor as well.
  @Test func isReproducible() throws {
    let folder = try TemporaryFolder()
    let text = try folder.write("text.txt", Self.text)
    func codes(_ name: String, _ command: [String]) throws -> [UInt8] {
      let output = folder.path(name)
      let path = try #require(MCCProgram.path)
      let arguments = [
        path, "opt", Self.model, "--quantize", "w4", "--calibrate", text, "-o", output, "--calibration-cache", "none",
      ]
      let outcome = try Command.run((command + arguments)[0], Array((command + arguments).dropFirst()))
      try #require(outcome.exitCode == 0, "\(outcome.errors)")
      return try MappedFile.contents(path: output + ".weights")
    }
    let first = try codes("a.mir", [])
    #expect(try first.count > 100_000 && codes("b.mir", []) == first)
    guard access("/usr/bin/taskset", X_OK) == 0 else { return }
    #expect(try codes("c.mir", ["/usr/bin/taskset", "-c", "0"]) == first)
    // The text IR reads its codes from the file beside it.
    let model = try ModelLoader.load(folder.path("a.mir"))
    let graph = try #require(model.functions.first)
    #expect(graph.nodeIDs.allSatisfy { !(graph[$0].op is Quantize) || graph.constant(of: graph[$0].inputs[0]) == nil })
  }

  @Test func saysWhatIsWrongWithTheText() throws {
    let folder = try TemporaryFolder()
    let text = try folder.write("text.txt", Self.text), short = try folder.write("short.txt", "Once upon a time")
    let empty = try folder.write("empty.txt", "")
    func compile(_ arguments: [String]) -> [String] { ["compile", Self.model, "-o", folder.path("p")] + arguments }
    try expect(
      compile(["--quantize", "w4", "--calibrate", short]), exits: 65,
      says: "tokens, but 1 window of 512 takes 511, besides 1 that the tokenizer puts into each")
    try expect(compile(["--quantize", "w4", "--calibrate", empty]), exits: 65, says: "has 0 tokens")
    try expect(compile(["--quantize", "w4", "--calibrate", folder.path("none")]), exits: 65, says: "none")
    try expect(compile(["--calibrate", text]), exits: 64, says: "--calibrate needs --quantize")
    try expect(compile(["--quantize", "w4", "--method", "gptq"]), exits: 64, says: "--method gptq needs --calibrate")
    try expect(
      compile(["--pipeline", "quantize{spec=w4},gptq{text=\"\(text)\",samples=40}"]), exits: 65,
      says: "40 windows of 512 take")
    try expect(
      compile(["--pipeline", "quantize{spec=w4},gptq{text=\"\(text)\",length=4096}"]), exits: 64,
      says: "do not fit into the context of 512")
    // Ids outside of the vocabulary.
    let ids = folder.path("ids.npy")
    try NumPyArray([Int64](repeating: 600, count: 64), [1, 64]).write(to: ids)
    try expect(
      compile(["--quantize", "w4", "--calibrate", ids]), exits: 65,
      says: "has the id 600, which no token of 512 has, at place 0 of row 0")
    var rows = [Int64](repeating: 5, count: 96)
    rows[70] = -1
    try NumPyArray(rows, [3, 32]).write(to: ids)
    try expect(compile(["--quantize", "w4", "--calibrate", ids]), exits: 65, says: "the id -1")
    try expect(compile(["--quantize", "w4", "--calibrate", ids]), exits: 65, says: "at place 6 of row 2")
    rows[70] = 1 << 40
    try NumPyArray(rows, [3, 32]).write(to: ids)
    try expect(compile(["--quantize", "w4", "--calibrate", ids]), exits: 65, says: "has the id 1099511627776, which")
    try NumPyArray(rows, [96]).write(to: ids)
    try expect(compile(["--check", "--check-inputs", ids]), exits: 65, says: "has the id 1099511627776, which")
    let binary = try folder.write("binary.txt", Array("Once upon".utf8) + [0, 0xC3, 0xA9, 0xED, 0xA0, 0x80])
    try expect(
      compile(["--quantize", "w4", "--calibrate", binary]), exits: 65,
      says: "'\(binary)' is not UTF-8 text, byte 12")
    try expect(
      compile(["--quantize", "w4", "--calibrate", text, "--calibration-cache", short]), exits: 73,
      says: "cannot create the folder '\(short)'")
    try expect(compile(["--smooth", "awq"]), exits: 64, says: "--smooth needs --quantize")
    try expect(compile(["--quantize", "w4", "--smooth", "aqw"]), exits: 64, says: "'aqw', expected one of")
    let network = Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx"
    try expect(
      ["compile", network, "-o", folder.path("p"), "--quantize", "w8", "--calibrate", text], exits: 64,
      says: "has no tokenizer")
  }

  /// Weights are rounded to the nearest all the same where that is asked for: nothing else uses the text.
  @Test func roundsToTheNearestWithAText() throws {
    let folder = try TemporaryFolder()
    let text = try folder.write("text.txt", Self.text)
    func weights(_ name: String, _ arguments: [String]) throws -> [UInt8] {
      let program = folder.path(name)
      let outcome = try MCCProgram.run(["compile", Self.model, "--quantize", "w4", "-o", program] + arguments)
      #expect(outcome.exitCode == 0 && !outcome.text.contains("gptq"), "\(outcome.errors) \(outcome.text)")
      let file = try ProgramFile(try MappedFile(path: program))
      return withExtendedLifetime(file) { Array(file.bytes(of: .weights)) }
    }
    let plain = try weights("plain", []), nearest = try weights("nearest", ["--calibrate", text, "--method", "rtn"])
    #expect(plain.count > 100_000 && nearest == plain)
    // What else asks for the text gets it.
    let smooth = try weights("smooth", ["--calibrate", text, "--method", "rtn", "--smooth", "awq"])
    #expect(smooth.count == plain.count && smooth != plain)
  }

  /// For a network of arrays it means ranges from samples and weights to the nearest, biases as they are.
  @Test func roundsNetworksToTheNearestToo() throws {
    let folder = try TemporaryFolder()
    let network = Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx"
    let samples = folder.path("samples.npy")
    var random = SplitMix64(seed: 3)
    var numbers = random.floats(3 * 490)
    func outcome(_ arguments: [String]) throws -> Command.Outcome {
      try NumPyArray(numbers, [3, 49, 10, 1]).write(to: samples)
      return try MCCProgram.run(
        ["compile", network, "-o", folder.path("p"), "--quantize", "w8", "--calibrate", samples] + arguments)
    }
    let nearest = try outcome(["--method", "rtn"])
    #expect(nearest.exitCode == 0 && nearest.text.contains("calibrate"), "\(nearest.errors)")
    #expect(!nearest.text.contains("correct-bias") && nearest.text.contains("fuse-quantized"), "\(nearest.text)")
    #expect(try outcome([]).text.contains("correct-bias"))
    // What is no number is named with its place.
    numbers[490 + 7] = .nan
    let refused = try outcome([])
    #expect(refused.exitCode == 65, "\(refused.errors)")
    #expect(refused.errors.contains("'\(samples)' has what is not a number (NaN) in sample 1 of '"))
    try NumPyArray(Array(numbers.prefix(980)), [2, 490]).write(to: samples)
    try expect(
      ["compile", network, "-o", folder.path("p"), "--quantize", "w8", "--calibrate", samples], exits: 65,
      says: "have the shape [2, 490], expected [N, 49, 10, 1]")
  }

  /// Token ids do as well as the text that they come from.
  @Test func takesTokenIDs() throws {
    let folder = try TemporaryFolder()
    var random = SplitMix64(seed: 1)
    let ids = folder.path("ids.npy")
    try NumPyArray((0..<256).map { _ in Int64(random.int(below: 512)) }, [2, 128]).write(to: ids)
    let outcome = try MCCProgram.run([
      "compile", Self.model, "--quantize", "w4", "--calibrate", ids, "-o", folder.path("p"), "--method", "gptq",
    ])
    #expect(outcome.exitCode == 0 && outcome.text.contains("samples 2"), "\(outcome.errors)")
  }
}
