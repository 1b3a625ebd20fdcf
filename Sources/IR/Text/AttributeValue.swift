/// What attributes, pass options and assets look like as text: a tree of numbers, words, lists and dictionaries.
package enum AttributeValue: Hashable, Sendable {
  /// An optional that is nil where its default is not.
  case null
  case bool(Bool)
  case integer(Int)
  /// A number above `Int.max`.
  case unsigned(UInt64)
  /// A floating-point number as its text, so that nothing is rounded before it is known to which width.
  case real(String)
  case string(String)
  case array([AttributeValue])
  case dictionary(AttributeDictionary)

  /// The shortest text that gives `value` back.
  package static func real(_ value: Float) -> AttributeValue {
    .real(value.isNaN ? (value.sign == .minus ? "-nan" : "nan") : value.description)
  }

  /// The shortest text that gives `value` back.
  package static func real(_ value: Double) -> AttributeValue {
    .real(value.isNaN ? (value.sign == .minus ? "-nan" : "nan") : value.description)
  }

  /// What the value is, for messages: `a number`, `a list`.
  package var kind: String {
    switch self {
    case .null: "null"
    case .bool(let value): "'\(value)'"
    case .integer(let value): "the integer \(value)"
    case .unsigned(let value): "the integer \(value)"
    case .real(let text): "the number \(text)"
    case .string(let text): text.utf8.count <= 40 ? "'\(text)'" : "a string"
    case .array: "a list"
    case .dictionary: "a dictionary"
    }
  }
}

/// Keys with values in the order in which they were declared; no key twice.
package struct AttributeDictionary: Hashable, Sendable {
  /// One key with its value.
  package struct Entry: Hashable, Sendable {
    package var key: String
    package var value: AttributeValue
  }

  package private(set) var entries: [Entry] = []
  /// Positions by key, kept only where a search through `entries` would take long.
  private var positions: [String: Int]?
  private static let searchLimit = 16

  package init() {}

  /// Entries whose keys differ.
  package init(_ entries: [(String, AttributeValue)]) {
    for (key, value) in entries { self[key] = value }
  }

  package var isEmpty: Bool { entries.isEmpty }

  package var count: Int { entries.count }

  package var keys: [String] { entries.map(\.key) }

  private func position(of key: String) -> Int? {
    if let positions { return positions[key] }
    return entries.firstIndex { $0.key == key }
  }

  /// The value of a key. A new key goes to the end.
  package subscript(key: String) -> AttributeValue? {
    get { position(of: key).map { entries[$0].value } }
    set {
      guard let newValue else { preconditionFailure("attributes are not removed") }
      if let position = position(of: key) {
        entries[position].value = newValue
      } else {
        append(key, newValue)
      }
    }
  }

  /// Adds an entry.
  ///
  /// - Returns: false, with nothing changed, if the key exists.
  package mutating func insert(_ key: String, _ value: AttributeValue) -> Bool {
    guard position(of: key) == nil else { return false }
    append(key, value)
    return true
  }

  private mutating func append(_ key: String, _ value: AttributeValue) {
    entries.append(Entry(key: key, value: value))
    if positions != nil {
      positions?[key] = entries.count - 1
    } else if entries.count > Self.searchLimit {
      var index: [String: Int] = [:]
      for (position, entry) in entries.enumerated() { index[entry.key] = position }
      positions = index
    }
  }

  /// Puts the entries into the order of their keys' UTF-8.
  mutating func sort() {
    entries.sort { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }
    if positions != nil { for (position, entry) in entries.enumerated() { positions?[entry.key] = position } }
  }

  package static func == (left: Self, right: Self) -> Bool { left.entries == right.entries }

  package func hash(into hasher: inout Hasher) { hasher.combine(entries) }
}

// MARK: - Printing

extension AttributeValue: CustomStringConvertible {
  /// The text form: `-1`, `1e-05`, `silu`, `"two words"`, `[1, 1]`, `{bias = true}`.
  package var description: String {
    var text = ""
    print(to: &text)
    return text
  }

  /// Appends the text form.
  package func print(to text: inout String) {
    switch self {
    case .null: text += "null"
    case .bool(let value): text += value ? "true" : "false"
    case .integer(let value): text += String(value)
    case .unsigned(let value): text += String(value)
    case .real(let value): text += value
    case .string(let value): Self.printWord(value, to: &text)
    case .array(let values):
      text += "["
      var isFirst = true
      for value in values {
        if !isFirst { text += ", " }
        isFirst = false
        value.print(to: &text)
      }
      text += "]"
    case .dictionary(let dictionary): dictionary.print(to: &text)
    }
  }

  /// Appends a string as a bare word where that is unambiguous, else quoted.
  package static func printWord(_ value: String, to text: inout String) {
    if isBareWord(value) { text += value } else { printQuoted(value, to: &text) }
  }

  /// Letters, digits and underscores, starting with no digit, and none of the words with a meaning of their own.
  static func isBareWord(_ text: String) -> Bool {
    var isFirst = true
    for byte in text.utf8 {
      guard isFirst ? ByteClass.isWordStart(byte) : ByteClass.isWord(byte) else { return false }
      isFirst = false
    }
    if isFirst { return false }
    switch text {
    case "true", "false", "null", "nan", "inf": return false
    default: return true
    }
  }

  /// Appends a string in double quotes; control characters and the line separators of Unicode are escaped.
  package static func printQuoted(_ value: String, to text: inout String) {
    text += "\""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      case "\u{0}"..."\u{1F}", "\u{7F}"..."\u{9F}", "\u{2028}", "\u{2029}", "\u{202A}"..."\u{202E}",
        "\u{2066}"..."\u{2069}", "\u{FEFF}":
        text += "\\u{" + String(scalar.value, radix: 16) + "}"
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }
}

extension AttributeDictionary: CustomStringConvertible {
  /// `{axis = -1, epsilon = 1e-05}`.
  package var description: String {
    var text = ""
    print(to: &text)
    return text
  }

  /// Appends the text form.
  package func print(to text: inout String) {
    text += "{"
    var isFirst = true
    for entry in entries {
      if !isFirst { text += ", " }
      isFirst = false
      AttributeValue.printWord(entry.key, to: &text)
      text += " = "
      entry.value.print(to: &text)
    }
    text += "}"
  }
}
