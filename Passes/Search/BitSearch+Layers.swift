import Base
import IR
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension BitSearch {
  /// Rows of a weight whose errors stand for all, and the least of an expert.
  private static let rows = 256
  private static let expertRows = 16

  /// Some rows of a weight with the sums over their inputs; nil for equal ones.
  private struct Part {
    var rows: Range<Int>
    var gram: [Double]?
  }

  /// Whether the score asks for how far blocks turn their inputs, and for the entropy of inputs.
  private var wantsTurn: Bool {
    if case .proxy(let expression) = options.score { return expression.names("turn") }
    return options.score == .lim
  }

  private var wantsEntropy: Bool {
    if case .proxy(let expression) = options.score { return expression.names("entropy") }
    return options.score == .entropy
  }

  /// Walks through the graph and fills in what is known of the layers; without samples what the weights say.
  mutating func measureLayers(_ progress: Progress?) throws {
    let graph = model.functions[0]
    guard !samples.isEmpty else {
      let constants = ConstantEvaluator(model, graph)
      for index in layers.indices { try measure(index, nil) { try constants.tensor($0) } }
      return
    }
    var walk = try SampleWalk(model, graph, samples)
    var users: [NodeID: Int] = [:]
    for (index, weight) in weights.enumerated() {
      for user in graph.users(of: weight) where graph[user].op is MatMul || graph[user].op is ExpertMatMul {
        users[user] = index
      }
    }
    let products = Set(users.values)
    for index in layers.indices where !products.contains(index) { try measure(index, nil) { try walk.recipe($0) } }
    var places = Dictionary(graph.inputs.map { ($0, -1) }, uniquingKeysWith: { first, _ in first })
    for (place, node) in walk.order.enumerated() {
      for result in graph[node].results { places[result] = place }
    }
    var done: Set<Int> = [], open: [Int] = []
    while let id = walk.next {
      progress?.update("measuring layers", done: walk.step, of: walk.order.count)
      if let index = users[id], done.insert(index).inserted {
        try measureProduct(index, id, walk)
        open.append(index)
      }
      if done.count == products.count, open.isEmpty || !wantsTurn { break }
      func numbers(_ value: ValueID) throws -> [[Float]] {
        try (0..<walk.count).map { try walk.tensor(value, of: $0).numbers() }
      }
      let ends = wantsTurn && !open.isEmpty ? Self.sum(at: id, in: graph, places) : nil
      let before = try ends.map { try numbers($0.residual) }
      var after = try ends?.added.map { try numbers($0) }
      if let before, let added = after { after = zip(before, added).map { zip($0, $1).map { $0 + $1 } } }
      try walk.advance()
      guard let before, let result = graph[id].results.first else { continue }
      // Outputs that nothing reads are gone.
      if after == nil, !graph.users(of: result).isEmpty { after = try numbers(result) }
      guard let after else { continue }
      let turn = Self.turn(before, after, columns: graph.type(of: result).shape.maximumSizes.last ?? 1)
      for index in open { layers[index].turn = turn }
      open = []
    }
  }

  /// The residual that a node adds something to, with what it adds where that is a value of its own: an epilogue, or a
  /// sum of two values that do not depend on constants alone, of which the earlier one is the residual.
  private static func sum(
    at id: NodeID, in graph: Graph, _ places: [ValueID: Int]
  ) -> (residual: ValueID, added: ValueID?)? {
    let node = graph[id]
    if let op = node.op as? MatMul { return op.epilogue.residualIndex.map { (node.inputs[$0], nil) } }
    guard node.op is Add, node.inputs.count == 2,
      graph.type(of: node.inputs[0]).shape == graph.type(of: node.inputs[1]).shape,
      let a = places[node.inputs[0]], let b = places[node.inputs[1]]
    else { return nil }
    return a < b ? (node.inputs[0], node.inputs[1]) : (node.inputs[1], node.inputs[0])
  }

  /// One less the mean cosine of rows of numbers.
  private static func turn(_ before: [[Float]], _ after: [[Float]], columns: Int) -> Double {
    var sum = 0.0, count = 0.0
    for (x, y) in zip(before, after) {
      guard columns > 0, x.count == y.count, x.count % columns == 0 else { continue }
      for start in stride(from: 0, to: x.count, by: columns) {
        var product = 0.0, left = 0.0, right = 0.0
        for place in start..<start + columns {
          let (a, b) = (Double(x[place]), Double(y[place]))
          product += a * b
          left += a * a
          right += b * b
        }
        guard left > 0, right > 0 else { continue }
        sum += product / (left * right).squareRoot()
        count += 1
      }
    }
    return count > 0 ? 1 - sum / count : 0
  }

  /// Measures the weight of a product with what its inputs are.
  private mutating func measureProduct(_ index: Int, _ id: NodeID, _ walk: SampleWalk) throws {
    let graph = model.functions[0]
    let columns = layers[index].columns
    let rows = try walk.rows(of: graph[id].inputs[0], columns: columns)
    if wantsEntropy {
      layers[index].entropy = Self.entropy(
        rows.map { UnsafeBufferPointer(start: $0.numbers, count: $0.rows * columns) })
    }
    guard graph[id].op is ExpertMatMul else {
      let gram = ProductSums.gram(rows, columns: columns)
      return try measure(index, [Part(rows: 0..<layers[index].rows, gram: gram)]) { try walk.recipe($0) }
    }
    // Each expert with the rows that are routed to it, times what they count in the sum.
    let sizes = graph.type(of: graph[id].inputs[1]).shape.maximumSizes
    let experts = sizes[0], height = layers[index].rows / max(1, experts)
    var routed = [[SampleRows]](repeating: [], count: experts)
    var slots = 1
    for (sample, rows) in rows.enumerated() {
      let ids = try walk.tensor(graph[id].inputs[2], of: sample)
      slots = ids.view.sizes.last ?? 1
      let numbers = ids.array(of: Int32.self)
      let weights = graph[id].inputs.count > 3 ? try walk.tensor(graph[id].inputs[3], of: sample).numbers() : nil
      let each = rows.rows > 0 ? max(1, numbers.count / rows.rows) : 1
      for expert in 0..<experts {
        let places = numbers.indices.filter { numbers[$0] == expert }
        routed[expert].append(Self.gathered(rows, places.map { ($0 / each, weights?[$0] ?? 1) }, columns))
      }
    }
    layers[index].usage = min(1, Double(slots) / Double(max(1, experts)))
    let parts = (0..<experts).map { expert in
      Part(
        rows: expert * height..<(expert + 1) * height, gram: ProductSums.gram(routed[expert], columns: columns))
    }
    try measure(index, parts) { try walk.recipe($0) }
  }

  /// Some rows of a sample times numbers.
  private static func gathered(_ rows: SampleRows, _ places: [(row: Int, weight: Float)], _ columns: Int) -> SampleRows
  {
    let tensor = Tensor(TensorType(.f32, [max(places.count, 1), max(columns, 1)]))
    guard let target = tensor.mutableView.elements(as: Float.self).baseAddress else {
      preconditionFailure("a tensor of a number or more has an address")
    }
    for (index, place) in places.enumerated() {
      for column in 0..<columns {
        target[index * columns + column] = rows.numbers[place.row * columns + column] * place.weight
      }
    }
    return SampleRows(target, rows: places.count, owner: tensor)
  }

  /// Fills in what is known of a layer: errors of some rows of each part, for all of them. Without parts all inputs
  /// count alike.
  private mutating func measure(_ index: Int, _ parts: [Part]?, _ tensor: (ValueID) throws -> Tensor) throws {
    var layer = layers[index]
    let columns = layer.columns
    let tensor = try tensor(weights[index]).floats()
    let numbers = tensor.view.elements(as: Float.self)
    // The rows of a weight that is not stored by output column are its columns.
    let (across, along) = tensor.view.sizes.last == columns ? (columns, 1) : (1, layer.rows)
    let all = parts ?? [Part(rows: 0..<layer.rows, gram: nil)]
    let most = max(Self.expertRows, Self.rows / max(1, all.count))
    layer.roundings = options.formats.map { spec in
      let format = spec.weightFormat ?? .w8c
      return .init(bytes: layer.rows * format.rowBytes(columns: columns), error: 0, squares: 0)
    }
    (layer.energy, layer.norm, layer.trace) = (0, 0, parts == nil ? 1 : 0)
    var picked: [Float] = []
    for part in all where !part.rows.isEmpty {
      let rows = Self.spread(part.rows.count, most).map { part.rows.lowerBound + $0 }
      var own = [Float](repeating: 0, count: rows.count * columns)
      for (place, row) in rows.enumerated() {
        for column in 0..<columns { own[place * columns + column] = numbers[row * across + column * along] }
      }
      let hessian = part.gram?.map { Float($0) }
      let share = Double(part.rows.count) / Double(rows.count)
      if let hessian {
        layer.trace += (0..<columns).reduce(0.0) { $0 + Double(hessian[$1 * columns + $1]) } / Double(max(1, columns))
      }
      layer.energy += share * Self.form(own, hessian, columns)
      layer.norm += share * Self.form(own, nil, columns)
      for (option, spec) in options.formats.enumerated() {
        let changes = try Self.changes(own, spec, columns)
        let squares = share * Self.form(changes, nil, columns)
        layer.roundings[option].squares += squares
        layer.roundings[option].error += hessian == nil ? squares : share * Self.form(changes, hessian, columns)
      }
      picked += own
    }
    Self.describe(&layer, picked)
    if parts == nil, wantsEntropy { layer.entropy = picked.withUnsafeBufferPointer { Self.entropy([$0]) } }
    layers[index] = layer
  }

  /// What rounding to nearest changes in rows of a weight.
  private static func changes(_ rows: [Float], _ spec: QuantizationSpec, _ columns: Int) throws -> [Float] {
    var format = spec.weightFormat ?? .w8c
    if spec.weights.isFitted {
      format = try rows.withUnsafeBufferPointer { try format.fitted(to: $0, columns: columns) }
    }
    var codes = [UInt8](repeating: 0, count: rows.count / max(1, columns) * format.rowBytes(columns: columns))
    var back = [Float](repeating: 0, count: rows.count)
    rows.withUnsafeBufferPointer { source in
      codes.withUnsafeMutableBytes { format.quantize(source, columns: columns, into: $0) }
    }
    codes.withUnsafeBytes { source in
      back.withUnsafeMutableBufferPointer { format.dequantize(source, columns: columns, into: $0) }
    }
    for place in back.indices { back[place] = rows[place] - back[place] }
    return back
  }

  /// `tr(D H D^T)`; without `H` the sum of squares.
  private static func form(_ d: [Float], _ hessian: [Float]?, _ columns: Int) -> Double {
    guard let hessian else { return d.reduce(0) { $0 + Double($1) * Double($1) } }
    let rows = d.count / max(1, columns)
    var product = [Float](repeating: 0, count: d.count)
    d.withUnsafeBufferPointer { d in
      hessian.withUnsafeBufferPointer { hessian in
        product.withUnsafeMutableBufferPointer { product in
          if let a = d.baseAddress, let b = hessian.baseAddress, let c = product.baseAddress {
            MatrixProduct(rows: rows, columns: columns, depth: columns)(a, b, into: c)
          }
        }
      }
    }
    return zip(d, product).reduce(0) { $0 + Double($1.0) * Double($1.1) }
  }

  /// Fills in how the numbers of a weight are distributed.
  private static func describe(_ layer: inout LayerStatistics, _ numbers: [Float]) {
    guard let least = numbers.min(), let most = numbers.max() else { return }
    let count = Double(numbers.count)
    let mean = numbers.reduce(0.0) { $0 + Double($1) } / count
    let variance = numbers.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / count
    layer.deviation = variance.squareRoot()
    layer.range = Double(most) - Double(least)
    let bound = mean + layer.deviation
    layer.outliers = Double(numbers.count { Double($0) > bound }) / count
  }

  /// The entropy in bits of the distribution of numbers over 256 equal steps of their range; 0 where all are equal.
  static func entropy(_ parts: [UnsafeBufferPointer<Float>]) -> Double {
    let steps = 256
    var least = Float.infinity, most = -Float.infinity
    for part in parts {
      for number in part where number.isFinite { (least, most) = (min(least, number), max(most, number)) }
    }
    guard most > least else { return 0 }
    var counts = [Int](repeating: 0, count: steps)
    // In f64, where no difference of two numbers is infinite.
    let factor = Double(steps) / (Double(most) - Double(least))
    for part in parts {
      for number in part where number.isFinite {
        counts[min(steps - 1, Int((Double(number) - Double(least)) * factor))] += 1
      }
    }
    let all = Double(counts.reduce(0, +))
    return counts.reduce(0.0) { sum, count in
      guard count > 0 else { return sum }
      let share = Double(count) / all
      return sum - share * log2(share)
    }
  }

  /// At most `count` numbers below `all`, spread evenly.
  private static func spread(_ all: Int, _ count: Int) -> [Int] {
    all <= count ? Array(0..<all) : (0..<count).map { $0 * all / count }
  }
}
