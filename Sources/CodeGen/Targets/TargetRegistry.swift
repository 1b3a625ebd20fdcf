import Base

/// All targets, best first among those of one architecture.
package enum TargetRegistry {
  package static let all: [Target] = [.x86v4, .x86v3, .x86v2, .neonDotProduct, .neon, .portable]

  /// The names `--target` accepts.
  package static var names: [String] { ["native"] + all.map(\.name) }

  /// The target of a name; `native` is the best one whose features this machine has.
  package static func target(named name: String) throws -> Target {
    if name == "native" { return native(features: HostCPU.features()) }
    if let target = all.first(where: { $0.name == name }) { return target }
    throw CompileError(
      .usage, "unknown target '\(name)'; choose one of \(names.joined(separator: ", "))")
  }

  /// The best target for a CPU with these features.
  package static func native(features: Set<String>) -> Target {
    all.first { $0.runs(on: features) } ?? .portable
  }
}
