import Base
import Driver
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// Decoders of many kinds as programs, against what transformers recorded for them in float32.
@Suite(.serialized) struct ArchitectureTests {
  /// Two float32 implementations of one network differ by about 1e-6 of the largest logit.
  static let tolerance = 1e-4

  @Test(
    arguments: [
      "gemma2", "gemma3", "gpt-neox", "gpt2", "llama", "llama3-rope", "mistral", "olmo2", "phi3", "qwen2", "qwen3",
    ])
  func programGivesTheRecordedOutputs(name: String) async throws {
    guard let path = Fixtures.path("architectures/\(name)") else { return }
    let archive = try NumPyArchive(path: path + "/expected.npz")
    let program = try await CompiledModels.compile(path, "architecture-\(name)")
    let folder = try TemporaryFolder()
    for index in 0...1 {
      let ids = try archive.require("input_ids_\(index)", file: path)
      let expected = try archive.require("output_\(index)", file: path)
      let found = try Self.logits(program, ids.integers, in: folder)
      #expect(found.shape == expected.shape)
      #expect(maxRelativeError(found.floats, expected.floats) <= Self.tolerance)
    }
    let greedy = try archive.require("greedy_ids", file: path).integers.map { Int($0) }
    let prompt = try archive.require("input_ids_0", file: path).count
    let text = try CompiledModels.run(
      program,
      [
        "--prompt-ids", greedy.prefix(prompt).map { "\($0)" }.joined(separator: ","), "-n", "\(greedy.count - prompt)",
        "--temperature", "0", "--ignore-eos", "--print-ids",
      ])
    let tokens = text.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }
    try Self.compare(tokens, greedy, from: prompt, program, in: folder)
  }

  static func logits(_ program: String, _ ids: [Int64], in folder: TemporaryFolder) throws -> NumPyArray {
    try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
    _ = try CompiledModels.run(
      program, ["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("logits.npz")])
    return try NumPyArchive(path: folder.path("logits.npz")).require("output", file: "logits.npz")
  }

  /// Tokens must be equal up to the first position whose two best logits lie within the tolerance.
  static func compare(
    _ tokens: [Int], _ expected: [Int], from prompt: Int, _ program: String, in folder: TemporaryFolder
  ) throws {
    #expect(tokens.count == expected.count)
    guard let first = zip(tokens, expected).enumerated().first(where: { $0.element.0 != $0.element.1 })?.offset else {
      return
    }
    try #require(first >= prompt)
    let logits = try Self.logits(program, expected.prefix(first).map { Int64($0) }, in: folder)
    let width = logits.count / first
    let last = logits.floats.suffix(width).sorted()
    let largest = logits.floats.suffix(width).map(\.magnitude).max() ?? 0
    let gap = Double(last[width - 1] - last[width - 2])
    #expect(gap <= tolerance * Double(largest), "token \(first) is \(tokens[first]), expected \(expected[first])")
  }
}
