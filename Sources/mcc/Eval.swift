import ArgumentParser
import Base
import Driver

/// What programs are judged on.
struct EvaluationArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "A text to predict, or token ids (.npy, .npz); sentences to embed, one in a line.", valueName: "file"))
  var text: String?

  @Option(help: ArgumentHelp("Samples of the inputs of a network.", valueName: "file.npz"))
  var data: String?

  @Option(help: "Takes the text as one stream, in windows of this many tokens. (default: documents)")
  var window: Int?

  @Option(help: "Counts the tokens from this one of each window only. (default: 1)")
  var scoreFrom: Int?

  @Option(help: "The first token of each document or window: an id or none. (default: the model's)")
  var bos: String?

  @Option(
    help: ArgumentHelp(
      """
      Reads at most that many tokens in a call, as a program does that answers token by token: what a KV cache loses with \
      rows that are whole during a call. (default: as many as a program takes)
      """, valueName: "tokens"))
  var chunk: Int?

  @Option(help: "Reads that many characters of the text. (default: all)")
  var characters: Int?

  @Flag(help: "Prints JSON.")
  var json = false

  /// The text or the samples.
  func input() throws -> ModelEvaluation.Input {
    switch (text, data) {
    case (let text?, nil): return .text(text)
    case (nil, let data?): return .data(data)
    default: throw CompileError(.usage, "give --text or --data, one of them")
    }
  }

  /// How a text is cut.
  func windows() throws -> ModelEvaluation.Windows {
    var windows = ModelEvaluation.Windows()
    if let window, window < 2 { throw CompileError(.usage, "--window is \(window), expected at least 2") }
    if let characters, characters < 1 {
      throw CompileError(.usage, "--characters is \(characters), expected at least 1")
    }
    if let scoreFrom {
      guard let window else { throw CompileError(.usage, "--score-from needs --window") }
      guard (1..<window).contains(scoreFrom) else {
        throw CompileError(.usage, "--score-from is \(scoreFrom), expected 1 to \(window - 1)")
      }
      windows.scoreFrom = scoreFrom
    }
    if let chunk, chunk < 1 { throw CompileError(.usage, "--chunk is \(chunk), expected at least 1") }
    windows.chunk = chunk
    windows.length = window
    windows.characters = characters
    switch bos {
    case nil: windows.begin = .model
    case "none"?: windows.begin = .none
    case let text?:
      guard let id = Int32(text), id >= 0 else {
        throw CompileError(.usage, "--bos is '\(text)', expected a token id or none")
      }
      windows.begin = .id(id)
    }
    return windows
  }
}

/// `mcc eval`: how good programs are, against the original.
struct Eval: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Judges models and generated programs on a text or on samples.",
    discussion: """
      A model of language predicts the text of --text: perplexity, and against a reference the mean Kullback-Leibler \
      divergence of the next token's distribution and how often the likeliest token agrees. An encoder embeds each line: \
      cosine to the reference. Any other network runs on the samples of --data, an archive with an array per input and, \
      where there are some, 'label' and 'expected'.

      Models are compiled first, with the options given. The reference of a model that is quantized here is the model \
      itself, in the types of the checkpoint with the cache in f32; a program's is named with --reference.

        mcc eval Examples/stories260K --quantize w4 --text text.txt
      """)

  @Argument(help: "Checkpoints, .mir files or generated programs.")
  var models: [String]

  @Option(help: "What to compare with: a checkpoint, .mir file or generated program.")
  var reference: String?

  @Flag(
    help:
      "Shows the error of every layer of a model that is quantized here, through the evaluator on 256 tokens or a sample."
  )
  var layers = false

  @OptionGroup var input: EvaluationArguments
  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments

  func run() async throws {
    var evaluation = ModelEvaluation()
    evaluation.options = try passes.options(load)
    evaluation.windows = try input.windows()
    let compiled = models.filter { !ModelEvaluation.isProgram($0) }
    let readsReference = reference.map { !ModelEvaluation.isProgram($0) } ?? false
    let given = passes.given + (readsReference ? [] : load.given)
    guard !compiled.isEmpty || given.isEmpty else {
      throw CompileError(
        .usage,
        "\(given.joined(separator: ", ")): for models that are compiled here; '\(models[0])' is a program already")
    }
    // Nothing but what changes numbers takes a text or samples.
    let own = passes.quantizes || passes.calibrate != nil || passes.pipeline != nil ? compiled.first : nil
    guard !layers || models.count == 1 && own != nil else {
      throw CompileError(.usage, "--layers is for one model with --quantize, --bits, --max-size or --pipeline")
    }
    let results = try await evaluation.run(models, reference: reference ?? own, on: try input.input())
    var errors: [LayerErrors.Layer] = []
    if layers {
      var work = LayerErrors()
      work.options = evaluation.options
      errors = try await work.run(models[0], on: try input.input())
    }
    if input.json {
      var object = JSONObject()
      object["results"] = .array(results.map(\.json))
      if layers {
        object["layers"] = .array(errors.map { ["name": .string($0.name), "error": .number($0.error)] })
      }
      printJSON(.object(object))
    } else {
      for line in ModelEvaluation.table(results) { Standard.output(line) }
      for layer in errors { Standard.output("  \(layer.error.figure)  \(layer.name)") }
    }
  }
}
