import Base
import IR
import Tensors

/// Gives a language model a function that scores tokens without their logits.
///
///     func @prefill (%tokens: i32[T], %position: i32[1]) -> (logits: f32[L, V]) {
///       ...
///       %z = matmul(%h, %w) {transposeB = true}            // %h: [L, K], the last L rows
///       %logits = elementwise(%z) {expression = "..."}     // perhaps
///     // -> besides
///     func @score role = score (%tokens: i32[T], %position: i32[1], %targets: i32[L]) -> (losses: f32[L]) {
///       ...
///       %p = vocabulary_statistics(%h, %w, %targets) {rows = ..., function = "..."}
///       %losses = log(sum of the parts) + largest - logit of the target
///
/// with `losses[i] = -log p(targets[i])`. No buffer has the size of `T x V`: the logits of a part of the vocabulary stay in
/// registers, and the numbers kept of each part are as many for every vocabulary (Wijmans and others, 2024).
package struct FuseLMHead: Pass {
  package static let name = "fuse-lm-head"
  package static let summary = "make the function 'score', which gives losses of tokens without a buffer of logits"
  package static let legality =
    "where the logits of 'prefill' are a product with a packed weight, perhaps a bias, and functions of single numbers"
  package static let source = "E. Wijmans and others (Cut Cross-Entropy), 2024, arXiv:2411.09009"

  /// The names of the targets.
  package var target: String = "native"
  /// The most parts that a vocabulary is cut into.
  package var parts: Int = 64

  package init() {}

  package init(target: String) { self.target = target }

  package var fidelity: Fidelity { .exact }

  /// What the number of rows of a part is a multiple of: a panel of every kernel divides it.
  private static let unit = 64

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard parts >= 1 else { throw CompileError(.input, "fuse-lm-head: 'parts' is \(parts), expected at least 1") }
    // What answers a source has no text to be scored.
    guard !model.functions.contains(where: { $0.role == "cross" || $0.role == "score" }) else { return }
    let selection = KernelSelection(KernelLevels(try TargetRegistry.targets(named: target)))
    for graph in model.functions where graph.role == "prefill" {
      var builder = GraphBuilder(graph: try Self.wholeChunk(graph), constants: model.constants)
      guard let head = Self.head(of: builder.graph, model.constants),
        try Self.score(with: head, parts: parts, in: &builder, selection)
      else { continue }
      builder.graph.eraseDeadNodes()
      model.functions.append(builder.graph)
      model.constants = builder.constants
      context.count("heads fused")
    }
  }

  /// The function for as many wanted rows as it takes tokens.
  private static func wholeChunk(_ graph: Graph) throws -> Graph {
    let most = graph.symbols.first { $0.name == "T" }?.maximum ?? 1
    return try graph.specialized(name: "score", role: "score") { symbol in
      symbol.name == "L" ? .symbol(Symbol("L", in: 1...most)) : nil
    }
  }

  /// The product that logits come from.
  private struct Head {
    var node: Node
    var op: MatMul
    /// The logits as a function of the sums with their bias.
    var function: ScalarExpression
  }

  private static func head(of graph: Graph, _ constants: ConstantTable) -> Head? {
    guard graph.outputNames == ["logits"] else { return nil }
    let isRecipe = graph.recipeFlags()
    var value = graph.outputs[0]
    var function = ScalarExpression.input(0)
    while let id = graph.definingNode(of: value), graph.type(of: value).element == .f32 {
      let node = graph[id]
      if let op = node.op as? MatMul {
        let epilogue = op.epilogue
        guard op.transposeB, epilogue.activation == .none, epilogue.residual == .none, !epilogue.gated,
          graph.type(of: node.inputs[0]).rank == 2, graph.type(of: node.inputs[1]).shape.fixedSizes?.count == 2,
          isRecipe[Int(node.inputs[1].index)]
        else { return nil }
        return Head(node: node, op: op, function: function)
      }
      guard let op = node.op as? any Elementwise else { return nil }
      // All operands but one are numbers.
      let numbers = node.inputs.map { graph.constant(of: $0).flatMap { constants[$0].uniformValue } }
      let computed = numbers.indices.filter { numbers[$0] == nil }
      guard computed.count == 1, case let next = node.inputs[computed[0]],
        graph.type(of: next) == graph.type(of: value)
      else { return nil }
      let inner = function
      let step = op.expression.substituting { index in
        numbers[index].map { ScalarExpression.number(Float($0)) } ?? .input(0)
      }
      function = inner.substituting { _ in step }
      value = next
    }
    return nil
  }

  /// Replaces the logits by the losses of given tokens; false if no kernel does.
  private static func score(
    with head: Head, parts: Int, in builder: inout GraphBuilder, _ selection: KernelSelection
  ) throws -> Bool {
    let inputs = head.node.inputs
    guard let rows = builder.type(of: inputs[0]).shape.dims.first,
      let vocabulary = builder.type(of: inputs[1]).shape[0].fixedValue, vocabulary > 0
    else { return false }
    builder.origin = head.node.origin
    let targets = builder.input("targets", TensorType(.i32, [rows]))
    let part = ((vocabulary - 1) / parts / unit + 1) * unit
    let op = VocabularyStatistics(rows: part, function: head.function)
    let statistics = try builder.emit(
      op, [inputs[0], inputs[1], targets] + (head.op.epilogue.biasIndex.map { [inputs[$0]] } ?? []))
    guard let node = builder.graph.definingNode(of: statistics),
      try selection.hasKernel(node, in: builder.graph)
    else { return false }
    let count = builder.type(of: statistics).shape[2]
    func plane(_ index: Int) throws -> ValueID {
      let slice = try builder.emit(Slice(axis: 0, start: .fixed(index), size: 1), statistics)
      return try builder.emit(Reshape([rows, count]), slice)
    }
    func reduced(_ function: Reduce.Function, _ value: ValueID) throws -> ValueID {
      try count == 1 ? value : builder.emit(Reduce(function, axes: [1], keepDims: true), value)
    }
    let (largest, sums, logits) = (try plane(0), try plane(1), try plane(2))
    let top = try reduced(.max, largest)
    let scaled = try builder.emit(
      FusedElementwise(
        .binary(.multiply, .input(0), .unary(.exp, .binary(.subtract, .input(1), .input(2))))), sums, largest, top)
    let (total, own) = (try reduced(.sum, scaled), try reduced(.sum, logits))
    let losses = try builder.emit(
      FusedElementwise(
        .binary(.subtract, .binary(.add, .unary(.log, .input(0)), .input(1)), .input(2))), total, top, own)
    builder.graph.setOutputs([("losses", try builder.emit(Reshape([rows]), losses, name: "losses"))])
    return true
  }
}
