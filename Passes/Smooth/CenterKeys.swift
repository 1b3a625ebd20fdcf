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

  package init() {}

  package init(text: String) { self.text = text }

  /// What attention gives is the same but for rounding; what the caches hold is not.
  package var fidelity: Fidelity { .lossy }

  /// Keys of one attention.
  private struct Keys {
    let attention: NodeID
    let embedding: KeyEmbedding
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
      let wanted = Dictionary(places.map { ($0.embedding.rope, $0) }, uniquingKeysWith: { first, _ in first })
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
    try AttentionHeads.places(in: model.functions[index], Self.name, context) {
      try keys(of: $0, function: index, of: model)
    }
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
    let embedding = try KeyEmbedding(heads, giving: rows.value, at: inputs[position], of: model)
    guard graph[rows.value].uses.count == (rows.last == nil ? 1 : 2) else {
      throw Refusal(reason: "the keys '%\(graph[rows.value].name)' have other users")
    }
    return Keys(attention: heads.node, embedding: embedding, rows: count)
  }

  // MARK: How much

  private func mean(
    of keys: Keys, _ walk: SampleWalk, _ graph: Graph, _ context: inout PassContext
  ) throws -> [Float] {
    let value = keys.embedding.value
    let columns = graph.type(of: value).shape.last.fixedValue ?? 0
    let rows = try walk.rows(of: value, columns: columns)
    let mean = rows.mean(columns)
    guard mean.allSatisfy(\.isFinite) else {
      throw CompileError(
        .input, "the keys '%\(graph[value].name)' have numbers that are not finite on the samples")
    }
    let all = try walk.channels(of: value).meanSquares.reduce(0, +)
    let taken = mean.reduce(0) { $0 + Double($1) * Double($1) }
    context.report("mean in %\(graph[value].name)", all > 0 ? taken / all : 0)
    return mean
  }

  // MARK: The change

  private func center(
    _ places: [Keys], _ means: [NodeID: [Float]], function index: Int, of model: inout Model
  ) throws {
    var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
    var tables: [KeyEmbedding.Angles: ValueID] = [:]
    for keys in places {
      let embedding = keys.embedding
      guard let mean = means[embedding.rope], var attention = builder.graph[keys.attention].op as? Attention else {
        continue
      }
      builder.origin = builder.graph[embedding.rope].origin
      let name = builder.graph[embedding.value].name
      let pairs = mean.indices.map { embedding.partner(of: $0) }
      // A term that is the same for all positions makes no difference to softmax.
      let stays = attention.softcap != nil
      let taken = mean.indices.map { pairs[$0] != nil || !stays ? mean[$0] : 0 }
      let vector = builder.constant(.inline(name + "_mean", .f32, [taken.count], taken))
      builder.graph.setInput(
        0, of: embedding.rope, to: try builder.emit(Subtract(), embedding.value, vector, name: name + "_rest"))
      let added = mean.indices.map { pairs[$0] == nil ? 0 : mean[$0] * embedding.factor }
      let partners = pairs.map { pair in pair.map { mean[$0.column] * $0.sign * embedding.factor } ?? 0 }
      let means = builder.constant(.inline(name + "_means", .f32, [2, mean.count], added + partners))
      let table = KeyEmbedding.Angles(embedding, rows: keys.rows, columns: embedding.op.headDim)
      let angles = try tables[table] ?? table.emit(in: &builder)
      tables[table] = angles
      attention.angleBlock = KeyEmbedding.Angles.block
      try builder.replace(keys.attention, attention, builder.graph[keys.attention].inputs + [means, angles])
    }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }
}
