import Base
import IR
import Tensors

/// Gives caches whose codes are places in a table the form in which few bits hold keys and values best.
///
///     %k = rope(%x, %table)
///     %y = attention(%q, cache_update(%k0, %k, %position), %v..., %position, %rk, %rv) {recent = 32}
///     // -> %n = (%x - %offset) / %scale                                   (column by column)
///     //    %rest, %apart = split_outliers(%n) {count = 1}
///     //    %y = attention(%q, cache_update(%k0, %rest, %position), ..., %position, %rk, %rv,
///     //                   %scales, %angles, cache_update(%outliers_k0, %apart, %position), ...)
///     //             {recent = 32, channels = {angleBlock = 32, outliers = 1}}
///
/// The parts of C. Hooper and others (KVQuant, 2024): with `channels` keys lie in the cache before rotary embedding, each column
/// less its mean and over its standard deviation, and turn where attention reads them; `levels=layer` fits a table to the keys
/// and one to the values of each attention (exact k-means, keys with `metric=readers` weighted by what queries make of an error in
/// a column); the share `outliers` of the numbers of a row, those of largest magnitude, lies apart in f16 with its places. Unlike
/// theirs, a head of a token has a scale of its own, so that what is fitted is the shape of the levels.
///
/// Moments are measured on `samples` windows of `length` tokens of `text`. The last tokens are seen whole.
package struct ChannelCache: TokenSampled {
  package static let name = "channel-cache"
  package static let summary =
    "fits the levels of caches, and keeps keys before rotary embedding, by channel, and outliers apart"
  package static let legality =
    "attention is causal over caches of levels that nobody else reads, beside which the last tokens lie, without windows, "
    + "masks and biases"
  package static let source = "C. Hooper and others, KVQuant, 2024, arXiv:2401.18079"

  /// What tables are fitted to.
  package enum Levels: String, Hashable, Codable, Sendable, CaseIterable { case layer, given }
  /// What errors of keys are weighted by: what reads them, or nothing.
  package enum Metric: String, Hashable, Codable, Sendable, CaseIterable { case readers, plain }

  package var channels: Bool = true
  package var levels: Levels = .layer
  package var metric: Metric = .readers
  /// The share of the numbers of a row that lies apart.
  package var outliers: Double = 0
  package var text: String = ""
  /// Windows; nil for 16 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the usual number.
  package var length: Int?

  private static let usualSamples = 16
  /// The largest share of the numbers of a row that may lie apart.
  package static let largestShare = 0.25

  package init() {}

  package init(outliers: Double, text: String) {
    self.outliers = outliers
    self.text = text
  }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard outliers >= 0, outliers <= Self.largestShare else {
      throw CompileError(
        .usage, "'outliers' of '\(Self.name)' is \(outliers), expected a share of numbers up to \(Self.largestShare)")
    }
    guard !text.isEmpty else {
      throw CompileError(.usage, "\(Self.name) needs a text: \(Self.name){text=\"FILE\"}")
    }
    let places = try model.functions.indices.map { index in
      try AttentionHeads.places(in: model.functions[index], Self.name, context) {
        try place($0, function: index, of: model)
      }
    }
    guard places.contains(where: { !$0.isEmpty }) else {
      return context.remark("no KV cache of levels is fitted; '--explain \(Self.name)' says why")
    }
    let runs = try windows(for: model, context, usual: Self.usualSamples)
    var states: [[String: Tensor]] = []
    for (index, samples) in runs.enumerated() {
      let graph = model.functions[index]
      let goesOn = index < model.functions.count - 1
      var walk = try SampleWalk(model, graph, samples.begun(states, model, graph), keepsStates: goesOn)
      var forms: [NodeID: Form] = [:]
      var left = places[index].count
      while let node = walk.next, goesOn || left > 0 {
        context.progress?.update("measuring caches", done: walk.step, of: walk.order.count)
        for place in places[index] {
          if node == place.keyNode { forms[place.cache.node, default: Form()].keys = try measured(place.keys, walk) }
          if node == place.cache.values.update {
            forms[place.cache.node, default: Form()].values = try measured(place.cache.values.rows, walk)
          }
          if node == place.cache.node {
            try fit(&forms[node, default: Form()], place, walk)
            left -= 1
          }
        }
        try walk.advance()
      }
      if goesOn { states = try (0..<walk.count).map { try walk.states(of: $0) } }
      var builder = GraphBuilder(graph: graph, constants: model.constants)
      var angles: [KeyEmbedding.Angles: ValueID] = [:]
      for place in places[index] {
        guard let form = forms[place.cache.node] else { continue }
        try change(place, form, &angles, in: &builder)
        context.count("attentions fitted")
      }
      _ = builder.graph.eraseDeadCode()
      (model.functions[index], model.constants) = (builder.graph, builder.constants)
    }
  }

  // MARK: Where

  /// An attention over caches of levels.
  private struct Place {
    let cache: CachedAttention
    let op: Attention
    /// Nil where keys do not turn, and where they are kept turned.
    let embedding: KeyEmbedding?
    /// Outliers of a row of keys, and of values, so many that both have the same.
    let outliers: Int

    /// Keys as the cache keeps them, and the node before which they are measured.
    var keys: ValueID { embedding?.value ?? cache.keys.rows }
    var keyNode: NodeID { embedding?.rope ?? cache.keys.update }
  }

  private func place(_ heads: AttentionHeads, function index: Int, of model: Model) throws -> Place {
    typealias Refusal = AttentionHeads.Refusal
    guard heads.op.channels == nil, heads.op.latent == nil else {
      throw Refusal(reason: "the rows of the cache have another form already")
    }
    guard let recent = heads.op.recent else { throw Refusal(reason: "the last tokens do not lie beside the cache") }
    let cache = try CachedAttention(heads, function: index, of: model, least: recent, takesCodes: true)
    let graph = heads.lookup.graph
    for part in [cache.keys, cache.values] {
      try heads.check(part.number, of: model, function: index)
      guard case .block(let format) = graph.type(of: part.state).encoding, format.levels != nil,
        format.group == part.width
      else { throw Refusal(reason: "the codes of the cache are no places in a table") }
      guard !heads.lookup.isRecipe(part.rows) else { throw Refusal(reason: "keys or values are constant") }
    }
    var embedding: KeyEmbedding?
    if channels, let node = graph.definingNode(of: cache.keys.rows), graph[node].op is Rope {
      embedding = try KeyEmbedding(heads, giving: cache.keys.rows, at: cache.position, of: model)
    }
    let columns = heads.op.kvHeads * max(cache.keys.width, cache.values.width)
    let count = outliers > 0 ? max(1, Int((outliers * Double(columns)).rounded())) : 0
    guard count == 0 || columns <= SplitOutliers.mostColumns else {
      throw Refusal(reason: "rows of \(columns) columns are wider than \(SplitOutliers.mostColumns)")
    }
    return Place(
      cache: cache, op: heads.op, embedding: embedding,
      outliers: min(count, heads.op.kvHeads * min(cache.keys.width, cache.values.width)))
  }

  // MARK: How

  /// Rows of a cache as they were measured.
  fileprivate struct Measured {
    var numbers: [Float]
    var columns: Int
  }

  /// What caches are changed to.
  private struct Form {
    var keys: Measured?
    var values: Measured?
    /// Scales and offsets of the columns of keys; nil for none.
    var scales: (factors: [Float], offsets: [Float])?
    var formats: (keys: BlockFormat?, values: BlockFormat?)
  }

  private func measured(_ value: ValueID, _ walk: SampleWalk) throws -> Measured {
    let columns = walk.graph.type(of: value).shape.last.fixedValue ?? 0
    var numbers: [Float] = []
    for sample in try walk.rows(of: value, columns: columns) {
      numbers += UnsafeBufferPointer(start: sample.numbers, count: sample.rows * columns)
    }
    guard numbers.allSatisfy(\.isFinite) else {
      throw CompileError(
        .input, "the rows '%\(walk.graph[value].name)' have numbers that are not finite on the samples")
    }
    return Measured(numbers: numbers, columns: columns)
  }

  private func fit(
    _ form: inout Form, _ place: Place, _ walk: SampleWalk
  ) throws {
    guard var keys = form.keys, var values = form.values else { return }
    (form.keys, form.values) = (nil, nil)
    var energy: [Double]?
    if metric == .readers { energy = try self.energy(place, walk) }
    if channels { form.scales = keys.normalize(energy) }
    guard levels == .layer else { return }
    if place.outliers > 0 {
      keys.dropLargest(place.outliers)
      values.dropLargest(place.outliers)
    }
    let weights = energy.map { energy in
      energy.indices.map { column in
        let factor = Double(form.scales?.factors[column] ?? 1)
        return Float(energy[column] * factor * factor)
      }
    }
    let graph = walk.graph
    form.formats = (
      try fitted(graph.type(of: place.cache.keys.state), keys, weights),
      try fitted(graph.type(of: place.cache.values.state), values, nil)
    )
  }

  /// The mean squared error of a score for an error of 1 in a column of keys, at any distance of queries alike.
  private func energy(_ place: Place, _ walk: SampleWalk) throws -> [Double] {
    let queries = try walk.channels(of: walk.graph[place.cache.node].inputs[0]).meanSquares
    let (width, group) = (place.cache.keys.width, place.op.heads / place.op.kvHeads)
    func energy(_ column: Int) -> Double {
      let first = column / width * group
      return (first..<first + group).reduce(0) { $0 + queries[$1 * width + column % width] }
    }
    return (0..<place.op.kvHeads * width).map { column in
      var sum = energy(column)
      if let partner = place.embedding?.partner(of: column)?.column { sum = (sum + energy(partner)) / 2 }
      return sum
    }
  }

  /// The format of a cache with a table for these rows; nil if it stays as it is.
  private func fitted(_ type: TensorType, _ rows: Measured, _ weights: [Float]?) throws -> BlockFormat? {
    guard case .block(let format) = type.encoding else { return nil }
    let result = try rows.numbers.withUnsafeBufferPointer {
      try format.fitted(to: $0, columns: rows.columns, weights: weights, triesScales: false)
    }
    return result.levels?.isAscending == true ? result : nil
  }

  // MARK: The change

  private func change(
    _ place: Place, _ form: Form, _ angles: inout [KeyEmbedding.Angles: ValueID], in builder: inout GraphBuilder
  ) throws {
    let (cache, node) = (place.cache, place.cache.node)
    builder.origin = builder.graph[node].origin
    var inputs = builder.graph[node].inputs
    var op = place.op
    var keys = place.keys
    let name = builder.graph[cache.keys.state].name
    let columns = place.op.kvHeads * cache.keys.width
    var table = [Float](repeating: 1, count: columns) + [Float](repeating: 0, count: columns)
    if let (factors, offsets) = form.scales {
      let mean = builder.constant(.inline(name + "_mean", .f32, [columns], offsets))
      let inverse = builder.constant(.inline(name + "_inverse", .f32, [columns], factors.map { 1 / $0 }))
      keys = try builder.emit(Multiply(), builder.emit(Subtract(), keys, mean), inverse, name: name + "_normal")
      // What turns comes with the factor of the embedding.
      let turned = (0..<columns).map { column in
        place.embedding.map { $0.partner(of: column) == nil ? 1 : $0.factor } ?? 1
      }
      table = zip(factors, turned).map { $0 * $1 } + zip(offsets, turned).map { $0 * $1 }
    }
    let position = cache.position
    let stores = try [
      store(keys, in: cache.keys, form.formats.keys, place.outliers, at: position, &builder),
      store(cache.values.rows, in: cache.values, form.formats.values, place.outliers, at: position, &builder),
    ]
    (inputs[1], inputs[2]) = (stores[0].update, stores[1].update)
    if form.scales != nil || place.outliers > 0 {
      op.channels = ChannelRows(
        angleBlock: place.embedding == nil ? nil : KeyEmbedding.Angles.block,
        interleaved: place.embedding?.op.interleaved ?? false, outliers: place.outliers)
      inputs.append(builder.constant(.inline(name + "_scales", .f32, [2, columns], table)))
      if let embedding = place.embedding {
        let turns = KeyEmbedding.Angles(embedding, rows: cache.rows, columns: 2 * embedding.pairs)
        let value = try angles[turns] ?? turns.emit(in: &builder)
        angles[turns] = value
        inputs.append(value)
      }
      inputs += stores.compactMap(\.apart)
    }
    try builder.replace(node, op, inputs)
    for (cache, store) in zip([cache.keys, cache.values], stores) {
      let name = builder.graph[builder.graph[cache.update].results[0]].name
      builder.graph.erase(cache.update)
      builder.graph.rename(store.update, to: name)
    }
  }

  /// Writes rows into a cache, with other codes if there is a format for them, and `outliers` numbers of each into a new state;
  /// what becomes of both.
  private func store(
    _ rows: ValueID, in cache: CachedAttention.Cache, _ format: BlockFormat?, _ outliers: Int, at position: ValueID,
    _ builder: inout GraphBuilder
  ) throws -> (update: ValueID, apart: ValueID?) {
    let type = builder.type(of: cache.state), name = builder.graph[cache.state].name
    if let format {
      builder.graph.setType(TensorType(type.element, type.shape, encoding: .block(format)), of: cache.state)
    }
    func write(_ rows: ValueID, into state: ValueID, _ number: Int) throws -> ValueID {
      let update = try builder.emit(CacheUpdate(), state, rows, position)
      builder.graph.setUpdate(ofState: number, to: update)
      return update
    }
    guard outliers > 0 else { return (try write(rows, into: cache.state, cache.number), nil) }
    let parts = try builder.emitAll(SplitOutliers(count: outliers), [rows], names: [name + "_rest", name + "_apart"])
    let number = builder.graph.states.count
    let state = builder.state(
      "outliers_" + name, TensorType(.f16, Shape([type.shape[0], .fixed(2 * outliers)])))
    let apart = try write(parts[1], into: state, number)
    return (try write(parts[0], into: cache.state, cache.number), apart)
  }
}

extension ChannelCache.Measured {
  /// Takes the mean out of each column and divides by a factor; what was taken.
  ///
  /// The factor is the standard deviation `d`, or with the energy `w` of what reads a column `sqrt(d / sqrt(w))`: of rows with
  /// codes of one scale `sum of w f^2` times `sum of d^2 / f^2` is then least, to which the squared errors of scores are in
  /// proportion.
  fileprivate mutating func normalize(_ energy: [Double]?) -> (factors: [Float], offsets: [Float]) {
    let rows = columns == 0 ? 0 : numbers.count / columns
    var sums = [Double](repeating: 0, count: columns), squares = sums
    for row in 0..<rows {
      for column in 0..<columns {
        let number = Double(numbers[row * columns + column])
        sums[column] += number
        squares[column] += number * number
      }
    }
    let count = Double(max(1, rows))
    let offsets = sums.map { Float($0 / count) }
    let factors = (0..<columns).map { column -> Float in
      let mean = sums[column] / count
      let deviation = max(0, squares[column] / count - mean * mean).squareRoot()
      let balanced = energy.map { (deviation / $0[column].squareRoot()).squareRoot() } ?? deviation
      let factor = Float(balanced)
      return factor.isNormal ? factor : 1
    }
    for row in 0..<rows {
      for column in 0..<columns {
        let place = row * columns + column
        numbers[place] = (numbers[place] - offsets[column]) / factors[column]
      }
    }
    return (factors, offsets)
  }

  /// Puts 0 in the places of the `count` numbers of largest magnitude of each row.
  fileprivate mutating func dropLargest(_ count: Int) {
    guard columns > 0 else { return }
    for row in 0..<numbers.count / columns {
      for _ in 0..<count {
        var (place, most) = (-1, Float(0))
        for index in row * columns..<(row + 1) * columns where numbers[index].magnitude > most {
          (place, most) = (index, numbers[index].magnitude)
        }
        if place >= 0 { numbers[place] = 0 }
      }
    }
  }
}
