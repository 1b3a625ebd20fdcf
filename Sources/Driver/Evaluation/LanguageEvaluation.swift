import Base
import CodeGen
import Formats
import Glibc
import IR
import Tensors

/// How well language models predict a text, and how far they are from a reference.
struct LanguageEvaluation {
  /// Bytes of logits that are at hand at a time, of one program.
  private static let batchBytes = 64 << 20

  private let windows: ModelEvaluation.Windows

  init(_ windows: ModelEvaluation.Windows) { self.windows = windows }

  /// Tokens of which those from `first` on count, each given all before it.
  struct Text: Hashable {
    var ids: [Int32]
    var first: Int
  }

  /// What was found so far.
  struct Score {
    var loss = 0.0
    var count = 0
    var divergence = LogitDivergence()

    mutating func add(_ other: Score) {
      loss += other.loss
      count += other.count
      divergence.add(other.divergence)
    }
  }

  func run(
    _ programs: [EvaluatedProgram], _ reference: EvaluatedProgram?, _ path: String, _ progress: Progress
  ) async throws -> [ModelEvaluation.Result] {
    let all = (reference.map { [$0] } ?? []) + programs
    let folder = try WorkFolder()
    let texts = try await self.texts(path, all, folder)
    var scores = [Score](repeating: Score(), count: all.count)
    var done = 0
    let chunk = windows.chunk.map { ["--chunk", "\($0)"] } ?? []
    for batch in Self.batches(texts, vocabulary: try vocabulary(all)) {
      progress.update("judging", done: done, of: texts.count)
      let ids = folder.file("ids.npy"), output = folder.file("logits.npz")
      let length = batch[0].ids.count - 1
      try NumPyArray(batch.flatMap { $0.ids.dropLast().map { Int64($0) } }, [batch.count, length]).write(to: ids)
      var original: NumPyArray?
      for (index, program) in all.enumerated() {
        try await program.run(["logits", "--ids", ids, "--output", output] + chunk)
        let logits = try NumPyArchive(path: output, limit: 4 * Self.batchBytes).require("output", file: output)
        scores[index].add(try Self.score(logits, against: original, batch))
        if reference != nil, index == 0 { original = logits }
      }
      done += batch.count
    }
    return zip(all.indices, zip(all, scores)).map { index, pair in
      let (program, score) = pair
      var measures = [ModelEvaluation.Measure(kind: .perplexity, value: exp(score.loss / Double(score.count)))]
      if reference != nil, index > 0 {
        measures += [
          .init(kind: .divergence, value: score.divergence.mean),
          .init(kind: .largestDivergence, value: score.divergence.largest),
          .init(kind: .agreement, value: 1 - score.divergence.changedTokens),
        ]
      }
      measures.append(.init(kind: .count, value: Double(score.count)))
      return .init(name: program.name, bytes: program.bytes, measures: measures)
    }
  }

  /// The vocabulary that all programs share.
  private func vocabulary(_ programs: [EvaluatedProgram]) throws -> Int {
    let sizes = programs.map { $0.manifest["metadata"]?["vocabulary"]?.string.flatMap { Int($0) } ?? 0 }
    guard let size = sizes.first, size > 0, sizes.allSatisfy({ $0 == size }) else {
      throw CompileError(.usage, "the programs have vocabularies of different sizes: \(sizes)")
    }
    return size
  }

  /// Runs of texts of equal length, few enough for their logits to fit in memory.
  static func batches(_ texts: [Text], vocabulary: Int) -> [[Text]] {
    var batches: [[Text]] = []
    for text in texts {
      if let last = batches.last, last[0].ids.count == text.ids.count,
        (last.count + 1) * text.ids.count * vocabulary * 4 <= batchBytes
      {
        batches[batches.count - 1].append(text)
      } else {
        batches.append([text])
      }
    }
    return batches
  }

  /// The score of logits `[N, T, V]` after all tokens but the last of each text.
  static func score(_ logits: NumPyArray, against original: NumPyArray?, _ texts: [Text]) throws -> Score {
    guard logits.type == .f32, logits.shape.count == 3, logits.shape[0] == texts.count,
      logits.shape[1] == texts[0].ids.count - 1, original.map({ $0.shape == logits.shape && $0.type == .f32 }) ?? true
    else { throw CompileError(.check, "the programs give logits of different shapes") }
    let length = logits.shape[1], columns = logits.shape[2]
    let found = logits.floats, wanted = original?.floats
    var sum = Score()
    let parts = parallelMap(texts.count) { index in
      var score = Score()
      let text = texts[index]
      for place in max(text.first, 1)..<text.ids.count {
        let start = (index * length + place - 1) * columns
        let row = LogitRow(found[start..<(start + columns)])
        score.loss += row.loss(of: Int(text.ids[place]))
        score.count += 1
        if let wanted { score.divergence.add(row, reference: LogitRow(wanted[start..<(start + columns)])) }
      }
      return score
    }
    for part in parts { sum.add(part) }
    return sum
  }

  // MARK: Texts

  /// The texts of a file, as the first program's tokenizer cuts them, or of its token ids, of which each row is a
  /// document or a stream.
  private func texts(_ path: String, _ programs: [EvaluatedProgram], _ folder: WorkFolder) async throws -> [Text] {
    let context = programs.map(\.context).min() ?? 1
    if let length = windows.length, length > context {
      throw CompileError(.usage, "a window of \(length) tokens is larger than the context of \(context)")
    }
    let program = programs[0]
    let begin: Int32? =
      switch windows.begin {
      case .model: program.beginID
      case .none: nil
      case .id(let id): id
      }
    if let begin, try begin >= vocabulary(programs) {
      throw CompileError(
        .usage, "the token id \(begin) lies outside the vocabulary of \(try vocabulary(programs)) tokens")
    }
    let isArchive = try CalibrationSamples.isArchive(path)
    let rows =
      try await isArchive
      ? idRows(path, vocabulary: vocabulary(programs)) : textRows(path, program, folder)
    var texts: [Text]
    if let length = windows.length {
      texts = rows.flatMap { ids in
        stride(from: 0, to: ids.count - length + 1, by: length).map { start in
          var window = Array(ids[start..<(start + length)])
          if let begin { window[0] = begin }
          return Text(ids: window, first: windows.scoreFrom)
        }
      }
    } else {
      texts = rows.map { ids in
        // Ids may have been taken with the token that begins a text.
        let missing = isArchive && ids.first == begin ? nil : begin
        return Text(ids: Array(((missing.map { [$0] } ?? []) + ids).prefix(context)), first: 1)
      }
    }
    texts.removeAll { $0.ids.count < 2 }
    guard !texts.isEmpty else {
      let wanted = windows.length.map { "a window of \($0) tokens" } ?? "a document of two tokens"
      throw CompileError(.input, "'\(path)' is too short: it does not hold \(wanted)")
    }
    return texts
  }

  /// The ids of a file of text: of all of it for windows, else of its documents.
  private func textRows(_ path: String, _ program: EvaluatedProgram, _ folder: WorkFolder) async throws -> [[Int32]] {
    var characters = String(decoding: try MappedFile.text(path: path), as: UTF8.self)
    if let count = windows.characters {
      characters = String(String.UnicodeScalarView(characters.unicodeScalars.prefix(count)))
    }
    let texts = windows.length == nil ? Self.documents(characters) : [characters]
    return texts.isEmpty ? [] : try await ids(texts, program, folder)
  }

  /// The rows of a file of token ids.
  private func idRows(_ path: String, vocabulary: Int) throws -> [[Int32]] {
    guard windows.characters == nil else {
      throw CompileError(.usage, "--characters is for texts; '\(path)' holds token ids")
    }
    return try CalibrationSamples.ids(path, vocabulary: vocabulary)
  }

  /// The parts of a text between `<|endoftext|>`, without white space around them; empty ones are left out.
  static func documents(_ text: String) -> [String] {
    text.split(separator: "<|endoftext|>").compactMap { part in
      let characters = part.unicodeScalars
      guard let first = characters.firstIndex(where: { !$0.properties.isWhitespace }),
        let last = characters.lastIndex(where: { !$0.properties.isWhitespace })
      else { return nil }
      return String(part[first...last])
    }
  }

  /// The token ids of texts, without what the tokenizer puts around them.
  private func ids(_ texts: [String], _ program: EvaluatedProgram, _ folder: WorkFolder) async throws -> [[Int32]] {
    let file = folder.file("texts")
    // A zero byte ends a text; it would cut one that has it.
    try AtomicFile.write(texts.flatMap { $0.utf8.filter { $0 != 0 } + [0] }, to: file)
    let answer = try await program.run(["tokens", "--zero", "--plain", "--file", file])
    let lines = answer.split(separator: "\n", omittingEmptySubsequences: false).prefix(texts.count)
    guard lines.count == texts.count else {
      throw CompileError(.check, "'\(program.name)' gives \(lines.count) lines of ids for \(texts.count) texts")
    }
    let vocabulary = Int32(clamping: try vocabulary([program]))
    return try lines.map { line in
      try line.split(separator: " ").map { word in
        guard let id = Int32(word), id >= 0, id < vocabulary else {
          throw CompileError(.check, "'\(program.name)' gives the token id '\(word)' of \(vocabulary)")
        }
        return id
      }
    }
  }
}
