/// Expectations written as comments beside the text they speak of, after LLVM's FileCheck.
///
/// - `// CHECK: text` finds `text` behind the previous match.
/// - `// CHECK-NEXT: text` finds it on the line behind that of the previous match.
/// - `// CHECK-NOT: text` says that it does not stand between the previous and the next match.
/// - `// CHECK-LABEL: text` cuts the output into parts; the other lines are looked for only in their part. Variables end
///   at a label.
///
/// In `text`, runs of blanks equal one blank, `{{re}}` is a regular expression, `[[X:re]]` one whose match is called `X`,
/// and `[[X]]` that match again.
struct FileCheck {
  enum Kind: String {
    case check = "CHECK"
    case next = "CHECK-NEXT"
    case not = "CHECK-NOT"
    case label = "CHECK-LABEL"
  }

  struct Directive {
    var kind: Kind
    var line: Int
    var text: String
  }

  /// An expectation that is not met, or one that cannot be read.
  struct Failure: Error, CustomStringConvertible {
    var line: Int
    var message: String
    var description: String { "line \(line): \(message)" }
  }

  private(set) var directives: [Directive] = []

  /// Reads the expectations of a text whose first line has the number `firstLine`.
  init(parsing text: String, firstLine: Int = 1) throws {
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      guard let comment = line.firstRange(of: "//") else { continue }
      let body = line[comment.upperBound...].drop { $0 == " " }
      guard body.hasPrefix("CHECK"), let colon = body.firstIndex(of: ":") else { continue }
      let number = firstLine + index
      guard let kind = Kind(rawValue: String(body[..<colon])) else {
        throw Failure(line: number, message: "unknown directive '\(body[..<colon])'")
      }
      let text = Self.normalized(body[body.index(after: colon)...])
      guard !text.isEmpty else { throw Failure(line: number, message: "the directive is empty") }
      directives.append(Directive(kind: kind, line: number, text: text))
    }
    if let first = directives.first, first.kind == .next {
      throw Failure(line: first.line, message: "CHECK-NEXT has nothing before it")
    }
  }

  private static func normalized(_ text: some StringProtocol) -> String {
    text.split { $0 == " " || $0 == "\t" || $0 == "\r" }.joined(separator: " ")
  }

  /// Throws the first expectation that `output` does not meet.
  func verify(_ output: String) throws {
    let lines = output.split(separator: "\n", omittingEmptySubsequences: false).map { Self.normalized($0) }
    var parts: [(range: Range<Int>, directives: [Directive])] = []
    var start = 0
    var search = 0
    var current: [Directive] = []
    for directive in directives {
      guard directive.kind == .label else {
        current.append(directive)
        continue
      }
      var none: [String: String] = [:]
      guard
        let line = try (search..<lines.count).first(where: {
          try Self.match(directive, in: lines[$0], from: lines[$0].startIndex, &none) != nil
        })
      else { throw Failure(line: directive.line, message: "no line matches the label '\(directive.text)'") }
      parts.append((start..<line, current))
      current = []
      start = line
      search = line + 1
    }
    parts.append((start..<lines.count, current))
    for (index, part) in parts.enumerated() {
      try Self.verify(part.directives, lines, part.range, isLabelled: index > 0)
    }
  }

  private static func verify(
    _ directives: [Directive], _ lines: [String], _ part: Range<Int>, isLabelled: Bool
  ) throws {
    var variables: [String: String] = [:]
    var position: (line: Int, index: String.Index?) = (part.lowerBound, nil)
    // A label has been matched already.
    if isLabelled { position.index = lines[part.lowerBound].endIndex }
    var forbidden: [Directive] = []

    /// Looks for what must not stand between `position` and a place.
    func checkForbidden(upTo line: Int, _ end: String.Index?) throws {
      for directive in forbidden {
        for number in position.line..<min(line + 1, part.upperBound) {
          let text = lines[number]
          let from = number == position.line ? position.index ?? text.startIndex : text.startIndex
          let to = number == line ? end ?? text.endIndex : text.endIndex
          guard from <= to else { continue }
          var scratch = variables
          if try match(directive, in: String(text[from..<to]), from: nil, &scratch) != nil {
            throw Failure(line: directive.line, message: "'\(directive.text)' stands in the output: \(text)")
          }
        }
      }
      forbidden = []
    }

    for directive in directives {
      if directive.kind == .not {
        forbidden.append(directive)
        continue
      }
      var found: (line: Int, range: Range<String.Index>)?
      let candidates =
        directive.kind == .next
        ? position.line + 1..<min(position.line + 2, part.upperBound) : position.line..<part.upperBound
      for number in candidates {
        let from = number == position.line ? position.index : lines[number].startIndex
        if let range = try match(directive, in: lines[number], from: from, &variables) {
          found = (number, range)
          break
        }
      }
      guard let found else {
        let place = lines[min(position.line, lines.count - 1)]
        throw Failure(
          line: directive.line,
          message: "'\(directive.text)' is not found \(directive.kind == .next ? "right " : "")behind: \(place)")
      }
      try checkForbidden(upTo: found.line, found.range.lowerBound)
      position = (found.line, found.range.upperBound)
    }
    try checkForbidden(upTo: part.upperBound, nil)
  }

  /// The place of the first match in `line` behind `from`, and what it gives to variables.
  private static func match(
    _ directive: Directive, in line: String, from: String.Index?, _ variables: inout [String: String]
  ) throws -> Range<String.Index>? {
    let (pattern, defined) = try pattern(of: directive, variables)
    let regex: Regex<AnyRegexOutput>
    do {
      regex = try Regex(pattern)
    } catch {
      throw Failure(line: directive.line, message: "'\(directive.text)' is no regular expression: \(error)")
    }
    guard let found = line[(from ?? line.startIndex)...].firstMatch(of: regex) else { return nil }
    for name in defined {
      if let text = found[name]?.substring { variables[name] = String(text) }
    }
    return found.range
  }

  /// The directive as one regular expression, and the variables it defines.
  private static func pattern(
    of directive: Directive, _ variables: [String: String]
  ) throws -> (pattern: String, defined: [String]) {
    var pattern = ""
    var defined: [String] = []
    var rest = Substring(directive.text)
    while let first = rest.first {
      if rest.hasPrefix("{{"), let end = rest.firstRange(of: "}}") {
        pattern += "(?:\(rest[rest.index(rest.startIndex, offsetBy: 2)..<end.lowerBound]))"
        rest = rest[end.upperBound...]
      } else if rest.hasPrefix("[["), let end = rest.firstRange(of: "]]"),
        let variable = Variable(rest[..<end.lowerBound])
      {
        // A class that closes with `]` right before the end belongs to the expression: [[X:[a-z]]].
        var close = end.upperBound
        var body = variable.pattern
        if body != nil, rest[close...].first == "]" {
          body?.append("]")
          close = rest.index(after: close)
        }
        if let body {
          pattern += "(?<\(variable.name)>\(body))"
          defined.append(variable.name)
        } else if defined.contains(variable.name) {
          pattern += "\\k<\(variable.name)>"
        } else if let text = variables[variable.name] {
          pattern += escaped(text)
        } else {
          throw Failure(line: directive.line, message: "the variable '\(variable.name)' has no value")
        }
        rest = rest[close...]
      } else {
        pattern += escaped(String(first))
        rest = rest.dropFirst()
      }
    }
    return (pattern, defined)
  }

  private struct Variable {
    var name: String
    var pattern: String?

    /// Reads `[[X:re` or `[[X`.
    init?(_ text: Substring) {
      let text = text.dropFirst(2)
      let name = text.prefix { $0.isASCII && ($0.isLetter || $0.isNumber) }
      guard let first = name.first, first.isLetter else { return nil }
      self.name = String(name)
      let rest = text.dropFirst(name.count)
      if rest.isEmpty { return }
      guard rest.first == ":" else { return nil }
      pattern = String(rest.dropFirst())
    }
  }

  private static func escaped(_ text: String) -> String {
    var result = ""
    for character in text {
      if !character.isLetter && !character.isNumber && character.isASCII && character != " " && character != "_" {
        result += "\\"
      }
      result.append(character)
    }
    return result
  }
}
