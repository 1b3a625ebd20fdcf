import Base

/// In which basis a function keeps its states.
///
/// A pass that rotates the rows of a cache changes what the state holds, though not what the function gives from an empty one on.
/// It notes so in the metadata: the rows lie rotated by the operator that is written there.
extension Model {
  private static func basisKey(_ state: String, _ function: String) -> String { "basis.\(function).\(state)" }

  /// How the rows of a state of a function are rotated; nil if they lie as they were imported.
  package func basis(ofState state: String, in function: String) -> Hadamard? {
    guard let text = self[metadata: Self.basisKey(state, function)],
      let attributes = try? AttributeDictionary(parsing: text), let defaults = try? AttributeCoder.encode(Hadamard())
    else { return nil }
    return try? AttributeCoder.decode(
      Hadamard.self, from: .dictionary(attributes), defaults: defaults, of: Hadamard.name)
  }

  /// How the rows of each state of a function are rotated.
  func bases(of graph: Graph) -> [Hadamard?] {
    graph.states.map { basis(ofState: graph[$0.value].name, in: graph.name) }
  }

  /// Notes that the rows of a state lie rotated.
  package mutating func setBasis(_ basis: Hadamard, ofState state: String, in function: String) throws {
    self[metadata: Self.basisKey(state, function)] = try AttributeCoder.attributes(of: basis).description
  }
}
