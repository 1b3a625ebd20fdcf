import Base

/// The passes that a pipeline may name.
package struct PassRegistry: Sendable {
  /// The types, in the order given.
  package let types: [any Pass.Type]
  private let byName: [String: any Pass.Type]

  /// A registry of the given types; of types with one name the first is found, see ``duplicateNames``.
  package init(_ types: [any Pass.Type]) {
    self.types = types
    byName = Dictionary(types.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// A registry with the types of both.
  package func adding(_ other: PassRegistry) -> PassRegistry { PassRegistry(types + other.types) }

  /// All names in order.
  package var names: [String] { types.map { $0.name } }

  /// Names that more than one type claims.
  package var duplicateNames: [String] {
    Dictionary(grouping: names, by: { $0 }).filter { $0.value.count > 1 }.keys.sorted()
  }

  /// The pass with that name.
  package subscript(name: String) -> (any Pass.Type)? { byName[name] }
}
