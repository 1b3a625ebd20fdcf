import Base
import IR
import Tensors

/// Bounds the caches of keys and values, layer by layer, to the rows that receive attention.
///
///     %k0_new = cache_update(%k0, %k, %position)          (k0: f16[1024, 128])
///     %v0_new = cache_update(%v0, %v, %position)
///     %y = attention(%q, %k0_new, %v0_new, %position) {heads = 8, kvHeads = 4, scale = 0.177}
///     // -> %k0_new, %v0_new, %received0_new, %y = bounded_attention(%k0, %v0, %received0, %q, %k, %v, %position)
///     //      {heads = 8, scale = 0.177, sinks = 4, recent = 32}                      (k0: f16[4, 307, 32])
///
/// All caches together keep the share `keep` of their rows. With `prefix` the rows of a layer follow from the attention
/// that its keys receive on `samples` windows of `length` tokens of `text`: sorted for each head, the largest ones first,
/// they retain a share of all attention, and each layer gets as many rows as it takes to retain the share which, common to
/// all layers, spends the budget; bisection finds it (A. Wang and others, PrefixKV, 2024). With `equal` each layer has
/// the same share, with `window` as well, of the first and the last tokens alone. With `rows`, one number for each attention
/// in order, nothing is measured. Which keys a cache keeps is decided when the program runs, see ``BoundedAttention``.
///
/// A layer that would keep as many rows as it has stays as it is.
package struct BoundCache: TokenSampled {
  package static let name = "bound-cache"
  package static let summary = "bounds the KV cache of each layer to the rows that receive attention"
  package static let legality =
    "attention is causal over caches of numbers that nobody else reads, without windows, masks and biases"
  package static let source =
    "A. Wang and others, PrefixKV, 2024, arXiv:2412.03409; Z. Zhang and others, H2O, 2023, arXiv:2306.14048"

  /// How rows are given to layers.
  package enum Policy: String, Hashable, Codable, Sendable, CaseIterable { case prefix, equal, window }

  package var keep: Double = 0.3
  package var policy: Policy = .prefix
  /// The first and the last tokens that every head keeps.
  package var sinks: Int = 4
  package var recent: Int = 32
  /// Rows for each attention, in place of a policy.
  package var rows: [Int] = []
  package var text: String = ""
  /// Windows; nil for 16 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the usual number.
  package var length: Int?

  private static let usualSamples = 16

  package init() {}

  package init(keep: Double, text: String) {
    self.keep = keep
    self.text = text
  }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    try check()
    let places = try model.functions.indices.map { try self.places(function: $0, of: model, context) }
    let all = places.flatMap { $0 }
    guard !all.isEmpty else {
      context.remark("no KV cache is bounded; '--explain \(Self.name)' says why")
      return
    }
    let budget = CacheBudget(rows: all.map(\.rows), least: sinks + recent)
    let counts: [Int]
    if !rows.isEmpty {
      counts = try given(all)
    } else if policy == .prefix {
      counts = try budget.counts(keeping: keep, curves: try curves(places, model, &context))
    } else {
      counts = try budget.counts(keeping: keep)
    }
    var rest = counts[...]
    for (index, places) in places.enumerated() {
      for place in places {
        guard let count = rest.popFirst() else { continue }
        context.report("rows of %\(model.functions[index][place.keys.state].name)", Double(count))
        context.count("rows kept", by: count)
        context.count("of rows", by: place.rows)
        guard count < place.rows else { continue }
        try bound(place, to: count, function: index, of: &model)
        context.count("caches bounded")
      }
    }
    // Nothing else says any more how long a text may be.
    if model[metadata: "context"] == nil { model[metadata: "context"] = "\(all.map(\.rows).min() ?? 0)" }
  }

  private func check() throws {
    func refuse(_ option: String, _ found: String, _ wanted: String) -> CompileError {
      CompileError(.usage, "'\(option)' of '\(Self.name)' is \(found), expected \(wanted)")
    }
    guard keep > 0, keep <= 1 else { throw refuse("keep", "\(keep)", "a share of rows up to 1") }
    guard (0...BoundedAttention.mostRows).contains(sinks) else {
      throw refuse("sinks", "\(sinks)", "0 to \(BoundedAttention.mostRows)")
    }
    guard (1...BoundedAttention.mostRows).contains(recent) else {
      throw refuse("recent", "\(recent)", "1 to \(BoundedAttention.mostRows)")
    }
    guard policy != .prefix || !rows.isEmpty || !text.isEmpty else {
      throw CompileError(
        .usage, "\(Self.name) needs a text: \(Self.name){text=\"FILE\"}, or policy=equal to measure nothing")
    }
  }

  /// The rows that were given.
  private func given(_ places: [CachedAttention]) throws -> [Int] {
    guard rows.count == places.count else {
      throw CompileError(
        .usage, "'rows' of '\(Self.name)' has \(rows.count) numbers for \(places.count) caches that can be bounded")
    }
    for (count, place) in zip(rows, places) where count < sinks + recent || count > place.rows {
      throw CompileError(
        .usage, "'rows' of '\(Self.name)' names \(count) rows of \(place.rows), expected at least \(sinks + recent)")
    }
    return rows
  }

  // MARK: Where

  private func places(function index: Int, of model: Model, _ context: PassContext) throws -> [CachedAttention] {
    let lookup = RecipeGraph(model.functions[index])
    let graph = lookup.graph
    return graph.topologicalOrder().compactMap { id in
      guard let op = graph[id].op as? Attention else { return nil }
      do throws(AttentionHeads.Refusal) {
        return try CachedAttention(
          AttentionHeads(node: id, op: op, lookup: lookup), function: index, of: model, least: sinks + recent)
      } catch {
        context.explain(Self.name, at: "%" + graph[graph[id].results[0]].name, error.reason)
        return nil
      }
    }
  }

  // MARK: How much

  /// The attention that each layer retains by the rows that it keeps.
  private func curves(
    _ places: [[CachedAttention]], _ model: Model, _ context: inout PassContext
  ) throws -> [RetentionCurve] {
    let runs = try windows(for: model, context, usual: Self.usualSamples)
    var states: [[String: Tensor]] = []
    var curves: [RetentionCurve] = []
    for (index, samples) in runs.enumerated() {
      let graph = model.functions[index]
      let goesOn = index < model.functions.count - 1
      var walk = try SampleWalk(model, graph, samples.begun(states, model, graph), keepsStates: goesOn)
      let wanted = Set(places[index].map(\.node))
      var found: [NodeID: RetentionCurve] = [:]
      while let id = walk.next, goesOn || found.count < wanted.count {
        context.progress?.update("measuring attention", done: walk.step, of: walk.order.count)
        if wanted.contains(id), let op = graph[id].op as? Attention {
          var curve = RetentionCurve()
          for sample in 0..<walk.count {
            let operands = try graph[id].inputs.map { input in
              try walk.isRecipe(input) ? walk.recipe(input) : walk.tensor(input, of: sample)
            }
            for received in try op.receivedByHead(operands.map(\.view)) { curve.add(received) }
          }
          found[id] = curve
        }
        try walk.advance()
      }
      curves += places[index].map { found[$0.node] ?? RetentionCurve() }
      if goesOn { states = try (0..<walk.count).map { try walk.states(of: $0) } }
    }
    return curves
  }

  // MARK: The change

  private func bound(
    _ place: CachedAttention, to count: Int, function index: Int, of model: inout Model
  ) throws {
    var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
    let node = builder.graph[place.node]
    guard let attention = node.op as? Attention else { return }
    let names = [place.keys.update, place.values.update, place.node].map {
      builder.graph[builder.graph[$0].results[0]].name
    }
    builder.origin = node.origin
    for cache in [place.keys, place.values] {
      let type = builder.type(of: cache.state)
      builder.graph.setType(
        TensorType(type.element, [attention.kvHeads, count, cache.width]), of: cache.state)
    }
    let number = builder.graph.states.count
    let received = builder.state(
      "received_" + builder.graph[place.keys.state].name, TensorType(.f32, [attention.kvHeads, 2, count]))
    let op = BoundedAttention(
      heads: attention.heads, scale: attention.scale, softcap: attention.softcap, sinks: sinks,
      recent: policy == .window && rows.isEmpty ? count - sinks : recent)
    let results = try builder.emitAll(
      op,
      [
        place.keys.state, place.values.state, received, node.inputs[0], place.keys.rows, place.values.rows,
        place.position,
      ])
    builder.graph.setUpdate(ofState: place.keys.number, to: results[0])
    builder.graph.setUpdate(ofState: place.values.number, to: results[1])
    builder.graph.setUpdate(ofState: number, to: results[2])
    builder.graph.replaceUses(of: node.results[0], with: results[3])
    for old in [place.node, place.keys.update, place.values.update] { builder.graph.erase(old) }
    for (result, name) in zip([results[0], results[1], results[3]], names) { builder.graph.rename(result, to: name) }
    builder.graph.rename(results[2], to: builder.graph[received].name + "_new")
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }
}
