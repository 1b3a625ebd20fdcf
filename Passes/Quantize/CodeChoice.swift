import Base
import IR
import Tensors

/// The walk of ``ChooseCodes`` through a function.
struct CodeChoice {
  /// A layer whose codes were chosen.
  struct Layer {
    /// The value that rounding gave.
    var codes: ValueID
    /// The origin of the layer, or the name of its weight.
    var name: String
    /// The format, whose levels may be others than those of the pass before.
    var format: BlockFormat
    /// The bytes in the spill.
    var range: Range<Int>
    /// The error on the samples over that of rounding to nearest.
    var relativeError: Double
    var damping: Double
  }

  /// A product whose right factor is a constant rounded to blocks.
  private struct Product {
    var node: NodeID
    /// The numbers before rounding, the codes, and what they stand for.
    var source, codes, numbers: ValueID
    var format: BlockFormat
  }

  private let options: ChooseCodes
  private let method: GPTQ
  private let graph: Graph
  /// The samples on their way, with the codes chosen so far or through the original model.
  private var walk: SampleWalk
  /// The same samples in the original model, where its results are aimed at.
  private var original: SampleWalk?
  /// What the codes chosen stand for, as long as it is needed.
  private var numbers: [ValueID: Tensor] = [:]
  /// The weights of the tokens of each sample; empty where they are equal.
  private var tokenWeights: [[Float]] = []

  init(_ options: ChooseCodes, _ model: Model, _ samples: [FunctionInputs]) throws {
    self.options = options
    graph = model.functions[0]
    var method = GPTQ()
    method.damping = options.damping
    method.order = options.order
    method.searchesScales = options.search
    method.refinements = options.refinements
    self.method = method
    let order = graph.topologicalOrder()
    let exact = options.inputs == .sequential ? graph : try Self.withoutRounding(graph)
    walk = try SampleWalk(model, options.inputs == .original ? exact : graph, order: order, samples)
    if options.inputs == .corrected || options.inputs == .stream {
      original = try SampleWalk(model, exact, order: order, samples)
    }
  }

  /// The function with the numbers themselves wherever they are rounded to blocks and back, with the same nodes and values.
  private static func withoutRounding(_ graph: Graph) throws -> Graph {
    var copy = graph
    for id in graph.topologicalOrder() where graph[id].op is Quantize {
      let source = copy[id].inputs[0], codes = graph[id].results[0]
      for user in copy.users(of: codes) {
        if copy[user].op is Dequantize {
          copy.replaceUses(of: copy[user].results[0], with: source)
        } else if copy[user].op is Gather, copy[user].inputs[0] == codes {
          copy.setInput(0, of: user, to: source)
        }
      }
    }
    _ = copy.eraseDeadCode()
    return copy
  }

  /// Chooses the codes of all layers in the order of the graph and hands each to the spill.
  mutating func run(_ spill: SpillFile, progress: Progress?) throws -> [Layer] {
    var products: [NodeID: Product] = [:]
    for id in walk.order { products[id] = product(at: id) }
    guard let end = walk.order.lastIndex(where: { products[$0] != nil }) else { return [] }
    var layers: [Layer] = []
    var chosen: Set<ValueID> = []
    while let id = walk.next, walk.step <= end {
      progress?.update("choosing codes", done: walk.step, of: end + 1)
      if let product = products[id], chosen.insert(product.codes).inserted {
        layers.append(try choose(product, spill))
      }
      if walk.step == end { break }
      try noteAttention(id)
      let others = walk.graph[id].inputs.reduce(into: [ValueID: Tensor]()) { $0[$1] = numbers[$1] }
      try walk.advance(replacing: others)
      if original?.next == id { try original?.advance() }
      for value in others.keys where graph.users(of: value).count == 1 { numbers[value] = nil }
    }
    return layers
  }

  private func product(at id: NodeID) -> Product? {
    let node = graph[id]
    guard node.inputs.count >= 2, !walk.isRecipe(walk.graph[id].inputs[0]),
      (node.op as? MatMul)?.transposeB ?? (node.op is ExpertMatMul),
      let back = graph.definingNode(of: node.inputs[1]), graph[back].op is Dequantize,
      let forth = graph.definingNode(of: graph[back].inputs[0]), let op = graph[forth].op as? Quantize,
      ConstantEvaluator.isRecipe(graph[forth].inputs[0], in: graph)
    else { return nil }
    return Product(
      node: id, source: graph[forth].inputs[0], codes: graph[back].inputs[0], numbers: node.inputs[1],
      format: op.format)
  }

  // MARK: A layer

  private mutating func choose(_ product: Product, _ spill: SpillFile) throws -> Layer {
    let node = graph[product.node]
    let name = node.origin?.text ?? graph[product.source].name
    do {
      let weights = try walk.recipe(product.source).floats()
      var product = product
      product.format = try fitted(product, weights)
      let type = graph.type(of: product.numbers)
      let blocks = Tensor(TensorType(.f32, type.shape, encoding: .block(product.format)))
      let report =
        try node.op is ExpertMatMul
        ? chooseExperts(product, weights, into: blocks) : chooseRows(product, weights, into: blocks)
      let stands = Tensor(type)
      try Dequantize(type.element).evaluate([blocks.view], into: [stands.mutableView])
      if options.inputs != .original { numbers[product.numbers] = stands }
      let range = try spill.add(blocks.view.bytes)
      return Layer(
        codes: product.codes, name: name, format: product.format, range: range,
        relativeError: report.nearestError > 0 ? report.error / report.nearestError : 1, damping: report.damping)
    } catch let error as CompileError {
      throw error.located(.init(object: "the layer '\(name)'"))
    }
  }

  /// The format with levels fitted once more, each column weighted by what an error in it does to the results; formats with a
  /// table of a name keep it.
  private func fitted(_ product: Product, _ weights: Tensor) throws -> BlockFormat {
    let sizes = weights.view.sizes
    guard let levels = product.format.levels, levels.isOwn, sizes.count == 2 else { return product.format }
    let inputs = weighted(try self.inputs(of: walk, product.node, sizes[1]), sizes[1])
    var squares = [Float](repeating: 0, count: sizes[1])
    for rows in inputs {
      for place in 0..<rows.rows * sizes[1] { squares[place % sizes[1]] += rows.numbers[place] * rows.numbers[place] }
    }
    guard squares.allSatisfy({ $0.isFinite }), squares.contains(where: { $0 > 0 }) else { return product.format }
    return try withExtendedLifetime(weights) {
      try product.format.fitted(to: weights.view.elements(as: Float.self), columns: sizes[1], weights: squares)
    }
  }

  /// The rows of a linear layer.
  private func chooseRows(_ product: Product, _ weights: Tensor, into blocks: Tensor) throws -> GPTQ.Report {
    let sizes = weights.view.sizes
    let (rows, columns) = (sizes[0], sizes[1])
    let inputs = try self.inputs(of: walk, product.node, columns)
    let right = weighted(inputs, columns)
    let metric = try method.metric(
      ProductSums.gram(right, columns: columns), columns: columns, product.format)
    let correction = try self.correction(product, inputs, weighted: right, rows: rows, columns: columns)
    guard let source = weights.view.elements(as: Float.self).baseAddress,
      let target = blocks.mutableView.bytes.baseAddress
    else { throw CompileError(.internal, "a weight without numbers") }
    return try method.quantize(
      source, rows: rows, metric, product.format, correction: correction, into: target)
  }

  /// What the layer is to make up for, if the results of the original model are aimed at.
  private func correction(
    _ product: Product, _ inputs: [SampleRows], weighted right: [SampleRows], rows: Int, columns: Int
  ) throws -> GPTQ.Correction? {
    guard let original else { return nil }
    let wanted = try self.inputs(of: original, product.node, columns)
    let shift = ProductSums.cross(
      weighted(differences(wanted, inputs, columns), columns), columns: columns, right, columns: columns)
    var correction = GPTQ.Correction(shift: shift.map { Float($0) })
    if options.inputs == .stream, let op = graph[product.node].op as? MatMul, op.epilogue.activation == .none,
      !op.epilogue.gated, let index = op.epilogue.residualIndex
    {
      let before = try original.rows(of: original.graph[product.node].inputs[index], columns: rows)
      let now = try walk.rows(of: graph[product.node].inputs[index], columns: rows)
      let offset = ProductSums.cross(
        weighted(differences(before, now, rows), rows), columns: rows, right, columns: columns)
      correction.offset = offset.map { Float($0) }
    }
    return correction
  }

  /// The rows of each expert, for the tokens that are routed to it.
  private func chooseExperts(_ product: Product, _ weights: Tensor, into blocks: Tensor) throws -> GPTQ.Report {
    let sizes = weights.view.sizes
    let (experts, rows, columns) = (sizes[0], sizes[1], sizes[2])
    let inputs = weighted(try self.inputs(of: walk, product.node, columns), columns)
    let ids = try (0..<walk.count).map { sample in
      Array(try walk.tensor(graph[product.node].inputs[2], of: sample).view.elements(as: Int32.self))
    }
    let expertBytes = rows * product.format.rowBytes(columns: columns)
    var total = GPTQ.Report()
    guard let source = weights.view.elements(as: Float.self).baseAddress,
      let target = blocks.mutableView.bytes.baseAddress
    else { throw CompileError(.internal, "a weight without numbers") }
    for expert in 0..<experts {
      var routed = zip(inputs, ids).map { rows, ids in
        // One row per slot, or per token for all its slots.
        let slots = rows.rows > 0 ? ids.count / rows.rows : 1
        let places = ids.indices.filter { ids[$0] == expert }.map { $0 / max(1, slots) }
        return gathered(rows, places, columns)
      }
      // An expert that no token reached takes those of all.
      if routed.allSatisfy({ $0.rows == 0 }) { routed = inputs }
      let metric = try method.metric(ProductSums.gram(routed, columns: columns), columns: columns, product.format)
      let report = try method.quantize(
        source + expert * rows * columns, rows: rows, metric, product.format, into: target + expert * expertBytes)
      total.error += report.error
      total.nearestError += report.nearestError
      total.damping = max(total.damping, report.damping)
    }
    return total
  }

  // MARK: Rows

  /// The inputs of a layer on all samples.
  private func inputs(of walk: SampleWalk, _ node: NodeID, _ columns: Int) throws -> [SampleRows] {
    let value = walk.graph[node].inputs[0]
    let rows = try walk.rows(of: value, columns: columns)
    for (sample, rows) in rows.enumerated()
    where !isAllFinite(UnsafeBufferPointer(start: rows.numbers, count: rows.rows * columns)) {
      throw CompileError(
        .input, "the value '%\(walk.graph[value].name)' has numbers that are not finite in sample \(sample)")
    }
    return rows
  }

  private func made(_ rows: Int, _ columns: Int, _ fill: (UnsafeMutablePointer<Float>) -> Void) -> SampleRows {
    let tensor = Tensor(TensorType(.f32, [max(rows, 1), max(columns, 1)]))
    guard let target = tensor.mutableView.elements(as: Float.self).baseAddress else {
      preconditionFailure("a tensor of a number or more has an address")
    }
    fill(target)
    return SampleRows(target, rows: rows, owner: tensor)
  }

  private func differences(_ a: [SampleRows], _ b: [SampleRows], _ columns: Int) -> [SampleRows] {
    zip(a, b).map { a, b in
      made(a.rows, columns) { target in
        for i in 0..<a.rows * columns { target[i] = a.numbers[i] - b.numbers[i] }
      }
    }
  }

  private func gathered(_ rows: SampleRows, _ places: [Int], _ columns: Int) -> SampleRows {
    made(places.count, columns) { target in
      for (index, place) in places.enumerated() {
        (target + index * columns).update(from: rows.numbers + place * columns, count: columns)
      }
    }
  }

  // MARK: Tokens

  /// Rows times the weights of their tokens.
  private func weighted(_ samples: [SampleRows], _ columns: Int) -> [SampleRows] {
    guard !tokenWeights.isEmpty else { return samples }
    return zip(samples, tokenWeights).map { rows, weights in
      guard rows.rows == weights.count else { return rows }
      return made(rows.rows, columns) { target in
        for (row, weight) in weights.enumerated() {
          for i in row * columns..<(row + 1) * columns { target[i] = rows.numbers[i] * weight }
        }
      }
    }
  }

  /// Takes the weights of the tokens from the attention that they receive at a node that is about to be evaluated.
  private mutating func noteAttention(_ id: NodeID) throws {
    guard options.tokenWeight == .attention, let op = walk.graph[id].op as? Attention else { return }
    let least = Float(options.leastWeight)
    let inputs = walk.graph[id].inputs
    tokenWeights = try (0..<walk.count).map { sample in
      let operands = try inputs.map { input in
        try walk.isRecipe(input) ? walk.recipe(input) : walk.tensor(input, of: sample)
      }
      let received = try op.received(operands.map(\.view))
      let (low, high) = (received.min() ?? 0, received.max() ?? 0)
      guard high > low else { return received.map { _ in 1 } }
      return received.map { least + ($0 - low) / (high - low) * (1 - least) }
    }
  }
}
