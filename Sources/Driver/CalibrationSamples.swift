import Base
import Formats
import IR
import Tensors

extension Model {
  /// Whether the model reads a text and gives an embedding of it.
  var embedsTexts: Bool {
    functions.first.map { CalibrationSamples.takesTokens($0) && $0.outputNames.contains("embedding") } ?? false
  }
}

/// Reads sample inputs of a model: a text or token ids for a model of language, arrays for other networks.
package struct CalibrationSamples {
  private let model: Model
  private let count: Int
  private let length: Int

  /// At most `count` samples of at most `length` tokens.
  package init(_ model: Model, count: Int, length: Int) {
    self.model = model
    self.count = count
    self.length = length
  }

  /// The samples in a file: `.npy` or `.npz` by content, else a text, from its beginning.
  package func read(_ path: String) async throws -> [FunctionInputs] {
    guard let function = model.functions.first else { throw CompileError(.input, "'\(model.name)' has no function") }
    guard Self.takesTokens(function) else {
      return try TensorArchives.samples(path, of: function).prefix(count).map { FunctionInputs(inputs: $0) }
    }
    let runs: [[Int32]]
    if try Self.isArchive(path) {
      runs = try Self.ids(path, for: model).flatMap { Self.cut($0, length) }
    } else {
      runs = try await TokenText(path, model, most: count * length).windows(count: count, length: length)
    }
    try Self.check(runs, vocabulary: Self.vocabulary(of: model), path)
    return runs.prefix(count).map { Self.inputs($0, of: function) }
  }

  /// Whether a function reads token ids, perhaps from a position on.
  package static func takesTokens(_ function: Graph) -> Bool {
    areTokens(function.inputs.map { function[$0].name })
  }

  /// Whether these are the names of the inputs of a function that takes token ids.
  static func areTokens(_ names: [String]) -> Bool { names == ["tokens"] || names == ["tokens", "position"] }

  /// Whether a file is an archive of arrays by its content; so is a folder of them.
  package static func isArchive(_ path: String) throws -> Bool {
    if SampleFolder.isFolder(path) { return true }
    let file = try MappedFile(path: path)
    return withExtendedLifetime(file) {
      file.bytes.starts(with: NumPyArray.magic) || file.bytes.starts(with: "PK\u{3}\u{4}".utf8)
    }
  }

  /// The inputs for a run of ids from position 0, with results for all of them.
  private static func inputs(_ ids: [Int32], of function: Graph) -> FunctionInputs {
    var inputs = [Tensor(.i32, [ids.count], ids)]
    if function.inputs.count > 1 { inputs.append(Tensor(function.type(of: function.inputs[1]))) }
    let hasRows = function.symbols.contains { $0.name == "L" }
    return FunctionInputs(inputs: inputs, symbols: hasRows ? ["L": ids.count] : [:])
  }

  /// The inputs of each function of a model for runs of ids. A decoder that answers a source goes on, behind its first
  /// token, with the second half of each run, of which the first half is the source.
  ///
  /// - Throws: `CompileError`: `.input` if an id is outside of the vocabulary or a run has a single one, `.unsupported`
  ///   if a function takes something else than tokens.
  package static func inputs(_ runs: [[Int32]], of model: Model, _ path: String) throws -> [[FunctionInputs]] {
    try check(runs, vocabulary: vocabulary(of: model), path)
    guard model.functions.count > 1 else {
      return model.functions.map { function in runs.map { inputs($0, of: function) } }
    }
    guard model.functions.count == 2, model.functions[0].role == "cross", model.functions.allSatisfy(takesTokens) else {
      throw CompileError(
        .unsupported,
        "samples are for models of one function and those that answer a source text; '\(model.name)' has the functions "
          + model.functions.map { "'@\($0.name)'" }.joined(separator: ", "))
    }
    guard runs.allSatisfy({ $0.count > 1 }) else {
      throw CompileError(.input, "'\(path)' has a window of a single token, too short for a source and an answer")
    }
    let begin = Int32(model.generation?.beginID ?? 0)
    let sources = runs.map { Array($0[..<($0.count / 2)]) }
    let answers = runs.map { [begin] + $0[($0.count / 2)...].dropLast() }
    return [
      sources.map { inputs($0, of: model.functions[0]) },
      zip(sources, answers).map { source, answer in
        var run = inputs(answer, of: model.functions[1])
        run.symbols["S"] = source.count
        return run
      },
    ]
  }

  /// The tokens of a model; as many as ids can tell apart where it does not say how many.
  private static func vocabulary(of model: Model) -> Int {
    model[metadata: "vocabulary"].flatMap { Int($0) } ?? Int(Int32.max)
  }

  /// Checks that all ids are those of tokens.
  ///
  /// - Throws: `CompileError` of kind `.input` with the place of the first that is not.
  private static func check<ID: BinaryInteger>(_ rows: [[ID]], vocabulary: Int, _ path: String) throws {
    for (number, row) in rows.enumerated() {
      guard let place = row.firstIndex(where: { $0 < 0 || $0 >= vocabulary }) else { continue }
      throw CompileError(
        .input,
        "'\(path)' has the id \(row[place]), which no token of \(vocabulary) has, at place \(place) of row \(number)")
    }
  }

  /// Ids of shape `[T]` or `[N, T]`, by row, for a model.
  ///
  /// - Throws: `CompileError` of kind `.input` for other arrays, and with the first id that no token has.
  package static func ids(_ path: String, for model: Model) throws -> [[Int32]] {
    try ids(path, vocabulary: vocabulary(of: model))
  }

  /// The same for so many tokens.
  package static func ids(_ path: String, vocabulary: Int) throws -> [[Int32]] {
    let archive = try NumPyArchive(path: path)
    guard let array = archive.arrays.first, archive.arrays.count == 1, array.type.isInteger,
      (1...2).contains(array.shape.count), array.count > 0
    else {
      throw CompileError(.input, "'\(path)' is expected to hold one array of token ids, [T] or [N, T]")
    }
    let numbers = array.integers
    let row = array.shape[array.shape.count - 1]
    let rows = stride(from: 0, to: numbers.count, by: row).map { Array(numbers[$0..<$0 + row]) }
    try check(rows, vocabulary: vocabulary, path)
    return rows.map { $0.map { Int32(truncatingIfNeeded: $0) } }
  }

  private static func cut(_ ids: [Int32], _ length: Int) -> [[Int32]] {
    stride(from: 0, to: ids.count, by: length).map { Array(ids[$0..<min($0 + length, ids.count)]) }
  }
}
