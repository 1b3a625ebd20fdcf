import Base
import IR
import Tensors

/// Takes the mean of keys out before rotary embedding, so that a cache of few bits keeps what is left.
///
///     %k = rope(%x, %table)
///     %y = attention(%q, cache_update(%k0, %k, %position), %v, %position)
///     // -> %k = rope(subtract(%x, %mean), %table)
///     //    %y = attention(%q, cache_update(%k0, %k, %position), %v, %position, %means, %angles) {angleBlock = 32}
///
/// Keys of all tokens have much in common, and a scale for a group of numbers has to reach over that as well. Rotary
/// embedding turns the mean by the position alone, so that attention can add it when it reads the cache, from a small
/// table of angles: nothing is stored for it with a token. Keys before rotary embedding are what C. Hooper and others
/// quantize (KVQuant, 2024); here the codes stay those of turned keys.
///
/// The mean is measured on `samples` windows of `length` tokens of `text`, a text or token ids. Caches then hold other
/// numbers.
package struct CenterKeys: TokenSampled {
  package static let name = "center-keys"
  package static let summary = "takes the mean of keys out of the cache, and adds it again where attention reads them"
  package static let legality =
    "keys come from a rotary embedding at the position of the attention, and go into its cache and nowhere else"
  package static let source = "mcc; after C. Hooper and others, KVQuant, 2024, arXiv:2401.18079"

  package var text: String = ""
  /// Windows; nil for 16 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the usual number.
  package var length: Int?

  private static let usualSamples = 16
  /// The positions of a block of angles.
  private static let angleBlock = 32

  package init() {}

  package init(text: String) { self.text = text }

  /// What attention gives is the same but for rounding; what the caches hold is not.
  package var fidelity: Fidelity { .lossy }

  /// Keys of one attention.
  private struct Keys {
    let attention, rope: NodeID
    /// The keys before rotary embedding.
    let value: ValueID
    let frequencies: ValueID
    /// What cosines and sines are multiplied by.
    var factor: Float = 1
    /// Rows of the cache.
    let rows: Int
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard !text.isEmpty else {
      throw CompileError(.usage, "center-keys needs a text: center-keys{text=\"FILE\"}")
    }
    let runs = try windows(for: model, context, usual: Self.usualSamples)
    var states: [[String: Tensor]] = []
    for (index, samples) in runs.enumerated() {
      let graph = model.functions[index]
      let places = try places(function: index, of: model, context)
      var walk = try SampleWalk(model, graph, samples.begun(states, model, graph), keepsStates: true)
      var means: [NodeID: [Float]] = [:]
      let wanted = Dictionary(places.map { ($0.rope, $0) }, uniquingKeysWith: { first, _ in first })
      while let node = walk.next {
        context.progress?.update("measuring keys", done: walk.step, of: walk.order.count)
        if let keys = wanted[node] { means[node] = try mean(of: keys, walk, graph, &context) }
        try walk.advance()
      }
      states = try (0..<walk.count).map { try walk.states(of: $0) }
      try center(places, means, function: index, of: &model)
      context.count("attentions centered", by: places.count)
    }
  }

  // MARK: Where

  private func places(function index: Int, of model: Model, _ context: PassContext) throws -> [Keys] {
    let graph = model.functions[index]
    let lookup = RecipeGraph(graph)
    var places: [Keys] = []
    for id in graph.topologicalOrder() {
      guard let op = graph[id].op as? Attention else { continue }
      do {
        places.append(try keys(of: AttentionHeads(node: id, op: op, lookup: lookup), function: index, of: model))
      } catch let refusal as AttentionHeads.Refusal {
        context.explain(Self.name, at: "%" + graph[graph[id].results[0]].name, refusal.reason)
      }
    }
    return places
  }

  private func keys(of heads: AttentionHeads, function index: Int, of model: Model) throws -> Keys {
    typealias Refusal = AttentionHeads.Refusal
    let (graph, op) = (heads.lookup.graph, heads.op)
    let inputs = graph[heads.node].inputs
    guard op.angleBlock == nil else { throw Refusal(reason: "the mean is taken out already") }
    guard op.int8 == nil else { throw Refusal(reason: "the attention computes in bytes") }
    guard graph.type(of: inputs[0]).rank == 2,
      let position = op.optionalInputs(inputs.map { graph.type(of: $0) }).position
    else { throw Refusal(reason: "queries have no position") }
    let rows = try heads.rows(of: 1)
    guard let update = rows.update, graph[update].inputs[2] == inputs[position],
      let count = graph.type(of: graph[update].results[0]).shape[0].fixedValue
    else { throw Refusal(reason: "keys do not come from a cache") }
    for state in rows.states { try heads.check(state, of: model, function: index) }
    let name = graph[rows.value].name
    guard let rope = graph.definingNode(of: rows.value), let embedding = graph[rope].op as? Rope,
      embedding.headDim == heads.width(of: 1)
    else { throw Refusal(reason: "no rotary embedding gives the keys '%\(name)'") }
    guard graph[rows.value].uses.count == (rows.last == nil ? 1 : 2) else {
      throw Refusal(reason: "the keys '%\(name)' have other users")
    }
    let table = graph[rope].inputs[1]
    let refusal = Refusal(reason: "the angles '%\(graph[table].name)' are not those of the position")
    var (angles, factor) = (table, Float(1))
    if let scaled = graph.definingNode(of: table), graph[scaled].op is Multiply {
      let operands = graph[scaled].inputs
      guard let number = operands.first(where: { heads.lookup.isRecipe($0) }),
        let other = operands.first(where: { $0 != number }), graph.type(of: number).maximumCount == 1
      else { throw refusal }
      factor = try ConstantEvaluator(model, graph).tensor(number).numbers()[0]
      angles = other
    }
    guard let source = graph.definingNode(of: angles), graph[source].op is RopeTable,
      graph[source].inputs[0] == inputs[position], heads.lookup.isRecipe(graph[source].inputs[1])
    else { throw refusal }
    return Keys(
      attention: heads.node, rope: rope, value: graph[rope].inputs[0], frequencies: graph[source].inputs[1],
      factor: factor, rows: count)
  }

  // MARK: How much

  private func mean(
    of keys: Keys, _ walk: SampleWalk, _ graph: Graph, _ context: inout PassContext
  ) throws -> [Float] {
    let columns = graph.type(of: keys.value).shape.last.fixedValue ?? 0
    let rows = try walk.rows(of: keys.value, columns: columns)
    let mean = rows.mean(columns)
    guard mean.allSatisfy(\.isFinite) else {
      throw CompileError(
        .input, "the keys '%\(graph[keys.value].name)' have numbers that are not finite on the samples")
    }
    var squares = ChannelStatistics()
    for sample in 0..<walk.count { squares.add(try walk.tensor(keys.value, of: sample).view) }
    let all = squares.meanSquares.reduce(0, +)
    let taken = mean.reduce(0) { $0 + Double($1) * Double($1) }
    context.report("mean in %\(graph[keys.value].name)", all > 0 ? taken / all : 0)
    return mean
  }

  // MARK: The change

  private func center(
    _ places: [Keys], _ means: [NodeID: [Float]], function index: Int, of model: inout Model
  ) throws {
    var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
    var tables: [AngleTable: ValueID] = [:]
    for keys in places {
      guard let mean = means[keys.rope], let rope = builder.graph[keys.rope].op as? Rope,
        var attention = builder.graph[keys.attention].op as? Attention,
        let width = builder.type(of: builder.graph[keys.rope].inputs[1]).shape.last.fixedValue
      else { continue }
      builder.origin = builder.graph[keys.rope].origin
      let name = builder.graph[keys.value].name
      // A term that is the same for all positions makes no difference to softmax.
      let stays = attention.softcap != nil
      let taken = mean.indices.map { $0 % rope.headDim < 2 * width || !stays ? mean[$0] : 0 }
      let vector = builder.constant(.inline(name + "_mean", .f32, [taken.count], taken))
      builder.graph.setInput(
        0, of: keys.rope, to: try builder.emit(Subtract(), keys.value, vector, name: name + "_rest"))
      let pairs = mean.indices.map { Self.partner(of: $0, rope, width: width) }
      let added = mean.indices.map { pairs[$0] == nil ? 0 : mean[$0] * keys.factor }
      let partners = pairs.map { pair in pair.map { mean[$0.column] * $0.sign * keys.factor } ?? 0 }
      let means = builder.constant(.inline(name + "_means", .f32, [2, mean.count], added + partners))
      let table = AngleTable(
        frequencies: keys.frequencies, rows: keys.rows, headDim: rope.headDim, interleaved: rope.interleaved)
      let angles = try tables[table] ?? emit(table, width: width, in: &builder)
      tables[table] = angles
      attention.angleBlock = Self.angleBlock
      try builder.replace(keys.attention, attention, builder.graph[keys.attention].inputs + [means, angles])
    }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }

  /// The other column of the pair that rotary embedding turns together with a column, and the sign of its part in it;
  /// nil for columns that pass through.
  private static func partner(of column: Int, _ rope: Rope, width: Int) -> (column: Int, sign: Float)? {
    let place = column % rope.headDim
    guard place < 2 * width else { return nil }
    let isFirst = rope.interleaved ? place % 2 == 0 : place < width
    let distance = rope.interleaved ? 1 : width
    return isFirst ? (column + distance, -1) : (column - distance, 1)
  }

  /// Cosines and sines for each column of a head.
  private struct AngleTable: Hashable {
    var frequencies: ValueID
    var rows, headDim: Int
    var interleaved: Bool
  }

  /// A recipe: the angles of the first positions, behind them those of each block, spread over the columns of a head.
  private func emit(_ table: AngleTable, width: Int, in builder: inout GraphBuilder) throws -> ValueID {
    let block = Self.angleBlock
    let start = builder.constant(.inline("start", .i32, [1], [Int32(0)]))
    let steps = try builder.emit(RopeTable(length: .fixed(block)), start, table.frequencies)
    let size = builder.constant(.inline("block", .f32, [], [Float(block)]))
    let far = try builder.emit(Multiply(), table.frequencies, size)
    let blocks = try builder.emit(RopeTable(length: .fixed((table.rows + block - 1) / block)), start, far)
    let all = try builder.emit(Concat(axis: 0), steps, blocks)
    let columns = (0..<table.headDim).map { column in
      column < 2 * width ? Int32(table.interleaved ? column / 2 : column % width) : 0
    }
    let places = builder.constant(.inline("columns", .i32, [columns.count], columns))
    return try builder.emit(Gather(axis: 2), all, places, name: "key_angles")
  }
}

extension GraphBuilder {
  /// Puts a node with another operator and other inputs in the place of one with the same result.
  fileprivate mutating func replace(_ node: NodeID, _ op: any Operator, _ inputs: [ValueID]) throws {
    let old = graph[node].results[0]
    let name = graph[old].name
    origin = graph[node].origin
    let new = try emit(op, inputs)
    graph.replaceUses(of: old, with: new)
    graph.erase(node)
    graph.rename(new, to: name)
  }
}
