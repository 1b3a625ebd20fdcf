import Base
import Tensors

/// A sum of products of sizes, such as `4096 + 8192 * L * T`: what a step moves or computes, for sizes that are known when
/// the program runs.
package struct SizePolynomial: Hashable, Sendable {
  /// Coefficients by the names of the symbols in each product, in order.
  package private(set) var terms: [[String]: Double] = [:]

  /// A number.
  package init(_ value: Double = 0) {
    if value != 0 { terms[[]] = value }
  }

  /// A size; a floor division counts as an exact one.
  package init(size dim: Dim) {
    self.init(Double(dim.offset))
    for term in dim.terms {
      self += Self(atom: term.atom) * Double(term.coefficient)
    }
  }

  private init(atom: Dim.Atom) {
    switch atom {
    case .symbol(let symbol): self.init(symbol: symbol.name)
    case .quotient(let inner, let divisor): self = Self(size: inner) * (1 / Double(divisor))
    case .product(let factors): self = factors.reduce(Self(1)) { $0 * Self(atom: $1) }
    }
  }

  /// A symbol by its name.
  package init(symbol: String) { terms[[symbol]] = 1 }

  /// The number of elements of a shape.
  package init(count shape: Shape) { self = shape.dims.reduce(Self(1)) { $0 * Self(size: $1) } }

  package static func + (left: Self, right: Self) -> Self {
    var result = left
    for (names, coefficient) in right.terms { result.terms[names, default: 0] += coefficient }
    return result
  }

  package static func += (left: inout Self, right: Self) { left = left + right }

  package static func * (left: Self, right: Double) -> Self {
    var result = Self()
    if right != 0 { result.terms = left.terms.mapValues { $0 * right } }
    return result
  }

  package static func * (left: Self, right: Self) -> Self {
    var result = Self()
    for (a, x) in left.terms {
      for (b, y) in right.terms { result.terms[(a + b).sorted(), default: 0] += x * y }
    }
    return result
  }

  /// The value; symbols without one count as 1.
  package func value(_ sizes: [String: Double]) -> Double {
    terms.reduce(0) { sum, term in sum + term.key.reduce(term.value) { $0 * (sizes[$1] ?? 1) } }
  }

  /// A member for each product, such as `{"": 4096, "L*T": 8192}`; a number if there is nothing else.
  package var json: JSON {
    func number(_ value: Double) -> JSON { Int(exactly: value).map { .int($0) } ?? .number(value) }
    if terms.keys.allSatisfy(\.isEmpty) { return number(terms[[]] ?? 0) }
    return .object(
      JSONObject(terms.map { ($0.key.joined(separator: "*"), number($0.value)) }.sorted { $0.0 < $1.0 }))
  }

  /// Reads what ``json`` gives; nil for anything else.
  package init?(_ json: JSON) {
    if let value = json.double {
      self.init(value)
      return
    }
    guard let object = json.object else { return nil }
    self.init()
    for (key, value) in object {
      guard let coefficient = value.double else { return nil }
      terms[key.split(separator: "*").map(String.init), default: 0] += coefficient
    }
  }
}
