import Base
import IR
import Tensors

/// Puts the images and rows between convolutions and linear layers into bytes with one scale per tensor, from measured ranges,
/// and their weights into 8 bits with one scale per output channel.
///
///     %y = conv2d(%x, %w, %b) {...}
///     // -> %q = quantize_linear(%x) {code = ...}           once for all users of %x
///     //    %d = dequantize_linear(%q) {code = ...}
///     //    %c = quantize(reshape(%w)) {format = q8f32row}
///     //    %v = reshape(dequantize(%c))
///     //    %y = conv2d(%d, %v, %b) {...}
///
/// Values that operators hand on unchanged (pooling by maxima, concatenation, changes of shape) share one code with what they
/// came from, so that nothing is rounded twice. The residual of a convolution becomes bytes, that of a linear layer stays f32:
/// streams that many layers add to need more than 8 bits. Everything else (softmax, norms, functions) stays as it is, and so do
/// layers whose input was not measured. ``FuseQuantized`` makes operators on bytes of the result.
struct StaticQuantization {
  private let options: QuantizeWeights
  private(set) var graph: Graph
  private let constants: ConstantTable
  private let calibration: Calibration
  private let recipes: RecipeSet
  /// Layers that are quantized, and that could be but are not.
  private(set) var quantized = 0
  private(set) var kept = 0
  /// Values that become bytes.
  private(set) var values = 0

  init(_ options: QuantizeWeights, _ graph: Graph, _ constants: ConstantTable, _ calibration: Calibration) {
    self.options = options
    self.graph = graph
    self.constants = constants
    self.calibration = calibration
    recipes = RecipeSet(graph)
  }

  mutating func run() throws {
    var classes = ValueClasses(graph)
    let order = graph.topologicalOrder()
    for id in order where Self.handsOn(graph[id].op) {
      let ends = (graph[id].inputs + graph[id].results).filter { !recipes.contains($0) && isNumber($0) }
      for (a, b) in zip(ends, ends.dropFirst()) { classes.join(a, b) }
    }
    var ranges: [ValueID: ClosedRange<Float>] = [:]
    for value in graph.valueIDs {
      guard let range = calibration[graph.name, graph[value].name]?.range else { continue }
      let root = classes.root(of: value)
      ranges[root] =
        ranges[root].map { min($0.lowerBound, range.lowerBound)...max($0.upperBound, range.upperBound) } ?? range
    }
    var needed: Set<ValueID> = []
    var layers: [NodeID] = []
    for id in order {
      guard isLayer(id) else { continue }
      let roots = byteOperands(of: id).map { classes.root(of: $0) }
      guard roots.allSatisfy({ ranges[$0] != nil }), options.isChosen(graph[id].inputs[1], id, in: graph, constants)
      else {
        kept += 1
        continue
      }
      needed.formUnion(roots)
      layers.append(id)
    }
    for value in graph.valueIDs where isNumber(value) && !recipes.contains(value) {
      let root = classes.root(of: value)
      guard needed.contains(root), let range = ranges[root] else { continue }
      let node = graph.definingNode(of: value)
      if let node, Self.handsOn(graph[node].op) { continue }
      try round(value, AffineCode(covering: range))
    }
    for id in layers { try quantizeWeight(of: id) }
    _ = graph.eraseDeadCode()
  }

  // MARK: Choosing

  private func isNumber(_ value: ValueID) -> Bool {
    let type = graph.type(of: value)
    return type.isDense && type.element == .f32
  }

  /// Whether the results of an operator are numbers of its inputs, perhaps with zeros.
  private static func handsOn(_ op: any Operator) -> Bool {
    switch op {
    case is Reshape, is Transpose, is Slice, is Expand, is Concat, is MaxPool2D: true
    case let pad as Pad: pad.value == 0
    default: false
    }
  }

  /// Whether a node is a convolution or linear layer with a constant f32, f16 or bf16 weight.
  private func isLayer(_ id: NodeID) -> Bool {
    let node = graph[id]
    guard node.op is Conv2D || node.op is MatMul, node.inputs.count >= 2, isNumber(node.inputs[0]),
      !recipes.contains(node.inputs[0]), recipes.contains(node.inputs[1])
    else { return false }
    let weight = graph.type(of: node.inputs[1])
    guard weight.isDense, weight.element.isFloat, weight.element != .f64, let sizes = weight.shape.fixedSizes,
      node.results.allSatisfy(isNumber), node.inputs.dropFirst(2).allSatisfy(isNumber)
    else { return false }
    if let op = node.op as? MatMul {
      let rank = graph.type(of: node.inputs[0]).rank
      return rank >= 2 && sizes.count == 2 && !op.epilogue.gated && sizes.reduce(1, *) > 0
        && sizes[op.transposeB ? 1 : 0] <= QuantizedConv2D.mostProducts
    }
    return sizes.reduce(1, *) > 0 && sizes.dropFirst().reduce(1, *) <= QuantizedConv2D.mostProducts
  }

  /// The operands of a layer that become bytes.
  private func byteOperands(of id: NodeID) -> [ValueID] {
    let node = graph[id]
    guard let conv = node.op as? Conv2D, let index = conv.epilogue.residualIndex else { return [node.inputs[0]] }
    return [node.inputs[0], node.inputs[index]]
  }

  // MARK: Changing

  /// Makes all nodes that use a value use what its codes stand for.
  private mutating func round(_ value: ValueID, _ code: AffineCode) throws {
    let users = graph[value].uses
    let origin = graph.definingNode(of: value).flatMap { graph[$0].origin }
    let name = graph[value].name
    let codes = try graph.addNode(QuantizeLinear(code), [value], names: ["\(name)_codes"], origin: origin)
    let rounded = try graph.addNode(
      DequantizeLinear(code), [graph[codes].results[0]], names: ["\(name)_rounded"], origin: origin)
    for use in users {
      if case .operand(let node, let index) = use { graph.setInput(index, of: node, to: graph[rounded].results[0]) }
    }
    values += 1
  }

  private mutating func quantizeWeight(of id: NodeID) throws {
    var weight = graph[id].inputs[1]
    let name = graph[weight].name, origin = graph[id].origin
    func emit(_ op: any Operator, _ suffix: String) throws {
      let node = try graph.addNode(op, [weight], names: [name + suffix], origin: origin)
      weight = graph[node].results[0]
    }
    if graph.type(of: weight).element != .f32 { try emit(Cast(.f32), "_f32") }
    let shape = graph.type(of: weight).shape
    if var op = graph[id].op as? MatMul {
      if !op.transposeB {
        try emit(Transpose([1, 0]), "_transposed")
        op.transposeB = true
      }
      try emit(Quantize(.w8c), "_codes")
      try emit(Dequantize(.f32), "_rounded")
      graph.setInput(1, of: id, to: weight)
      graph.setOperator(op, of: id)
    } else {
      let rows = shape.dims.dropFirst().reduce(1) { $0 * ($1.fixedValue ?? 1) }
      try emit(Reshape([shape[0], .fixed(rows)]), "_rows")
      try emit(Quantize(.w8c), "_codes")
      try emit(Dequantize(.f32), "_numbers")
      try emit(Reshape(shape.dims), "_rounded")
      graph.setInput(1, of: id, to: weight)
    }
    quantized += 1
  }
}

extension QuantizeWeights {
  /// Quantizes a function by its measured ranges.
  func quantizeStatically(
    _ model: inout Model, _ index: Int, _ calibration: Calibration, _ context: inout PassContext
  ) throws {
    guard spec.weights == .bits8, spec.group == nil, spec.activationBits == 8 else {
      throw CompileError(
        .unsupported,
        "activations with measured ranges go with 8-bit weights and one scale per channel, found '\(spec)'",
        notes: ["quantize to w8, or leave out the calibration"])
    }
    var work = StaticQuantization(self, model.functions[index], model.constants, calibration)
    try work.run()
    model.functions[index] = work.graph
    context.count("layers quantized", by: work.quantized)
    context.count("layers kept", by: work.kept)
    context.count("values in bytes", by: work.values)
  }
}

/// Values that share one code (disjoint sets).
private struct ValueClasses {
  private var parents: [ValueID: ValueID] = [:]

  init(_ graph: Graph) {}

  mutating func root(of value: ValueID) -> ValueID {
    var root = value
    while let parent = parents[root] { root = parent }
    var value = value
    while let parent = parents[value], parent != root {
      parents[value] = root
      value = parent
    }
    return root
  }

  mutating func join(_ a: ValueID, _ b: ValueID) {
    let (a, b) = (root(of: a), root(of: b))
    if a != b { parents[b] = a }
  }
}
