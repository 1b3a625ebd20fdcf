import Base
import Formats
import IR
import Tensors

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
      runs = try Self.ids(path).flatMap { Self.cut($0, length) }
    } else {
      runs = try await TokenText(path, model, most: count * length).windows(count: count, length: length)
    }
    return try runs.prefix(count).map { try Self.inputs($0, of: function, model, path) }
  }

  /// Whether a function reads token ids, perhaps from a position on.
  package static func takesTokens(_ function: Graph) -> Bool {
    let names = function.inputs.map { function[$0].name }
    return names == ["tokens"] || names == ["tokens", "position"]
  }

  /// Whether a file is an archive of arrays by its content; so is a folder of them.
  package static func isArchive(_ path: String) throws -> Bool {
    if SampleFolder.isFolder(path) { return true }
    let file = try MappedFile(path: path)
    return withExtendedLifetime(file) {
      file.bytes.starts(with: NumPyArray.magic) || file.bytes.starts(with: "PK\u{3}\u{4}".utf8)
    }
  }

  /// The inputs for a run of ids from position 0, with results for all of them.
  ///
  /// - Throws: `CompileError` of kind `.input` if an id is outside of the vocabulary.
  package static func inputs(
    _ ids: [Int32], of function: Graph, _ model: Model, _ path: String
  ) throws -> FunctionInputs {
    let vocabulary = model[metadata: "vocabulary"].flatMap { Int($0) } ?? .max
    if let outside = ids.first(where: { $0 < 0 || $0 >= vocabulary }) {
      throw CompileError(.input, "'\(path)' has the id \(outside), which no token of \(vocabulary) has")
    }
    var inputs = [Tensor(.i32, [ids.count], ids)]
    if function.inputs.count > 1 { inputs.append(Tensor(function.type(of: function.inputs[1]))) }
    let hasRows = function.symbols.contains { $0.name == "L" }
    return FunctionInputs(inputs: inputs, symbols: hasRows ? ["L": ids.count] : [:])
  }

  /// Ids of shape `[T]` or `[N, T]`, by row.
  package static func ids(_ path: String) throws -> [[Int32]] {
    let archive = try NumPyArchive(path: path)
    guard let array = archive.arrays.first, archive.arrays.count == 1, array.type.isInteger,
      (1...2).contains(array.shape.count), array.count > 0
    else {
      throw CompileError(.input, "'\(path)' is expected to hold one array of token ids, [T] or [N, T]")
    }
    let numbers = array.integers.map { Int32(clamping: $0) }
    let row = array.shape[array.shape.count - 1]
    return stride(from: 0, to: numbers.count, by: row).map { Array(numbers[$0..<$0 + row]) }
  }

  private static func cut(_ ids: [Int32], _ length: Int) -> [[Int32]] {
    stride(from: 0, to: ids.count, by: length).map { Array(ids[$0..<min($0 + length, ids.count)]) }
  }
}
