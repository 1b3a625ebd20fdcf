extension JSON {
  /// The value as JSON text.
  ///
  /// Numbers are written with the fewest digits that read back equal; NaN and infinities, which JSON lacks, as `null`.
  /// Characters outside ASCII stay as they are.
  ///
  /// With `pretty` there is one member or element per line, indented by two spaces, and a line feed at the end; short lists
  /// of plain values stay on one line, and so do objects inside of lists that fit. Otherwise everything is on one line
  /// without spaces.
  package func text(pretty: Bool = false) -> String {
    String(decoding: bytes(pretty: pretty), as: UTF8.self)
  }

  /// The value as JSON text in UTF-8.
  package func bytes(pretty: Bool = false) -> [UInt8] {
    var output: [UInt8] = []
    write(to: &output, indentation: pretty ? 0 : nil)
    if pretty { output.append(UInt8(ascii: "\n")) }
    return output
  }

  /// `text` as a JSON string with quotes.
  package static func quoted(_ text: String) -> String {
    var output: [UInt8] = []
    writeString(text, to: &output)
    return String(decoding: output, as: UTF8.self)
  }

  private func write(to output: inout [UInt8], indentation: Int?) {
    func newline(_ depth: Int?) {
      guard let depth else { return }
      output.append(UInt8(ascii: "\n"))
      output.append(contentsOf: repeatElement(UInt8(ascii: " "), count: 2 * depth))
    }
    let inner = indentation.map { $0 + 1 }
    switch self {
    case .null: output += "null".utf8
    case .bool(let value): output += (value ? "true" : "false").utf8
    case .integer(let value): output += String(value).utf8
    case .unsigned(let value): output += String(value).utf8
    case .number(let value): output += (value.isFinite ? "\(value)" : "null").utf8
    case .string(let text): Self.writeString(text, to: &output)
    case .array(let elements):
      // Short lists of plain values (shapes, ids) stay on one line.
      let isFlat = elements.count <= 16 && elements.allSatisfy { $0.array == nil && $0.object == nil }
      output.append(UInt8(ascii: "["))
      for (index, element) in elements.enumerated() {
        if index > 0 { output += (isFlat && indentation != nil ? ", " : ",").utf8 }
        if !isFlat { newline(inner) }
        if inner != nil, let line = element.line(limit: 160) {
          output += line
        } else {
          element.write(to: &output, indentation: inner)
        }
      }
      if !isFlat { newline(indentation) }
      output.append(UInt8(ascii: "]"))
    case .object(let object):
      output.append(UInt8(ascii: "{"))
      for (index, member) in object.enumerated() {
        if index > 0 { output.append(UInt8(ascii: ",")) }
        newline(inner)
        Self.writeString(member.key, to: &output)
        output += (indentation == nil ? ":" : ": ").utf8
        member.value.write(to: &output, indentation: inner)
      }
      if !object.isEmpty { newline(indentation) }
      output.append(UInt8(ascii: "}"))
    }
  }

  /// An object on one line, `{"a": 1, "b": {"c": 2}}`; nil if it is longer than `limit` bytes, or no object with members.
  private func line(limit: Int) -> [UInt8]? {
    guard case .object(let object) = self, !object.isEmpty else { return nil }
    var output = Array("{".utf8)
    for (index, member) in object.enumerated() {
      if index > 0 { output += ", ".utf8 }
      Self.writeString(member.key, to: &output)
      output += ": ".utf8
      switch member.value {
      case .object(let inner) where !inner.isEmpty:
        guard let line = member.value.line(limit: limit) else { return nil }
        output += line
      case .array(let elements)
      where elements.count > 16 || elements.contains(where: { $0.array != nil || $0.object != nil }):
        return nil
      default: member.value.write(to: &output, indentation: 0)
      }
      if output.count > limit { return nil }
    }
    output.append(UInt8(ascii: "}"))
    return output
  }

  private static func writeString(_ text: String, to output: inout [UInt8]) {
    output.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""): output += "\\\"".utf8
      case UInt8(ascii: "\\"): output += "\\\\".utf8
      case 0x0A: output += "\\n".utf8
      case 0x0D: output += "\\r".utf8
      case 0x09: output += "\\t".utf8
      case 0..<0x20:
        let digits = String(byte, radix: 16)
        output += "\\u00\(byte < 16 ? "0" : "")\(digits)".utf8
      default: output.append(byte)
      }
    }
    output.append(UInt8(ascii: "\""))
  }
}
