import IR
import Tensors

/// Changes to a model that leave its function as it is, so that a pass can be shown to find exactly what was planted.
///
/// Each works on the first function and returns how many places it found. Weights become recipes; nothing is read.
package enum PlantedStructure {
  /// Multiplies channels of norms by `factor`, and the columns of the weights behind by its reciprocal: outliers among the
  /// activations. A power of two changes no bit. The norms are those that products alone read.
  package static func outlierChannels(_ model: inout Model, channels: [Int], factor: Float) throws -> Int {
    try edit(&model) { planter in
      var places = 0
      for id in planter.graph.topologicalOrder() {
        let node = planter.graph[id]
        guard node.op is RMSNorm || node.op is LayerNorm, let count = planter.sizes(node.inputs[1])?.first,
          planter.sizes(node.inputs[1])?.count == 1
        else { continue }
        let users = planter.graph.users(of: node.results[0])
        let isRead = users.allSatisfy { user in
          let reader = planter.graph[user]
          return (reader.op as? MatMul)?.transposeB == true && reader.inputs[0] == node.results[0]
            && reader.inputs.count { $0 == node.results[0] } == 1
        }
        guard isRead, users.count == planter.graph[node.results[0]].uses.count else { continue }
        func vector(_ factor: Float) -> ValueID {
          var values = [Float](repeating: 1, count: count)
          for channel in channels where channel < count { values[channel] = factor }
          return planter.constant(.inline("planted", .f32, [count], values))
        }
        for index in 1..<node.inputs.count {
          planter.graph.setInput(index, of: id, to: try planter.emit(Multiply(), node.inputs[index], vector(factor)))
        }
        for user in users {
          let weight = planter.graph[user].inputs[1]
          planter.graph.setInput(1, of: user, to: try planter.emit(Multiply(), weight, vector(1 / factor)))
        }
        places += 1
      }
      return places
    }
  }

  /// Splits hidden units: each gets a twin behind all others with the same weights, and both have half of what the next layer
  /// read of it. Layers are pairs of products or of convolutions in one group.
  package static func splitUnits(_ model: inout Model, units: [Int]) throws -> Int {
    try edit(&model) { planter in
      var places = 0
      for (reader, writer, count, width) in planter.hiddenLayers() {
        let inside = units.filter { $0 < count }
        var halves = [Float](repeating: 1, count: count)
        for unit in inside { halves[unit] = 0.5 }
        let (rows, columns) = (planter.graph[writer].inputs[1], planter.graph[reader].inputs[1])
        let rank = planter.graph.type(of: columns).rank
        let shape = [1, count] + [Int](repeating: 1, count: rank - 2)
        let scaled = try planter.emit(Multiply(), columns, planter.constant(.inline("halves", .f32, shape, halves)))
        try planter.extend(writer, input: 1, of: rows, units: inside, width: width, axis: 0)
        if planter.biasIndex(of: writer) != nil {
          try planter.extend(
            writer, input: 2, of: planter.graph[writer].inputs[2], units: inside, width: width, axis: 0)
        }
        try planter.extend(reader, input: 1, of: scaled, units: inside, width: 1, axis: 1)
        try planter.infer(from: writer)
        places += inside.count
      }
      return places
    }
  }

  /// Adds hidden units with weights of their own that the next layer does not read.
  package static func unreadUnits(_ model: inout Model, count added: Int, seed: UInt64) throws -> Int {
    try edit(&model) { planter in
      var places = 0
      for (reader, writer, _, width) in planter.hiddenLayers() {
        func extend(_ node: NodeID, _ input: Int, axis: Int, by size: Int, _ source: ConstantSource) throws {
          let old = planter.graph[node].inputs[input]
          var type = planter.graph.type(of: old)
          type.shape[axis] = .fixed(size)
          let more = planter.constant(Constant(name: "unread", type: type, source: source))
          planter.graph.setInput(input, of: node, to: try planter.emit(Concat(axis: axis), old, more))
        }
        let numbers = ConstantSource.random(seed: seed &+ UInt64(places), deviation: 0.1)
        try extend(writer, 1, axis: 0, by: width * added, numbers)
        if planter.biasIndex(of: writer) != nil { try extend(writer, 2, axis: 0, by: width * added, numbers) }
        try extend(reader, 1, axis: 1, by: added, .splat(0.0))
        try planter.infer(from: writer)
        places += added
      }
      return places
    }
  }

  /// Adds pairs of hidden units with equal weights of their own, of which the next layer reads the first with some numbers of
  /// about `magnitude` and the second with their opposites: an expert whose huge contributions cancel.
  package static func cancelledExperts(_ model: inout Model, pairs: Int, magnitude: Double, seed: UInt64) throws -> Int
  {
    try edit(&model) { planter in
      var places = 0
      for (reader, writer, _, width) in planter.hiddenLayers() {
        func append(_ node: NodeID, _ input: Int, axis: Int, size: Int, _ deviation: Double, opposite: Bool) throws {
          let old = planter.graph[node].inputs[input]
          var type = planter.graph.type(of: old)
          type.shape[axis] = .fixed(size)
          let own = planter.constant(
            Constant(
              name: "expert", type: type, source: .random(seed: seed &+ UInt64(places), deviation: deviation)))
          let twin = try opposite ? planter.emit(Negate(), own) : own
          planter.graph.setInput(
            input, of: node,
            to: try planter.emit(Concat(axis: axis), planter.emit(Concat(axis: axis), old, own), twin))
        }
        try append(writer, 1, axis: 0, size: width * pairs, 0.5, opposite: false)
        if planter.biasIndex(of: writer) != nil {
          try append(writer, 2, axis: 0, size: width * pairs, 0.5, opposite: false)
        }
        try append(reader, 1, axis: 1, size: pairs, magnitude, opposite: true)
        try planter.infer(from: writer)
        places += 2 * pairs
      }
      return places
    }
  }

  /// Multiplies hidden units by powers of two, up and down in turn, and what the next layer reads of them by the reciprocals,
  /// and gives each a twin that is as large as it was: units that depend linearly on others. Layers are those whose
  /// activation keeps a positive factor.
  package static func scaledTwins(_ model: inout Model, units: [Int]) throws -> Int {
    try edit(&model) { planter in
      var places = 0
      for (reader, writer, count, width) in planter.hiddenLayers() where width == 1 {
        guard planter.keepsFactors(writer) else { continue }
        let inside = units.filter { $0 < count }
        func vector(_ factor: (Int) -> Float, _ shape: [Int]) -> ValueID {
          let values = (0..<count).map { unit in inside.firstIndex(of: unit).map(factor) ?? 1 }
          return planter.constant(.inline("planted", .f32, shape, values))
        }
        let scale: (Int) -> Float = { $0 % 2 == 0 ? 4 : 0.125 }
        let columns = planter.graph[reader].inputs[1]
        let rank = planter.graph.type(of: columns).rank
        let ones = [Int](repeating: 1, count: rank - 2)
        // Twins read the old rows and have half of the old columns.
        let rows = planter.graph[writer].inputs
        let halves = try planter.emit(Multiply(), columns, vector({ _ in 0.5 }, [1, count] + ones))
        let rest = try planter.emit(Multiply(), columns, vector({ 0.5 / scale($0) }, [1, count] + ones))
        planter.graph.setInput(
          1, of: writer, to: try planter.emit(Multiply(), rows[1], vector(scale, [count, 1] + ones)))
        try planter.extend(
          writer, input: 1, of: planter.graph[writer].inputs[1], from: rows[1], units: inside, width: 1, axis: 0)
        if planter.biasIndex(of: writer) != nil {
          let scaled = try planter.emit(Multiply(), rows[2], vector(scale, [count]))
          try planter.extend(writer, input: 2, of: scaled, from: rows[2], units: inside, width: 1, axis: 0)
        }
        try planter.extend(reader, input: 1, of: rest, from: halves, units: inside, width: 1, axis: 1)
        try planter.infer(from: writer)
        places += inside.count
      }
      return places
    }
  }

  /// Puts a sublayer of two products and an activation that adds nothing before each norm.
  package static func idleSublayers(_ model: inout Model, width: Int, seed: UInt64) throws -> Int {
    try edit(&model) { planter in
      var places = 0
      for id in planter.graph.topologicalOrder() {
        let node = planter.graph[id]
        guard node.op is RMSNorm || node.op is LayerNorm, case let x = node.inputs[0],
          let channels = planter.graph.type(of: x).shape.last.fixedValue, planter.graph.type(of: x).rank >= 2
        else { continue }
        let up = planter.constant(
          Constant(
            name: "up", type: TensorType(.f32, [width, channels]),
            source: .random(seed: seed &+ UInt64(places), deviation: 0.1)))
        let down = planter.constant(
          Constant(name: "down", type: TensorType(.f32, [channels, width]), source: .splat(0.0)))
        let hidden = try planter.emit(MatMul(transposeB: true, epilogue: Epilogue(activation: .relu)), x, up)
        let sum = try planter.emit(
          MatMul(transposeB: true, epilogue: Epilogue(residual: .afterActivation)), hidden, down, x)
        planter.graph.setInput(0, of: id, to: sum)
        places += 1
      }
      return places
    }
  }

  /// Takes convolutions apart into branches as they are trained: the window, a point and, where the sizes allow, the image,
  /// each with a normalization.
  package static func repConvBranches(_ model: inout Model, seed: UInt64) throws -> Int {
    try edit(&model) { planter in
      var places = 0
      for id in planter.graph.topologicalOrder() {
        let node = planter.graph[id]
        guard let conv = node.op as? Conv2D, conv.layout == .first, conv.epilogue.activation == .none,
          conv.epilogue.residual == .none, let sizes = planter.sizes(node.inputs[1]),
          (2..<4).allSatisfy({ axis in
            let reach = conv.dilations[axis - 2] * (sizes[axis] - 1)
            return sizes[axis] > 1 && reach % 2 == 0 && conv.padding[axis - 2] == reach / 2
              && conv.padding[axis] == reach / 2
          })
        else { continue }
        try planter.takeApart(id, conv, sizes, seed: seed &+ UInt64(places))
        places += 1
      }
      return places
    }
  }

  private static func edit(_ model: inout Model, _ body: (inout Planter) throws -> Int) throws -> Int {
    var planter = Planter(graph: model.functions[0], constants: model.constants)
    let places = try body(&planter)
    model.functions[0] = planter.graph
    model.constants = planter.constants
    model.compact()
    try Verifier.verify(model)
    return places
  }
}

/// A graph that is changed in place.
private struct Planter {
  var graph: Graph
  var constants: ConstantTable

  mutating func emit(_ op: any Operator, _ inputs: ValueID...) throws -> ValueID {
    let node = try graph.addNode(op, inputs)
    return graph[node].results[0]
  }

  mutating func constant(_ constant: Constant) -> ValueID {
    graph.addConstant(constants.insert(constant), constant.name, constant.type)
  }

  /// The sizes of an f32 recipe.
  func sizes(_ value: ValueID) -> [Int]? {
    guard graph.type(of: value).element == .f32, ConstantEvaluator.isRecipe(value, in: graph) else { return nil }
    return graph.type(of: value).shape.fixedSizes
  }

  func biasIndex(of node: NodeID) -> Int? {
    (graph[node].op as? MatMul)?.epilogue.biasIndex ?? (graph[node].op as? Conv2D)?.epilogue.biasIndex
  }

  /// Pairs of products or convolutions of which the second alone reads the first: both nodes, the number of units, and the
  /// rows of each.
  func hiddenLayers() -> [(reader: NodeID, writer: NodeID, count: Int, width: Int)] {
    graph.topologicalOrder().compactMap { reader in
      let node = graph[reader]
      guard node.op is MatMul || node.op is Conv2D, let writer = graph.definingNode(of: node.inputs[0]),
        graph[node.inputs[0]].uses.count == 1, let columns = sizes(node.inputs[1]),
        let rows = sizes(graph[writer].inputs.count > 1 ? graph[writer].inputs[1] : node.inputs[0])
      else { return nil }
      switch (node.op, graph[writer].op) {
      case (let second as MatMul, let first as MatMul):
        guard first.transposeB, second.transposeB, columns.count == 2, first.epilogue.residual == .none else {
          return nil
        }
        return (reader, writer, columns[1], rows[0] / columns[1])
      case (let second as Conv2D, let first as Conv2D):
        guard first.groups == 1, second.groups == 1, first.layout == .first, first.epilogue.residual == .none else {
          return nil
        }
        return (reader, writer, columns[1], 1)
      default: return nil
      }
    }
  }

  /// Whether a positive factor of a unit of the layer is one of what the next layer reads.
  func keepsFactors(_ layer: NodeID) -> Bool {
    let activation =
      (graph[layer].op as? MatMul)?.epilogue.activation ?? (graph[layer].op as? Conv2D)?.epilogue.activation
    return activation == .relu || activation == Activation.none
  }

  /// Gives a node `recipe` with some units once more at the end: its own, or those of `source`.
  mutating func extend(
    _ node: NodeID, input: Int, of recipe: ValueID, from source: ValueID? = nil, units: [Int], width: Int, axis: Int
  ) throws {
    var parts = [recipe]
    for unit in units {
      parts.append(
        try emit(Slice(axis: axis, start: .fixed(unit * width), size: .fixed(width)), source ?? recipe))
    }
    let concat = try graph.addNode(Concat(axis: axis), parts)
    graph.setInput(input, of: node, to: graph[concat].results[0])
  }

  /// Stores the type that the result of a node has by now.
  mutating func infer(from node: NodeID) throws {
    let types = try graph[node].op.inferTypes(graph[node].inputs.map { graph.type(of: $0) })
    for (result, type) in zip(graph[node].results, types) { graph.setType(type, of: result) }
  }

  /// A normalization that changes nothing: `(x - m) * 1 + m`.
  mutating func normalized(_ x: ValueID, channels: Int) throws -> ValueID {
    func splat(_ number: Double, _ name: String) -> Constant {
      Constant(name: name, type: TensorType(.f32, [channels]), source: .splat(number))
    }
    return try emit(
      BatchNorm(epsilon: 0), x, constant(splat(0.5, "scale")), constant(splat(0.75, "bias")),
      constant(splat(0.75, "mean")), constant(splat(0.25, "variance")))
  }

  /// conv2d(x, w, b) -> norm(conv2d(x, w - pad(p) - diagonal(1), b)) + norm(conv2d(x, p)) + norm(x)
  mutating func takeApart(_ id: NodeID, _ conv: Conv2D, _ sizes: [Int], seed: UInt64) throws {
    let inputs = graph[id].inputs
    let (outputs, perGroup) = (sizes[0], sizes[1])
    let before = [0, 0, (sizes[2] - 1) / 2, (sizes[3] - 1) / 2]
    let after = [0, 0, sizes[2] - 1 - before[2], sizes[3] - 1 - before[3]]
    let point = constant(
      Constant(
        name: "point", type: TensorType(.f32, [outputs, perGroup, 1, 1]), source: .random(seed: seed, deviation: 0.1)))
    var taken = point
    let hasImage = conv.strides == [1, 1] && outputs == perGroup * conv.groups && perGroup <= 64
    if hasImage {
      let rows: [Float] = (0..<perGroup).flatMap { row in (0..<perGroup).map { $0 == row ? 1 : 0 } }
      let eye = constant(.inline("eye", .f32, [1, perGroup, perGroup], rows))
      let stacked = try emit(Expand([.fixed(conv.groups), .fixed(perGroup), .fixed(perGroup)]), eye)
      taken = try emit(
        Add(), point, try emit(Reshape([.fixed(outputs), .fixed(perGroup), 1, 1]), stacked))
    }
    let rest = try emit(Subtract(), inputs[1], try emit(Pad(before: before, after: after), taken))
    var window = inputs
    window[1] = rest
    let branch = try graph.addNode(conv, window)
    var sum = try normalized(graph[branch].results[0], channels: outputs)
    let small = Conv2D(strides: conv.strides, groups: conv.groups)
    sum = try emit(Add(), sum, normalized(try emit(small, inputs[0], point), channels: outputs))
    if hasImage { sum = try emit(Add(), normalized(inputs[0], channels: outputs), sum) }
    let old = graph[id].results[0]
    graph.replaceUses(of: old, with: sum)
    graph.erase(id)
  }
}
