import Base
import Driver
import Formats
import TestSupport
import Testing

/// Encoders as programs, against what transformers recorded for them in float32.
@Suite(.serialized) struct EncoderTests {
  private static func minilm() async throws -> String? {
    guard let path = Fixtures.path("minilm") else { return nil }
    return try await CompiledModels.compile(path, "minilm")
  }

  private static func expected() throws -> [JSON] {
    guard let path = Fixtures.path("minilm/expected.json") else { return [] }
    return try #require(try JSON.read(path: path).array)
  }

  private static func numbers(_ json: JSON?) -> [Double] { json?.array?.compactMap(\.double) ?? [] }

  private static func worst(_ found: [Double], _ expected: [Double]) -> Double {
    guard found.count == expected.count, !found.isEmpty else { return .infinity }
    return zip(found, expected).map { abs($0 - $1) }.max() ?? .infinity
  }

  /// Twenty sentences. Embeddings have length 1; two f32 implementations differ by about 1e-6.
  @Test func miniLMGivesTheRecordedEmbeddings() async throws {
    guard let program = try await Self.minilm() else { return }
    let cases = try Self.expected()
    #expect(cases.count == 20)
    let texts = try cases.map { try #require($0["text"]?.string) }
    let lines = Array((texts.joined(separator: "\n") + "\n").utf8)
    let ids = try #require(
      JSON.parse(try CompiledModels.run(program, ["tokens", "--json", "-"], input: lines), file: "tokens").array)
    #expect(ids.map { $0.array?.compactMap(\.int) } == cases.map { $0["input_ids"]?.array?.compactMap(\.int) })

    let folder = try TemporaryFolder()
    try folder.write("texts.txt", lines)
    let output = try CompiledModels.run(
      program, ["--json", "--file", folder.path("texts.txt"), "--output", folder.path("all.npy")])
    let found = try #require(JSON.parse(output, file: "embeddings").array)
    let array = try NumPyArray.read(path: folder.path("all.npy"))
    try #require(found.count == cases.count && array.shape == [20, 384])
    for (index, (found, wanted)) in zip(found, cases).enumerated() {
      let reference = Self.numbers(wanted["embedding"])
      #expect(Self.worst(Self.numbers(found["embedding"]), reference) <= 1e-5, "\(texts[index])")
      #expect(Self.worst(array.doubles[index * 384..<(index + 1) * 384].map { $0 }, reference) <= 1e-5)
      #expect(found["tokens"]?.int == wanted["input_ids"]?.array?.count)
    }
    // The same, one text at a time, as lines of numbers.
    let line = try CompiledModels.run(program, ["--threads", "1", texts[0]])
    #expect(
      Self.worst(
        line.split(separator: " ").compactMap { Double($0.filter { $0 != "\n" }) },
        Self.numbers(cases[0]["embedding"])) <= 1e-5)
  }

  @Test func longTextsAreCutOffWithANote() async throws {
    guard let program = try await Self.minilm() else { return }
    let long = Array(repeating: "word", count: 300).joined(separator: " ")
    let outcome = try Command.run(program, ["tokens", long])
    let ids = outcome.text.split(whereSeparator: { $0 == " " || $0 == "\n" }).compactMap { Int($0) }
    #expect(ids.count == 256 && ids.first == 101 && ids.last == 102)
    #expect(outcome.errors == "note: text 1 has 302 tokens and is cut off at 256\n")
  }

  @Test func inputsAreCheckedAndThreadsDoNotMatter() async throws {
    guard let program = try await Self.minilm() else { return }
    for (arguments, code, part) in [
      ([], 64, "give texts"), (["--ids", "1,x"], 64, "'1,x'"), (["--ids", "30522"], 64, "30522"),
      (["--ids", "1", "text"], 64, "one of them"), (["--file", "/nonexistent"], 65, "/nonexistent"),
      (["bench", "--tokens", "257"], 64, "256"), (["--output", "/tmp/x.txt", "a"], 64, ".npy"),
    ] as [([String], Int32, String)] {
      let outcome = try Command.run(program, arguments)
      #expect(outcome.exitCode == code && outcome.errors.contains(part), "\(arguments): \(outcome)")
    }
    let one = try CompiledModels.run(program, ["--ids", "101,7592,102", "--threads", "1"])
    #expect(try CompiledModels.run(program, ["--ids", "101,7592,102", "--threads", "2"]) == one)
    #expect(try CompiledModels.run(program, ["hello"]) == one)
    #expect(try CompiledModels.run(program, ["--json", "-"], input: []) == "[]\n")
    let bench = try CompiledModels.run(program, ["bench", "--tokens", "5", "--repeat", "1", "--json"])
    #expect(try JSON.parse(bench, file: "bench")["tokens"]?.int == 5)
  }

  /// Hidden states of networks with random weights. They reach 3; 1e-4 of that leaves room for other orders of summation
  /// and none for a wrong operation.
  @Test(arguments: ["bert", "roberta"])
  func architecturesGiveTheRecordedStates(name: String) async throws {
    guard let path = Fixtures.path("architectures/\(name)") else { return }
    let program = try await CompiledModels.compile(path, "architecture-\(name)")
    let expected = try NumPyArchive(path: path + "/expected.npz")
    let folder = try TemporaryFolder()
    for index in 0..<2 {
      let ids = try expected.require("input_ids_\(index)", file: "expected.npz")
      let states = try expected.require("output_\(index)", file: "expected.npz")
      try NumPyArray(ids.integers, ids.shape).write(to: folder.path("ids.npy"))
      let arguments = ["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("states.npz")]
      _ = try CompiledModels.run(program, arguments)
      let found = try NumPyArchive(path: folder.path("states.npz")).require("output", file: "states.npz")
      #expect(found.shape == states.shape)
      #expect(maxRelativeError(found.floats, states.floats) <= 1e-4)
    }
  }

  @Test func theEvaluatorAgrees() async throws {
    guard let program = try await Self.minilm(), let model = Fixtures.path("minilm") else { return }
    let differences = try await ProgramCheck().run(model: model, program: program).differences
    #expect(differences.map(\.output) == ["output", "embedding"])
    // Both compute in f32, in other orders of summation.
    #expect(differences.allSatisfy { $0.relative <= 1e-5 })
  }
}
