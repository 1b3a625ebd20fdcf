import Base
import IR
import Tensors

/// Lets the rows of KV caches that are no last ones have the first numbers of a head alone, in bases in which these carry
/// the most.
///
///     %k0_new = cache_update(%k0, %k, %position)                                      (k0: f16[1024, 8 * 64])
///     %v0_new = cache_update(%v0, %v, %position)
///     %y = attention(%q, %k0_new, %v0_new, %position) {heads = 32, kvHeads = 8, scale = 0.125}
///     // -> %p = %k A_k, %u = %v A_v, head by head
///     //    %k0_new = cache_update(%k0, first(%p, 24), %position)                       (k0: f16[1024, 8 * 24])
///     //    %v0_new = cache_update(%v0, first(%u, 40), %position)
///     //    %y = attention(%q B_k, %k0_new, %v0_new, %position, last(%p), last(%u)) {..., recent = 32} B_v^T
///
/// Scores of old keys are `q' . k'` over the first numbers, of the best rank in the metric of the queries, and what values
/// lose is least in the metric of the output projection (``CacheBasis``). `A_v` and `B_v` go into the projections of
/// values and results where these are layers with constant weights; all else is computed when the program runs, keys
/// behind their rotary embedding. The last `window` tokens of a query are whole, in f32.
///
/// All caches together keep the share `rank` of their numbers. Ranks are multiples of 4, chosen by dynamic programming so
/// that the shares of energy that caches leave out have the least sum; `ranks=equal` gives all the same share. Moments are
/// measured on `samples` windows of `length` tokens of `text`: rotary embedding turns keys of later tokens into other
/// directions, so that windows are as long as the caches where the text is. `metric=plain` takes the directions of keys and
/// values by themselves.
///
/// With `layers` = 1 and more the rows have no heads: all heads of so many successive attentions take their keys and values
/// from common rows of features (`FactorCache+Latent.swift`).
package struct FactorCache: TokenSampled {
  package static let name = "factor-cache"
  package static let summary = "keeps the first numbers of old keys and values, in bases in which these carry the most"
  package static let legality =
    "attention is causal over caches that nobody else reads, longer than the window, without windows of its own, masks "
    + "and biases"
  package static let source =
    "L. Wang and others, CSKV, 2024, arXiv:2409.10593; C.-C. Chang and others, xKV, 2025, arXiv:2503.18893; "
    + "C. Eckart and G. Young, 1936; the metrics are mcc's"

  /// How numbers are given to caches.
  package enum Policy: String, Hashable, Codable, Sendable, CaseIterable { case energy, equal }
  /// What bases are chosen by: what reads the rows, or the rows alone.
  package enum Metric: String, Hashable, Codable, Sendable, CaseIterable { case readers, plain }

  package var rank: Double = 0.5
  package var ranks: Policy = .energy
  package var metric: Metric = .readers
  /// Successive attentions that have rows in common; 0 for rows of heads.
  package var layers: Int = 0
  /// The tokens that a query sees whole, its own included; those that lie apart already stay as many.
  package var window: Int = 32
  package var text: String = ""
  /// Windows; nil for 8192 tokens in all, or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the rows of the caches up to 2048, or for the usual number if the text is shorter.
  package var length: Int?

  private static let usualTokens = 8192
  private static let longest = 2048
  /// What ranks are multiples of.
  private static let step = 4
  /// The share of energy that all numbers of a cache count for at least.
  private static let leastShare = 1e-9

  package init() {}

  package init(rank: Double, layers: Int = 0, text: String) {
    self.rank = rank
    self.layers = layers
    self.text = text
  }

  package var fidelity: Fidelity { .lossy }

  /// The bases of the keys and the values of an attention.
  private struct Bases {
    var keys, values: CacheBasis
  }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try check()
    guard layers == 0 else { return try factorLatent(&model, &context) }
    let places = try model.functions.indices.map { try self.places(function: $0, of: model, context) }
    guard places.contains(where: { !$0.isEmpty }) else {
      return nothingFactored(&context)
    }
    let bases = try self.bases(places, model, context)
    let all = bases.joined().flatMap { [$0.keys, $0.values] }
    var rest = try chosenRanks(all, steps: all.map { _ in Self.step })[...]
    for (index, (places, bases)) in zip(places, bases).enumerated() {
      for (place, bases) in zip(places, bases) {
        let ranks = (keys: rest.removeFirst(), values: rest.removeFirst())
        for (cache, rank, basis) in [
          (place.keys, ranks.keys, bases.keys), (place.values, ranks.values, bases.values),
        ] {
          report(rank, basis, model.functions[index][cache.state].name, &context)
        }
        try factor(place, bases, ranks, function: index, of: &model, &context)
        context.count("caches factored", by: 2)
      }
    }
  }

  func nothingFactored(_ context: inout PassContext) {
    context.remark("no KV cache is factored; '--explain \(Self.name)' says why")
  }

  func report(_ rank: Int, _ basis: CacheBasis, _ name: String, _ context: inout PassContext) {
    context.report("rank of %\(name)", Double(rank))
    context.report("energy left out of %\(name)", basis.discarded[rank])
  }

  private func check() throws {
    guard rank > 0, rank <= 1 else {
      throw CompileError(.usage, "'rank' of '\(Self.name)' is \(rank), expected a share of numbers up to 1")
    }
    guard (1...1 << 20).contains(window) else {
      throw CompileError(.usage, "'window' of '\(Self.name)' is \(window), expected 1 to \(1 << 20)")
    }
    guard (0...1 << 10).contains(layers) else {
      throw CompileError(.usage, "'layers' of '\(Self.name)' is \(layers), expected 0 to \(1 << 10)")
    }
    guard !text.isEmpty else {
      throw CompileError(.usage, "\(Self.name) needs a text: \(Self.name){text=\"FILE\"}")
    }
  }

  // MARK: Where

  private func places(function index: Int, of model: Model, _ context: PassContext) throws -> [CachedAttention] {
    try places(function: index, of: model, context) { try place($0, function: index, of: model) }
  }

  /// What `body` makes of the attentions of a function.
  func places<Place>(
    function index: Int, of model: Model, _ context: PassContext, _ body: (AttentionHeads) throws -> Place
  ) throws -> [Place] {
    let graph = model.functions[index]
    for id in graph.nodeIDs where graph[id].op is BoundedAttention {
      context.explain(
        Self.name, at: graph[id].results.first.map { "%" + graph[$0].name } ?? "",
        "the cache keeps a bounded number of rows")
    }
    return try AttentionHeads.places(in: graph, Self.name, context, body)
  }

  /// The caches of an attention, if it may read others.
  func place(
    _ heads: AttentionHeads, function index: Int, of model: Model
  ) throws(AttentionHeads.Refusal) -> CachedAttention {
    let place = try CachedAttention(
      heads, function: index, of: model, least: heads.op.recent ?? window, takesCodes: true)
    let graph = heads.lookup.graph
    for cache in [place.keys, place.values] {
      try heads.check(cache.number, of: model, function: index)
      if case .block(let format) = graph.type(of: cache.state).encoding {
        guard format.levels == nil, CacheType(format, headDim: cache.width) != nil else {
          throw AttentionHeads.Refusal(reason: "the cache has codes of another form")
        }
      }
    }
    let rows = [graph[place.node].inputs[0], place.keys.rows, place.values.rows]
    guard !rows.contains(where: { heads.lookup.isRecipe($0) }) else {
      throw AttentionHeads.Refusal(reason: "queries, keys or values are constant")
    }
    return place
  }

  // MARK: The bases

  /// The windows for caches of that many rows.
  private func windows(for model: Model, _ context: PassContext, rows: Int) throws -> [[FunctionInputs]] {
    func read(_ length: Int?) throws -> [[FunctionInputs]] {
      var pass = self
      pass.length = length
      return try pass.windows(for: model, context, usual: max(1, Self.usualTokens / max(1, length ?? 512)))
    }
    // A text of fewer tokens is read as other passes do it, which also says what is wrong with it.
    if length == nil, let runs = try? read(min(rows, Self.longest)) { return runs }
    return try read(length)
  }

  private func bases(
    _ places: [[CachedAttention]], _ model: Model, _ context: PassContext
  ) throws -> [[Bases]] {
    // What is measured: a value with heads of these widths.
    var wanted: [[NodeID: (value: ValueID, heads: Int, width: Int)]] = []
    for (index, places) in places.enumerated() {
      var values: [NodeID: (ValueID, Int, Int)] = [:]
      let graph = model.functions[index]
      for place in places {
        guard let op = graph[place.node].op as? Attention else { continue }
        values[place.node] = (graph[place.node].inputs[0], op.kvHeads, place.keys.width)
        for cache in [place.keys, place.values] { values[cache.update] = (cache.rows, op.kvHeads, cache.width) }
      }
      wanted.append(values)
    }
    var moments = wanted.map { _ in [NodeID: [SquareMatrix]]() }
    let rows = places.joined().map(\.rows).max() ?? 1
    try measure(wanted.map { $0.mapValues { [$0.value] } }, rows: rows, model, context) { index, node, rows in
      guard let (value, heads, width) = wanted[index][node] else { return }
      moments[index][node] = try Self.moments(
        rows[0], of: value, heads: heads, width: width, in: model.functions[index])
    }
    return try places.indices.map { index in
      try places[index].map { place in
        let usesReaders = metric == .readers
        return Bases(
          keys: try CacheBasis(
            moments: moments[index][place.keys.update] ?? [], metrics: usesReaders ? moments[index][place.node] : nil,
            width: place.keys.width),
          values: try CacheBasis(
            moments: moments[index][place.values.update] ?? [],
            metrics: usesReaders ? readers(of: place, function: index, of: model, context) : nil,
            width: place.values.width))
      }
    }
  }

  /// The mean of `x x^T` for each of `heads` equal parts of rows, `x` being the numbers of a head.
  static func moments(
    _ rows: [SampleRows], of value: ValueID, heads: Int, width: Int, in graph: Graph
  ) throws -> [SquareMatrix] {
    let columns = graph.type(of: value).shape.last.fixedValue ?? 0
    return try (0..<heads).map { head in
      try SquareMatrix(
        secondMoment: rows, columns / heads * head..<columns / heads * (head + 1), of: columns, order: width,
        name: graph[value].name)
    }
  }

  /// Runs the model over the windows of the text for caches of `rows` rows, and calls `body` with the rows of the values that
  /// are wanted of a function just before a node of it is evaluated.
  func measure(
    _ wanted: [[NodeID: [ValueID]]], rows: Int, _ model: Model, _ context: PassContext,
    _ body: (_ function: Int, _ node: NodeID, _ rows: [[SampleRows]]) throws -> Void
  ) throws {
    let runs = try windows(for: model, context, rows: rows)
    var states: [[String: Tensor]] = []
    for (index, samples) in runs.enumerated() {
      let graph = model.functions[index]
      let goesOn = index < model.functions.count - 1
      var walk = try SampleWalk(model, graph, samples.begun(states, model, graph), keepsStates: goesOn)
      var left = wanted[index].count
      while let id = walk.next, goesOn || left > 0 {
        context.progress?.update("measuring caches", done: walk.step, of: walk.order.count)
        if let values = wanted[index][id] {
          left -= 1
          try body(
            index, id, values.map { try walk.rows(of: $0, columns: graph.type(of: $0).shape.last.fixedValue ?? 0) })
        }
        try walk.advance()
      }
      if goesOn { states = try (0..<walk.count).map { try walk.states(of: $0) } }
    }
  }

  /// The sums of `W_h^T W_h` over the heads of each group, `W` being the weight of the layer that reads the attention;
  /// nil if there is none.
  func readers(
    of place: CachedAttention, function index: Int, of model: Model, _ context: PassContext
  ) throws -> [SquareMatrix]? {
    let lookup = RecipeGraph(model.functions[index])
    let evaluator = context.constantEvaluator(for: lookup.graph, in: model)
    guard let op = lookup.graph[place.node].op as? Attention,
      let output = try? AttentionHeads(node: place.node, op: op, lookup: lookup).outputProjection()
    else { return nil }
    let weight = try evaluator.tensor(lookup.graph[output.node].inputs[output.operand])
    let sizes = weight.view.sizes
    var numbers = try weight.numbers()
    if output.axis == 0 {
      numbers = (0..<sizes[1]).flatMap { column in (0..<sizes[0]).map { numbers[$0 * sizes[1] + column] } }
    }
    let columns = sizes[output.axis], group = columns / op.kvHeads
    return try numbers.withUnsafeBufferPointer { buffer in
      let rows = buffer.baseAddress.map { [SampleRows($0, rows: buffer.count / max(columns, 1))] } ?? []
      return try (0..<op.kvHeads).map { head in
        try SquareMatrix(
          secondMoment: rows, group * head..<group * (head + 1), of: columns, order: place.values.width,
          name: lookup.graph[lookup.graph[output.node].inputs[output.operand]].name)
      }
    }
  }

  // MARK: How much

  /// The numbers of a head that each cache keeps, multiples of a step.
  func chosenRanks(_ caches: [CacheBasis], steps: [Int]) throws -> [Int] {
    let all = caches.reduce(0) { $0 + $1.heads * $1.width }
    let allowed = zip(caches, steps).map { Array(stride(from: $1, to: $0.width, by: $1)) + [$0.width] }
    let units = zip(caches, allowed).map { basis, ranks in
      // Numbers that carry nothing on the samples may do so elsewhere.
      ranks.map {
        BudgetedChoice.Option(
          bytes: basis.heads * $0,
          loss: basis.discarded[$0] + Self.leastShare * (1 - Double($0) / Double(basis.width)))
      }
    }
    let budget = Int((rank * Double(all)).rounded()), least = BudgetedChoice.least(units)
    var choice: [Int]?
    if ranks == .equal {
      choice = zip(caches, steps).map { max(0, Int((rank * Double($0.width)).rounded(.down)) / $1 - 1) }
      // All of a head whose width is no multiple.
      if rank == 1 { choice = units.map { $0.count - 1 } }
      if budget < least { choice = nil }
    } else {
      choice = BudgetedChoice.choose(units, budget: budget)
    }
    guard let choice else {
      let smallest = (1000 * Double(least) / Double(max(1, all))).rounded(.up) / 1000
      throw CompileError(
        .usage,
        "'rank' of '\(Self.name)' is \(rank), which leaves less than \(steps.min() ?? 1) numbers for a \(layers == 0 ? "head" : "row"); the least is "
          + "\(smallest)")
    }
    return zip(choice, allowed).map { $1[$0] }
  }

  // MARK: The change

  private func factor(
    _ place: CachedAttention, _ bases: Bases, _ ranks: (keys: Int, values: Int), function index: Int,
    of model: inout Model, _ context: inout PassContext
  ) throws {
    let graph = model.functions[index], node = graph[place.node]
    guard var op = node.op as? Attention else { return }
    let heads = AttentionHeads(node: place.node, op: op, lookup: RecipeGraph(graph))
    let (count, valueWidth) = (op.kvHeads, place.values.width)
    var builder = GraphBuilder(graph: graph, constants: model.constants)
    func multiply(
      _ value: ValueID, by matrices: [Float], _ width: Int, axis: Int = -1, _ name: String,
      _ builder: inout GraphBuilder
    ) throws -> ValueID {
      try builder.multiplyHeads(value, by: matrices, count: count, width: width, axis: axis, name: name)
    }
    func explain(_ refusal: AttentionHeads.Refusal, _ what: String) {
      context.explain(Self.name, at: "%" + graph[node.results[0]].name, "\(what) at run time: \(refusal.reason)")
    }
    // Values, in the layer that gives them or behind it.
    var values = place.values.rows
    do {
      let outputs = try heads.outputs(giving: heads.rows(of: 2))
      guard outputs.range.count == count * valueWidth else {
        throw AttentionHeads.Refusal(reason: "the projection has other outputs")
      }
      try builder.change(outputs, suffix: "_factored") {
        try multiply($1, by: bases.values.factors, valueWidth, axis: $2, $3, &$0)
      }
      context.count("value projections changed")
    } catch let refusal as AttentionHeads.Refusal {
      explain(refusal, "values change")
      builder.origin = node.origin
      values = try multiply(
        values, by: bases.values.factors, valueWidth, graph[values].name + "_factored", &builder)
    }
    builder.origin = node.origin
    var inputs = node.inputs
    inputs[0] = try multiply(
      inputs[0], by: bases.keys.readers, place.keys.width, graph[inputs[0]].name + "_factored", &builder)
    let keys = try multiply(
      place.keys.rows, by: bases.keys.factors, place.keys.width, graph[place.keys.rows].name + "_factored", &builder)
    let isNew = op.recent == nil
    op.recent = op.recent ?? window
    var updates: [(old: ValueID, new: ValueID)] = []
    for (operand, (cache, rows, rank)) in [(place.keys, keys, ranks.keys), (place.values, values, ranks.values)]
      .enumerated()
    {
      let name = graph[cache.state].name
      let type = graph.type(of: cache.state)
      builder.graph.setType(type.cache(of: count * rank, part: rank, from: cache.width), of: cache.state)
      let first = try builder.firstOfHeads(
        rows, rank, count: count, width: cache.width, name: graph[cache.rows].name + "_first")
      let update = try builder.emit(CacheUpdate(), cache.state, first, place.position)
      builder.graph.setUpdate(ofState: cache.number, to: update)
      updates.append((graph[cache.update].results[0], update))
      inputs[1 + operand] = update
      if isNew {
        inputs.append(try builder.lastRows(window, before: rows, state: "recent_" + name))
      } else if let last = cache.last {
        builder.graph.setInput(1, of: last, to: rows)
      }
    }
    let attention = try builder.emit(op, inputs)
    // Results, in the layer that reads them or before it.
    var result = attention
    do {
      let output = try heads.outputProjection()
      let old = builder.graph[output.node].inputs[output.operand]
      builder.origin = builder.graph[output.node].origin
      let wide = try builder.widened(old)
      builder.graph.setInput(
        output.operand, of: output.node,
        to: try multiply(
          wide, by: bases.values.readers, valueWidth, axis: output.axis, graph[old].name + "_factored", &builder))
      context.count("output projections changed")
    } catch let refusal as AttentionHeads.Refusal {
      explain(refusal, "results change")
      let back = bases.values.readers.transposed(count: count, order: valueWidth)
      result = try multiply(result, by: back, valueWidth, graph[node.results[0]].name + "_back", &builder)
    }
    builder.graph.replaceUses(of: node.results[0], with: result)
    updates.append((node.results[0], attention))
    let names = updates.map { graph[$0.old].name }
    for old in [place.node, place.keys.update, place.values.update] { builder.graph.erase(old) }
    for (update, name) in zip(updates, names) { builder.graph.rename(update.new, to: name) }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }
}

extension [Float] {
  /// Square matrices, transposed.
  fileprivate func transposed(count: Int, order: Int) -> [Float] {
    indices.map { index in
      let (row, column) = (index / order % order, index % order)
      return self[index / (order * order) * order * order + column * order + row]
    }
  }
}

extension TensorType {
  /// The type of a cache with rows of `columns` numbers, in codes with scales for each `part` of them where those of heads of
  /// `width` numbers have codes.
  func cache(of columns: Int, part: Int, from width: Int) -> TensorType {
    let shape = Shape([shape[0], .fixed(columns)])
    guard case .block(let old) = encoding, let type = CacheType(old, headDim: width),
      let format = type.format(headDim: part)
    else { return with(shape: shape) }
    return TensorType(element, shape, encoding: .block(format))
  }
}
