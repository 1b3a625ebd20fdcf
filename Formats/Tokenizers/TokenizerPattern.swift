import IR

extension Tokenizer.Pattern {
  /// What a regular expression of a checkpoint looks for; nil if mcc has no scanner for it.
  ///
  /// Expressions of several alternatives are recognised by their text. What else is read is a run of characters of one
  /// set, `\s?[\p{L}_a-z]{1,3}`, and plain text.
  init?(expression: String) {
    if let rule = Self.expressions[expression] {
      self.init(rule)
    } else if Self.bloomExpressions.contains(expression) {
      var run = Tokenizer.Run(.space)
      run.lead = .space
      run.most = 0
      run.negated = true
      run.ranges = "()|.,!?…。，、।۔،".unicodeScalars.flatMap { [Int($0.value), Int($0.value)] }
      self.init(run)
    } else {
      var reader = RunReader(rest: Array(expression.unicodeScalars)[...])
      guard let pattern = reader.pattern() else { return nil }
      self = pattern
    }
  }

  /// The expressions of pre-tokenizers, as the checkpoints spell them.
  static let expressions: [String: Rule] = {
    let space = #"|\s+(?!\S)|\s+"#
    let lines = #"|\s*[\r\n]+"# + space
    let endings = ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"]
    let others = #"| ?[^\s\p{L}\p{N}]+"#
    let words = #"|[^\r\n\p{L}\p{N}]?\p{L}+"#
    let lead = #"[^\r\n\p{L}\p{N}]?"#
    let capitals = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
    let small = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
    var table: [String: Rule] = [
      #"\w+|[^\w\s]+"#: .words,
      #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+"# + others + space: .gpt2,
      #"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+"# + others + space: .gpt2,
      #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"# + space:
        .llama3,
      lead + capitals + "*" + small + "+|" + lead + capitals + "+" + small + #"*|\p{N}"# + others + "[\\r\\n/]*"
        + lines: .tekken,
      ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"##
        + lines: .deepseek3,
      #"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"#: .clip,
      #"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"#: .clipWords,
    ]
    for ending in endings {
      table[ending + words + #"|\p{N}{1,3}"# + others + #"[\r\n]*"# + lines] = .llama3
      table[ending + words + #"|\p{N}"# + others + #"[\r\n]*"# + lines] = .qwen2
      table[
        ending + #"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"# + lines] = .qwen35
      table[
        lead + capitals + "*" + small + "+" + ending + "?|" + lead + capitals + "+" + small + "*" + ending
          + #"?|\p{N}{1,3}"# + others + "[\\r\\n/]*" + lines] = .o200k
    }
    return table
  }()

  private static let bloomExpressions = [#" ?[^(\s|[.,!?…。，、।۔،])]+"#, #" ?[^(\s|.,!?…。，、।۔،)]+"#]
}

/// Reads an expression that is a run of characters of one set.
private struct RunReader {
  var rest: ArraySlice<Unicode.Scalar>

  private static let special: Set<Unicode.Scalar> = [
    "\\", "[", "]", "(", ")", "{", "}", "*", "+", "?", "|", "^", "$", ".",
  ]

  private mutating func take(_ text: String) -> Bool {
    guard rest.starts(with: text.unicodeScalars) else { return false }
    rest = rest.dropFirst(text.unicodeScalars.count)
    return true
  }

  mutating func pattern() -> Tokenizer.Pattern? {
    if !rest.isEmpty, !rest.contains(where: { Self.special.contains($0) }) {
      return rest.count == 1 ? set(rest) : Tokenizer.Pattern(text: String(String.UnicodeScalarView(rest)))
    }
    var run = Tokenizer.Run()
    run.lead = take(" ?") ? .space : take("\\s?") ? .white : .none
    let start = rest
    guard atom(&run) else { return nil }
    let atom = start.prefix(start.count - rest.count)
    var repeats = 1
    while rest.starts(with: atom) {
      rest = rest.dropFirst(atom.count)
      repeats += 1
    }
    run.least = repeats
    run.most = repeats
    if repeats == 1, !quantifier(&run) { return nil }
    if take("$") {
      guard run.most == 0 else { return nil }
      run.atEnd = true
    }
    return rest.isEmpty ? Tokenizer.Pattern(run) : nil
  }

  private func set(_ scalars: ArraySlice<Unicode.Scalar>) -> Tokenizer.Pattern {
    Tokenizer.Pattern(text: String(String.UnicodeScalarView(scalars)))
  }

  private mutating func number() -> Int? {
    var value: Int?
    while let digit = rest.first, ("0"..."9").contains(digit), (value ?? 0) < 10_000 {
      value = (value ?? 0) * 10 + Int(digit.value) - 48
      rest = rest.dropFirst()
    }
    return value
  }

  private mutating func quantifier(_ run: inout Tokenizer.Run) -> Bool {
    if take("+") {
      run.most = 0
    } else if take("{") {
      guard let least = number(), least > 0 else { return false }
      run.least = least
      run.most = least
      if take(",") {
        run.most = number() ?? 0
        guard run.most == 0 || run.most >= least else { return false }
      }
      guard take("}") else { return false }
    }
    // Lazy and possessive quantifiers, and what matches nothing.
    return !["?", "+", "*", "{"].contains { rest.first == $0 }
  }

  /// One set: `[...]`, an escape or a character.
  private mutating func atom(_ run: inout Tokenizer.Run) -> Bool {
    guard take("[") else { return item(&run, inBrackets: false) }
    run.negated = take("^")
    guard rest.first != "]" else { return false }
    while !take("]") {
      guard item(&run, inBrackets: true) else { return false }
    }
    return true
  }

  private mutating func item(_ run: inout Tokenizer.Run, inBrackets: Bool) -> Bool {
    let before = run.classes.count
    guard let first = character(&run, inBrackets: inBrackets) else { return run.classes.count > before }
    var last = first
    if inBrackets, rest.first == "-", rest.dropFirst().first != "]" {
      rest = rest.dropFirst()
      let classes = run.classes.count
      guard let end = character(&run, inBrackets: true), run.classes.count == classes, end >= first else {
        return false
      }
      last = end
    }
    run.ranges += [first, last]
    return true
  }

  /// The next character; nil if it is a class, which then is added, or none.
  private mutating func character(_ run: inout Tokenizer.Run, inBrackets: Bool) -> Int? {
    guard let next = rest.first else { return nil }
    if next != "\\" {
      let refused: Set<Unicode.Scalar> = inBrackets ? ["[", "&"] : Self.special
      guard !refused.contains(next) else { return nil }
      rest = rest.dropFirst()
      return Int(next.value)
    }
    for (text, classes) in Self.classes where take(text) {
      run.classes += classes
      return nil
    }
    guard let escaped = rest.dropFirst().first else { return nil }
    let controls: [Unicode.Scalar: Int] = ["r": 13, "n": 10, "t": 9]
    if let code = controls[escaped] {
      rest = rest.dropFirst(2)
      return code
    }
    guard escaped.isASCII, !escaped.properties.isAlphabetic, escaped.properties.numericType == nil else { return nil }
    rest = rest.dropFirst(2)
    return Int(escaped.value)
  }

  private static let classes: [(String, [Tokenizer.Run.Class])] = [
    (#"\p{L}"#, [.upper, .lower, .letter]), (#"\p{N}"#, [.number]), (#"\p{M}"#, [.mark]), (#"\p{P}"#, [.punctuation]),
    (#"\p{S}"#, [.symbol]), (#"\p{Ll}"#, [.lower]), (#"\s"#, [.space]), (#"\d"#, [.decimal]), (#"\w"#, [.identifier]),
  ]
}
