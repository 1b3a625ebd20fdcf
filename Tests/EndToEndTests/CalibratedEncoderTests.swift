import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// Codes of encoders, and of models that answer a source, chosen on samples.
@Suite(.serialized) struct CalibratedEncoderTests {
  /// Sentences, none of which is among those that MiniLM's embeddings are recorded of.
  private static let sentences = (1...30).map { number in
    let people = ["The teacher", "A young doctor", "My neighbour", "The old captain", "Her brother", "Our cook"]
    let things = [
      "an expensive camera", "three loaves of bread", "the broken engine", "a letter from Paris", "fresh fish",
    ]
    let places = [
      "before the storm began.", "at the railway station?", "because nobody else would!", "in the spring of 1987.",
    ]
    let verbs = ["bought", "carefully described", "forgot about", "would never sell", "was painting", "has measured"]
    return [people[number % 6], verbs[number / 2 % 6], things[number % 5], places[number % 4]].joined(separator: " ")
  }

  private static func model(_ path: String, _ passes: String) async throws -> Model {
    var options = FrontendOptions()
    options.reproducerFolder = nil
    options.pipeline = try Pipeline(
      parsing: Presets.simplify(.o1).description + (passes.isEmpty ? "" : "," + passes), registry: Presets.registry)
    try await options.readTexts(for: path)
    var frontend = Frontend(options)
    return try frontend.run(path)
  }

  /// The mean cosine of the embeddings of recorded sentences to what transformers gave.
  private static func cosine(_ model: Model) throws -> Double {
    let path = try #require(Fixtures.path("minilm/expected.json"))
    let evaluator = try Evaluator(model)
    let cases = try #require(try JSON.read(path: path).array)
    var sum = 0.0
    for recorded in cases {
      let ids = try #require(recorded["input_ids"]?.array).compactMap { $0.int.map { Int32($0) } }
      let wanted = try #require(recorded["embedding"]?.array).compactMap(\.double)
      let found = try evaluator.run([Tensor(.i32, [ids.count], ids)]).outputs[1].array(of: Float.self).map {
        Double($0)
      }
      let product = zip(found, wanted).reduce(0) { $0 + $1.0 * $1.1 }
      let lengths = [found, wanted].map { $0.reduce(0) { $0 + $1 * $1 }.squareRoot() }
      sum += product / (lengths[0] * lengths[1])
    }
    return sum / Double(cases.count)
  }

  /// An encoder reads the lines of a text, and its embeddings come closer to the recorded ones than with codes to the
  /// nearest: a tenth closer at least, as so few sentences have about as many tokens as a layer has inputs.
  @Test func embeddingsComeCloser() async throws {
    guard let path = Fixtures.path("minilm") else { return }
    let folder = try TemporaryFolder()
    let text = try folder.write("sentences.txt", Self.sentences.joined(separator: "\r\n") + "\n\n")
    let quantize = "quantize{spec=w3g32,embeddings=keep}"
    let choose = ",gptq{text=\"\(text)\"}"
    let rounded = try Self.cosine(try await Self.model(path, quantize))
    let chosen = try Self.cosine(try await Self.model(path, quantize + choose))
    #expect(chosen > 0.9 && 1 - chosen < 0.9 * (1 - rounded), "\(rounded) \(chosen)")
    let fitted = try Self.cosine(try await Self.model(path, "quantize{spec=wcb3g32,embeddings=keep}" + choose))
    #expect(1 - fitted < 1 - chosen, "\(chosen) \(fitted)")
  }

  /// The best codes of a model that embeds are in levels fitted to each tensor, others in the steps that were asked for.
  @Test func bestCodesHaveFittedLevels() throws {
    func first(_ spec: String, _ method: QuantizationMethod, embeds: Bool = true) throws -> String {
      let passes = try Presets.quantize(
        QuantizationSpec(parsing: spec), calibration: Calibrate(samples: "lines.txt"), method: method, isLanguage: true,
        embeds: embeds)
      return try #require(passes.description.split(separator: ",").first.map(String.init))
    }
    #expect(try first("w4", .best).hasPrefix("quantize{spec=wcb4g32a8"))
    #expect(try first("w3g64a32", .best).hasPrefix("quantize{spec=wcb3g64a32"))
    for spec in ["w8g32a8", "w6g32a8", "w4g32za8", "wnf4g32a8"] {
      let pass = try first(spec, .best)
      #expect(pass.hasPrefix("quantize{spec=\(spec)"), "\(pass)")
    }
    for method in QuantizationMethod.allCases where method != .best {
      #expect(try first("w4", method).hasPrefix("quantize{spec=w4g32a8"))
    }
    #expect(try first("w4", .best, embeds: false).hasPrefix("quantize{spec=w4g32a8"))
  }

  @Test func windowsOfLines() {
    let text = TokenText(ids: Array(1...12), lines: [0..<3, 3..<10, 10..<12], prefix: [100], suffix: [101])
    #expect(
      text.windows(count: 9, length: 6)
        == [[100, 1, 2, 3, 101], [100, 4, 5, 6, 7, 101], [100, 8, 9, 10, 101], [100, 11, 12, 101]])
    #expect(text.windowCount(length: 6) == 4)
    #expect(text.spread(count: 2, length: 6) == [[100, 1, 2, 3, 101], [100, 8, 9, 10, 101]])
    #expect(text.windowCount(holding: 1000, length: 6) == 4 && text.windowCount(holding: 10, length: 6) == 2)
    #expect(text.windowCount(holding: 1, length: 6) == 1)
    // A stream has full windows alone.
    let stream = TokenText(ids: Array(1...12), prefix: [100])
    #expect(stream.windowCount(length: 6) == 2 && stream.windows(count: 9, length: 6).count == 3)
    #expect(stream.spread(count: 5, length: 6) == [[100, 1, 2, 3, 4, 5], [100, 6, 7, 8, 9, 10]])
    #expect(TokenText(ids: [], lines: []).spread(count: 3, length: 4) == [])
  }

  @Test func saysWhatIsWrongWithTheText() async throws {
    guard let path = Fixtures.path("minilm") else { return }
    let folder = try TemporaryFolder()
    let short = try folder.write("short.txt", Self.sentences.prefix(3).joined(separator: "\n"))
    let empty = try folder.write("empty.txt", "\n \n")
    let text = try folder.write("sentences.txt", Self.sentences.joined(separator: "\n"))
    for (arguments, part) in [
      ("text=\"\(short)\"", "at least 254 are needed"), ("text=\"\(empty)\"", "have 0 tokens"),
      ("text=\"\(text)\",samples=31", "give 30 samples, expected 31"),
      ("text=\"\(text)\",length=257", "do not fit into the context of 256"),
    ] {
      let error = await #expect(throws: CompileError.self) {
        _ = try await Self.model(path, "quantize{spec=w4},gptq{\(arguments)}")
      }
      #expect(error?.message.contains(part) == true, "\(String(describing: error))")
    }
  }

  /// The logits of a model that answers, on other ids than those it was calibrated on.
  private static func answers(_ model: Model, _ rows: [[Int32]]) throws -> [Float] {
    let runs = try CalibrationSamples.inputs(rows, of: model, "rows")
    var logits: [Float] = []
    for index in rows.indices {
      let source = try Evaluator(model, model.functions[0]).run(runs[0][index].inputs)
      let known = Dictionary(
        zip(model.functions[0].states.map { model.functions[0][$0.value].name }, source.states),
        uniquingKeysWith: { first, _ in first })
      let answer = try Evaluator(model, model.functions[1])
      let states = zip(model.functions[1].states, try answer.initialStates()).map { state, zeros in
        known[model.functions[1][state.value].name] ?? zeros
      }
      logits += try answer.run(runs[1][index].inputs, states: states, symbols: runs[1][index].symbols)
        .outputs[0].array(of: Float.self)
    }
    return logits
  }

  private static func rows(_ count: Int, seed: UInt64) -> [[Int32]] {
    var random = SplitMix64(seed: seed)
    return (0..<count).map { _ in (0..<64).map { _ in Int32(random.int(below: random.int(below: 4) == 0 ? 512 : 40)) } }
  }

  /// T5: its encoder, then its decoder on what the chosen encoder gives it; other codes give other answers.
  @Test func answersTakeChosenCodes() async throws {
    guard let path = Fixtures.path("architectures/t5") else { return }
    let folder = try TemporaryFolder(), ids = folder.path("ids.npy")
    let rows = Self.rows(12, seed: 1)
    try NumPyArray(rows.flatMap { $0.map { Int64($0) } }, [rows.count, 64]).write(to: ids)
    let quantize = "quantize{spec=w3g32a32}"
    let right = try Self.answers(try await Self.model(path, ""), Self.rows(4, seed: 2))
    func error(_ passes: String) async throws -> Double {
      let found = try Self.answers(try await Self.model(path, passes), Self.rows(4, seed: 2))
      try #require(found.count == right.count && !found.isEmpty)
      return zip(found, right).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
    }
    let rounded = try await error(quantize), chosen = try await error(quantize + ",gptq{text=\"\(ids)\"}")
    #expect(chosen > 0 && chosen != rounded, "\(rounded) \(chosen)")
    let single = folder.path("single.npy")
    try NumPyArray([Int64](repeating: 3, count: 4), [4, 1]).write(to: single)
    let refused = await #expect(throws: CompileError.self) {
      _ = try await Self.model(path, quantize + ",gptq{text=\"\(single)\"}")
    }
    #expect(refused?.message.contains("too short for a source and an answer") == true)
  }
}
