import IR
import Tensors

/// A matrix product, a convolution or a transposed convolution whose weights and bias are recipes, in the form in which
/// factors and terms are folded into it: `sums[o] = bias[o] + sum over c of weight[o, c] x[c]`.
struct AffineLayer {
  /// The operator with its attributes.
  enum Operation {
    case product(MatMul)
    case convolution(Conv2D)
    case transposed(ConvTranspose2D)
  }

  var operation: Operation
  var input: ValueID
  var weight: ValueID
  var bias: ValueID?
  var residual: ValueID?
  /// The sizes of the weight.
  var sizes: [Int]

  /// The layer at a node; nil if it is none, or if weight or bias are no recipes.
  init?(_ id: NodeID, in graph: some RecipeLookup) {
    let node = graph[id]
    let bias: Int?
    var residual: Int?
    switch node.op {
    case let op as MatMul:
      guard graph.type(of: node.inputs[1]).rank == 2 else { return nil }
      operation = .product(op)
      bias = op.epilogue.biasIndex
      residual = op.epilogue.residualIndex
    case let op as Conv2D:
      operation = .convolution(op)
      bias = op.epilogue.biasIndex
      residual = op.epilogue.residualIndex
    case let op as ConvTranspose2D:
      operation = .transposed(op)
      bias = node.inputs.count == 3 ? 2 : nil
    default: return nil
    }
    guard graph.isRecipe(node.inputs[1]), !graph.isRecipe(node.inputs[0]),
      bias.map({ graph.isRecipe(node.inputs[$0]) }) ?? true,
      let sizes = graph.type(of: node.inputs[1]).shape.fixedSizes
    else { return nil }
    (input, weight) = (node.inputs[0], node.inputs[1])
    self.bias = bias.map { node.inputs[$0] }
    self.residual = residual.map { node.inputs[$0] }
    self.sizes = sizes
  }

  /// The groups that channels fall into, each of which sees its own input channels alone.
  var groups: Int {
    switch operation {
    case .product: 1
    case .convolution(let op): op.groups
    case .transposed(let op): op.groups
    }
  }

  /// The number of sums, before a gate halves them.
  var outputs: Int {
    switch operation {
    case .product(let op): op.transposeB ? sizes[0] : sizes[1]
    case .convolution: sizes[0]
    case .transposed(let op): sizes[1] * op.groups
    }
  }

  /// The number of input channels.
  var channels: Int {
    switch operation {
    case .product(let op): op.transposeB ? sizes[1] : sizes[0]
    case .convolution(let op): sizes[1] * op.groups
    case .transposed: sizes[0]
    }
  }

  /// The axes of the weight along which outputs and input channels run.
  var weightAxes: (outputs: Int, channels: Int) {
    switch operation {
    case .product(let op): op.transposeB ? (0, 1) : (1, 0)
    case .convolution: (0, 1)
    case .transposed: (1, 0)
    }
  }

  /// The axis along which channels run, in the input and in the result, for values of that rank.
  func channelAxis(rank: Int) -> Int {
    switch operation {
    case .product: rank - 1
    case .convolution(let op): op.layout == .first ? 1 : 3
    case .transposed: 1
    }
  }

  /// Whether the sums with their bias are the result.
  var hasPlainSums: Bool {
    switch operation {
    case .product(let op): op.epilogue.isAffine
    case .convolution(let op): op.epilogue.isAffine
    case .transposed: true
    }
  }

  /// Whether a number added to all of an input channel adds one number to all of an output channel: no zeros are put around
  /// the input, and every place of the result sees all taps.
  var takesTerms: Bool {
    switch operation {
    case .product: true
    case .convolution(let op): op.padding.allSatisfy { $0 == 0 }
    case .transposed(let op):
      sizes[2] == 1 && sizes[3] == 1 && op.strides == [1, 1] && (op.padding + op.extra).allSatisfy { $0 == 0 }
    }
  }
}

extension Rewriter {
  /// The layer at a node.
  func layer(at node: NodeID) -> AffineLayer? { AffineLayer(node, in: self) }

  /// The layer that computes `value`, if nothing else uses the value.
  func layer(_ value: ValueID) -> AffineLayer? {
    guard useCount(of: value) == 1 else { return nil }
    return definingNode(of: value).flatMap { layer(at: $0) }
  }

  /// The layer on other operands.
  mutating func emit(_ layer: AffineLayer) throws -> ValueID {
    let residual = layer.residual.map { [$0] } ?? []
    let inputs = [layer.input, layer.weight] + (layer.bias.map { [$0] } ?? [])
    switch layer.operation {
    case .product(var op):
      op.epilogue.bias = layer.bias != nil
      return try emit(op, inputs + residual)
    case .convolution(var op):
      op.epilogue.bias = layer.bias != nil
      return try emit(op, inputs + residual)
    case .transposed(let op): return try emit(op, inputs)
    }
  }

  /// The layer whose sums are those of `layer` times `factor[outputs]`, plus `term[outputs]`; both are in f32.
  mutating func scalingSums(of layer: AffineLayer, by factor: ValueID?, adding term: ValueID?) throws -> AffineLayer {
    var result = layer
    if let factor {
      let laidOut: ValueID
      switch layer.operation {
      case .product(let op): laidOut = op.transposeB ? try emit(Reshape([.fixed(layer.outputs), 1]), factor) : factor
      case .convolution: laidOut = try emit(Reshape([.fixed(layer.outputs), 1, 1, 1]), factor)
      case .transposed(let op):
        laidOut = try spread(factor, groups: op.groups, rows: layer.sizes[0] / op.groups, columns: layer.sizes[1])
      }
      result.weight = try emit(Multiply(), widened(layer.weight), laidOut)
      result.bias = try layer.bias.map { try emit(Multiply(), widened($0), factor) }
    }
    if let term { result.bias = try bias(result.bias, plus: term) }
    return result
  }

  /// The layer that does to `x` what `layer` does to `x * factor + term`, with `factor[channels]` and `term[channels]` in f32;
  /// its input is still that of `layer`.
  mutating func scalingChannels(of layer: AffineLayer, by factor: ValueID?, adding term: ValueID?) throws -> AffineLayer
  {
    var result = layer
    if let factor { result.weight = try timesChannels(layer, factor) }
    if let term { result.bias = try bias(layer.bias, plus: try sumOverChannels(layer, timesChannels(layer, term))) }
    return result
  }

  /// The bias of the layer that does to `x` what `layer` does to `x + term`, with `term[channels]`; nil for none.
  mutating func bias(of layer: AffineLayer, behind term: ValueID?) throws -> ValueID? {
    guard let term else { return layer.bias }
    return try scalingChannels(of: layer, by: nil, adding: widened(term)).bias
  }

  /// The layer that does to `x` what `layer` does to `x` less the mean of its channels; its input is still that of `layer`.
  mutating func centringChannels(of layer: AffineLayer) throws -> AffineLayer {
    var result = layer
    result.weight = try centred(layer.weight, axis: layer.weightAxes.channels)
    return result
  }

  /// The layer whose sums are those of `layer` less their mean over all outputs, for a layer of one group.
  mutating func centringSums(of layer: AffineLayer) throws -> AffineLayer {
    var result = layer
    result.weight = try centred(layer.weight, axis: layer.weightAxes.outputs)
    result.bias = try layer.bias.map { try centred($0, axis: 0) }
    return result
  }

  /// A recipe less its mean along one axis, in f32.
  mutating func centred(_ recipe: ValueID, axis: Int) throws -> ValueID {
    let wide = try widened(recipe)
    return try emit(Subtract(), wide, try emit(Reduce(.mean, axes: [axis], keepDims: true), wide))
  }

  /// The weight with every number times that of its input channel.
  private mutating func timesChannels(_ layer: AffineLayer, _ vector: ValueID) throws -> ValueID {
    let laidOut: ValueID
    switch layer.operation {
    case .product(let op): laidOut = op.transposeB ? vector : try emit(Reshape([.fixed(layer.channels), 1]), vector)
    case .convolution(let op):
      laidOut = try spread(vector, groups: op.groups, rows: layer.sizes[0] / op.groups, columns: layer.sizes[1])
    case .transposed: laidOut = try emit(Reshape([.fixed(layer.channels), 1, 1, 1]), vector)
    }
    return try emit(Multiply(), widened(layer.weight), laidOut)
  }

  /// The sums of such a product over input channels and taps, one for each output.
  private mutating func sumOverChannels(_ layer: AffineLayer, _ product: ValueID) throws -> ValueID {
    switch layer.operation {
    case .product(let op): return try emit(Reduce(.sum, axes: [op.transposeB ? 1 : 0]), product)
    case .convolution: return try emit(Reduce(.sum, axes: [1, 2, 3]), product)
    case .transposed(let op):
      let groups: [Dim] = [.fixed(op.groups), .fixed(layer.sizes[0] / op.groups), .fixed(layer.sizes[1])]
      let sums = try emit(Reduce(.sum, axes: [1]), try emit(Reshape(groups), product))
      return try emit(Reshape([.fixed(layer.outputs)]), sums)
    }
  }

  /// A vector over `groups * columns` channels laid out along the first two axes of a weight `[groups * rows, columns, 1, 1]`.
  private mutating func spread(_ vector: ValueID, groups: Int, rows: Int, columns: Int) throws -> ValueID {
    if groups == 1 { return try emit(Reshape([1, .fixed(columns), 1, 1]), vector) }
    let shape: [Dim] = [.fixed(groups * rows), .fixed(columns), 1, 1]
    if rows == 1 { return try emit(Reshape(shape), vector) }
    let grouped = try emit(Reshape([.fixed(groups), 1, .fixed(columns)]), vector)
    return try emit(Reshape(shape), try emit(Expand([.fixed(groups), .fixed(rows), .fixed(columns)]), grouped))
  }
}

extension RecipeLookup {
  /// Why a weight should not be multiplied by something; nil if that costs neither bytes nor precision. With `force` only
  /// what would store the weight twice counts.
  func obstacle(toChanging weight: ValueID, force: Bool = false) -> String? {
    if !isUsedOnce(weight) { return "the weight has other users, so that it would be stored twice" }
    if force { return nil }
    if type(of: weight).element != .f32 {
      return "the weight is stored in \(type(of: weight).element.rawValue), so that it would be rounded or widened"
    }
    if case .block = storedEncoding(of: weight) { return "the weight is stored in codes" }
    return nil
  }
}
