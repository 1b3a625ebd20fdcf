import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport
import Testing

/// `mcc eval`: figures of quality against what transformers and others recorded.
@Suite(.serialized) struct EvaluationTests {
  private static func evaluate(
    _ paths: [String], reference: String? = nil, on input: ModelEvaluation.Input,
    _ change: (inout ModelEvaluation) throws -> Void = { _ in }
  ) async throws -> [ModelEvaluation.Result] {
    var evaluation = ModelEvaluation()
    evaluation.options.reproducerFolder = nil
    try change(&evaluation)
    return try await evaluation.run(paths, reference: reference, on: input)
  }

  /// The recorded perplexities have three and more digits; f32 sums in another order move the fifth.
  @Test func perplexityIsTheRecordedOne() async throws {
    if let sample = Fixtures.path("stories260K/tinystories_sample.txt") {
      let result = try await Self.evaluate([CompiledModels.stories], on: .text(sample))
      let perplexity = try #require(result.first?.value(.perplexity))
      #expect(abs(perplexity - 3.548) <= 0.001)
    }
    if let text = Fixtures.path("pycode7m/eval.txt"), let expected = Fixtures.path("pycode7m/expected.json"),
      let model = Fixtures.path("pycode7m")
    {
      let recorded = try JSON.read(path: expected)
      let result = try await Self.evaluate([model], on: .text(text)) {
        $0.windows.length = 256
        $0.windows.begin = .none
        $0.options.load.cacheType = .f32
      }
      #expect(result.first?.value(.count) == recorded["predicted_tokens"]?.double)
      let perplexity = try #require(result.first?.value(.perplexity)),
        wanted = try #require(recorded["perplexity"]?.double)
      #expect(abs(perplexity - wanted) <= 1e-4 * wanted)
    }
  }

  /// 4 bits with scales of groups of 32, -8 to 7: llama.cpp's Q4_0 grid, whose divergence on linear layers alone is
  /// recorded as 0.0026, rounded to two digits, in the protocol of windows of 256 scored from 128.
  @Test func divergenceOfRoundToNearestIsTheRecordedOne() async throws {
    guard let model = Fixtures.path("pycode7m"), let text = Fixtures.path("pycode7m/eval.txt") else { return }
    let results = try await Self.evaluate([model], reference: model, on: .text(text)) {
      $0.windows.length = 256
      $0.windows.scoreFrom = 128
      $0.windows.characters = 120_000
      $0.options.pipeline = try Pipeline(
        parsing: "canonicalize,fuse,quantize{spec=w4g32a32,embeddings=keep}", registry: Presets.registry)
      $0.options.load.cacheType = .f32
    }
    #expect(results.count == 2 && results[0].value(.divergence) == nil)
    let divergence = try #require(results.last?.value(.divergence))
    #expect(abs(divergence - 0.0026) <= 0.0003, "\(divergence)")
    #expect(try #require(results.last?.value(.agreement)) > 0.95)
    #expect(results[1].bytes < results[0].bytes)
  }

  /// The ids of a text are as good as the text, with and without the token that begins it.
  @Test func idsAreTexts() async throws {
    guard let sample = Fixtures.path("stories260K/tinystories_sample.txt") else { return }
    let folder = try TemporaryFolder()
    let program = try await CompiledModels.compile(CompiledModels.stories, "story")
    let text = try await TokenText(sample, try ModelLoader.load(CompiledModels.stories), most: 1 << 20)
    let ids = text.ids.map { Int64($0) }
    try NumPyArray(ids, [ids.count]).write(to: folder.path("stream.npy"))
    func results(_ path: String, _ length: Int?) async throws -> [ModelEvaluation.Measure] {
      try await Self.evaluate([program], on: .text(path)) { $0.windows.length = length }[0].measures
    }
    let windows = try await results(sample, 64)
    #expect(try await results(folder.path("stream.npy"), 64) == windows && windows.count == 2)
    let row = Array(ids.prefix(100))
    try NumPyArray(row, [1, 100]).write(to: folder.path("row.npy"))
    try NumPyArray([1] + row, [1, 101]).write(to: folder.path("begun.npy"))
    let plain = try await results(folder.path("row.npy"), nil)
    #expect(try await results(folder.path("begun.npy"), nil) == plain && plain.last?.value == 100)
  }

  /// In models without outliers smoothing leaves rounding to the nearest about as good as it was: to a twentieth of what
  /// is lost, and to a tenth in a model of few weights.
  @Test(arguments: [
    ("pycode7m", "pycode7m/eval.txt", 1.05), ("stories260K/hf", "stories260K/tinystories_sample.txt", 1.1),
  ])
  func smoothingWithoutOutliersDoesLittleHarm(_ name: String, _ sample: String, _ bound: Double) async throws {
    guard let model = Fixtures.path(name), let text = Fixtures.path(sample) else { return }
    func divergence(_ smoothing: Smooth?) async throws -> Double {
      let results = try await Self.evaluate([model], reference: model, on: .text(text)) {
        $0.windows.length = 256
        $0.windows.characters = 12_000
        $0.options.quantization = try QuantizationSpec(parsing: "w4g32a32")
        $0.options.smoothing = smoothing
      }
      return try #require(results.last?.value(.divergence))
    }
    let plain = try await divergence(nil)
    for kind in Smooth.Kind.allCases {
      let smoothed = try await divergence(Smooth(kind))
      #expect(smoothed <= bound * plain && smoothed != plain, "\(kind): \(smoothed) of \(plain)")
    }
  }

  @Test func aModelDoesNotDivergeFromItself() async throws {
    guard let sample = Fixtures.path("stories260K/tinystories_sample.txt") else { return }
    let stories = CompiledModels.stories
    let program = try await CompiledModels.compile(stories, "story")
    let results = try await Self.evaluate([program, stories], reference: stories, on: .text(sample)) {
      $0.windows.characters = 2000
    }
    #expect(results.count == 3)
    for result in results.dropFirst() {
      #expect(result.value(.divergence) == 0 && result.value(.agreement) == 1)
      #expect(result.value(.perplexity) == results[0].value(.perplexity) && result.bytes == results[0].bytes)
    }
  }

  @Test func embeddingsAreComparedByCosine() async throws {
    guard let model = Fixtures.path("minilm") else { return }
    let folder = try TemporaryFolder()
    try AtomicFile.write("A cat sits on the mat.\r\n\nTrains run late today.\nSums are easy.", to: folder.path("lines"))
    let results = try await Self.evaluate([model], reference: model, on: .text(folder.path("lines"))) {
      $0.options.quantization = try QuantizationSpec(parsing: "w8g32")
    }
    let cosine = try #require(results.last?.value(.cosine))
    #expect(cosine > 0.999 && cosine < 1 && results.last?.value(.count) == 3)
    #expect(try #require(results.last?.value(.smallestCosine)) <= cosine)
  }

  /// 90.0 % of 1000 inputs are right in float; ONNX Runtime finds 901 of them right.
  @Test func labelsAndRecordedOutputsJudgeANetwork() async throws {
    guard let data = Fixtures.path("mlperf-tiny/kws_eval.npz"),
      let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx")
    else { return }
    let results = try await Self.evaluate([model], on: .data(data)) {
      $0.options.load.dimensions = ["unk__123": 1...1]
    }
    let accuracy = try #require(results.first?.value(.accuracy))
    #expect(abs(accuracy - 0.901) < 1e-9)
    #expect(try #require(results.first?.value(.cosine)) > 0.999)
  }

  @Test func whatCannotBeJudgedIsSaid() async throws {
    let folder = try TemporaryFolder()
    try AtomicFile.write("a", to: folder.path("text"))
    let stories = try await CompiledModels.compile(CompiledModels.stories, "story")
    func message(
      _ input: ModelEvaluation.Input, _ change: (inout ModelEvaluation) -> Void = { _ in }
    ) async -> String {
      do {
        _ = try await Self.evaluate([stories], on: input, change)
        return ""
      } catch { return (error as? CompileError)?.message ?? "\(error)" }
    }
    #expect(await message(.text(folder.path("text"))) { $0.windows.length = 64 }.contains("too short"))
    #expect(await message(.text(folder.path("text"))) { $0.windows.length = 4096 }.contains("larger than the context"))
    #expect(
      await message(.text(folder.path("text"))) { $0.windows.begin = .id(512) }.contains("outside the vocabulary"))
    #expect(await message(.data(folder.path("text"))).contains("--text"))
    try AtomicFile.write(" \n", to: folder.path("empty"))
    #expect(await message(.text(folder.path("empty"))).contains("too short"))
    #expect(await message(.text(folder.path("none"))).contains("none"))
    try folder.write("latin", Array("caf".utf8) + [0xE9, 0x0A])
    #expect(await message(.text(folder.path("latin"))).contains("latin' is not UTF-8 text, byte 3"))
    try NumPyArray([1, 1 << 40] as [Int64], [2]).write(to: folder.path("ids.npy"))
    #expect(await message(.text(folder.path("ids.npy"))).contains("the id 1099511627776, which no token of 512 has"))
    try NumPyArray([1, 2] as [Float], [2]).write(to: folder.path("ids.npy"))
    #expect(await message(.text(folder.path("ids.npy"))).contains("one array of token ids"))
    let characters = await message(.text(folder.path("ids.npy"))) { $0.windows.characters = 4 }
    #expect(characters.contains("--characters is for texts"), "\(characters)")
    // Options of a compilation do nothing to a program.
    let text = try folder.write("text.txt", "Once upon a time")
    for (options, name) in [(["--quantize", "w4"], "--quantize"), (["-O2", "--kv", "8"], "-O2, --kv")] {
      let outcome = try MCCProgram.run(["eval", stories, "--text", text] + options)
      #expect(outcome.exitCode == 64 && outcome.errors.contains("\(name): for models"), "\(outcome.errors)")
    }
  }

  /// A program is held against the model that it was made from.
  @Test func programsOfOtherModelsAreRefused() async throws {
    let network = Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx"
    let story = try await CompiledModels.compile(CompiledModels.stories, "story")
    let spotter = try await CompiledModels.compile(network, "kws-example")
    for (model, program, part) in [
      (CompiledModels.stories, spotter, "reads arrays, where '\(CompiledModels.stories)' reads tokens"),
      (network, story, "reads tokens, which '\(network)' does not"),
    ] {
      let outcome = try MCCProgram.run(["verify", model, program])
      #expect(outcome.exitCode == 65 && outcome.errors.contains(part), "\(outcome.errors)")
    }
    let folder = try TemporaryFolder()
    try folder.write(
      "other.mir",
      """
      model @other {
        func @main (%a: f32[2, 3]) -> (y: f32[2, 3]) {
          %y = relu(%a)
          return %y
        }
      }
      """)
    let outcome = try MCCProgram.run(["verify", folder.path("other.mir"), spotter])
    #expect(outcome.exitCode == 65 && outcome.errors.contains("takes 'a': it was made from another model"))
    #expect(try MCCProgram.run(["verify", network, spotter]).exitCode == 0)
  }

  @Test func sweepsPutTheOriginalFirstAndFewerBitsLast() async throws {
    guard let sample = Fixtures.path("stories260K/tinystories_sample.txt") else { return }
    var sweep = Sweep()
    sweep.evaluation.options.reproducerFolder = nil
    sweep.evaluation.windows.characters = 4000
    sweep.recipes = try ["w8", "w4g32"].map { try Sweep.Recipe(parsing: $0) }
    let rows = try await sweep.run(CompiledModels.stories, on: .text(sample))
    #expect(rows.map(\.recipe) == ["original", "w8gca8", "w4g32a8"])
    #expect(rows[0].result.bytes > rows[1].result.bytes && rows[1].result.bytes > rows[2].result.bytes)
    let divergences = rows.compactMap { $0.result.value(.divergence) }
    #expect(divergences.count == 2 && divergences[0] < divergences[1] && divergences[0] > 0)
    #expect(rows.allSatisfy { $0.speed ?? 0 > 0 })
    let table = Sweep.table(rows)
    #expect(table.count == 4 && Set(table.map(\.count)).count == 1 && table[0].contains("tokens/s"))
    let plot = try #require(Sweep.plot(rows))
    #expect(plot.contains("w4g32a8</text>") && plot.split(separator: "<circle").count == 3)
    #expect(Sweep.plot(Array(rows.prefix(1))) == nil)
  }

  @Test func errorsOfLayersGrowWithFewerBits() async throws {
    guard let sample = Fixtures.path("stories260K/tinystories_sample.txt") else { return }
    func layers(_ quantization: String) async throws -> [LayerErrors.Layer] {
      var errors = LayerErrors()
      errors.options.reproducerFolder = nil
      errors.options.quantization = try QuantizationSpec(parsing: quantization)
      return try await errors.run(CompiledModels.stories, on: .text(sample))
    }
    let wide = try await layers("w8a32"), narrow = try await layers("w3a32")
    // Five layers with Q, K and V in one product, output, gate with up, and down; and the head.
    #expect(wide.count == 21 && wide.map(\.name) == narrow.map(\.name))
    #expect(zip(wide, narrow).allSatisfy { $0.error > 0 && $0.error < $1.error })
  }
}
