import Base
import Formats
import IR
import Passes
import Tensors

/// Reads sample inputs of a model: a text or token ids for a model of language, arrays for other networks.
struct MergeSamples {
  private let model: Model
  private let count: Int
  private let length: Int

  /// At most `count` samples of at most `length` tokens.
  init(_ model: Model, count: Int, length: Int) {
    self.model = model
    self.count = count
    self.length = length
  }

  /// The samples in a file: `.npy` or `.npz` by content, else a text.
  func read(_ path: String) async throws -> [LinearLayerMerge.Sample] {
    guard let function = model.functions.first else { throw CompileError(.input, "'\(model.name)' has no function") }
    let names = function.inputs.map { function[$0].name }
    guard names == ["tokens"] || names == ["tokens", "position"] else {
      return try TensorArchives.samples(path, of: function).prefix(count).map { LinearLayerMerge.Sample($0) }
    }
    let ids = if try isArchive(path) { try self.ids(path) } else { try await text(path) }
    let vocabulary = model[metadata: "vocabulary"].flatMap { Int($0) } ?? .max
    let hasRows = function.symbols.contains { $0.name == "L" }
    return try ids.prefix(count).map { ids in
      if let outside = ids.first(where: { $0 < 0 || $0 >= vocabulary }) {
        throw CompileError(.input, "'\(path)' has the id \(outside), which no token of \(vocabulary) has")
      }
      var inputs = [Tensor(.i32, [ids.count], ids)]
      if names.count > 1 { inputs.append(Tensor(function.type(of: function.inputs[1]))) }
      return LinearLayerMerge.Sample(inputs, symbols: hasRows ? ["L": ids.count] : [:])
    }
  }

  private func isArchive(_ path: String) throws -> Bool {
    let file = try MappedFile(path: path)
    return withExtendedLifetime(file) {
      file.bytes.starts(with: NumPyArray.magic) || file.bytes.starts(with: "PK\u{3}\u{4}".utf8)
    }
  }

  /// Ids of shape `[T]` or `[N, T]`, each row cut into samples.
  private func ids(_ path: String) throws -> [[Int32]] {
    let archive = try NumPyArchive(path: path)
    guard let array = archive.arrays.first, archive.arrays.count == 1, array.type.isInteger,
      (1...2).contains(array.shape.count), array.count > 0
    else {
      throw CompileError(.input, "'\(path)' is expected to hold one array of token ids, [T] or [N, T]")
    }
    let numbers = array.integers.map { Int32(clamping: $0) }
    let row = array.shape[array.shape.count - 1]
    return stride(from: 0, to: numbers.count, by: row).flatMap { start in
      stride(from: start, to: start + row, by: length).map { first in
        Array(numbers[first..<min(first + length, start + row)])
      }
    }
  }

  private func text(_ path: String) async throws -> [[Int32]] {
    guard let tokenizer = model.tokenizer else {
      throw CompileError(
        .usage, "'\(model.name)' has no tokenizer to read the text '\(path)' with",
        notes: ["give token ids as .npy or .npz"])
    }
    let vocabulary = model[metadata: "vocabulary"].flatMap { Int($0) } ?? tokenizer.tokens.count
    return try await TokenizerProgram(tokenizer, vocabulary: vocabulary)
      .samples(of: path, count: count, length: length)
  }
}
