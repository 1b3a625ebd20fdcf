/// A dimension a kernel works on: a number it is specialised for, or a parameter given at run time.
package enum Extent: Hashable, Codable, Sendable {
  case fixed(Int)
  case runtime(String)

  /// The number, if it is known.
  package var fixedValue: Int? {
    if case .fixed(let value) = self { value } else { nil }
  }

  /// Text for names and comments.
  package var text: String {
    switch self {
    case .fixed(let value): "\(value)"
    case .runtime(let name): name
    }
  }
}

extension KernelBuilder {
  /// A literal, or the run-time parameter of that name (added on first use).
  package func extent(_ extent: Extent) -> Expression {
    switch extent {
    case .fixed(let value): .integer(value)
    case .runtime(let name): existingSymbol(name) ?? symbol(name)
    }
  }
}
