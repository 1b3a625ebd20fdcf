import Base
import IR

/// The token ids of a text, without those that the tokenizer puts around it.
package struct TokenText: Sendable {
  /// The text's ids; of a long text those of its beginning.
  package let ids: [Int32]
  /// The ids that a window begins with.
  package let prefix: [Int32]
  /// The ids that a window ends with.
  package let suffix: [Int32]

  package init(ids: [Int32], prefix: [Int32] = [], suffix: [Int32] = []) {
    self.ids = ids
    self.prefix = prefix
    self.suffix = suffix
  }

  /// Reads a text with the tokenizer of a model, until there are `most` ids.
  ///
  /// - Throws: `CompileError` of kind `.usage` if the model has no tokenizer, `.toolchain` without a C compiler.
  package init(_ path: String, _ model: Model, most: Int) async throws {
    guard let tokenizer = model.tokenizer else {
      throw CompileError(
        .usage, "'\(model.name)' has no tokenizer to read the text '\(path)' with",
        notes: ["give token ids as .npy or .npz"])
    }
    let vocabulary = model[metadata: "vocabulary"].flatMap { Int($0) } ?? tokenizer.tokens.count
    ids = try await TokenizerProgram(tokenizer, vocabulary: vocabulary).ids(of: path, most: most)
    prefix = tokenizer.prefix.map { Int32(truncatingIfNeeded: $0) }
    suffix = tokenizer.suffix.map { Int32(truncatingIfNeeded: $0) }
  }

  /// The ids of the text in a window of `length`, without what is put around.
  package func step(_ length: Int) -> Int { max(1, length - prefix.count - suffix.count) }

  /// At most `count` windows of at most `length` ids from the beginning on.
  package func windows(count: Int, length: Int) -> [[Int32]] {
    let each = step(length)
    return (0..<min(count, (ids.count + each - 1) / each)).map { window($0, each) }
  }

  /// How many full windows of `length` ids there are.
  package func fullWindows(length: Int) -> Int { ids.count / step(length) }

  /// `count` full windows of `length` ids spread evenly over the text, or all there are if these are fewer.
  package func spread(count: Int, length: Int) -> [[Int32]] {
    let each = step(length), full = fullWindows(length: length)
    let chosen = min(count, full)
    return (0..<chosen).map { window($0 * full / chosen, each) }
  }

  private func window(_ index: Int, _ each: Int) -> [Int32] {
    prefix + ids[index * each..<min((index + 1) * each, ids.count)] + suffix
  }
}
