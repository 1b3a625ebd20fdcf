import Base
import Driver
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// Networks with an encoder, with states that do not grow, and with experts, against what transformers recorded for them in
/// float32, through programs and through the evaluator.
///
/// Two correct f32 implementations differ by about 1e-6 of the largest value on these networks with random weights; 1e-4
/// leaves room for other orders of summation and none for a wrong operation.
@Suite(.serialized) struct SequenceArchitectureTests {
  private static let tolerance = 1e-4

  private static func ids(_ archive: NumPyArchive, _ name: String) throws -> [Int64] {
    try archive.require(name, file: "expected.npz").integers
  }

  @Test(arguments: ["mamba", "mixtral", "qwen3-moe"])
  func programsGiveTheRecordedLogits(name: String) async throws {
    guard let path = Fixtures.path("architectures/\(name)") else { return }
    let program = try await CompiledModels.compile(path, "architecture-\(name)")
    let expected = try NumPyArchive(path: path + "/expected.npz")
    let folder = try TemporaryFolder()
    for index in 0..<2 {
      let ids = try Self.ids(expected, "input_ids_\(index)")
      try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
      let arguments = ["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("out.npz")]
      _ = try CompiledModels.run(program, arguments)
      let found = try NumPyArchive(path: folder.path("out.npz")).require("output", file: "out.npz")
      let wanted = try expected.require("output_\(index)", file: "expected.npz")
      #expect(found.shape == wanted.shape)
      #expect(maxRelativeError(found.floats, wanted.floats) <= Self.tolerance)
    }
    try checkGreedy(program, expected, folder)
  }

  /// The recorded continuation, up to the first place whose two best logits lie closer together than the tolerance.
  private func checkGreedy(_ program: String, _ expected: NumPyArchive, _ folder: borrowing TemporaryFolder) throws {
    let prompt = try Self.ids(expected, "input_ids_0")
    let wanted = try Self.ids(expected, "greedy_ids")
    let text = try CompiledModels.run(
      program,
      [
        "-n", "\(wanted.count - prompt.count)", "--temperature", "0", "--ignore-eos", "--print-ids", "--prompt-ids",
        prompt.map(String.init).joined(separator: ","),
      ])
    let found = text.split(whereSeparator: { !$0.isNumber }).compactMap { Int64($0) }
    #expect(found.count == wanted.count && found.prefix(prompt.count).elementsEqual(prompt))
    guard let place = zip(found, wanted).enumerated().first(where: { $0.element.0 != $0.element.1 })?.offset else {
      return
    }
    try NumPyArray(Array(wanted.prefix(place)), [1, place]).write(to: folder.path("prefix.npy"))
    _ = try CompiledModels.run(
      program, ["logits", "--ids", folder.path("prefix.npy"), "--output", folder.path("prefix.npz")])
    let logits = try NumPyArchive(path: folder.path("prefix.npz")).require("output", file: "prefix.npz").floats
    let last = logits.suffix(logits.count / place).sorted(by: >)
    let largest = last.map(abs).max() ?? 0
    #expect(Double(last[0] - last[1]) <= 2 * Self.tolerance * Double(largest), "token \(place) differs without a tie")
  }

  @Test(arguments: ["mamba", "mixtral", "qwen3-moe"])
  func theEvaluatorGivesTheRecordedLogits(name: String) throws {
    guard let path = Fixtures.path("architectures/\(name)") else { return }
    let expected = try NumPyArchive(path: path + "/expected.npz")
    let evaluator = try Evaluator(try FormatRegistry.load(path))
    let ids = try Self.ids(expected, "input_ids_1")
    let wanted = try expected.require("output_1", file: "expected.npz").floats
    func tokens(_ range: Range<Int>) -> Tensor {
      Tensor(.i32, [range.count], ids[range].map { Int32(truncatingIfNeeded: $0) })
    }
    let whole = try evaluator.run([tokens(0..<ids.count), Tensor(.i32, [1], [Int32(0)])], symbols: ["L": ids.count])
    #expect(maxRelativeError(whole.outputs[0].array(of: Float.self), wanted) <= Self.tolerance)
    // The same in pieces, which go on from the states; those of an earlier text do not matter.
    var states = whole.states
    var found: [Float] = []
    for (start, count) in [(0, 1), (1, 7), (8, ids.count - 8)] {
      let part = try evaluator.run(
        [tokens(start..<(start + count)), Tensor(.i32, [1], [Int32(start)])], states: states, symbols: ["L": count])
      states = part.states
      found += part.outputs[0].array(of: Float.self)
    }
    #expect(maxRelativeError(found, wanted) <= Self.tolerance)
  }

  @Test func translationGivesTheRecordedLogits() async throws {
    guard let path = Fixtures.path("architectures/t5") else { return }
    let program = try await CompiledModels.compile(path, "architecture-t5")
    let expected = try NumPyArchive(path: path + "/expected.npz")
    let model = try FormatRegistry.load(path)
    let (encoder, decoder) = (try Evaluator(model, function: "cross"), try Evaluator(model, function: "main"))
    let main = try #require(model.function(role: "main"))
    let cross = try #require(model.function(role: "cross"))
    let folder = try TemporaryFolder()
    for index in 0..<2 {
      let source = try Self.ids(expected, "input_ids_\(index)")
      let answer = try Self.ids(expected, "decoder_input_ids_\(index)")
      let wanted = try expected.require("output_\(index)", file: "expected.npz")
      try NumPyArray(source, [1, source.count]).write(to: folder.path("ids.npy"))
      try NumPyArray(answer, [1, answer.count]).write(to: folder.path("answer.npy"))
      _ = try CompiledModels.run(
        program,
        [
          "logits", "--ids", folder.path("ids.npy"), "--decoder-ids", folder.path("answer.npy"), "--output",
          folder.path("out.npz"),
        ])
      let found = try NumPyArchive(path: folder.path("out.npz")).require("output", file: "out.npz")
      #expect(found.shape == wanted.shape)
      #expect(maxRelativeError(found.floats, wanted.floats) <= Self.tolerance)

      let tokens = Tensor(.i32, [source.count], source.map { Int32(truncatingIfNeeded: $0) })
      let caches = try encoder.run([tokens]).states
      var states = try decoder.initialStates()
      for (place, state) in main.states.enumerated() {
        let name = main[state.value].name
        if let other = cross.states.firstIndex(where: { cross[$0.value].name == name }) {
          states[place] = caches[other]
        }
      }
      let ids = Tensor(.i32, [answer.count], answer.map { Int32(truncatingIfNeeded: $0) })
      let results = try decoder.run(
        [ids, Tensor(.i32, [1], [Int32(0)])], states: states, symbols: ["L": answer.count, "S": source.count])
      #expect(maxRelativeError(results.outputs[0].array(of: Float.self), wanted.floats) <= Self.tolerance)
    }
  }

  @Test func translationAnswersASource() async throws {
    guard let path = Fixtures.path("architectures/t5") else { return }
    let program = try await CompiledModels.compile(path, "architecture-t5")
    func answer(_ arguments: [String]) throws -> [Int] {
      let text = try CompiledModels.run(
        program, ["-n", "6", "--temperature", "0", "--ignore-eos", "--print-ids"] + arguments)
      return text.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) }
    }
    let first = try answer(["--prompt-ids", "5,6,7"])
    // The start token, then the answer; it is that of the logits, and depends on the source.
    #expect(first.count == 7 && first[0] == 0)
    let folder = try TemporaryFolder()
    try NumPyArray([5, 6, 7] as [Int64], [1, 3]).write(to: folder.path("ids.npy"))
    try NumPyArray(first.dropLast().map { Int64($0) }, [1, 6]).write(to: folder.path("answer.npy"))
    _ = try CompiledModels.run(
      program,
      [
        "logits", "--ids", folder.path("ids.npy"), "--decoder-ids", folder.path("answer.npy"), "--output",
        folder.path("out.npz"),
      ])
    let logits = try NumPyArchive(path: folder.path("out.npz")).require("output", file: "out.npz").floats
    let width = logits.count / 6
    let best = (0..<6).map { row in
      (0..<width).max { logits[row * width + $0] < logits[row * width + $1] } ?? 0
    }
    #expect(best == Array(first.dropFirst()))
    #expect(try answer(["--prompt-ids", "9,300,41,17"]) != first)
    let check = try await ProgramCheck().run(model: path, program: program)
    #expect(try #require(check.differences.first).relative <= Self.tolerance)
    for (arguments, part) in [
      (["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("o.npz")], "--decoder-ids"),
      (["perplexity", folder.path("ids.npy")], "source"),
      (["--features", folder.path("ids.npy"), "--prompt-ids", "1"], "features"),
    ] {
      let outcome = try Command.run(program, arguments)
      #expect(outcome.exitCode == 64 && outcome.errors.contains(part), "\(arguments): \(outcome)")
    }
  }

  /// Weights of experts in few bits: program and evaluator agree on them, and they are not the weights in f32.
  @Test(arguments: ["w8", "w4g32", "w4g32a32"])
  func expertsAreQuantized(spec: String) async throws {
    guard let path = Fixtures.path("architectures/mixtral") else { return }
    let program = try await CompiledModels.compile(path, "architecture-mixtral-\(spec)", quantize: spec)
    let check = try await ProgramCheck().run(model: path, program: program)
    // A last bit may move an int8 activation by a step, or a token to another expert; without either they agree.
    #expect(try #require(check.differences.first).relative <= (spec.hasSuffix("a32") ? 1e-4 : 0.05))
    let expected = try NumPyArchive(path: path + "/expected.npz")
    let folder = try TemporaryFolder()
    let ids = try Self.ids(expected, "input_ids_1")
    try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
    _ = try CompiledModels.run(
      program, ["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("out.npz")])
    let found = try NumPyArchive(path: folder.path("out.npz")).require("output", file: "out.npz").floats
    let wanted = try expected.require("output_1", file: "expected.npz").floats
    let error = maxRelativeError(found, wanted)
    print("mixtral with \(spec): \(error) of the largest logit")
    // How much more depends on whether a token of this random network goes to another expert.
    #expect(error > 1e-4 && error.isFinite)
  }
}
