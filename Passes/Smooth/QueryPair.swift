import Base
import IR
import Tensors

/// The channels of a head that a rotary embedding turns together.
package struct RotaryPairs: Hashable, Sendable {
  /// Numbers of a head, and pairs among them.
  package let headDim: Int
  package let pairs: Int
  /// Whether pairs are neighbours.
  package let interleaved: Bool

  package init(headDim: Int, pairs: Int, interleaved: Bool) {
    precondition(headDim > 0 && pairs >= 0 && 2 * pairs <= headDim, "pairs of a head")
    (self.headDim, self.pairs, self.interleaved) = (headDim, pairs, interleaved)
  }

  /// The channel that is turned with a channel of some heads; nil if it stays as it is.
  package func partner(of channel: Int) -> Int? {
    let first = channel / headDim * headDim, place = channel - first
    guard place < 2 * pairs else { return nil }
    if interleaved { return first + (place ^ 1) }
    return first + (place < pairs ? place + pairs : place - pairs)
  }

  /// Whether factors of the channels of some heads can stand before the embedding as well as behind: they are the same
  /// within each pair.
  package func keep(_ factors: [Float]) -> Bool {
    factors.count % headDim == 0
      && factors.indices.allSatisfy { channel in partner(of: channel).map { factors[$0] == factors[channel] } ?? true }
  }

  /// Numbers of channels, each joined with that of its partner.
  func joined(_ numbers: [Float]) -> [Float] {
    numbers.indices.map { channel in max(numbers[channel], partner(of: channel).map { numbers[$0] } ?? 0) }
  }
}

/// The projections of the queries and keys of an attention, whose channels may be divided by numbers on the one side
/// and multiplied by them on the other: `(q / s) (s k) = q k`. A cache that rounds the keys loses less of the products
/// then.
///
///     %k = rope(matmul(%x, %wk), %t)
///     // -> %k = rope(matmul(%x, multiply(%wk, %s)), %t)          and %q likewise with 1 / s
///
/// A rotary embedding turns pairs of channels, so the numbers are the same within each pair. (After the scaling before
/// the embedding in "FireQ", 2025.)
struct QueryPair {
  let heads: AttentionHeads
  let queries: AttentionHeads.Outputs
  let keys: AttentionHeads.Outputs
  /// What attention reads of queries, and the new rows of keys.
  let queryRows: ValueID
  let keyRows: AttentionHeads.Rows
  let pairs: RotaryPairs

  /// - Throws: why the projections may not change.
  init(_ heads: AttentionHeads) throws(AttentionHeads.Refusal) {
    self.heads = heads
    let graph = heads.lookup.graph
    guard let width = heads.width(of: 0) else { throw AttentionHeads.Refusal(reason: "the heads have no fixed width") }
    queryRows = graph[heads.node].inputs[0]
    keyRows = try heads.rows(of: 1)
    let (q, k) = (try Self.rotary(queryRows, in: heads), try Self.rotary(keyRows.value, in: heads))
    guard q?.pairs == k?.pairs else {
      throw AttentionHeads.Refusal(reason: "queries and keys are turned in different pairs")
    }
    pairs = q?.pairs ?? RotaryPairs(headDim: width, pairs: 0, interleaved: false)
    guard pairs.headDim == width else { throw AttentionHeads.Refusal(reason: "other heads are turned") }
    guard graph[queryRows].uses.count == 1 else {
      throw AttentionHeads.Refusal(reason: "'%\(graph[queryRows].name)' has other users")
    }
    queries = try heads.outputs(giving: AttentionHeads.Rows(value: q?.input ?? queryRows))
    keys = try heads.outputs(giving: k.map { AttentionHeads.Rows(value: $0.input) } ?? keyRows)
    guard queries.range.count == heads.op.heads * width, keys.range.count == heads.op.kvHeads * width else {
      throw AttentionHeads.Refusal(reason: "the projections have other outputs")
    }
  }

  /// The embedding that gives a value, with what it turns and its pairs; nil if none does.
  private static func rotary(
    _ value: ValueID, in heads: AttentionHeads
  ) throws(AttentionHeads.Refusal) -> (input: ValueID, pairs: RotaryPairs)? {
    let graph = heads.lookup.graph
    guard let id = graph.definingNode(of: value), let rope = graph[id].op as? Rope else { return nil }
    guard let pairs = graph.type(of: graph[id].inputs[1]).shape.last.fixedValue, 2 * pairs <= rope.headDim else {
      throw AttentionHeads.Refusal(reason: "the embedding has no fixed width")
    }
    return (
      graph[id].inputs[0], RotaryPairs(headDim: rope.headDim, pairs: pairs, interleaved: rope.interleaved)
    )
  }

  /// One number for each channel of keys from those of the queries' channels, whose heads share keys.
  func joined<Number>(_ numbers: [Number], _ join: (Number, Number) -> Number) -> [Number] {
    let shared = heads.op.heads / heads.op.kvHeads, width = pairs.headDim
    return keys.range.indices.map { channel in
      let index = channel - keys.range.lowerBound
      let first = index / width * shared * width + index % width
      return (1..<max(shared, 1)).reduce(numbers[first]) { join($0, numbers[first + $1 * width]) }
    }
  }

  /// The numbers of the keys' channels for each of the queries'.
  func spread(_ numbers: [Float]) -> [Float] {
    let shared = heads.op.heads / heads.op.kvHeads, width = pairs.headDim
    return (0..<queries.range.count).map { numbers[$0 / width / shared * width + $0 % width] }
  }
}

extension Smooth {
  /// Moves scale between the queries and keys of every attention, so that the cache rounds the keys well.
  func smoothQueries(_ model: inout Model, _ context: inout PassContext) throws {
    guard !text.isEmpty else {
      throw CompileError(.usage, "smooth{at=[queries]} needs a text: smooth{at=[queries],text=\"FILE\"}")
    }
    let runs = try chosenWindows(model, context)
    for index in model.functions.indices {
      let graph = model.functions[index]
      let places = try AttentionHeads.places(in: graph, Self.name, context) { heads in
        let pair = try QueryPair(heads)
        for state in pair.keyRows.states { try heads.check(state, of: model, function: index) }
        return (pair: pair, format: try format(of: pair, graph))
      }
      let pairs = Dictionary(places.map { ($0.pair.keyRows.value, $0) }, uniquingKeysWith: { $1 })
      let scales = try queryScales(model, graph, pairs, runs[index], &context)
      var builder = GraphBuilder(graph: graph, constants: model.constants)
      for value in graph.valueIDs {
        guard let factors = scales[value], let pair = pairs[value]?.pair else { continue }
        guard pair.pairs.keep(factors) else { throw CompileError(.internal, "factors that differ within a pair") }
        try builder.multiply(pair.keys, by: factors)
        try builder.multiply(pair.queries, by: pair.spread(factors).map { 1 / $0 })
        for state in pair.keyRows.states {
          let name = graph[graph.states[state].value].name
          let before = model.scales(ofState: name, in: graph.name) ?? factors.map { _ in 1 }
          model.setScales(zip(before, factors).map { $0 * $1 }, ofState: name, in: graph.name)
        }
        context.count("keys smoothed")
      }
      _ = builder.graph.eraseDeadCode()
      (model.functions[index], model.constants) = (builder.graph, builder.constants)
    }
  }

  /// How the cache rounds keys: as its state says, or as the cache of `spec`.
  private func format(of pair: QueryPair, _ graph: Graph) throws(AttentionHeads.Refusal) -> BlockFormat {
    for state in pair.keyRows.states {
      if case .block(let format) = graph.type(of: graph.states[state].value).encoding { return format }
    }
    guard let format = spec.cacheType?.format(headDim: pair.pairs.headDim) else {
      throw AttentionHeads.Refusal(reason: "the cache keeps keys as they are")
    }
    return format
  }

  /// The numbers that keys are multiplied by, of those that lose less so.
  private func queryScales(
    _ model: Model, _ graph: Graph, _ pairs: [ValueID: (pair: QueryPair, format: BlockFormat)],
    _ windows: [FunctionInputs], _ context: inout PassContext
  ) throws -> [ValueID: [Float]] {
    var found: [ValueID: [Float]] = [:]
    guard !pairs.isEmpty else { return found }
    let byNode = Dictionary(pairs.map { ($1.pair.heads.node, $0) }, uniquingKeysWith: { first, _ in first })
    var walk = try SampleWalk(model, graph, windows)
    var keys: [ValueID: SmoothingSearch.Weights] = [:]
    while let node = walk.next {
      context.progress?.update("measuring keys", done: walk.step, of: walk.order.count)
      if let value = byNode[node], let (pair, format) = pairs[value], let rows = keys.removeValue(forKey: value) {
        let statistics = try walk.channels(of: pair.queryRows)
        if statistics.rows > 0 {
          let maxima = pair.pairs.joined(pair.joined(statistics.maxima) { max($0, $1) })
          let squares = pair.joined(statistics.meanSquares) { $0 + $1 }
          let search = SmoothingSearch(format: format, kind: kind, steps: steps)
          if let best = search.scales([rows], maxima: maxima, squares: squares) {
            found[value] = best.scales
            context.report("error left at %\(graph[value].name)", best.before > 0 ? best.after / best.before : 1)
          }
        }
      }
      try walk.advance()
      for value in graph[node].results {
        guard let pair = pairs[value]?.pair else { continue }
        let statistics = try walk.channels(of: value)
        guard statistics.rows > 0 else { continue }
        let rows = try walk.rows(of: value, columns: statistics.maxima.count)
        keys[value] = SmoothingSearch.Weights(
          maxima: pair.pairs.joined(statistics.maxima),
          rows: rows.some(8 * SmoothingSearch.rowLimit, columns: statistics.maxima.count))
      }
    }
    return found
  }
}

extension GraphBuilder {
  /// Multiplies some outputs of a layer: rows of its weight, and of its bias.
  fileprivate mutating func multiply(_ outputs: AttentionHeads.Outputs, by factors: [Float]) throws {
    let layer = outputs.layer
    var wide = [Float](repeating: 1, count: layer.outputs)
    wide.replaceSubrange(outputs.range, with: factors)
    origin = graph[outputs.node].origin
    var places = [(operand: 1, axis: layer.weightAxes.outputs)]
    if layer.bias != nil { places.append((2, 0)) }
    for (operand, axis) in places {
      let weight = try widened(graph[outputs.node].inputs[operand])
      let sizes = [wide.count] + [Int](repeating: 1, count: type(of: weight).rank - 1 - axis)
      let vector = constant(.inline("scales", .f32, sizes, wide))
      graph.setInput(operand, of: outputs.node, to: try emit(Multiply(), weight, vector))
    }
  }
}
