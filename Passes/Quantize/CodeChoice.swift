import Base
import IR
import Tensors

/// The walk of ``ChooseCodes`` through a function.
struct CodeChoice {
  /// A layer or a table whose codes were chosen.
  struct Layer {
    /// What was rounded, for whoever rounds the same.
    var identity: RecipeIdentity?
    var function: String
    /// The origin of the layer, or the name of its weight.
    var name: String
    /// The name of what rounding gave.
    var codesName: String
    /// The format, whose levels may be others than those of the pass before.
    var format: BlockFormat
    /// The bytes in the spill.
    var range: Range<Int>
    /// The bias that goes with the codes.
    var bias: Term?
    /// The error on the samples over that of rounding to nearest.
    var relativeError: Double
    var damping: Double
  }

  /// Numbers in f32 that take the place of a recipe of the function.
  struct Term {
    var name: String
    /// The bytes in the spill.
    var range: Range<Int>
  }

  /// The states that samples leave to the functions that go on, with the codes chosen and in the original model.
  struct Remains {
    var states: [[String: Tensor]] = []
    var originals: [[String: Tensor]] = []
  }

  /// A product whose right factor is a constant rounded to blocks, or a table that rows are taken from.
  private struct Product {
    var node: NodeID
    /// The numbers before rounding, the codes, and what they stand for, in the shape that the node reads; the codes
    /// once more where rows of them are taken.
    var source, codes, numbers: ValueID
    var format: BlockFormat
    var isTable: Bool { codes == numbers }
  }

  private let options: ChooseCodes
  let method: GPTQ
  private let graph: Graph
  /// The samples on their way, with the codes chosen so far or through the original model.
  private(set) var walk: SampleWalk
  /// The same samples in the original model, where its results are aimed at.
  private(set) var original: SampleWalk?
  /// What the codes chosen stand for, as long as it is needed.
  private var numbers: [ValueID: Tensor] = [:]
  /// The weights of the tokens of each sample; empty where they are equal.
  private var tokenWeights: [[Float]] = []

  /// A walk through a function, of which the states begin as others left them, by name, else with zeros.
  init(
    _ options: ChooseCodes, _ model: Model, _ graph: Graph, _ samples: [FunctionInputs], from before: Remains,
    keepsStates: Bool
  ) throws {
    self.options = options
    self.graph = graph
    var method = GPTQ()
    method.rounding = options.method
    method.damping = options.damping
    method.order = options.order
    method.searchesScales = options.search
    method.refinements = options.refinements
    self.method = method
    let order = graph.topologicalOrder()
    let exact = options.inputs == .sequential ? graph : try graph.withoutRounding()
    walk = try SampleWalk(
      model, options.inputs == .original ? exact : graph, order: order, samples.begun(before.states, model, graph),
      keepsStates: keepsStates)
    if options.inputs == .corrected || options.inputs == .stream {
      original = try SampleWalk(
        model, exact, order: order, samples.begun(before.originals, model, graph), keepsStates: keepsStates)
    }
  }

  /// Chooses the codes of the layers but those of `taken` in the order of the graph and hands each to the spill; adds
  /// them to `taken`. A walk that keeps states goes on to the end.
  mutating func run(
    _ spill: SpillFile, taken: inout Set<RecipeIdentity>, keepsStates: Bool, progress: Progress?
  ) throws -> [Layer] {
    var products: [NodeID: Product] = [:]
    for id in walk.order { products[id] = product(at: id) }
    let multiplied = Set(products.values.filter { !$0.isTable }.map(\.codes))
    products = products.filter { !$0.value.isTable || !multiplied.contains($0.value.codes) }
    let last = walk.order.lastIndex { products[$0] != nil }
    guard let end = keepsStates ? walk.order.count - 1 : last else { return [] }
    let effort = Effort(walk.order.map { id in products[id].map { Effort.Step(codes: $0.codes, work: work($0)) } })
    var layers: [Layer] = []
    var chosen: Set<ValueID> = []
    while let id = walk.next, walk.step <= end {
      if let product = products[id], chosen.insert(product.codes).inserted {
        progress?.update(effort.label(chosen.count), done: effort.done(before: walk.step), of: effort.all)
        let identity = RecipeIdentity(product.codes, in: graph)
        if identity.map({ taken.insert($0).inserted }) ?? true { layers.append(try choose(product, identity, spill)) }
      }
      if !keepsStates, walk.step == end { break }
      try noteAttention(id)
      let others = walk.graph[id].inputs.reduce(into: [ValueID: Tensor]()) { $0[$1] = numbers[$1] }
      try walk.advance(replacing: others)
      if original?.next == id { try original?.advance() }
      for value in others.keys where graph.users(of: value).count == 1 { numbers[value] = nil }
    }
    return layers
  }

  /// What a walk that keeps states leaves at its end.
  mutating func remains() throws -> Remains {
    while original?.next != nil { try original?.advance() }
    return Remains(
      states: try (0..<walk.count).map { try walk.states(of: $0) },
      originals: try original.map { original in try (0..<original.count).map { try original.states(of: $0) } } ?? [])
  }

  /// How much of the work is done, from the operations that each layer takes.
  private struct Effort {
    struct Step {
      var codes: ValueID
      var work: Int
    }

    private let sums: [Int]
    private let count: Int

    init(_ steps: [Step?]) {
      var seen: Set<ValueID> = []
      var sum = 0
      sums = steps.map { step in
        if let step, seen.insert(step.codes).inserted { sum += step.work }
        return sum
      }
      count = seen.count
    }

    var all: Int { sums.last ?? 0 }

    func done(before step: Int) -> Int { step > 0 ? sums[step - 1] : 0 }

    func label(_ number: Int) -> String { "choosing codes, layer \(number) of \(count)" }
  }

  /// About how many thousands of operations a layer takes: products of its rows with the metric, the sums and their
  /// factors.
  private func work(_ product: Product) -> Int {
    let sizes = graph.type(of: product.codes).shape.maximumSizes
    let columns = Double(sizes.last ?? 1)
    let rows = Double(sizes.dropLast().reduce(1, *))
    if product.isTable { return Int(rows * columns) }
    return Int(columns * columns * (20 * rows + columns + 8192) / 1000) + 1
  }

  private func product(at id: NodeID) -> Product? {
    let node = graph[id]
    guard node.inputs.count >= 2 else { return nil }
    func rounded(_ codes: ValueID) -> (source: ValueID, format: BlockFormat)? {
      guard let forth = graph.definingNode(of: codes), let op = graph[forth].op as? Quantize,
        ConstantEvaluator.isRecipe(graph[forth].inputs[0], in: graph)
      else { return nil }
      return (graph[forth].inputs[0], op.format)
    }
    if options.tables, node.op is Gather, let found = rounded(node.inputs[0]), let group = found.format.group,
      let columns = graph.type(of: found.source).shape.last.fixedValue, group <= columns, columns % group == 0
    {
      return Product(
        node: id, source: found.source, codes: node.inputs[0], numbers: node.inputs[0], format: found.format)
    }
    guard !walk.isRecipe(walk.graph[id].inputs[0]) else { return nil }
    var weight = node.inputs[1]
    if node.op is Conv2D {
      guard let shape = graph.definingNode(of: weight), graph[shape].op is Reshape else { return nil }
      weight = graph[shape].inputs[0]
    }
    guard (node.op as? MatMul)?.transposeB ?? (node.op is ExpertMatMul || node.op is Conv2D),
      let back = graph.definingNode(of: weight), graph[back].op is Dequantize,
      let found = rounded(graph[back].inputs[0])
    else { return nil }
    return Product(
      node: id, source: found.source, codes: graph[back].inputs[0], numbers: node.inputs[1], format: found.format)
  }

  // MARK: A layer

  private mutating func choose(_ product: Product, _ identity: RecipeIdentity?, _ spill: SpillFile) throws -> Layer {
    let node = graph[product.node]
    let name = node.origin?.text ?? graph[product.source].name
    do {
      let weights = try walk.recipe(product.source).floats()
      var product = product
      product.format = try fitted(product, weights)
      var type = graph.type(of: product.codes)
      type.encoding = .block(product.format)
      let blocks = Tensor(type)
      let report: GPTQ.Report
      switch node.op {
      case _ where product.isTable: report = try chooseTable(product, weights, into: blocks)
      case is ExpertMatMul: report = try chooseExperts(product, weights, into: blocks)
      case let conv as Conv2D: report = try chooseWindows(conv, product.node, product.format, weights, into: blocks)
      default: report = try chooseRows(product, weights, into: blocks)
      }
      var bias: Term?
      if options.inputs != .original {
        let stands = try product.isTable ? blocks : Self.dequantized(blocks, graph.type(of: product.numbers))
        numbers[product.numbers] = stands
        if options.bias, !product.isTable, let (value, new) = try self.bias(product.node, weights, stands.floats()) {
          numbers[value] = new
          bias = Term(name: graph[value].name, range: try spill.add(new.view.bytes))
        }
      }
      let range = try spill.add(blocks.view.bytes)
      return Layer(
        identity: identity, function: graph.name, name: name, codesName: graph[product.codes].name,
        format: product.format, range: range, bias: bias,
        relativeError: report.nearestError > 0 ? report.error / report.nearestError : 1,
        damping: report.damping)
    } catch let error as CompileError {
      throw error.located(.init(object: "the layer '\(name)'"))
    }
  }

  private static func dequantized(_ blocks: Tensor, _ type: TensorType) throws -> Tensor {
    let result = Tensor(type)
    try Dequantize(type.element).evaluate([blocks.view], into: [result.mutableView])
    return result
  }

  static func addresses(_ weights: Tensor, _ blocks: Tensor) throws -> (UnsafePointer<Float>, UnsafeMutableRawPointer) {
    guard let source = weights.view.elements(as: Float.self).baseAddress,
      let target = blocks.mutableView.bytes.baseAddress
    else { throw CompileError(.internal, "a weight without numbers") }
    return (source, target)
  }

  /// The format with levels fitted once more, each column weighted by what an error in it does to the results; formats
  /// with a table of a name keep it.
  private func fitted(_ product: Product, _ weights: Tensor) throws -> BlockFormat {
    let sizes = weights.view.sizes
    guard let levels = product.format.levels, levels.isOwn, sizes.count == 2, graph[product.node].op is MatMul else {
      return product.format
    }
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
    let right = counted(inputs, columns)
    let metric = try method.metric(ProductSums.gram(right, columns: columns), columns: columns, product.format)
    let correction = try self.correction(product, weighted: right, rows: rows, columns: columns)
    let (source, target) = try Self.addresses(weights, blocks)
    return try method.quantize(source, rows: rows, metric, product.format, correction: correction, into: target)
  }

  /// What the layer is to make up for, if the results of the original model are aimed at.
  private func correction(
    _ product: Product, weighted right: [SampleRows], rows: Int, columns: Int
  ) throws -> GPTQ.Correction? {
    guard let original else { return nil }
    let wanted = try self.inputs(of: original, product.node, columns)
    let shift = ProductSums.cross(counted(wanted, columns), minus: right, columns: columns, right, columns: columns)
    var correction = GPTQ.Correction(shift: shift.map { Float($0) })
    if options.inputs == .stream, let op = graph[product.node].op as? MatMul, op.epilogue.activation == .none,
      !op.epilogue.gated, let index = op.epilogue.residualIndex
    {
      let before = try original.rows(of: original.graph[product.node].inputs[index], columns: rows)
      let now = try walk.rows(of: graph[product.node].inputs[index], columns: rows)
      let offset = ProductSums.cross(
        counted(before, rows), minus: counted(now, rows), columns: rows, right, columns: columns)
      correction.offset = offset.map { Float($0) }
    }
    return correction
  }

  /// The bias with which the sums of a layer have the means that they have in the original model; nil if there is no
  /// bias of its own or nothing to compare with.
  private func bias(_ id: NodeID, _ weights: Tensor, _ stands: Tensor) throws -> (value: ValueID, Tensor)? {
    guard let original, let op = graph[id].op as? MatMul, let index = op.epilogue.biasIndex,
      case let value = graph[id].inputs[index], walk.isRecipe(value), graph.users(of: value).count == 1,
      graph[value].uses.count == 1, graph.type(of: value).element == .f32, graph.type(of: value).isDense,
      weights.view.sizes.count == 2
    else { return nil }
    let (rows, columns) = (weights.view.sizes[0], weights.view.sizes[1])
    let wanted = try inputs(of: original, id, columns).mean(columns)
    let found = try inputs(of: walk, id, columns).mean(columns)
    let bias = try walk.recipe(value)
    var sums = weights.times(wanted).map { Double($0) }
    for (row, sum) in stands.times(found).enumerated() { sums[row] -= Double(sum) }
    if let residual = op.epilogue.residualIndex,
      op.epilogue.residual == .beforeActivation || op.epilogue.activation == .none && !op.epilogue.gated
    {
      let before = try original.rows(of: original.graph[id].inputs[residual], columns: rows).mean(rows)
      let now = try walk.rows(of: graph[id].inputs[residual], columns: rows).mean(rows)
      for row in 0..<rows { sums[row] += Double(before[row]) - Double(now[row]) }
    }
    let numbers = zip(bias.array(of: Float.self), sums).map { Float(Double($0) + $1) }
    return (value, Tensor(.f32, [rows], numbers))
  }

  /// The rows of a table, all numbers of which count alike: the groups of each are chosen on their own.
  private func chooseTable(_ product: Product, _ weights: Tensor, into blocks: Tensor) throws -> GPTQ.Report {
    let group = product.format.group ?? 1
    let gram = (0..<group * group).map { $0 % (group + 1) == 0 ? 1.0 : 0 }
    let metric = try method.metric(gram, columns: group, product.format)
    let (source, target) = try Self.addresses(weights, blocks)
    return try method.quantize(source, rows: weights.view.count / group, metric, product.format, into: target)
  }

  /// The rows of each expert, for the tokens that are routed to it.
  private func chooseExperts(_ product: Product, _ weights: Tensor, into blocks: Tensor) throws -> GPTQ.Report {
    let sizes = weights.view.sizes
    let (experts, rows, columns) = (sizes[0], sizes[1], sizes[2])
    let inputs = weighted(try self.inputs(of: walk, product.node, columns), columns)
    let ids = try (0..<walk.count).map { sample in
      try walk.tensor(graph[product.node].inputs[2], of: sample).array(of: Int32.self)
    }
    let expertBytes = rows * product.format.rowBytes(columns: columns)
    var total = GPTQ.Report()
    let (source, target) = try Self.addresses(weights, blocks)
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
      total.add(
        try method.quantize(
          source + expert * rows * columns, rows: rows, metric, product.format, into: target + expert * expertBytes))
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

  func made(_ rows: Int, _ columns: Int, _ fill: (UnsafeMutablePointer<Float>) -> Void) -> SampleRows {
    let tensor = Tensor(TensorType(.f32, [max(rows, 1), max(columns, 1)]))
    guard let target = tensor.mutableView.elements(as: Float.self).baseAddress else {
      preconditionFailure("a tensor of a number or more has an address")
    }
    fill(target)
    return SampleRows(target, rows: rows, owner: tensor)
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

  /// Rows times the weights of their tokens, and behind those of each sample their mean, as often as it counts.
  private func counted(_ samples: [SampleRows], _ columns: Int) -> [SampleRows] {
    let rows = weighted(samples, columns)
    guard options.means > 0 else { return rows }
    return rows.map { rows in
      made(rows.rows + 1, columns) { target in
        target.update(from: rows.numbers, count: rows.rows * columns)
        let factor = Float((options.means / Double(max(1, rows.rows))).squareRoot())
        let last = target + rows.rows * columns
        last.update(repeating: 0, count: columns)
        for row in 0..<rows.rows {
          for column in 0..<columns { last[column] += rows.numbers[row * columns + column] }
        }
        for column in 0..<columns { last[column] *= factor }
      }
    }
  }

  /// Takes the weights of the tokens from the attention that they receive at a node that is about to be evaluated.
  private mutating func noteAttention(_ id: NodeID) throws {
    guard options.tokenWeight == .attention, let op = walk.graph[id].op as? Attention else { return }
    let least = Float(options.leastWeight)
    tokenWeights = try (0..<walk.count).map { sample in
      let operands = try walk.operands(of: id, of: sample)
      let received = try op.received(operands.map(\.view))
      let (low, high) = (received.min() ?? 0, received.max() ?? 0)
      guard high > low else { return received.map { _ in 1 } }
      return received.map { least + ($0 - low) / (high - low) * (1 - least) }
    }
  }
}
