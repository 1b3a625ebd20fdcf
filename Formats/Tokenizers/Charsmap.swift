/// A map of SentencePiece from texts to texts: a u32, the size of what follows; a double array of u32 units; the
/// replacements, each ended by a zero.
enum Charsmap {
  /// Throws what `failure` makes of a sentence if the parts do not fit together.
  static func check(_ bytes: [UInt8], _ failure: (String) -> any Error) throws {
    guard bytes.count >= 4 else { throw failure("has \(bytes.count) bytes, expected at least 4") }
    let size = bytes[..<4].reversed().reduce(0) { $0 << 8 | Int($1) }
    guard size % 4 == 0, size <= bytes.count - 4 else {
      throw failure("says that its units have \(size) bytes, but \(bytes.count - 4) follow")
    }
    guard bytes.count == 4 + size || bytes[bytes.count - 1] == 0 else {
      throw failure("ends inside of a replacement")
    }
    let texts = bytes.count - 4 - size
    for start in stride(from: 4, to: 4 + size, by: 4) {
      let unit = bytes[start..<start + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      // A unit with the highest bit is the value of a key.
      if unit >> 31 == 1, Int(unit & 0x7FFF_FFFF) >= max(texts, 1) {
        throw failure("has a replacement at \(unit & 0x7FFF_FFFF) of \(texts) bytes")
      }
    }
  }
}
