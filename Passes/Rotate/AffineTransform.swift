import Base
import IR
import Tensors

/// Changes the basis of what layers read to one in which activations and weights round well together: any invertible
/// matrix that is a Kronecker product of two small ones.
///
///     %y = matmul(%x, %w) {transposeB = true}
///     // -> %p = kronecker_matmul(%x, %p1, %p2)                             // x (P_1 (x) P_2), when the program runs
///     //    %v = kronecker_matmul(%w, %q1, %q2)                             // w (P_1 (x) P_2)^-T
///     //    %y = matmul(%p, %v) {transposeB = true}
///
/// The factors follow in closed form from what layers read on windows of `text` and from their weights
/// (``KroneckerBasis``). With `refine` the strength of each factor is searched on a grid, one after the other, with
/// eigenvectors and without, by the error that rounding both as `spec` says leaves in what the layers give on some of
/// the rows; a value stays where nothing is better than no change. Layers that read one value (queries, keys, values)
/// share the factors. A row costs `n (n_1 + n_2)` products, which may be `share` of those of the layers.
package struct AffineTransform: TokenSampled {
  package static let name = "affine"
  package static let summary = "turns and scales what layers read by Kronecker products, so that both round well"
  package static let legality =
    "layers with constant weights of their own read the value, whose width has two factors; in models of one function"
  package static let source =
    "Sun and others, 2024 (FlatQuant); Van Loan and Pitsianis, 1993 (nearest Kronecker products)"

  /// The form of the matrices.
  package enum Kind: String, Hashable, Codable, Sendable, CaseIterable {
    case kron
  }

  package var kind: Kind = .kron
  /// How weights and activations will be rounded.
  package var spec = AffineTransform.defaultSpec
  /// The most that a change may cost, as a share of the products of the layers behind.
  package var share: Double = 0.1
  /// Whether the strengths are searched.
  package var refine: Bool = true
  /// What activations are measured on.
  package var text: String = ""
  /// Windows; nil for 4 or as many as there are.
  package var samples: Int?
  /// Tokens of a window.
  package var length: Int? = 256

  private static let defaultSpec = QuantizationSpec(weights: .bits4, group: 32, activationBits: 8)
  private static let usualSamples = 4
  /// The rows that factors are computed from, and that errors are measured on.
  private static let rowLimit = 1024
  private static let trialLimit = 256

  package init() {}

  package var fidelity: Fidelity { .exact }

  /// A value and the layers that read it.
  private struct Place {
    var value: ValueID
    var width: Int
    var orders: (left: Int, right: Int)
    var readers: [ResidualStream.Recipe]
    /// The products of a change over those of the layers.
    var share: Double
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard !text.isEmpty else { throw CompileError(.usage, "affine needs a text: affine{text=\"FILE\"}") }
    guard share > 0 else { throw CompileError(.usage, "'share' of pass 'affine' is \(share), expected more than 0") }
    guard let format = spec.weightFormat else { return }
    let runs = try windows(for: model, context, "changes of basis are measured", usual: Self.usualSamples)
    let graph = model.functions[0]
    let places = self.places(in: RecipeGraph(graph), context)
    let evaluator = context.constantEvaluator(for: graph, in: model)
    var found: [ValueID: KroneckerBasis] = [:]
    var walk = try SampleWalk(model, graph, runs)
    func choose(_ value: ValueID, _ walk: SampleWalk, _ context: inout PassContext) throws {
      guard let place = places[value], found[value] == nil else { return }
      let rows = try walk.rows(of: value, columns: place.width).some(Self.rowLimit, columns: place.width)
      let weights = try place.readers.map { try Self.rows(of: $0, graph, evaluator) }
      let trial = BasisTrial(
        rows: rows, weights: weights, width: place.width, format: format,
        activations: spec.activationRounding(group: spec.group ?? 32), limit: Self.trialLimit)
      let moments = try KroneckerBasis.Moments(
        rows: rows, weights: weights.flatMap { $0.some(Self.rowLimit, columns: place.width) },
        left: place.orders.left, right: place.orders.right)
      let result: (basis: KroneckerBasis?, left: Double?) =
        try refine ? trial.best(moments) : (moments.basis([1, 1]), nil)
      guard let basis = result.basis else {
        context.explain(Self.name, at: "%" + graph[value].name, "no change of basis leaves less error")
        return
      }
      found[value] = basis
      context.count("places transformed")
      context.count("weights transformed", by: place.readers.count)
      if let left = result.left { context.report("error left at %\(graph[value].name)", left) }
      context.report("share of products at %\(graph[value].name)", place.share)
    }
    for input in graph.inputs { try choose(input, walk, &context) }
    while let node = walk.next {
      context.progress?.update("choosing bases", done: walk.step, of: walk.order.count)
      try walk.advance()
      for result in graph[node].results { try choose(result, walk, &context) }
    }
    var builder = GraphBuilder(graph: graph, constants: model.constants)
    for value in graph.valueIDs {
      guard let basis = found[value], let place = places[value] else { continue }
      try builder.transform(value, place.readers, basis, orders: [place.orders.left, place.orders.right])
    }
    _ = builder.graph.eraseDeadCode()
    (model.functions[0], model.constants) = (builder.graph, builder.constants)
  }

  /// The values that may change, and of others why they may not.
  private func places(in lookup: RecipeGraph, _ context: PassContext) -> [ValueID: Place] {
    let graph = lookup.graph
    var places: [ValueID: Place] = [:]
    for value in graph.valueIDs where !lookup.isRecipe(value) {
      let type = graph.type(of: value)
      var readers: [ResidualStream.Recipe] = []
      var outputs = 0
      for use in graph[value].uses {
        guard case .operand(let id, 0) = use, let reader = Self.reader(id, lookup) else { continue }
        let weight = graph[id].inputs[1]
        if let reason = lookup.obstacle(toTurning: weight) {
          context.explain(Self.name, at: "%" + graph[graph[id].results[0]].name, reason)
          continue
        }
        readers.append(reader)
        let sizes = graph.type(of: weight).shape.fixedSizes ?? []
        outputs += sizes.enumerated().reduce(1) { $1.offset == reader.axis ? $0 : $0 * $1.element }
      }
      guard !readers.isEmpty, type.element == .f32, type.isDense, let width = type.shape.last.fixedValue else {
        continue
      }
      guard let orders = KroneckerBasis.orders(of: width) else {
        context.explain(Self.name, at: "%" + graph[value].name, "\(width) channels are no product of two factors")
        continue
      }
      let cost = Double(orders.left + orders.right) / Double(max(outputs, 1))
      guard cost <= share else {
        let percent = Int((100 * cost).rounded())
        context.explain(
          Self.name, at: "%" + graph[value].name, "the change would cost \(percent) % of the layers behind")
        continue
      }
      places[value] = Place(value: value, width: width, orders: orders, readers: readers, share: cost)
    }
    return places
  }

  /// The weight of a layer whose channels are the last axis of its input; nil for others, and for routers, whose choice
  /// of experts a small error may change.
  private static func reader(_ id: NodeID, _ lookup: RecipeGraph) -> ResidualStream.Recipe? {
    let graph = lookup.graph
    if graph[id].op is ExpertMatMul {
      guard lookup.isRecipe(graph[id].inputs[1]) else { return nil }
      return ResidualStream.Recipe(node: id, operand: 1, axis: 2)
    }
    guard graph[id].op is MatMul, let layer = AffineLayer(id, in: lookup),
      !graph.users(of: graph[id].results[0]).contains(where: { graph[$0].op is Route })
    else { return nil }
    return ResidualStream.Recipe(node: id, operand: 1, axis: layer.weightAxes.channels)
  }

  /// A weight with one row per output.
  private static func rows(
    of recipe: ResidualStream.Recipe, _ graph: Graph, _ evaluator: ConstantEvaluator
  ) throws -> [Float] {
    let value = graph[recipe.node].inputs[recipe.operand]
    let numbers = try evaluator.tensor(value).numbers()
    let sizes = graph.type(of: value).shape.fixedSizes ?? []
    guard recipe.axis == 0, sizes.count == 2 else { return numbers }
    var rows = [Float](repeating: 0, count: numbers.count)
    for i in 0..<sizes[0] {
      for j in 0..<sizes[1] { rows[j * sizes[0] + i] = numbers[i * sizes[1] + j] }
    }
    return rows
  }
}

/// The error that rounding leaves in what layers give, before and after a change of basis.
private struct BasisTrial {
  private let rows: Tensor
  private let weights: Tensor
  private let weightRounding: Quantize
  private let activations: Quantize?
  private let width: Int
  private let right: [Float]

  /// On at most `limit` of the rows, and as many of those of all weights.
  init(
    rows: [Float], weights: [[Float]], width: Int, format: BlockFormat, activations: Quantize?, limit: Int
  ) {
    (weightRounding, self.activations, self.width) = (Quantize(format), activations, width)
    let x = rows.some(limit, columns: width), w = weights.flatMap { $0 }.some(limit, columns: width)
    self.rows = Tensor(.f32, [x.count / width, width], x)
    self.weights = Tensor(.f32, [w.count / width, width], w)
    right = Self.product(x, w, width)
  }

  /// The basis with the strengths of least error, and that error over the one without a change; nil if none is less.
  func best(_ moments: KroneckerBasis.Moments) throws -> (basis: KroneckerBasis?, left: Double?) {
    let grid = [0, 0.25, 0.5, 0.75, 1.0]
    let before = try error(nil)
    var best: (strengths: [Double], turnsAxes: Bool, error: Double) = ([], false, before)
    func visit(_ candidates: [[Double]], turnsAxes: Bool) throws {
      let errors = try parallelMap(candidates.count) {
        try error(moments.basis(candidates[$0], turnsAxes: turnsAxes))
      }
      for (candidate, error) in zip(candidates, errors) where error < best.error {
        best = (candidate, turnsAxes, error)
      }
    }
    for turnsAxes in [false, true] { try visit(grid.map { [$0, $0] }, turnsAxes: turnsAxes) }
    guard best.strengths.count == 2 else { return (nil, nil) }
    for side in 0..<2 {
      let now = best.strengths
      let others = grid.filter { $0 != now[side] }.map { side == 0 ? [$0, now[1]] : [now[0], $0] }
      try visit(others, turnsAxes: best.turnsAxes)
    }
    return (try moments.basis(best.strengths, turnsAxes: best.turnsAxes), before > 0 ? best.error / before : 1)
  }

  /// The sum of the squares of the differences.
  private func error(_ basis: KroneckerBasis?) throws -> Double {
    let x = try changed(rows, basis?.factors), w = try changed(weights, basis?.inverses)
    let found = try Self.product(rounded(x, activations), rounded(w, weightRounding), width)
    return zip(found, right).reduce(0) { $0 + Double($1.0 - $1.1) * Double($1.0 - $1.1) }
  }

  private func changed(_ tensor: Tensor, _ factors: [[Float]]?) throws -> [Float] {
    guard let factors else { return tensor.array(of: Float.self) }
    let matrices = factors.map { numbers in
      let order = Int(Double(numbers.count).squareRoot().rounded())
      return Tensor(.f32, [order, order], numbers)
    }
    let result = Tensor(tensor.type)
    try KroneckerMatMul().evaluate([tensor.view] + matrices.map(\.view), into: [result.mutableView])
    return withExtendedLifetime(matrices) { result.array(of: Float.self) }
  }

  private func rounded(_ numbers: [Float], _ rounding: Quantize?) throws -> [Float] {
    guard let rounding else { return numbers }
    let rows = Tensor(.f32, [numbers.count / width, width], numbers)
    let codes = Tensor(try rounding.inferTypes([rows.type])[0])
    try rounding.evaluate([rows.view], into: [codes.mutableView])
    try Dequantize(.f32).evaluate([codes.view], into: [rows.mutableView])
    return rows.array(of: Float.self)
  }

  private static func product(_ x: [Float], _ w: [Float], _ width: Int) -> [Float] {
    var result = [Float](repeating: 0, count: x.count / width * (w.count / width))
    guard !result.isEmpty else { return result }
    MatrixProduct(rows: x.count / width, columns: w.count / width, depth: width, transposeB: true)(x, w, into: &result)
    return result
  }
}

extension [Float] {
  /// At most so many rows, spread over all.
  fileprivate func some(_ limit: Int, columns: Int) -> [Float] {
    let rows = count / columns
    guard rows > limit else { return self }
    return (0..<limit).flatMap { index -> ArraySlice<Float> in
      let row = index * rows / limit
      return self[row * columns..<(row + 1) * columns]
    }
  }
}

extension GraphBuilder {
  /// Gives layers a value in another basis, and their weights the inverse.
  fileprivate mutating func transform(
    _ value: ValueID, _ readers: [ResidualStream.Recipe], _ basis: KroneckerBasis, orders: [Int]
  ) throws {
    let name = graph[value].name
    func matrices(_ numbers: [[Float]], _ kind: String, in builder: inout GraphBuilder) -> [ValueID] {
      zip(numbers, orders).enumerated().map { index, factor in
        builder.constant(.inline("\(name)_\(kind)\(index + 1)", .f32, [factor.1, factor.1], factor.0))
      }
    }
    origin = graph[readers[0].node].origin
    let factors = matrices(basis.factors, "factor", in: &self)
    let inverses = matrices(basis.inverses, "inverse", in: &self)
    let changed = try emit(KroneckerMatMul(), [value] + factors, name: name + "_affine")
    for reader in readers {
      origin = graph[reader.node].origin
      let old = graph[reader.node].inputs[reader.operand]
      var weight = try widened(old)
      let isLast = reader.axis == type(of: weight).rank - 1
      if !isLast { weight = try emit(Transpose([1, 0]), weight) }
      weight = try emit(KroneckerMatMul(), [weight] + inverses, name: graph[old].name + "_affine")
      if !isLast { weight = try emit(Transpose([1, 0]), weight) }
      graph.setInput(0, of: reader.node, to: changed)
      graph.setInput(reader.operand, of: reader.node, to: weight)
    }
  }
}
