/// A named size that is known only at run time, with the range it may take.
package struct Symbol: Hashable, Codable, Sendable {
  package var name: String
  package var minimum: Int
  package var maximum: Int

  package init(_ name: String, in range: ClosedRange<Int>) {
    self.name = name
    self.minimum = range.lowerBound
    self.maximum = range.upperBound
  }

  /// The values the symbol may take.
  package var range: ClosedRange<Int> { minimum...maximum }
}

/// One size of a tensor: a number, or a linear expression of symbols and floor divisions.
///
/// Sizes are kept in a normal form, `offset + sum(coefficient * atom)` with atoms in a fixed order, so that equal
/// expressions are equal values. Arithmetic traps on overflow of sums that come from mcc itself; sizes read from files
/// go through ``Shape/checkedCount``.
package struct Dim: Hashable, Sendable {
  /// What a linear expression is made of: a symbol, or `floor(dim / divisor)` of something that is not a number.
  package indirect enum Atom: Hashable, Sendable {
    case symbol(Symbol)
    case quotient(Dim, Int)
  }

  /// One summand.
  package struct Term: Hashable, Sendable {
    package var atom: Atom
    package var coefficient: Int
  }

  /// The constant summand.
  package private(set) var offset: Int
  /// The other summands, ordered by their text, without zero coefficients.
  package private(set) var terms: [Term]

  /// The number `value`.
  package static func fixed(_ value: Int) -> Dim { Dim(offset: value, terms: []) }

  /// The symbol itself.
  package static func symbol(_ symbol: Symbol) -> Dim {
    Dim(offset: 0, terms: [Term(atom: .symbol(symbol), coefficient: 1)])
  }

  private init(offset: Int, terms: [Term]) {
    self.offset = offset
    self.terms = terms
  }

  /// The number, if the size is known.
  package var fixedValue: Int? { terms.isEmpty ? offset : nil }

  /// Whether the size is known.
  package var isFixed: Bool { terms.isEmpty }

  package static func + (left: Dim, right: Dim) -> Dim {
    var terms = left.terms
    for term in right.terms {
      if let index = terms.firstIndex(where: { $0.atom == term.atom }) {
        terms[index].coefficient += term.coefficient
      } else {
        terms.append(term)
      }
    }
    terms.removeAll { $0.coefficient == 0 }
    terms.sort { $0.atom.description < $1.atom.description }
    return Dim(offset: left.offset + right.offset, terms: terms)
  }

  package static func - (left: Dim, right: Dim) -> Dim { left + right * -1 }

  package static func * (left: Dim, right: Int) -> Dim {
    guard right != 0 else { return .fixed(0) }
    return Dim(
      offset: left.offset * right,
      terms: left.terms.map { Term(atom: $0.atom, coefficient: $0.coefficient * right) })
  }

  /// `floor(left / right)`; exact divisions are carried out, others stay as they are.
  package static func / (left: Dim, right: Int) -> Dim {
    precondition(right > 0, "a size is divided by a positive number")
    if right == 1 { return left }
    if left.terms.isEmpty {
      return .fixed(left.offset >= 0 ? left.offset / right : -((-left.offset + right - 1) / right))
    }
    if left.terms.allSatisfy({ $0.coefficient % right == 0 }) {
      let quotient = left.terms.map { Term(atom: $0.atom, coefficient: $0.coefficient / right) }
      return Dim(offset: (Dim.fixed(left.offset) / right).offset, terms: quotient)
    }
    return Dim(offset: 0, terms: [Term(atom: .quotient(left, right), coefficient: 1)])
  }

  /// The product, where at least one side is a number; nil otherwise.
  package static func product(_ left: Dim, _ right: Dim) -> Dim? {
    if let value = right.fixedValue { return left * value }
    if let value = left.fixedValue { return right * value }
    return nil
  }

  /// All symbols in the expression.
  package var symbols: Set<Symbol> {
    var result: Set<Symbol> = []
    for term in terms {
      switch term.atom {
      case .symbol(let symbol): result.insert(symbol)
      case .quotient(let dim, _): result.formUnion(dim.symbols)
      }
    }
    return result
  }

  /// The value for given values of the symbols; nil if one is missing.
  package func value(_ binding: (Symbol) -> Int?) -> Int? {
    var sum = offset
    for term in terms {
      switch term.atom {
      case .symbol(let symbol):
        guard let value = binding(symbol) else { return nil }
        sum += term.coefficient * value
      case .quotient(let dim, let divisor):
        guard let value = dim.value(binding) else { return nil }
        sum += term.coefficient * (Dim.fixed(value) / divisor).offset
      }
    }
    return sum
  }

  /// The expression with symbols replaced.
  package func substituting(_ replacement: (Symbol) -> Dim?) -> Dim {
    var result = Dim.fixed(offset)
    for term in terms {
      switch term.atom {
      case .symbol(let symbol): result = result + (replacement(symbol) ?? .symbol(symbol)) * term.coefficient
      case .quotient(let dim, let divisor):
        result = result + (dim.substituting(replacement) / divisor) * term.coefficient
      }
    }
    return result
  }

  /// The smallest and the largest value over the ranges of the symbols (bounds of each summand added up).
  package var bounds: ClosedRange<Int> {
    var low = offset
    var high = offset
    for term in terms {
      let range: ClosedRange<Int>
      switch term.atom {
      case .symbol(let symbol): range = symbol.range
      case .quotient(let dim, let divisor):
        let inner = dim.bounds
        range = (Dim.fixed(inner.lowerBound) / divisor).offset...(Dim.fixed(inner.upperBound) / divisor).offset
      }
      let ends = [range.lowerBound * term.coefficient, range.upperBound * term.coefficient]
      low += min(ends[0], ends[1])
      high += max(ends[0], ends[1])
    }
    return low...high
  }

  /// The largest value over the ranges of the symbols.
  package var maximum: Int { bounds.upperBound }
}

extension Dim: ExpressibleByIntegerLiteral {
  package init(integerLiteral value: Int) { self = .fixed(value) }
}

extension Dim.Atom: CustomStringConvertible {
  package var description: String {
    switch self {
    case .symbol(let symbol): symbol.name
    case .quotient(let dim, let divisor):
      dim.terms.count == 1 && dim.offset == 0 && dim.terms[0].coefficient == 1
        ? "\(dim)/\(divisor)" : "(\(dim))/\(divisor)"
    }
  }
}

extension Dim: CustomStringConvertible {
  /// `3`, `T`, `2*T+1`, `T-L`, `(T+1)/2`: what the text form of the IR prints.
  package var description: String {
    if terms.isEmpty { return "\(offset)" }
    var text = ""
    for term in terms {
      let magnitude = term.coefficient.magnitude
      text += term.coefficient < 0 ? "-" : (text.isEmpty ? "" : "+")
      if magnitude != 1 { text += "\(magnitude)*" }
      text += term.atom.description
    }
    if offset != 0 { text += offset < 0 ? "\(offset)" : "+\(offset)" }
    return text
  }
}
