import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport
import Testing

/// Formats for each layer within a budget, on the bundled checkpoint.
@Suite(.serialized) struct BitAllocationTests {
  private static let sample = "stories260K/tinystories_sample.txt"

  private static func options(_ budget: QuantizationBudget, _ text: String) -> FrontendOptions {
    var options = FrontendOptions()
    options.reproducerFolder = nil
    options.budget = budget
    options.method = .rtn
    options.calibration = Calibrate(samples: text)
    return options
  }

  /// The bytes and bits of a compilation within a budget.
  private static func compile(
    _ budget: QuantizationBudget, _ text: String, to path: String
  ) async throws -> (bytes: Int, bits: Double) {
    var options = CompileOptions()
    options.frontend = Self.options(budget, text)
    try await options.frontend.readTexts(for: CompiledModels.stories)
    options.output = path
    options.cacheFolder = try CompiledModels.folder().file("cache")
    var compiler = Compiler(options)
    let summary = try await compiler.compile(CompiledModels.stories)
    let program = try ProgramFile(try MappedFile(path: path))
    return (
      program.bytes(of: .weights).count + program.bytes(of: .tokenizer).count, summary.bitsPerWeight?.average ?? 0
    )
  }

  /// A mixture loses less than the same format everywhere that takes as many bits: 4.5 with groups of 32 and an f16 scale,
  /// 8.5 for the table, which both rounding alone decide.
  @Test func aMixtureLosesLessThanOneFormat() async throws {
    guard let text = Fixtures.path(Self.sample) else { return }
    let folder = try TemporaryFolder()
    let uniform = try await CompiledModels.compile(CompiledModels.stories, "story-w4g32", quantize: "w4g32a8")
    let file = try ProgramFile(try MappedFile(path: uniform))
    let bytes = file.bytes(of: .weights).count + file.bytes(of: .tokenizer).count
    let found = try await Self.compile(.bytes(bytes), text, to: folder.path("mixed"))
    #expect(found.bytes <= bytes && found.bytes > bytes * 99 / 100)
    var evaluation = ModelEvaluation()
    evaluation.options.reproducerFolder = nil
    let results = try await evaluation.run(
      [uniform, folder.path("mixed")], reference: CompiledModels.stories, on: .text(text))
    let divergences = results.compactMap { $0.value(.divergence) }
    #expect(divergences.count == 2 && divergences[1] < divergences[0], "\(divergences)")
  }

  /// Bits that equalize losses lose much less than three bits for all layers at equal bytes, on another text than the one
  /// on which the codes of both are chosen.
  @Test func closedFormLosesLessThanOneFormat() async throws {
    guard let sample = Fixtures.path(Self.sample) else { return }
    let folder = try TemporaryFolder()
    let story = try await CompiledModels.compile(CompiledModels.stories, "story")
    let tales = try (1...8).map { try CompiledModels.run(story, ["--seed", "\($0)", "-n", "400", "Once upon a time"]) }
    let text = try folder.write("tales.txt", tales.joined())
    func bytes(_ name: String, _ passes: String) async throws -> Int {
      var options = CompileOptions()
      options.frontend.reproducerFolder = nil
      options.frontend.pipeline = try Pipeline(
        parsing: "\(Presets.simplify()),\(passes),gptq{text=\"\(text)\",length=256}", registry: Presets.registry)
      try await options.frontend.readTexts(for: CompiledModels.stories)
      options.output = folder.path(name)
      options.cacheFolder = try CompiledModels.folder().file("cache")
      var compiler = Compiler(options)
      _ = try await compiler.compile(CompiledModels.stories)
      let program = try ProgramFile(try MappedFile(path: folder.path(name)))
      return program.bytes(of: .weights).count + program.bytes(of: .tokenizer).count
    }
    let size = try await bytes("uniform", "quantize{spec=w3g32}")
    let formats = "formats=[w2g32za8, w3g32za8, w4g32za8, w5g32za8, w6g32a8, w8g32a8]"
    let mixed = try await bytes(
      "mixed", "allocate-bits{text=\"\(text)\",size=\(size),search=closedForm,\(formats)}")
    #expect(mixed <= size && mixed > size * 99 / 100)
    var evaluation = ModelEvaluation()
    evaluation.options.reproducerFolder = nil
    let results = try await evaluation.run(
      [folder.path("uniform"), folder.path("mixed")], reference: CompiledModels.stories, on: .text(sample))
    let divergences = results.compactMap { $0.value(.divergence) }
    #expect(divergences.count == 2 && divergences[1] < 0.8 * divergences[0], "\(divergences)")
  }

  /// The mean of the formats is the one asked for; layers of few columns and the steps of formats leave a little.
  @Test func bitsAreSpent() async throws {
    guard let text = Fixtures.path(Self.sample) else { return }
    let folder = try TemporaryFolder()
    let found = try await Self.compile(.bits(4.5), text, to: folder.path("mixed"))
    #expect(found.bits <= 4.5 + 1e-9 && found.bits > 4.4, "\(found.bits)")
    let again = try await Self.compile(.bits(4.5), text, to: folder.path("again"))
    #expect(again == found)
    let files = try ["mixed", "again"].map { try ProgramFile(try MappedFile(path: folder.path($0))) }
    #expect(Array(files[0].bytes(of: .weights)) == Array(files[1].bytes(of: .weights)))
  }

  /// A size is met to a hundredth, without a word about formats; the summary says what was chosen.
  @Test func sizesAreMet() async throws {
    let size = 200_000
    guard let text = Fixtures.path(Self.sample) else { return }
    let folder = try TemporaryFolder()
    let arguments = [
      "compile", CompiledModels.stories, "--max-size", "\(size)", "--calibrate", text, "--method", "rtn", "-o",
      folder.path("program"), "--cache-dir", try CompiledModels.folder().file("cache"),
    ]
    let outcome = try MCCProgram.run(arguments)
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let program = try ProgramFile(try MappedFile(path: folder.path("program")))
    let bytes = program.bytes(of: .weights).count + program.bytes(of: .tokenizer).count
    #expect(bytes <= size && bytes > size * 99 / 100, "\(bytes)")
    let recipe = try #require(outcome.text.split(separator: "\n").first { $0.hasPrefix("recipe: ") })
    #expect(recipe.contains("a8") && recipe.contains("to the nearest"))
    #expect(outcome.text.contains("note: weights and tokenizer take \(bytes) of at most \(size) bytes"))
    // As many layers as are stored: tables, and in five blocks stacked queries, keys and values, outputs, gates and ups, downs.
    let counts = recipe.dropFirst(8).split(separator: ",").compactMap { Int($0.split(separator: " ").first ?? "") }
    #expect(counts.reduce(0, +) == 21, "\(recipe)")
  }

  /// A network with convolutions is int8: a size is a bound, and bits are refused.
  @Test func networksWithConvolutionsAreInt8() async throws {
    guard let model = Fixtures.path("mlperf-tiny/kws_ref_model_float32.onnx"),
      let all = Fixtures.path("mlperf-tiny/kws_eval.npz")
    else { return }
    let folder = try TemporaryFolder()
    let input = try NumPyArchive(path: all).require("input", file: all)
    let size = input.shape.dropFirst().reduce(1, *)
    try NumPyArray(Array(input.floats.prefix(8 * size)), [8] + input.shape.dropFirst()).write(
      to: folder.path("samples.npy"))
    func compile(_ budget: QuantizationBudget) async throws -> Summary {
      var options = CompileOptions()
      options.frontend = Self.options(budget, folder.path("samples.npy"))
      options.frontend.method = .best
      options.lastStage = .schedule
      options.output = folder.path("schedule.txt")
      var compiler = Compiler(options)
      return try await compiler.compile(model)
    }
    let found = try #require(try await compile(.bytes(60_000)).weightsBytes)
    #expect(found <= 60_000)
    for (budget, kind, part) in [
      (QuantizationBudget.bytes(found - 1), CompileError.Kind.usage, "the budget of \(found - 1) bytes cannot be met"),
      (.bits(4), .unsupported, "those of a network with convolutions are int8"),
    ] {
      let error = await #expect(throws: CompileError.self) { _ = try await compile(budget) }
      #expect(error?.kind == kind && error?.message.contains(part) == true, "\(String(describing: error))")
      if kind == .usage { #expect(error?.notes.first?.contains("\(found) bytes") == true) }
    }
  }

  @Test func budgetsThatCannotBeMetNameTheLeast() async throws {
    guard let text = Fixtures.path(Self.sample) else { return }
    let folder = try TemporaryFolder()
    for budget in [QuantizationBudget.bits(1), .bytes(1000)] {
      let error = await #expect(throws: CompileError.self) {
        _ = try await Self.compile(budget, text, to: folder.path("none"))
      }
      #expect(error?.kind == .usage && error?.message.contains("cannot be met") == true)
      #expect(error?.notes.first?.contains("the least") == true)
    }
    #expect(folder.names() == [])
  }

  @Test(arguments: [
    ("300MB", 300_000_000), ("1.5GiB", 1_610_612_736), ("5000000", 5_000_000), ("12kB", 12_000), ("7B", 7),
    ("2KiB", 2048),
  ]) func sizesAreRead(text: String, bytes: Int) throws {
    #expect(try QuantizationBudget(parsingSize: text) == .bytes(bytes))
  }

  @Test(arguments: ["", "MB", "-3MB", "0", "nan", "3TB", "1e300GB", "3 apples"]) func whatIsNoSizeIsRefused(
    text: String
  ) {
    #expect(throws: CompileError.self) { _ = try QuantizationBudget(parsingSize: text) }
  }
}
