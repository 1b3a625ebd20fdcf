import Base
import IR

extension Tokenizer {
  /// The tokenizer file of llama2.c, whose first three tokens are the unknown one, begin and end.
  ///
  /// - Returns: the bytes, and sentences about what the format does not say.
  /// - Throws: ``CompileError`` of kind `.unsupported` if its reader would encode texts altogether otherwise.
  func llama2C() throws -> (bytes: [UInt8], notes: [String]) {
    guard algorithm == .scoredBPE || algorithm == .byteFallbackBPE, spacePrefix == true, byteFallback, mark.isEmpty,
      endMark.isEmpty, beginID == 1, endIDs.first == 2, prefix == [1], suffix.isEmpty
    else {
      throw CompileError(
        .unsupported,
        "the tokenizer has no place in llama2.c, which begins a text with token 1 and merges characters by scores")
    }
    let (numbers, notes) = scoresForMerging()
    let texts = tokens.enumerated().map { id, text in
      // The program that made the format puts line breaks around the markers of begin and end.
      id == 1 || id == 2
        ? Array("\n\(text)\n".utf8) : Array(text.replacing("\u{2581}", with: " " as Unicode.Scalar).utf8)
    }
    var bytes: [UInt8] = []
    func append(_ number: UInt32) { withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) } }
    append(UInt32(texts.map(\.count).max() ?? 0))
    for (text, score) in zip(texts, numbers) {
      append(score.bitPattern)
      append(UInt32(text.count))
      bytes += text
    }
    return (bytes, notes)
  }
}
