import Base
import CodeGen
import Formats
import IR
import Tensors

/// Judges programs and models on a text or on samples, against a reference where there is one.
package struct ModelEvaluation {
  /// What is judged on.
  package enum Input: Hashable, Sendable {
    /// A file of text: for a language model to predict, for an encoder with one sentence in each line.
    case text(String)
    /// An archive of samples for the inputs of a network.
    case data(String)
  }

  /// How a text is cut for a language model.
  package struct Windows: Hashable, Sendable {
    /// What stands before each document or window.
    package enum Begin: Hashable, Sendable {
      /// What the model says.
      case model
      case none
      case id(Int32)
    }

    /// Tokens of a window of the text taken as one stream, the first of which gives way to the begin; nil for documents,
    /// which `<|endoftext|>` separates.
    package var length: Int?
    /// The first token of each window that counts.
    package var scoreFrom = 1
    /// The most tokens that are read in a call; nil for as many as the programs take.
    package var chunk: Int?
    package var begin = Begin.model
    /// How many characters of the text are read; nil for all.
    package var characters: Int?

    package init() {}
  }

  /// What was found of one program.
  package struct Result: Hashable, Sendable {
    package var name: String
    /// Bytes of weights, scales and tokenizer.
    package var bytes: Int
    package var measures: [Measure]

    package func value(_ kind: Measure.Kind) -> Double? { measures.first { $0.kind == kind }?.value }
  }

  /// A number that judges a program.
  package struct Measure: Hashable, Sendable {
    package enum Kind: String, Hashable, Sendable, CaseIterable {
      /// The exponential of the mean loss per token.
      case perplexity
      /// The mean divergence of the next token's distribution from the reference's, in nats.
      case divergence = "kl"
      case largestDivergence = "largest_kl"
      /// The fraction of tokens whose likeliest successor is the reference's.
      case agreement = "same_top"
      /// The fraction of samples whose largest output has the place of the label.
      case accuracy
      /// The mean cosine of the outputs and the reference's.
      case cosine
      case smallestCosine = "smallest_cosine"
      /// The root mean square of the difference from the reference, relative to the reference's.
      case error
      /// Tokens, sentences or samples that count.
      case count
    }

    package var kind: Kind
    package var value: Double
  }

  package var windows = Windows()
  /// How models are compiled.
  package var options = FrontendOptions()

  package init() {}

  /// Judges the programs or models at `paths`, the reference first where there is one.
  package func run(_ paths: [String], reference: String?, on input: Input) async throws -> [Result] {
    let progress = Progress()
    defer { progress.clear() }
    var original: EvaluatedProgram?
    if let reference {
      progress.update("reading \(reference)")
      original = try await EvaluatedProgram(reference, Self.exact(options))
    }
    var programs: [EvaluatedProgram] = []
    for path in paths {
      progress.update("reading \(path)")
      let program = try await EvaluatedProgram(path, options)
      if let first = original ?? programs.first, first.kind != program.kind {
        throw CompileError(.usage, "'\(first.name)' and '\(program.name)' are networks of different kinds")
      }
      programs.append(program)
    }
    guard let kind = (original ?? programs.first)?.kind else { return [] }
    switch (kind, input) {
    case (.languageModel, .text(let path)):
      return try await LanguageEvaluation(windows).run(programs, original, path, progress)
    case (.encoder, .text(let path)):
      return try await SentenceEvaluation().run(programs, original, path, progress)
    case (.network, .data(let path)):
      return try await SampleEvaluation().run(programs, original, path, progress)
    case (.network, .text): throw CompileError(.usage, "a network that reads no text is judged on --data")
    case (_, .data): throw CompileError(.usage, "a network that reads text is judged on --text")
    }
  }

  /// Whether there is a generated program at `path`, which is judged as it is.
  package static func isProgram(_ path: String) -> Bool {
    (try? MappedFile(path: path)).map { ProgramFile.isProgram($0) } ?? false
  }

  /// The options of a reference: nothing that changes the function, the cache in f32.
  static func exact(_ options: FrontendOptions) -> FrontendOptions {
    var exact = FrontendOptions()
    exact.load = options.load
    exact.load.cacheType = .f32
    return exact
  }
}
