import IR

/// Names in C: letters, digits and underscores, each given once.
struct Identifiers {
  private var taken: Set<String>

  private static let keywords: Set<String> = [
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float",
    "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof",
    "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while", "bool", "true", "false",
    "main", "errno", "NULL", "asm", "linux", "unix",
  ]

  /// Names apart from `reserved` and the words of C.
  init(reserved: Set<String> = []) { taken = reserved.union(Self.keywords) }

  /// The name itself, or with a number if it is taken.
  mutating func unique(_ hint: String) -> String {
    let base = Self.sanitized(hint)
    var name = base
    var number = 2
    while !taken.insert(name).inserted {
      name = "\(base)_\(number)"
      number += 1
    }
    return name
  }

  /// Characters that C does not allow become underscores; underscores do not repeat.
  static func sanitized(_ text: String) -> String {
    var name = ""
    for byte in withoutRepetition(text).utf8 {
      let isWord = (byte | 0x20) &- 0x61 < 26 || byte &- 0x30 < 10
      if isWord {
        name.unicodeScalars.append(Unicode.Scalar(byte))
      } else if name.last != "_" {
        name += "_"
      }
    }
    while name.hasPrefix("_") { name.removeFirst() }
    while name.hasSuffix("_") { name.removeLast() }
    if name.isEmpty { return "v" }
    return name.utf8.first.map { $0 &- 0x30 < 10 } == true ? "v" + name : name
  }

  /// `{q_proj,k_proj,v_proj}` as `{q,k,v}_proj`.
  private static func withoutRepetition(_ text: String) -> String {
    guard let open = text.firstIndex(of: "{"), let close = text[open...].firstIndex(of: "}") else { return text }
    let items = text[text.index(after: open)..<close].split(separator: ",").map { $0.split(separator: "_") }
    guard items.count > 1, let last = items[0].last, items.allSatisfy({ $0.count > 1 && $0.last == last }) else {
      return text
    }
    let starts = items.map { $0.dropLast().joined(separator: "_") }
    return text[..<open] + "{" + starts.joined(separator: ",") + "}_" + last + text[text.index(after: close)...]
  }

  /// The name of one tensor: without `model.` in front and `.weight` behind.
  static func short(_ name: String) -> String {
    var parts = name.split(whereSeparator: { $0 == "." || $0 == "/" }).map(String.init)
    if parts.count > 1, parts[0] == "model" { parts.removeFirst() }
    if parts.count > 1, parts.last == "weight" { parts.removeLast() }
    return parts.joined(separator: "_")
  }

  /// What the names of the same tensor in several layers have in common: the name of the row of layers and the name of the
  /// tensor in one of them. `model.layers.0.mlp.up.weight`, `model.layers.1.mlp.up.weight` give `layers` and `mlp_up`.
  static func common(_ names: [String]) -> (row: String?, member: String) {
    let parts = names.map { $0.split(whereSeparator: { $0 == "." || $0 == "/" }).map(String.init) }
    guard let first = parts.first, parts.allSatisfy({ $0.count == first.count }) else {
      return (nil, withoutNumbers(names.first ?? "v"))
    }
    let differing = first.indices.filter { index in parts.contains { $0[index] != first[index] } }
    guard differing.count == 1, let place = differing.first else {
      return (nil, withoutNumbers(names.first ?? "v"))
    }
    var member = Array(first[(place + 1)...])
    if member.count > 1, member.last == "weight" { member.removeLast() }
    if Int(first[place]) != nil, place > 0, !member.isEmpty {
      return (first[place - 1], member.joined(separator: "_"))
    }
    let rest = [withoutNumbers(first[place])] + member
    return (nil, rest.filter { !$0.isEmpty }.joined(separator: "_"))
  }

  /// Whether a name consists of mnemonics of operators and numbers alone, as names do that nobody gave.
  static func isGeneric(_ name: String) -> Bool {
    var rest = withoutNumbers(name)
    for mnemonic in mnemonics {
      while rest == mnemonic || rest.hasPrefix(mnemonic + "_") { rest = String(rest.dropFirst(mnemonic.count + 1)) }
      if rest.isEmpty { return true }
    }
    return false
  }

  private static let mnemonics = OperatorRegistry.core.names.sorted { ($1.utf8.count, $0) < ($0.utf8.count, $1) }

  /// The text without numbers behind words: `k_cache12` gives `k_cache`, `blk.3.attn_q` gives `blk.attn_q`.
  static func withoutNumbers(_ text: String) -> String {
    var parts: [String] = []
    for part in text.split(whereSeparator: { $0 == "." || $0 == "_" || $0 == "/" }) {
      var word = String(part)
      while let last = word.utf8.last, last &- 0x30 < 10 { word.removeLast() }
      if !word.isEmpty { parts.append(word) }
    }
    return parts.isEmpty ? "v" : parts.joined(separator: "_")
  }
}
