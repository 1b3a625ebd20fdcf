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

/// One size of a tensor: a number, or a polynomial of symbols and floor divisions.
///
/// Sizes are kept in a normal form, `offset + sum(coefficient * atom)` with atoms, and the factors of products, in a fixed
/// order, so that equal expressions are equal values. Arithmetic traps on overflow of sums that come from mcc itself;
/// sizes read from files go through ``Shape/checkedCount``.
package struct Dim: Hashable, Sendable {
  /// What a sum is made of: a symbol, `floor(dim / divisor)` of something that is not a number, or a product of several of
  /// these, ordered by their text.
  package indirect enum Atom: Hashable, Sendable {
    case symbol(Symbol)
    case quotient(Dim, Int)
    case product([Atom])

    /// The factors of a product, anything else as its only factor.
    fileprivate var factors: [Atom] {
      if case .product(let factors) = self { return factors }
      return [self]
    }
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

  /// The most factors of a product.
  private static let mostFactors = 8

  /// The product; nil if it is too large, or has too many factors or summands, to be computed with.
  package static func product(_ left: Dim, _ right: Dim) -> Dim? {
    if let value = right.fixedValue { return left * value }
    if let value = left.fixedValue { return right * value }
    // Sizes beyond this are no sizes of tensors, and bounds must not overflow.
    let most = left.bounds.magnitude.multipliedReportingOverflow(by: right.bounds.magnitude)
    guard left.terms.count * right.terms.count <= 64, !most.overflow, most.partialValue <= 1 << 56,
      [left, right].allSatisfy({ dim in
        dim.offset.magnitude <= 1 << 28 && dim.terms.allSatisfy { $0.coefficient.magnitude <= 1 << 28 }
      })
    else { return nil }
    var result = left * right.offset + right * left.offset - .fixed(left.offset * right.offset)
    for a in left.terms {
      for b in right.terms {
        let factors = (a.atom.factors + b.atom.factors).sorted { $0.description < $1.description }
        guard factors.count <= mostFactors else { return nil }
        let term = Term(atom: .product(factors), coefficient: a.coefficient * b.coefficient)
        result = result + Dim(offset: 0, terms: [term])
      }
    }
    return result
  }

  /// The size that multiplied by `right` gives `left`; nil where there is none, or none is found.
  package static func exactQuotient(_ left: Dim, _ right: Dim) -> Dim? {
    if let number = right.fixedValue {
      guard number > 0, case let quotient = left / number, quotient * number == left else { return nil }
      return quotient
    }
    guard right.terms.count == 1, right.offset == 0, left.offset == 0, let divisor = right.terms.first else {
      return nil
    }
    var result = Dim.fixed(0)
    for term in left.terms {
      guard term.coefficient % divisor.coefficient == 0 else { return nil }
      var factors = term.atom.factors
      for factor in divisor.atom.factors {
        guard let index = factors.firstIndex(of: factor) else { return nil }
        factors.remove(at: index)
      }
      let coefficient = term.coefficient / divisor.coefficient
      switch factors.count {
      case 0: result = result + .fixed(coefficient)
      case 1: result = result + Dim(offset: 0, terms: [Term(atom: factors[0], coefficient: coefficient)])
      default: result = result + Dim(offset: 0, terms: [Term(atom: .product(factors), coefficient: coefficient)])
      }
    }
    return result
  }

  /// All symbols in the expression.
  package var symbols: Set<Symbol> {
    var result: Set<Symbol> = []
    for atom in terms.flatMap(\.atom.factors) {
      switch atom {
      case .symbol(let symbol): result.insert(symbol)
      case .quotient(let dim, _): result.formUnion(dim.symbols)
      case .product: preconditionFailure("a factor is no product")
      }
    }
    return result
  }

  /// The value for given values of the symbols; nil if one is missing.
  package func value(_ binding: (Symbol) -> Int?) -> Int? {
    var sum = offset
    for term in terms {
      var product = term.coefficient
      for factor in term.atom.factors {
        switch factor {
        case .symbol(let symbol):
          guard let value = binding(symbol) else { return nil }
          product *= value
        case .quotient(let dim, let divisor):
          guard let value = dim.value(binding) else { return nil }
          product *= (Dim.fixed(value) / divisor).offset
        case .product: preconditionFailure("a factor is no product")
        }
      }
      sum += product
    }
    return sum
  }

  /// The expression with symbols replaced.
  package func substituting(_ replacement: (Symbol) -> Dim?) -> Dim {
    var result = Dim.fixed(offset)
    for term in terms {
      var product: Dim? = .fixed(1)
      for factor in term.atom.factors {
        let value: Dim
        switch factor {
        case .symbol(let symbol): value = replacement(symbol) ?? .symbol(symbol)
        case .quotient(let dim, let divisor): value = dim.substituting(replacement) / divisor
        case .product: preconditionFailure("a factor is no product")
        }
        product = product.flatMap { Dim.product($0, value) }
      }
      guard let product else { preconditionFailure("\(self) is too large with its symbols replaced") }
      result = result + product * term.coefficient
    }
    return result
  }

  /// The smallest and the largest value over the ranges of the symbols (bounds of each summand added up).
  package var bounds: ClosedRange<Int> {
    var low = offset
    var high = offset
    for term in terms {
      let ranges = term.atom.factors.map { factor -> ClosedRange<Int> in
        switch factor {
        case .symbol(let symbol): return symbol.range
        case .quotient(let dim, let divisor):
          let inner = dim.bounds
          return (Dim.fixed(inner.lowerBound) / divisor).offset...(Dim.fixed(inner.upperBound) / divisor).offset
        case .product: preconditionFailure("a factor is no product")
        }
      }
      let range = ranges.dropFirst().reduce(ranges[0]) { $0.multiplied(by: $1) }
      let ends = [range.lowerBound * term.coefficient, range.upperBound * term.coefficient]
      low += min(ends[0], ends[1])
      high += max(ends[0], ends[1])
    }
    return low...high
  }

  /// The largest value over the ranges of the symbols.
  package var maximum: Int { bounds.upperBound }
}

extension ClosedRange<Int> {
  /// The largest magnitude.
  fileprivate var magnitude: UInt { Swift.max(lowerBound.magnitude, upperBound.magnitude) }

  /// The range of products.
  fileprivate func multiplied(by other: ClosedRange<Int>) -> ClosedRange<Int> {
    let ends = [lowerBound, upperBound].flatMap { a in [a * other.lowerBound, a * other.upperBound] }
    return (ends.min() ?? 0)...(ends.max() ?? 0)
  }
}

extension Dim: ExpressibleByIntegerLiteral {
  package init(integerLiteral value: Int) { self = .fixed(value) }
}

extension Dim.Atom: CustomStringConvertible {
  package var description: String {
    switch self {
    case .symbol(let symbol): symbol.name
    case .quotient(let dim, let divisor):
      dim.terms.count == 1 && dim.offset == 0 && dim.terms[0].coefficient == 1 && dim.terms[0].atom.factors.count == 1
        ? "\(dim)/\(divisor)" : "(\(dim))/\(divisor)"
    case .product(let factors): factors.map(\.description).joined(separator: "*")
    }
  }
}

extension Dim: CustomStringConvertible {
  /// `3`, `T`, `2*T+1`, `T-L`, `(T+1)/2`, `4*B*T`: what the text form of the IR prints.
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
