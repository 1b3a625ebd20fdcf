import IR

/// The targets of a program, best first, with their kernels: one, or several levels of which the program chooses at start.
package struct KernelLevels: Sendable {
  package let targets: [Target]
  private let libraries: [any KernelLibrary]

  /// The levels for targets, of which there is at least one, with what was measured on the machine, by target.
  package init(_ targets: [Target], _ records: [String: MachineRecord] = [:]) {
    precondition(!targets.isEmpty, "a program is for one target at least")
    self.targets = targets
    libraries = targets.map { KernelRegistry.library($0, records[$0.name]) }
  }

  /// The index of the target whose kernels a function calls.
  func level(of graph: Graph) -> Int { targets.firstIndex { $0.name == graph.target } ?? 0 }

  /// The ways to compute a query on a target.
  func choices(for query: KernelQuery, level: Int) throws -> [KernelChoice] {
    try libraries[level].choices(for: query)
  }

  /// The kernels for a function.
  subscript(graph: Graph) -> any KernelLibrary { libraries[level(of: graph)] }
}
