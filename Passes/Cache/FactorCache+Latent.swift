import Base
import IR
import Tensors

/// Caches whose old rows are features that all heads of one or several attentions have in common.
///
///     %k = rope(%x, %table)
///     %y = attention(%q, cache_update(%k0, %k, %position), cache_update(%v0, %v, %position), %position)
///     // -> %f = %x A, %g = %v C                                            (the first columns of changes of basis)
///     //    %y = attention(%q, cache_update(%k0, %f, %position), cache_update(%v0, %g, %position), %position,
///     //                   last(%k), last(%v), B, D, %angles) {recent = 32, latent = {...}}
///
/// Keys are taken before rotary embedding, as it is not linear in what they have in common: attention multiplies them out by
/// `B` and turns them by their positions, as L. Wang and others (CSKV, 2024) do it. The features of several layers are
/// those of their rows side by side (C.-C. Chang and others, xKV, 2025, who decompose the rows of each prompt). They are whole
/// when the last of the layers has its rows, so that all queries of a call take the rows of the call as they are.
///
/// `x' = x A` and `x = x' B^T` are those of ``CacheBasis`` for all columns together. In the metric of the queries a key counts
/// as if all differences of positions came with the same weight: the two numbers of a pair that turns get the mean of
/// what is measured for them, and other pairs nothing to do with them.
extension FactorCache {
  /// An attention whose rows may become features.
  struct LatentPlace {
    let cache: CachedAttention
    let op: Attention
    /// Nil where keys do not turn.
    let embedding: KeyEmbedding?

    /// The keys as they are before they turn.
    var keys: ValueID { embedding?.value ?? cache.keys.rows }
    /// Columns of all heads.
    var columns: (keys: Int, values: Int) { (op.kvHeads * cache.keys.width, op.kvHeads * cache.values.width) }
    /// The nodes before which keys and values are measured.
    var wanted: [NodeID: [ValueID]] {
      let keyNode = embedding?.rope ?? cache.keys.update
      return [keyNode: [keys], cache.values.update: [cache.values.rows]]
    }
  }

  /// Attentions that have rows in common.
  struct LatentGroup {
    let places: [LatentPlace]
    var keys: CacheBasis?
    var values: CacheBasis?
  }

  /// The most columns of rows that become features.
  private static let mostColumns = 4096

  func factorLatent(_ model: inout Model, _ context: inout PassContext) throws {
    var groups: [[LatentGroup]] = []
    for index in model.functions.indices {
      let places = try self.places(function: index, of: model, context) { heads in
        try latentPlace(heads, function: index, of: model)
      }
      groups.append(Self.groups(places, layers: layers, in: model.functions[index]))
    }
    guard groups.contains(where: { !$0.isEmpty }) else { return nothingFactored(&context) }
    try measureLatent(&groups, model, context)
    let bases = groups.joined().flatMap { [$0.keys, $0.values] }.compactMap { $0 }
    var rest = try chosenRanks(bases, steps: bases.map { Self.latentStep($0.width) })[...]
    for (index, groups) in groups.enumerated() {
      for group in groups {
        guard let keys = group.keys, let values = group.values else { continue }
        let ranks = (keys: rest.removeFirst(), values: rest.removeFirst())
        let first = group.places[0].cache
        report(ranks.keys, keys, model.functions[index][first.keys.state].name, &context)
        report(ranks.values, values, model.functions[index][first.values.state].name, &context)
        try factor(group, keys, values, ranks, function: index, of: &model, context)
        context.count("caches factored", by: 2 * group.places.count)
      }
    }
  }

  /// What ranks of rows of so many columns are multiples of: a part of at most a quarter and of 32, with a scale of its own
  /// where rows become codes.
  private static func latentStep(_ columns: Int) -> Int {
    guard columns % 4 == 0 else { return 1 }
    let most = min(32, max(4, columns / 4))
    return stride(from: 4, through: most, by: 4).reversed().first { columns % $0 == 0 } ?? 4
  }

  // MARK: Where

  private func latentPlace(_ heads: AttentionHeads, function index: Int, of model: Model) throws -> LatentPlace {
    let cache = try place(heads, function: index, of: model)
    let graph = heads.lookup.graph
    var embedding: KeyEmbedding?
    if let node = graph.definingNode(of: cache.keys.rows), graph[node].op is Rope {
      embedding = try KeyEmbedding(heads, giving: cache.keys.rows, at: cache.position, of: model)
    }
    let place = LatentPlace(cache: cache, op: heads.op, embedding: embedding)
    for (cache, columns) in [(cache.keys, place.columns.keys), (cache.values, place.columns.values)] {
      guard graph.type(of: cache.state).isDense || columns % 4 == 0 else {
        throw AttentionHeads.Refusal(reason: "\(columns) columns do not divide into codes")
      }
      guard columns <= Self.mostColumns else {
        throw AttentionHeads.Refusal(reason: "rows of \(columns) columns are wider than \(Self.mostColumns)")
      }
    }
    return place
  }

  /// Successive attentions over caches of the same kind, each computed from the result of the one before.
  private static func groups(_ places: [LatentPlace], layers: Int, in graph: Graph) -> [LatentGroup] {
    var groups: [[LatentPlace]] = []
    for place in places {
      if let group = groups.last, let previous = group.last, group.count < layers,
        previous.cache.position == place.cache.position, previous.cache.rows == place.cache.rows,
        previous.op.recent == place.op.recent,
        graph.kind(of: previous.cache) == graph.kind(of: place.cache),
        (group + [place]).reduce(0, { $0 + $1.columns.keys }) <= mostColumns,
        (group + [place]).reduce(0, { $0 + $1.columns.values }) <= mostColumns,
        graph.derives(place.keys, from: previous.cache.node)
      {
        groups[groups.count - 1].append(place)
      } else {
        groups.append([place])
      }
    }
    return groups.map { LatentGroup(places: $0) }
  }

  // MARK: The bases

  private func measureLatent(
    _ groups: inout [[LatentGroup]], _ model: Model, _ context: PassContext
  ) throws {
    var wanted: [[NodeID: [ValueID]]] = []
    for (index, groups) in groups.enumerated() {
      var nodes: [NodeID: [ValueID]] = [:]
      for place in groups.flatMap(\.places) {
        for (node, values) in place.wanted { nodes[node, default: []] += values }
        if metric == .readers { nodes[place.cache.node] = [model.functions[index][place.cache.node].inputs[0]] }
      }
      wanted.append(nodes)
    }
    var rows: [ValueID: [SampleRows]] = [:]
    var metrics: [NodeID: SquareMatrix] = [:]
    // Attentions in the order in which they come, the rows of the current group being kept.
    var current = groups.map { _ in 0 }
    let most = groups.joined().flatMap(\.places).map(\.cache.rows).max() ?? 1
    try measure(wanted, rows: most, model, context) { index, node, measured in
      let graph = model.functions[index]
      for (value, samples) in zip(wanted[index][node] ?? [], measured) { rows[value] = samples }
      let group = groups[index][current[index]]
      if metric == .readers, let place = group.places.first(where: { $0.cache.node == node }) {
        metrics[node] = try queryMetric(of: place, rows[graph[node].inputs[0]] ?? [], in: graph)
        rows[graph[node].inputs[0]] = nil
      }
      let places = group.places
      guard places.allSatisfy({ rows[$0.keys] != nil && rows[$0.cache.values.rows] != nil }),
        metric == .plain || places.allSatisfy({ metrics[$0.cache.node] != nil })
      else { return }
      // Where nothing that is known reads the values of a layer, those of all count as they are.
      let readers =
        try metric == .plain
        ? []
        : places.compactMap { place in
          try self.readers(of: place.cache, function: index, of: model, context).map { SquareMatrix(blocks: $0) }
        }
      groups[index][current[index]].keys = try basis(
        places.map { (rows[$0.keys] ?? [], $0.columns.keys) },
        metrics: metric == .plain ? nil : places.compactMap { metrics[$0.cache.node] }, named: places[0].keys, in: graph
      )
      groups[index][current[index]].values = try basis(
        places.map { (rows[$0.cache.values.rows] ?? [], $0.columns.values) },
        metrics: readers.count == places.count ? readers : nil, named: places[0].cache.values.rows, in: graph)
      rows = [:]
      if current[index] + 1 < groups[index].count { current[index] += 1 }
    }
  }

  /// The basis of rows side by side.
  private func basis(
    _ parts: [(rows: [SampleRows], columns: Int)], metrics: [SquareMatrix]?, named value: ValueID, in graph: Graph
  ) throws -> CacheBasis {
    let width = parts.reduce(0) { $0 + $1.columns }
    let joined: [SampleRows] = parts[0].rows.indices.compactMap { sample in
      let rows = parts[0].rows[sample].rows
      let tensor = Tensor(TensorType(.f32, [max(rows, 1), width]))
      let target = tensor.mutableView.elements(as: Float.self)
      var start = 0
      for part in parts {
        for row in 0..<rows {
          let source = UnsafeBufferPointer(start: part.rows[sample].numbers + row * part.columns, count: part.columns)
          for (column, number) in source.enumerated() { target[row * width + start + column] = number }
        }
        start += part.columns
      }
      return target.baseAddress.map { SampleRows($0, rows: rows, owner: tensor) }
    }
    let moment = try SquareMatrix(
      secondMoment: joined, 0..<width, of: width, order: width, name: graph[value].name)
    return try CacheBasis(moments: [moment], metrics: metrics.map { [SquareMatrix(blocks: $0)] }, width: width)
  }

  /// The second moments of what multiplies keys before they turn, for all differences of positions alike.
  private func queryMetric(of place: LatentPlace, _ queries: [SampleRows], in graph: Graph) throws -> SquareMatrix {
    let op = place.op, width = place.cache.keys.width
    var heads = try Self.moments(
      queries, of: graph[place.cache.node].inputs[0], heads: op.kvHeads, width: width, in: graph)
    let weight = Double(op.heads / op.kvHeads) * Double(op.scale) * Double(op.scale)
    for head in heads.indices {
      heads[head] = heads[head] * weight
      guard let embedding = place.embedding else { continue }
      let moment = heads[head]
      for row in 0..<width {
        for column in 0..<width {
          guard embedding.partner(of: row) != nil || embedding.partner(of: column) != nil else { continue }
          heads[head].numbers[row * width + column] = 0
        }
        guard let partner = embedding.partner(of: row)?.column else { continue }
        heads[head].numbers[row * width + row] =
          (moment.numbers[row * width + row] + moment.numbers[partner * width + partner]) / 2
      }
    }
    return SquareMatrix(blocks: heads)
  }

  // MARK: The change

  private func factor(
    _ group: LatentGroup, _ keys: CacheBasis, _ values: CacheBasis, _ ranks: (keys: Int, values: Int),
    function index: Int, of model: inout Model, _ context: PassContext
  ) throws {
    let graph = model.functions[index]
    let (first, places) = (group.places[0].cache, group.places)
    var builder = GraphBuilder(graph: graph, constants: model.constants)
    builder.origin = graph[places[places.count - 1].cache.node].origin
    let caches = try [
      (first.keys, keys, ranks.keys, places.map(\.keys)),
      (first.values, values, ranks.values, places.map(\.cache.values.rows)),
    ].map { cache, basis, rank, rows in
      let type = graph.type(of: cache.state)
      builder.graph.setType(
        type.cache(of: rank, part: Self.latentStep(basis.width), from: cache.width), of: cache.state)
      let name = graph[cache.state].name
      let features = try builder.features(of: rows, basis, rank, name: name)
      let update = try builder.emit(CacheUpdate(), cache.state, features, first.position)
      if case .state(let number) = builder.graph[cache.state].definition {
        builder.graph.setUpdate(ofState: number, to: update)
      }
      return (cache: cache, state: cache.state, update: update, name: graph[graph[cache.update].results[0]].name)
    }
    var angles: [KeyEmbedding.Angles: ValueID] = [:]
    var starts = (keys: 0, values: 0)
    for place in places {
      var op = place.op
      builder.origin = graph[place.cache.node].origin
      op.latent = LatentRows(
        angleBlock: place.embedding == nil ? nil : KeyEmbedding.Angles.block,
        interleaved: place.embedding?.op.interleaved ?? false, wholeCalls: places.count > 1)
      var inputs = graph[place.cache.node].inputs
      // The features of several layers are those of earlier calls.
      for (operand, cache) in caches.enumerated() {
        inputs[1 + operand] = places.count > 1 ? cache.state : cache.update
      }
      if op.recent == nil {
        op.recent = window
        for cache in [place.cache.keys, place.cache.values] {
          inputs.append(try builder.lastRows(window, before: cache.rows, state: "recent_" + graph[cache.state].name))
        }
      }
      inputs.append(
        builder.expansion(
          keys, rank: ranks.keys, from: starts.keys, heads: op.kvHeads, width: place.cache.keys.width,
          factor: place.embedding, name: graph[place.cache.keys.state].name))
      inputs.append(
        builder.expansion(
          values, rank: ranks.values, from: starts.values, heads: op.kvHeads, width: place.cache.values.width,
          factor: nil, name: graph[place.cache.values.state].name))
      if let embedding = place.embedding {
        let table = KeyEmbedding.Angles(embedding, rows: place.cache.rows, columns: 2 * embedding.pairs)
        let value = try angles[table] ?? table.emit(in: &builder)
        angles[table] = value
        inputs.append(value)
      }
      try builder.replace(place.cache.node, op, inputs)
      starts.keys += place.columns.keys
      starts.values += place.columns.values
    }
    // The caches of the attentions, and all but the first of their states.
    for (offset, place) in places.enumerated() {
      for cache in [place.cache.keys, place.cache.values] {
        guard case .state(let number) = builder.graph[cache.state].definition else { continue }
        if offset > 0 { builder.graph.setUpdate(ofState: number, to: cache.state) }
        builder.graph.erase(cache.update)
        if offset > 0 { builder.graph.eraseState(number) }
      }
    }
    for cache in caches { builder.graph.rename(cache.update, to: cache.name) }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }
}

extension GraphBuilder {
  /// The first numbers of rows side by side in another basis.
  fileprivate mutating func features(
    of rows: [ValueID], _ basis: CacheBasis, _ rank: Int, name: String
  ) throws -> ValueID {
    let joined = rows.count == 1 ? rows[0] : try emit(Concat(axis: 1), rows)
    let tokens = type(of: joined).shape[0], width = basis.width
    // A batch of one matrix, which no quantization of linear layers takes for one.
    let numbers = (0..<width * rank).map { basis.factors[$0 / rank * width + $0 % rank] }
    let factor = constant(.inline(name + "_features", .f32, [1, width, rank], numbers))
    let batch = try emit(Reshape([1, tokens, .fixed(width)]), joined)
    return try emit(
      Reshape([tokens, .fixed(rank)]), emit(MatMul(transposeB: false), batch, factor), name: name + "_row")
  }

  /// What the first numbers are multiplied by to give the columns of heads from `start` on, `[heads, rank, width]`; columns
  /// that an embedding turns come with its factor.
  fileprivate mutating func expansion(
    _ basis: CacheBasis, rank: Int, from start: Int, heads: Int, width: Int, factor embedding: KeyEmbedding?,
    name: String
  ) -> ValueID {
    var numbers: [Float] = []
    numbers.reserveCapacity(heads * rank * width)
    for head in 0..<heads {
      for number in 0..<rank {
        for column in 0..<width {
          let factor = embedding.map { $0.partner(of: column) == nil ? 1 : $0.factor } ?? 1
          numbers.append(basis.readers[(start + head * width + column) * basis.width + number] * factor)
        }
      }
    }
    return constant(.inline(name + "_expansion", .f32, [heads, rank, width], numbers))
  }
}

extension Graph {
  /// How keys and values of an attention are stored.
  fileprivate func kind(of cache: CachedAttention) -> [String] {
    [cache.keys, cache.values].map { part in
      let type = type(of: part.state)
      guard case .block(let format) = type.encoding, let kind = CacheType(format, headDim: part.width) else {
        return type.element.rawValue
      }
      return kind.spelling
    }
  }

  /// Whether a value is computed from a result of a node.
  fileprivate func derives(_ value: ValueID, from node: NodeID) -> Bool {
    var seen: Set<NodeID> = []
    var rest = [value]
    while let next = rest.popLast() {
      guard let id = definingNode(of: next), seen.insert(id).inserted else { continue }
      if id == node { return true }
      rest += self[id].inputs
    }
    return false
  }
}

extension SquareMatrix {
  /// Matrices along the diagonal.
  fileprivate init(blocks: [SquareMatrix]) {
    let order = blocks.reduce(0) { $0 + $1.order }
    self.init(order: order, numbers: [Double](repeating: 0, count: order * order))
    var start = 0
    for block in blocks {
      for row in 0..<block.order {
        for column in 0..<block.order {
          numbers[(start + row) * order + start + column] = block.numbers[row * block.order + column]
        }
      }
      start += block.order
    }
  }
}
