/// Which bytes make up words, names and numbers in the text form.
enum ByteClass {
  /// A letter or an underscore.
  static func isWordStart(_ byte: UInt8) -> Bool { (byte | 0x20) &- 0x61 < 26 || byte == UInt8(ascii: "_") }

  static func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

  /// A letter, a digit or an underscore.
  static func isWord(_ byte: UInt8) -> Bool { isWordStart(byte) || isDigit(byte) }

  /// What may follow `%` or `@` without quotes; `-` may too, except before `>`.
  static func isName(_ byte: UInt8) -> Bool {
    isWord(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "$") || byte == UInt8(ascii: "-")
  }

  /// Whether a name stands without quotes after `%` or `@`.
  static func isName(_ text: String) -> Bool {
    var text = text
    return text.withUTF8 { bytes in
      if bytes.isEmpty { return false }
      for byte in bytes where !isName(byte) { return false }
      return true
    }
  }
}
