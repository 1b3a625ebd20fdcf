import IR
import Tensors

/// The search for units that do nothing, which reads the weights of one function.
struct UnitSearch {
  private let lookup: RecipeGraph
  private let evaluator: ConstantEvaluator
  private let maximumElements: Int
  private let granularity: Int

  /// The most pieces that a weight is put together from.
  private static let maximumPieces = 64

  init(_ lookup: RecipeGraph, _ evaluator: ConstantEvaluator, maximumElements: Int, granularity: Int) {
    self.lookup = lookup
    self.evaluator = evaluator
    self.maximumElements = maximumElements
    self.granularity = granularity
  }

  /// What is found within the budget of bytes.
  func run(budget: inout Int, _ context: PassContext) throws -> DeadUnits {
    var found = DeadUnits()
    for id in lookup.graph.topologicalOrder() {
      guard let reader = AffineLayer(id, in: lookup), hasRows(reader) else { continue }
      let place = "%" + lookup.graph[lookup[id].results[0]].name
      func refuse(_ reason: String) { context.explain(RemoveDeadUnits.name, at: place, reason) }
      if isZero(reader, &budget) {
        found.zeros.insert(id)
        continue
      }
      guard lookup.useCount(of: reader.input) == 1, let before = lookup.definingNode(of: reader.input) else { continue }
      if let attention = lookup[before].op as? Attention {
        if let plan = try heads(of: attention, at: before, reader, &budget, refuse) { found.heads[before] = plan }
        continue
      }
      guard let writer = AffineLayer(before, in: lookup), hasRows(writer), writer.residual == nil,
        case let rank = lookup.type(of: reader.input).rank,
        writer.channelAxis(rank: rank) == reader.channelAxis(rank: rank)
      else { continue }
      if let plan = try units(writer, reader, &budget, refuse) { found.units[id] = plan }
    }
    return found
  }

  /// Whether a layer has one row of weights for each output, of numbers that nothing else reads.
  private func hasRows(_ layer: AffineLayer) -> Bool {
    switch layer.operation {
    case .product(let op): op.transposeB
    case .convolution(let op): op.layout == .first && op.groups == 1
    case .transposed: false
    }
  }

  /// The numbers of a recipe, if they are few enough.
  private func numbers(_ recipe: ValueID, _ budget: inout Int) throws -> [Float]? {
    let type = lookup.type(of: recipe)
    guard type.isDense, type.element.isFloat, type.maximumCount <= maximumElements, let bytes = type.byteCount,
      bytes <= budget
    else { return nil }
    budget -= bytes
    let tensor = try evaluator.tensor(recipe)
    return withExtendedLifetime(tensor) { floats(tensor.view.bytes, type.element) }
  }

  /// Whether a layer adds nothing but its bias to a residual, as its weight is one constant of zeros.
  private func isZero(_ layer: AffineLayer, _ budget: inout Int) -> Bool {
    let activation: Activation
    switch layer.operation {
    case .product(let op):
      guard !op.epilogue.gated else { return false }
      activation = op.epilogue.activation
    case .convolution(let op): activation = op.epilogue.activation
    case .transposed: return false
    }
    guard let residual = layer.residual, activation == .none, lookup.type(of: residual).element == .f32,
      let weight = try? numbers(layer.weight, &budget)
    else { return false }
    return !nonzeroSlices(weight, outer: 1, middle: 1, inner: weight.count)[0]
  }

  // MARK: Units

  /// The units between two layers that stay; nil if all do.
  private func units(
    _ writer: AffineLayer, _ reader: AffineLayer, _ budget: inout Int, _ refuse: (String) -> Void
  ) throws -> UnitPlan? {
    let count = reader.channels
    let (activation, gated) = writer.function
    guard count > 0, writer.outputs == (gated ? 2 * count : count) else { return nil }
    for weight in [writer.weight, reader.weight] {
      if let reason = lookup.obstacle(toChanging: weight, force: true) {
        refuse(reason)
        return nil
      }
    }
    guard let rows = try numbers(writer.weight, &budget), let columns = try numbers(reader.weight, &budget) else {
      refuse("the weights are too large to be read")
      return nil
    }
    let width = gated ? 2 : 1
    let depth = rows.count / count
    var biases = [Float](repeating: 0, count: width * count)
    if let bias = writer.bias {
      guard let values = try numbers(bias, &budget) else { return nil }
      biases = values
    }
    let taps = columns.count / reader.outputs / count
    let isRead = nonzeroSlices(columns, outer: reader.outputs, middle: count, inner: taps)
    let isComputed = nonzeroSlices(rows, outer: 1, middle: width * count, inner: depth / width)
    let values = try constants(biases, activation, gated: gated)
    // Equal units have equal rows and biases, perhaps but for a factor.
    var keyed: [Float] = []
    keyed.reserveCapacity(rows.count + biases.count)
    var factors = [Float](repeating: 1, count: count)
    // Columns in fewer bits might not hold the products.
    let takesFactors = lookup.type(of: reader.weight).element == .f32
    for row in 0..<width * count {
      let numbers = rows[row * (depth / width)..<(row + 1) * (depth / width)] + [biases[row]]
      let factor = takesFactors ? commonFactor(of: numbers, gated && row % 2 == 1 ? .none : activation) : 1
      factors[row / width] *= factor
      keyed += numbers.map { $0 / factor + 0 }
    }
    let first = firstEqualRows(keyed, rows: count, columns: depth + width)

    var plan = UnitPlan(pieces: [], constants: [:], count: count)
    var equal: [Int: [Int]] = [:]
    var stays = [Bool](repeating: true, count: count)
    for unit in 0..<count {
      let isConstant = !isComputed[width * unit] && (!gated || !isComputed[2 * unit + 1])
      // Of a gated unit one factor is enough.
      let isZero =
        gated
        ? (!isComputed[2 * unit] && values[unit].gate == 0) || (!isComputed[2 * unit + 1] && biases[2 * unit + 1] == 0)
        : isConstant && values[unit].result == 0
      if !isRead[unit] || isZero {
        stays[unit] = false
      } else if isConstant, reader.takesTerms, values[unit].result.isFinite {
        stays[unit] = false
        plan.constants[unit] = values[unit].result
      } else if first[unit] != unit, stays[first[unit]] {
        stays[unit] = false
        equal[first[unit], default: [first[unit]]].append(unit)
        plan.factors[unit] = factors[unit] / factors[first[unit]]
      }
    }
    return filled(&plan, stays, equal, refuse) ? plan : nil
  }

  /// The power of two that can be taken out of a row and its bias, as the function of it is that times the function of
  /// the rest: positive for `relu`, of any sign for none, else 1.
  private func commonFactor(of row: ArraySlice<Float>, _ activation: Activation) -> Float {
    guard activation == .none || activation == .relu, let number = row.first(where: { $0 != 0 }), number.isNormal,
      abs(number.exponent) <= 60
    else { return 1 }
    let factor = Float(sign: activation == .none ? number.sign : .plus, exponent: number.exponent, significand: 1)
    return row.allSatisfy { $0 / factor * factor == $0 } ? factor : 1
  }

  /// What units give whose rows are zero: `activation(bias)`, for gated ones that and its product with the other bias.
  private func constants(
    _ biases: [Float], _ activation: Activation, gated: Bool
  ) throws -> [(gate: Float, result: Float)] {
    let gates = gated ? stride(from: 0, to: biases.count, by: 2).map { biases[$0] } : biases
    let (input, result) = (Tensor(.f32, [gates.count], gates), Tensor(TensorType(.f32, [gates.count])))
    try FusedElementwise(activation.function).evaluate([input.view], into: [result.mutableView])
    return result.array(of: Float.self).enumerated().map { unit, gate in
      (gate, gated ? gate * biases[2 * unit + 1] : gate)
    }
  }

  /// Fills the units up to a multiple of the granularity and cuts them into pieces.
  ///
  /// - Returns: whether fewer units are left than there were.
  private func filled(
    _ plan: inout UnitPlan, _ stays: [Bool], _ equal: [Int: [Int]], _ refuse: (String) -> Void
  ) -> Bool {
    var (stays, equal) = (stays, equal)
    let kept = stays.count { $0 }
    guard kept < plan.count else { return false }
    let target = min(plan.count, max(1, (kept + granularity - 1) / granularity) * granularity)
    var missing = target - kept
    for unit in stays.indices.reversed() where missing > 0 && !stays[unit] {
      stays[unit] = true
      plan.constants[unit] = nil
      missing -= 1
      for (first, units) in equal where units.contains(unit) {
        let rest = units.filter { $0 != unit }
        equal[first] = rest.count > 1 ? rest : nil
      }
    }
    guard target < plan.count else {
      refuse("\(plan.count - kept) units do nothing, but kernels take units by \(granularity)")
      return false
    }
    for unit in stays.indices where stays[unit] {
      if let units = equal[unit] {
        plan.pieces.append(.merged(units))
      } else if case .range(let range)? = plan.pieces.last, range.upperBound == unit {
        plan.pieces[plan.pieces.count - 1] = .range(range.lowerBound..<unit + 1)
      } else {
        plan.pieces.append(.range(unit..<unit + 1))
      }
    }
    let summands = equal.values.reduce(0) { $0 + $1.count }
    guard plan.pieces.count + summands + plan.constants.count <= Self.maximumPieces else {
      refuse("what is left lies in too many pieces")
      return false
    }
    return true
  }

  // MARK: Heads

  /// The groups of heads that stay; nil if all do.
  private func heads(
    of attention: Attention, at node: NodeID, _ reader: AffineLayer, _ budget: inout Int,
    _ refuse: (String) -> Void
  ) throws -> UnitPlan? {
    let inputs = lookup[node].inputs
    let types = inputs.map { lookup.type(of: $0) }
    let count = attention.kvHeads
    guard count > 1, attention.recent == nil, attention.angleBlock == nil else { return nil }
    if let mask = attention.optionalInputs(types).mask, types[mask].rank > 2,
      types[mask].shape[types[mask].rank - 3] != 1
    {
      refuse("heads have masks of their own")
      return nil
    }
    var layers: [AffineLayer] = []
    for value in inputs.prefix(3) {
      guard let layer = headLayer(value), layer.outputs % count == 0 else {
        refuse("'%\(lookup.graph[value].name)' is no product of a weight")
        return nil
      }
      layers.append(layer)
    }
    for layer in layers + [reader] {
      if let reason = lookup.obstacle(toChanging: layer.weight, force: true) {
        refuse(reason)
        return nil
      }
    }
    guard let columns = try numbers(reader.weight, &budget), let rows = try numbers(layers[2].weight, &budget) else {
      refuse("the weights are too large to be read")
      return nil
    }
    var biases = [Float](repeating: 0, count: layers[2].outputs)
    if let bias = layers[2].bias {
      guard let values = try numbers(bias, &budget) else { return nil }
      biases = values
    }
    let isRead = nonzeroSlices(columns, outer: reader.outputs, middle: count, inner: reader.channels / count)
    let hasRows = nonzeroSlices(rows, outer: 1, middle: count, inner: rows.count / count)
    let hasBias = nonzeroSlices(biases, outer: 1, middle: count, inner: biases.count / count)
    let stays = (0..<count).map { isRead[$0] && (hasRows[$0] || hasBias[$0]) }
    let kept = stays.count { $0 }
    guard kept < count else { return nil }
    let width = layers.map { $0.outputs / count }.min() ?? 1
    var plan = UnitPlan(pieces: [], constants: [:], count: count)
    guard width % granularity == 0 || granularity == 1 else {
      refuse("\(count - kept) heads do nothing, but have no multiple of \(granularity) columns")
      return nil
    }
    let search = UnitSearch(lookup, evaluator, maximumElements: maximumElements, granularity: 1)
    return search.filled(&plan, stays, [:], refuse) ? plan : nil
  }

  /// The product that gives queries, keys or values, perhaps turned, and that nothing else uses.
  private func headLayer(_ value: ValueID) -> AffineLayer? {
    guard lookup.useCount(of: value) == 1, let node = lookup.definingNode(of: value) else { return nil }
    if lookup[node].op is Rope { return headLayer(lookup[node].inputs[0]) }
    guard let layer = AffineLayer(node, in: lookup), case .product(let op) = layer.operation, op.transposeB,
      layer.hasPlainSums
    else { return nil }
    return layer
  }
}

extension AffineLayer {
  /// What is done to the sums before they are stored.
  fileprivate var function: (activation: Activation, gated: Bool) {
    switch operation {
    case .product(let op): (op.epilogue.activation, op.epilogue.gated)
    case .convolution(let op): (op.epilogue.activation, false)
    case .transposed: (.none, false)
    }
  }
}
