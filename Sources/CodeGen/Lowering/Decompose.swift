import IR

/// Replaces operators that the target has no kernel for by simpler ones, as far as they say how (``Decomposable``).
///
/// Runs before images change their layout, so that what comes out of it takes part.
package struct Decompose: Pass {
  package static let name = "decompose"
  package static let summary = "write operators without a kernel with simpler operators"
  package static let legality =
    "where no kernel of the target computes an operator that says how it is written with simpler ones"
  package static let source = "mcc"

  /// The names of the targets.
  package var target: String = "native"

  package init() {}

  package init(target: String) { self.target = target }

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    let levels = KernelLevels(try TargetRegistry.targets(named: target))
    let (count, doubles) = try KernelSelection(levels).decompose(&model)
    context.count("decomposed", by: count)
    if doubles > 0 { context.remark("\(doubles) operators on f64, for which there are no kernels, compute in f32") }
    for index in model.functions.indices { model.functions[index].eraseDeadNodes() }
  }
}
