import Base
import IR

extension Tokenizer {
  /// Reads a tokenizer of llama2.c: the length of the longest token, then for each token its score, its length and its
  /// text, in which `▁` is a space. Tokens 0, 1 and 2 are the unknown one, begin and end; 3 to 258 are bytes.
  init(llama2c file: MappedFile, vocabulary: Int, limits: LoadLimits) throws {
    self.init(algorithm: .scoredBPE)
    var reader = ByteReader(file)
    _ = try reader.u32()
    // A token takes a score and a length.
    guard vocabulary <= limits.tokens, vocabulary <= reader.remaining / 8 else {
      throw reader.failure("\(vocabulary) tokens do not fit into the \(reader.remaining) bytes left")
    }
    var index = TokenIndex(capacity: vocabulary)
    for id in 0..<vocabulary {
      let score = try reader.f32()
      let count = try reader.u32()
      guard count <= UInt32(limits.stringBytes) else { throw reader.failure("a token of \(count) bytes") }
      let start = reader.offset
      let text = try reader.string(Int(count), "token \(id)")
      guard !score.isNaN else { throw reader.failure("the score of token \(id) is NaN", at: start) }
      let isControl = id == 1 || id == 2
      // The exporter puts line breaks around the markers of begin and end.
      let shown = isControl ? text.replacing("\n", with: "") : text.replacing(" ", with: "\u{2581}" as Unicode.Scalar)
      tokens.append(shown)
      scores.append(Double(score))
      let plain: Kind = byteOfToken(shown) != nil ? .byte : shown.isEmpty ? .unused : .normal
      let kind: Kind = id == 0 ? .unknown : isControl ? .control : plain
      kinds.append(kind)
      if id < 3, !shown.isEmpty { added.append(Added(id: id)) }
      guard shown.isEmpty || index.insert(shown, id) == nil else {
        throw reader.failure("'\(shown)' is the text of two tokens", at: start)
      }
    }
    guard reader.isAtEnd else {
      throw reader.failure("\(reader.remaining) bytes after the last of \(vocabulary) tokens")
    }
    byteFallback = kinds.contains(.byte)
    useSpaceSymbol(prefix: true)
    unknownID = 0
    if vocabulary > 2 {
      beginID = 1
      endIDs = [2]
      prefix = [1]
    }
  }
}

extension String {
  /// The text with one character for another, also before combining marks.
  func replacing(_ scalar: Unicode.Scalar, with other: Unicode.Scalar) -> String {
    String(String.UnicodeScalarView(unicodeScalars.map { $0 == scalar ? other : $0 }))
  }
}
