import Base

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A formula for the loss of a layer in a format, such as `trace * range^2 / 4^bits`, over what ``LayerStatistics``
/// know of it.
///
/// Numbers, the names of ``variables``, `+ - * / ^` (`^` binds to the right, and closer than a sign), parentheses, and
/// the functions `sqrt`, `log`, `log2`, `exp`, `abs` of one operand, `min` and `max` of two.
package struct ScoreExpression: Hashable, Sendable {
  /// The formula as it was written.
  package let text: String
  private let root: Term

  /// What a formula may name, with what it is.
  package static let variables: [(name: String, meaning: String)] = [
    ("error", "tr(D H D^T)"), ("energy", "tr(W H W^T)"), ("squares", "tr(D D^T)"), ("norm", "tr(W W^T)"),
    ("trace", "mean of the diagonal of H"), ("entropy", "bits of the inputs' distribution"),
    ("turn", "1 - cosine of the residual before and after the block, 1 outside"),
    ("usage", "share of the experts that a token uses"),
    ("deviation", "standard deviation of the weights"), ("range", "largest less smallest weight"),
    ("outliers", "share of weights more than a deviation above the mean"), ("rows", "rows"), ("columns", "columns"),
    ("count", "weights"), ("bits", "bits of a weight in the format"),
  ]

  /// The variables that samples are needed for.
  private static let sampled: Set<String> = ["error", "energy", "trace", "entropy", "turn", "usage"]

  private indirect enum Term: Hashable, Sendable {
    case number(Double)
    case variable(String)
    case negative(Term)
    case operation(UInt8, Term, Term)
    case function(String, [Term])
  }

  /// Whether it names nothing that samples are needed for.
  package var needsNoSamples: Bool { Self.names(root).isDisjoint(with: Self.sampled) }

  /// Whether it names a variable.
  func names(_ variable: String) -> Bool { Self.names(root).contains(variable) }

  /// Reads a formula.
  ///
  /// - Throws: `CompileError` of kind `.usage` with the column of what is wrong.
  package init(parsing text: String) throws {
    self.text = text
    var reader = Reader(text)
    root = try reader.sum()
    guard reader.rest.isEmpty else { throw reader.failure("unexpected '\(reader.next)'") }
  }

  /// The value for a layer in a format; not finite where the formula has no value.
  package func value(_ layer: LayerStatistics, _ option: Int) -> Double {
    Self.value(root) { name in
      switch name {
      case "error": layer.roundings[option].error
      case "squares": layer.roundings[option].squares
      case "bits": layer.bits(option)
      case "energy": layer.energy
      case "norm": layer.norm
      case "trace": layer.trace
      case "entropy": layer.entropy
      case "turn": layer.turn ?? 1
      case "usage": layer.usage
      case "deviation": layer.deviation
      case "range": layer.range
      case "outliers": layer.outliers
      case "rows": Double(layer.rows)
      case "columns": Double(layer.columns)
      default: Double(layer.count)
      }
    }
  }

  private static func names(_ term: Term) -> Set<String> {
    switch term {
    case .number: []
    case .variable(let name): [name]
    case .negative(let inner): names(inner)
    case .operation(_, let left, let right): names(left).union(names(right))
    case .function(_, let operands): operands.reduce(into: []) { $0.formUnion(names($1)) }
    }
  }

  private static func value(_ term: Term, _ variable: (String) -> Double) -> Double {
    switch term {
    case .number(let number): return number
    case .variable(let name): return variable(name)
    case .negative(let inner): return -value(inner, variable)
    case .operation(let sign, let left, let right):
      let (a, b) = (value(left, variable), value(right, variable))
      switch sign {
      case UInt8(ascii: "+"): return a + b
      case UInt8(ascii: "-"): return a - b
      case UInt8(ascii: "*"): return a * b
      case UInt8(ascii: "/"): return a / b
      default: return pow(a, b)
      }
    case .function(let name, let operands):
      let values = operands.map { value($0, variable) }
      switch name {
      case "sqrt": return values[0].squareRoot()
      case "log": return log(values[0])
      case "log2": return log(values[0]) / log(2.0)
      case "exp": return exp(values[0])
      case "abs": return values[0].magnitude
      case "min": return min(values[0], values[1])
      default: return max(values[0], values[1])
      }
    }
  }

  /// The number of operands of each function.
  private static let functions = ["sqrt": 1, "log": 1, "log2": 1, "exp": 1, "abs": 1, "min": 2, "max": 2]

  /// Reads a formula from the left.
  private struct Reader {
    /// Terms inside of one another.
    private static let deepest = 100

    let text: String
    var rest: Substring.UTF8View
    private var depth = 0

    init(_ text: String) {
      self.text = text
      rest = Substring(text).utf8
      skip()
    }

    /// What comes next, for messages.
    var next: String { rest.isEmpty ? "the end" : "\(Substring(rest).prefix(12))" }

    func failure(_ message: String) -> CompileError {
      let column = text.utf8.count - rest.count + 1
      return CompileError(.usage, "\(message) at column \(column) of the score '\(text.prefix(200))'")
    }

    private mutating func skip() { rest = rest.drop { $0 == UInt8(ascii: " ") } }

    private mutating func take(_ signs: String) -> UInt8? {
      guard let first = rest.first, signs.utf8.contains(first) else { return nil }
      rest = rest.dropFirst()
      skip()
      return first
    }

    mutating func sum() throws -> Term {
      depth += 1
      defer { depth -= 1 }
      guard depth <= Self.deepest else { throw failure("more than \(Self.deepest) terms inside of one another") }
      var term = try product()
      while let sign = take("+-") { term = .operation(sign, term, try product()) }
      return term
    }

    private mutating func product() throws -> Term {
      var term = try signed()
      while let sign = take("*/") { term = .operation(sign, term, try signed()) }
      return term
    }

    private mutating func signed() throws -> Term {
      depth += 1
      defer { depth -= 1 }
      guard depth <= Self.deepest else { throw failure("more than \(Self.deepest) terms inside of one another") }
      if take("-") != nil { return .negative(try signed()) }
      let base = try operand()
      guard let sign = take("^") else { return base }
      return .operation(sign, base, try signed())
    }

    private mutating func operand() throws -> Term {
      if take("(") != nil {
        let inner = try sum()
        guard take(")") != nil else { throw failure("expected ')', found '\(next)'") }
        return inner
      }
      let digits = rest.prefix { $0 &- 0x30 < 10 || $0 == UInt8(ascii: ".") }
      if !digits.isEmpty {
        guard let number = Double(String(Substring(digits))) else {
          throw failure("'\(Substring(digits))' is no number")
        }
        rest = rest.dropFirst(digits.count)
        skip()
        return .number(number)
      }
      let word = rest.prefix { ($0 | 0x20) &- 0x61 < 26 || $0 &- 0x30 < 10 || $0 == UInt8(ascii: "_") }
      guard !word.isEmpty else { throw failure("expected a number, a name or '(', found '\(next)'") }
      let name = String(Substring(word))
      if let count = ScoreExpression.functions[name] {
        rest = rest.dropFirst(word.count)
        skip()
        return .function(name, try operands(of: name, count))
      }
      let known = ScoreExpression.variables.map(\.name)
      guard known.contains(name) else {
        var error = failure(
          "unknown name '\(name)'\(suggestion(for: name, in: known + AllocateBits.Score.named.map(\.name)))")
        error.notes.append(
          "a score is one of \(AllocateBits.Score.named.map(\.name).joined(separator: ", ")), or a formula")
        error.notes.append(
          "formulas have numbers, \(known.joined(separator: ", ")), + - * / ^, and "
            + ScoreExpression.functions.keys.sorted().joined(separator: ", "))
        throw error
      }
      rest = rest.dropFirst(word.count)
      skip()
      return .variable(name)
    }

    private mutating func operands(of name: String, _ count: Int) throws -> [Term] {
      guard take("(") != nil else { throw failure("expected '(' after '\(name)', found '\(next)'") }
      var operands = [try sum()]
      while take(",") != nil { operands.append(try sum()) }
      guard take(")") != nil else { throw failure("expected ')', found '\(next)'") }
      guard operands.count == count else {
        throw failure("'\(name)' takes \(count) operands, found \(operands.count)")
      }
      return operands
    }
  }
}

extension ScoreExpression: BitScore {
  func losses(_ layers: [LayerStatistics], measure: ([Int: Int]) throws -> Double) throws -> [[Double]] {
    try layers.map { layer in
      try layer.roundings.indices.map { option in
        let loss = value(layer, option)
        guard loss.isFinite else {
          throw CompileError(.usage, "the score '\(text)' is \(loss) for the layer '\(layer.name)', expected a number")
        }
        return loss
      }
    }
  }
}
