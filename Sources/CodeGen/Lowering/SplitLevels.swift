import IR

/// Makes a function for every target of a program that has several: `@decode` becomes
///
///     @decode_avx512   target = "x86-64-v4"
///     @decode_avx2     target = "x86-64-v3"
///
/// Constants and states are shared.
package struct SplitLevels: Pass {
  package static let name = "split-levels"
  package static let summary = "make a function for each of several targets"
  package static let legality = "where code is made for several targets"
  package static let source = "mcc"

  /// The names of the targets.
  package var targets: String = "native"

  package init() {}

  package init(targets: String) { self.targets = targets }

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    let targets = try TargetRegistry.targets(named: targets)
    guard targets.count > 1 else { return }
    model.functions = targets.flatMap { target in
      model.functions.map { graph in
        var copy = graph
        copy.name += "_" + target.suffix
        copy.target = target.name
        return copy
      }
    }
    context.count("levels", by: targets.count)
  }
}
