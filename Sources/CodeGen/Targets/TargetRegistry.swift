import Base

/// All targets, best first among those of one architecture.
package enum TargetRegistry {
  package static let all: [Target] = [
    .x86v4, .x86v3, .x86v2, .neonInt8MatMul, .neonDotProduct, .neon, .portable,
  ]

  /// A name for several targets whose code is in one program.
  package struct Group: Sendable {
    package var name: String
    /// One line for `mcc targets`.
    package var summary: String
    package var targets: [Target]
  }

  package static let groups: [Group] = [
    Group(
      name: "x86-64", summary: "x86-64-v2 to x86-64-v4 in one program, chosen at start",
      targets: [.x86v4, .x86v3, .x86v2]),
    Group(
      name: "aarch64", summary: "any aarch64, with products of bytes as the CPU has them, chosen at start",
      targets: [.neonInt8MatMul, .neonDotProduct, .neon]),
  ]

  /// The names `--target` accepts.
  package static var names: [String] { ["native"] + all.map(\.name) + groups.map(\.name) }

  /// The target of a name; `native` is the best one whose features this machine has.
  package static func target(named name: String) throws -> Target {
    let targets = try targets(named: name)
    guard targets.count == 1 else {
      throw CompileError(.usage, "'\(name)' names several targets, expected one")
    }
    return targets[0]
  }

  /// The levels of a program: the targets of a list of names and groups with commas, best first. Several of them agree on
  /// the layout of weights: panels of the widest one's lanes, 8-bit codes as the best one wants them.
  ///
  /// - Throws: `CompileError` of kind `.usage` for a name that is not known, or targets of several architectures.
  package static func targets(named list: String) throws -> [Target] {
    var chosen: Set<String> = []
    for name in list.split(separator: ",", omittingEmptySubsequences: false).map(String.init) {
      if name == "native" {
        chosen.insert(native(features: HostCPU.features()).name)
      } else if let target = all.first(where: { $0.name == name }) {
        chosen.insert(target.name)
      } else if let group = groups.first(where: { $0.name == name }) {
        chosen.formUnion(group.targets.map(\.name))
      } else {
        throw CompileError(.usage, "unknown target '\(name)'; choose one of \(names.joined(separator: ", "))")
      }
    }
    var targets = all.filter { chosen.contains($0.name) }
    let architectures = Set(targets.compactMap(\.architecture))
    guard architectures.count <= 1 else {
      throw CompileError(
        .usage, "the targets '\(list)' are not of one architecture, so that no program can be for all of them")
    }
    if targets.count > 1 {
      let joint = Target.JointLayout(
        lanes: targets.map(\.lanes).max() ?? 1, eightBitWeights: targets[0].vocabulary.eightBitWeights)
      for index in targets.indices { targets[index].joint = joint }
    }
    return targets
  }

  /// The name of a list of targets, which `targets(named:)` reads.
  package static func name(of targets: [Target]) -> String { targets.map(\.name).joined(separator: ",") }

  /// The best target for a CPU with these features.
  package static func native(features: Set<String>) -> Target {
    all.first { $0.runs(on: features) } ?? .portable
  }
}
