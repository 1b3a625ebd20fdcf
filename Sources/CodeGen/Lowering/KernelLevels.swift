import IR

/// The targets of a program, best first, with their kernels: one, or several levels of which the program chooses at start.
package struct KernelLevels: Sendable {
  package let targets: [Target]
  private let registries: [KernelRegistry]

  /// The levels for targets, of which there is at least one.
  package init(_ targets: [Target]) {
    precondition(!targets.isEmpty, "a program is for one target at least")
    self.targets = targets
    registries = targets.map { KernelRegistry(target: $0) }
  }

  /// The index of the target whose kernels a function calls.
  func level(of graph: Graph) -> Int { targets.firstIndex { $0.name == graph.target } ?? 0 }

  /// The kernels for a function.
  subscript(graph: Graph) -> KernelRegistry { registries[level(of: graph)] }
}
