import Base
import IR
import Tensors

/// Removes hidden units that do nothing, where what is left computes the same.
///
///     %h = matmul(%x, %v, %b) {transposeB = true, epilogue = {bias = true, activation = relu}}     // [T, H]
///     %y = matmul(%h, %w) {transposeB = true}
///     // -> the same with the units that count: rows of %v and %b, columns of %w
///
/// - A unit whose column of the next weight is zero goes away, and one whose row is zero with an activation of 0.
/// - A unit whose row is zero is a constant, which goes into the next bias.
/// - Units with equal rows and biases become one, with the sum of their columns; so do those whose rows and biases are a
///   power of two times another's, where the activation keeps such a factor, with that times their columns.
/// - A head of attention goes away if its columns of the next weight, or its values, are zero.
/// - A layer with zero weights that a residual is added to is the residual.
///
/// The units of a layer are its columns or channels; a gated layer has pairs of rows. Weights are read for it, at most
/// `maximumElements` numbers of one and `totalBytes` of all. As kernels take columns in vectors, what is left is filled up to a multiple of
/// `granularity`.
package struct RemoveDeadUnits: Pass {
  package static let name = "remove-dead-units"
  package static let summary = "removes hidden units and heads that do nothing, and merges equal ones"
  package static let legality =
    "the units are read by one layer alone; their weights are exactly zero, or equal but for a power of two, and small enough to be read"
  package static let source =
    "Xu and others, 2025 (Turbo-VBI), exact part; Bushnaq and others, 2024 (degeneracy), exact part"

  /// The numbers that a weight may have.
  package var maximumElements: Int = 1 << 20
  /// The bytes of all weights that are read.
  package var totalBytes: Int = 1 << 28
  /// What the number of units is filled up to a multiple of.
  package var granularity: Int = 16

  package init() {}

  package var fidelity: Fidelity { .exact }

  /// Removing units may make others useless: those before them.
  private static let rounds = 4

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard granularity >= 1, maximumElements >= 0, totalBytes >= 0 else {
      throw CompileError(.usage, "'\(name)' takes a granularity of at least 1 and sizes of at least 0")
    }
    var budget = totalBytes
    for index in model.functions.indices {
      for _ in 0..<Self.rounds where context.mayRewrite {
        let graph = model.functions[index]
        let search = UnitSearch(
          RecipeGraph(graph), context.constantEvaluator(for: graph, in: model), maximumElements: maximumElements,
          granularity: granularity)
        let found = try search.run(budget: &budget, context)
        guard !found.isEmpty else { break }
        context.count("units removed", by: found.units.values.reduce(0) { $0 + $1.removed })
        context.count("heads removed", by: found.heads.values.reduce(0) { $0 + $1.removed })
        try RewriteDriver(found.rules).run(function: index, of: &model, &context)
      }
    }
  }
}

/// Which of some units stay.
struct UnitPlan {
  /// What stands at a place of the new units: a range of the old ones, or one for several equal ones.
  enum Piece: Hashable {
    case range(Range<Int>)
    case merged([Int])
  }

  var pieces: [Piece]
  /// Units that are a constant other than 0, which is left out.
  var constants: [Int: Float]
  /// The number of old units.
  var count: Int
  /// For merged units, how many times the first one they give; 1 where it is left out.
  var factors: [Int: Float] = [:]

  /// The number of new units.
  var kept: Int {
    pieces.reduce(0) { sum, piece in
      if case .range(let range) = piece { return sum + range.count }
      return sum + 1
    }
  }

  var removed: Int { count - kept }
}

/// What the search found in one function.
struct DeadUnits {
  /// The units between the layer at the node and the one before it.
  var units: [NodeID: UnitPlan] = [:]
  /// The groups of heads of the attention at the node.
  var heads: [NodeID: UnitPlan] = [:]
  /// Layers with zero weights that add a residual.
  var zeros: Set<NodeID> = []

  var isEmpty: Bool { units.isEmpty && heads.isEmpty && zeros.isEmpty }

  /// The rules that remove what was found.
  var rules: [RewriteRule] {
    [
      removeZeroLayer(MatMul.self), removeZeroLayer(Conv2D.self), removeUnits(MatMul.self), removeUnits(Conv2D.self),
      removeHeads,
    ]
  }

  /// matmul(x, 0, b, r) {epilogue = {residual = before_activation}} -> add(r, b)
  private func removeZeroLayer<Op: Operator>(_ type: Op.Type) -> RewriteRule {
    let zeros = zeros
    return RewriteRule("remove-zero-\(Op.name.kebabCase)", on: type, .shared) { _, node, rewriter in
      guard zeros.contains(node), let layer = rewriter.layer(at: node), let residual = layer.residual else {
        return nil
      }
      guard let bias = layer.bias, rewriter.number(bias) != 0 else { return residual }
      let rank = rewriter.type(of: node).rank
      let axis = layer.channelAxis(rank: rank)
      let shape = [Dim.fixed(layer.outputs)] + [Dim](repeating: 1, count: rank - 1 - axis)
      return try rewriter.emit(Add(), residual, rewriter.emit(Reshape(shape), rewriter.widened(bias)))
    }
  }

  /// matmul(act(matmul(x, v, b)), w) -> the same with fewer rows of v and columns of w; likewise for convolutions
  private func removeUnits<Op: Operator>(_ type: Op.Type) -> RewriteRule {
    let units = units
    return RewriteRule("remove-units-before-\(Op.name.kebabCase)", on: type, .shared) { _, node, rewriter in
      guard let plan = units[node], var reader = rewriter.layer(at: node),
        var writer = rewriter.layer(reader.input)
      else { return nil }
      let values = plan.constants.isEmpty ? nil : try rewriter.constantUnits(plan)
      reader.bias = try rewriter.bias(of: reader, behind: values)
      let rows = writer.outputs / plan.count
      writer.weight = try rewriter.cut(writer.weight, plan, axis: 0, width: rows, adds: false)
      writer.bias = try writer.bias.map { try rewriter.cut($0, plan, axis: 0, width: rows, adds: false) }
      reader.weight = try rewriter.cut(reader.weight, plan, axis: 1, width: 1, adds: true)
      reader.input = try rewriter.emit(writer)
      return try rewriter.emit(reader)
    }
  }

  /// matmul(attention(matmul(x, q), matmul(x, k), matmul(x, v)), w) -> the same with fewer heads
  private var removeHeads: RewriteRule {
    let heads = heads
    return RewriteRule("remove-heads", on: MatMul.self, .shared) { _, node, rewriter in
      guard var reader = rewriter.layer(at: node), let match = rewriter.match(reader.input, Attention.self),
        let plan = heads[match.node]
      else { return nil }
      var inputs = match.inputs
      for index in 0..<3 { inputs[index] = try rewriter.cutHeads(inputs[index], plan) }
      var attention = match.op
      attention.heads = match.op.heads / plan.count * plan.kept
      attention.kvHeads = plan.kept
      reader.weight = try rewriter.cut(
        reader.weight, plan, axis: 1, width: reader.channels / plan.count, adds: false)
      reader.input = try rewriter.emit(attention, inputs)
      return try rewriter.emit(reader)
    }
  }
}

extension Rewriter {
  /// The parts of a recipe that stay, along an axis with `width` elements for each unit; equal units are added up or, unless
  /// `adds`, the first of them stands for all.
  fileprivate mutating func cut(
    _ recipe: ValueID, _ plan: UnitPlan, axis: Int, width: Int, adds: Bool
  ) throws -> ValueID {
    var parts: [ValueID] = []
    func slice(_ units: Range<Int>, _ rewriter: inout Rewriter) throws -> ValueID {
      try rewriter.emit(
        Slice(axis: axis, start: .fixed(units.lowerBound * width), size: .fixed(units.count * width)), recipe)
    }
    for piece in plan.pieces {
      switch piece {
      case .range(let range): parts.append(try slice(range, &self))
      case .merged(let equal):
        guard let first = equal.first else { continue }
        var sum = try slice(first..<first + 1, &self)
        for unit in equal.dropFirst() where adds {
          var part = try slice(unit..<unit + 1, &self)
          if let factor = plan.factors[unit], factor != 1 {
            let one = [Int](repeating: 1, count: type(of: part).rank)
            part = try emit(Multiply(), part, constant(Double(factor), TensorType(.f32, one)))
          }
          sum = try emit(Add(), sum, part)
        }
        parts.append(sum)
      }
    }
    return parts.count == 1 ? parts[0] : try emit(Concat(axis: axis), parts)
  }

  /// A vector with the values of the units that are constant, and 0 for the others.
  fileprivate mutating func constantUnits(_ plan: UnitPlan) throws -> ValueID {
    var parts: [ValueID] = []
    var next = 0
    for (unit, value) in plan.constants.sorted(by: { $0.key < $1.key }) {
      if unit > next { parts.append(constant(0, TensorType(.f32, [unit - next]))) }
      parts.append(constant(Double(value), TensorType(.f32, [1])))
      next = unit + 1
    }
    if next < plan.count { parts.append(constant(0, TensorType(.f32, [plan.count - next]))) }
    return parts.count == 1 ? parts[0] : try emit(Concat(axis: 0), parts)
  }

  /// Queries, keys or values with fewer heads: those of a product, perhaps turned.
  fileprivate mutating func cutHeads(_ value: ValueID, _ plan: UnitPlan) throws -> ValueID {
    if let rope = match(value, Rope.self) {
      let inner = try cutHeads(rope.inputs[0], plan)
      return try emit(rope.op, [inner] + rope.inputs.dropFirst())
    }
    guard var layer = layer(value) else {
      throw CompileError(.internal, "'%\(name(of: value))' is no layer")
    }
    let width = layer.outputs / plan.count
    layer.weight = try cut(layer.weight, plan, axis: 0, width: width, adds: false)
    layer.bias = try layer.bias.map { try cut($0, plan, axis: 0, width: width, adds: false) }
    return try emit(layer)
  }
}
