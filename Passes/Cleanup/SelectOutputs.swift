import Base
import IR

/// Drops outputs that nobody asks for, and what only they need: auxiliary heads and branches of a network as it was trained.
///
///     // select-outputs{names=[y]}
///     func @main (%x: f32[1, 8]) -> (y: f32[1, 4], aux: f32[1, 4]) {
///       %h = relu(matmul(%x, %v))
///       %y = matmul(%h, %w)
///       %aux = matmul(%h, %u)
///     // -> func @main (%x: f32[1, 8]) -> (y: f32[1, 4]) without %aux and %u
///
/// Outputs stay in the order that they have. Functions that have none of the names keep theirs, and all keep their inputs and
/// states.
package struct SelectOutputs: Pass {
  package static let name = "select-outputs"
  package static let summary = "drops outputs that are not asked for, and what only they need"
  package static let legality = "each name is that of an output of some function"
  package static let source = "mcc"

  /// The outputs that stay.
  package var names: [String] = []

  package init() {}

  package init(_ names: [String]) { self.names = names }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard !names.isEmpty else { throw CompileError(.usage, "'select-outputs' has no names") }
    let known = model.functions.flatMap(\.outputNames)
    for name in names where !known.contains(name) {
      throw CompileError(
        .usage, "'select-outputs' finds no output '\(name)', expected \(known.joined(separator: ", "))",
        notes: nearest(name, in: known).map { ["did you mean '\($0)'?"] } ?? [])
    }
    for index in model.functions.indices {
      let graph = model.functions[index]
      let all = zip(graph.outputNames, graph.outputs).map { (name: $0, value: $1) }
      let kept = all.filter { names.contains($0.name) }
      guard !kept.isEmpty, kept.count < all.count else { continue }
      model.functions[index].setOutputs(kept)
      context.count("outputs dropped", by: all.count - kept.count)
      context.count("nodes erased", by: model.functions[index].eraseDeadCode())
    }
  }
}
