import Base
import IR

/// The token ids of a text, without those that the tokenizer puts around it.
///
/// A model of language reads it as one stream, cut into windows; an encoder reads sentences, one in each line.
package struct TokenText: Sendable {
  /// The text's ids; of a long text those of its beginning.
  package let ids: [Int32]
  /// The parts of `ids` that are read apart; nil for a stream.
  package let lines: [Range<Int>]?
  /// The ids that a window begins with.
  package let prefix: [Int32]
  /// The ids that a window ends with.
  package let suffix: [Int32]

  package init(ids: [Int32], lines: [Range<Int>]? = nil, prefix: [Int32] = [], suffix: [Int32] = []) {
    self.ids = ids
    self.lines = lines
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
    let program = try await TokenizerProgram(tokenizer, vocabulary: vocabulary)
    if model.functions.first?.role == "encode" {
      let lines = try await program.lines(of: path, most: most)
      var places: [Range<Int>] = []
      for line in lines {
        let start = places.last?.upperBound ?? 0
        places.append(start..<start + line.count)
      }
      self.lines = places
      ids = lines.flatMap { $0 }
    } else {
      lines = nil
      ids = try await program.ids(of: path, most: most)
    }
    prefix = tokenizer.prefix.map { Int32(truncatingIfNeeded: $0) }
    suffix = tokenizer.suffix.map { Int32(truncatingIfNeeded: $0) }
  }

  /// The ids of the text in a window of `length`, without what is put around.
  package func step(_ length: Int) -> Int { max(1, length - prefix.count - suffix.count) }

  /// At most `count` windows of at most `length` ids from the beginning on.
  package func windows(count: Int, length: Int) -> [[Int32]] {
    parts(length, full: false).prefix(count).map(window)
  }

  /// How many windows of `length` ids there are: full ones of a stream, of lines also shorter ones.
  package func windowCount(length: Int) -> Int { parts(length, full: true).count }

  /// `count` windows of `length` ids spread evenly over the text, or all there are if these are fewer; of lines also
  /// shorter ones.
  package func spread(count: Int, length: Int) -> [[Int32]] {
    let parts = parts(length, full: true)
    let chosen = min(count, parts.count)
    return (0..<chosen).map { window(parts[$0 * parts.count / chosen]) }
  }

  /// About how many windows of `length` ids spread over the text hold `tokens` ids; at least one.
  package func windowCount(holding tokens: Int, length: Int) -> Int {
    let parts = parts(length, full: true)
    let all = parts.reduce(0) { $0 + $1.count + prefix.count + suffix.count }
    guard all > tokens else { return max(1, parts.count) }
    return max(1, Int(Double(parts.count) * Double(tokens) / Double(all)))
  }

  /// The places of windows, one after the other.
  private func parts(_ length: Int, full: Bool) -> [Range<Int>] {
    let each = step(length)
    func cut(_ range: Range<Int>) -> [Range<Int>] {
      stride(from: range.lowerBound, to: range.upperBound, by: each).map { $0..<min($0 + each, range.upperBound) }
    }
    if let lines { return lines.flatMap(cut) }
    let all = cut(0..<ids.count)
    return full ? all.filter { $0.count == each } : all
  }

  private func window(_ range: Range<Int>) -> [Int32] { prefix + ids[range] + suffix }
}
