import IR

extension Tokenizer.Pattern {
  /// The regular expression that ``init(expression:)`` reads as this pattern; nil if there is none, or the pattern is a
  /// plain text.
  var expression: String? {
    switch rule {
    case .text: nil
    case .run: run?.expression
    // Of several spellings the first in the alphabet: any checkpoint's will do.
    default: Self.expressions.lazy.filter { $0.value == rule }.map(\.key).min()
    }
  }
}

extension Tokenizer.Run {
  /// The regular expression of the run; nil for classes that have none.
  fileprivate var expression: String? {
    var rest = classes
    var items: [String] = []
    for (text, group) in Self.spellings where Set(group).isSubset(of: rest) {
      items.append(text)
      rest.removeAll { group.contains($0) }
    }
    guard rest.isEmpty, ranges.count % 2 == 0 else { return nil }
    for place in stride(from: 0, to: ranges.count, by: 2) {
      guard let first = Self.escaped(ranges[place]), let last = Self.escaped(ranges[place + 1]) else { return nil }
      items.append(ranges[place] == ranges[place + 1] ? first : "\(first)-\(last)")
    }
    let start =
      switch lead {
      case .none: ""
      case .space: " ?"
      case .white: #"\s?"#
      }
    let isAlone = items.count == 1 && !negated && ranges.isEmpty
    let set = isAlone ? items[0] : "[\(negated ? "^" : "")\(items.joined())]"
    let count =
      switch (least, most) {
      case (1, 1): ""
      case (1, 0): "+"
      case (_, 0): "{\(least),}"
      case (least, _) where least == most: "{\(least)}"
      default: "{\(least),\(most)}"
      }
    return start + set + count + (atEnd ? "$" : "")
  }

  /// Classes as regular expressions write them, wider ones first.
  private static let spellings: [(String, [Class])] = [
    (#"\p{L}"#, [.upper, .lower, .letter]), (#"\p{N}"#, [.number]), (#"\p{M}"#, [.mark]), (#"\p{P}"#, [.punctuation]),
    (#"\p{S}"#, [.symbol]), (#"\p{Ll}"#, [.lower]), (#"\s"#, [.space]), (#"\d"#, [.decimal]), (#"\w"#, [.identifier]),
  ]

  /// A character inside of brackets.
  private static func escaped(_ code: Int) -> String? {
    guard let value = UInt32(exactly: code), let scalar = Unicode.Scalar(value) else { return nil }
    switch scalar {
    case "\r": return #"\r"#
    case "\n": return #"\n"#
    case "\t": return #"\t"#
    case "[", "]", "\\", "^", "-", "&", "$": return "\\\(scalar)"
    default: return String(scalar)
    }
  }
}
