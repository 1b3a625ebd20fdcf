import Base
import IR
import Tensors

/// Puts the images and rows between convolutions and linear layers into bytes with one scale per tensor, from measured
/// ranges, and their weights into 8 bits with one scale per output channel.
///
///     %y = conv2d(%x, %w, %b) {...}
///     // -> %q = quantize_linear(%x) {code = ...}           once for all users of %x
///     //    %d = dequantize_linear(%q) {code = ...}
///     //    %c = quantize(reshape(%w)) {format = q8f32row}
///     //    %v = reshape(dequantize(%c))
///     //    %y = conv2d(%d, %v, %b) {...}
///
/// Values that operators hand on unchanged (pooling by maxima, concatenation, changes of shape) share one code with
/// what they came from, so that nothing is rounded twice; operands of a concatenation may have scales of their own
/// (``SplitConcat``). The residual of a convolution becomes bytes, that of a linear layer stays f32: streams that many
/// layers add to need more than 8 bits. Everything else (softmax, norms, functions) stays as it is, and so do layers
/// whose input was not measured. ``FuseQuantized`` makes operators on bytes of the result.
struct StaticQuantization {
  private let options: QuantizeWeights
  private(set) var graph: Graph
  private(set) var constants: ConstantTable
  private let evaluator: ConstantEvaluator
  private let calibration: Calibration
  private let recipes: RecipeSet
  /// Layers that are quantized, and that could be but are not.
  private(set) var quantized = 0
  private(set) var kept = 0
  /// Values that become bytes.
  private(set) var values = 0
  /// Concatenations whose operands have scales of their own.
  private(set) var splits = 0

  init(
    _ options: QuantizeWeights, _ graph: Graph, _ constants: ConstantTable, _ evaluator: ConstantEvaluator,
    _ calibration: Calibration
  ) {
    self.options = options
    self.graph = graph
    self.constants = constants
    self.evaluator = evaluator
    self.calibration = calibration
    recipes = RecipeSet(graph)
  }

  mutating func run() throws {
    var classes = ValueClasses()
    let order = graph.topologicalOrder()
    func join(_ id: NodeID, _ classes: inout ValueClasses) {
      let ends = (graph[id].inputs + graph[id].results).filter { !recipes.contains($0) && isNumber($0) }
      for (a, b) in zip(ends, ends.dropFirst()) { classes.join(a, b) }
    }
    for id in order where Self.handsOn(graph[id].op) && !(graph[id].op is Concat) { join(id, &classes) }
    let split = try options.concats == .split ? splitConcats(order, classes) : []
    for id in order where graph[id].op is Concat && !split.contains(where: { $0.node == id }) { join(id, &classes) }
    let ranges = self.ranges(of: &classes)
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
    let taken = split.filter { $0.readers.allSatisfy { layers.contains($0) } }
    var codes: [ValueID: AffineCode] = [:]
    for concat in taken {
      for (operand, code) in zip(graph[concat.node].inputs, concat.codes) {
        let root = classes.root(of: operand)
        codes[root] = code
        needed.insert(root)
      }
    }
    for value in graph.valueIDs where isNumber(value) && !recipes.contains(value) {
      let root = classes.root(of: value)
      guard needed.contains(root), let range = ranges[root] else { continue }
      let node = graph.definingNode(of: value)
      if let node, Self.handsOn(graph[node].op) { continue }
      try round(value, codes[root] ?? AffineCode(covering: range))
    }
    for concat in taken {
      try rescale(concat)
      for reader in concat.readers { try multiplyChannels(of: reader, concat) }
    }
    for id in layers { try quantizeWeight(of: id) }
    _ = graph.eraseDeadCode()
  }

  /// The range of each class that was measured, by its root.
  private func ranges(of classes: inout ValueClasses) -> [ValueID: ClosedRange<Float>] {
    var ranges: [ValueID: ClosedRange<Float>] = [:]
    for value in graph.valueIDs {
      guard let range = calibration[graph.name, graph[value].name]?.range else { continue }
      let root = classes.root(of: value)
      ranges[root] =
        ranges[root].map { min($0.lowerBound, range.lowerBound)...max($0.upperBound, range.upperBound) } ?? range
    }
    return ranges
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

  // MARK: Concatenations

  /// The concatenations whose operands are better off with scales of their own; `classes` are without concatenations.
  private func splitConcats(_ order: [NodeID], _ classes: ValueClasses) throws -> [SplitConcat] {
    var classes = classes
    let ranges = self.ranges(of: &classes)
    // An operand has one code, so it is part of one concatenation alone.
    var parts: [ValueID: Int] = [:]
    for id in order where graph[id].op is Concat {
      for value in graph[id].inputs + graph[id].results { parts[classes.root(of: value), default: 0] += 1 }
    }
    var found: [SplitConcat] = []
    for id in order {
      guard let op = graph[id].op as? Concat,
        graph[id].inputs.allSatisfy({ isNumber($0) && !recipes.contains($0) })
      else { continue }
      let operands = graph[id].inputs, result = graph[id].results[0]
      let roots = operands.map { classes.root(of: $0) }
      guard let axis = graph.type(of: result).shape.normalizedAxis(op.axis),
        roots.allSatisfy({ parts[$0] == 1 && ranges[$0] != nil }),
        let readers = readers(of: result, axis: axis), !readers.isEmpty
      else { continue }
      let channels = operands.map { graph.type(of: $0).shape[axis].fixedValue ?? 0 }
      let weights = try largestWeights(readers, channels)
      let known = zip(zip(roots, channels), weights).compactMap { part, weight in
        ranges[part.0].map { SplitConcat.Operand(range: $0, channels: part.1, weight: weight) }
      }
      if let split = SplitConcat(id, readers: readers, known) { found.append(split) }
    }
    return found
  }

  /// The layers that read the channels along an axis, perhaps from pools of maxima or with zeros around; nil if
  /// anything else does.
  private func readers(of value: ValueID, axis: Int) -> [NodeID]? {
    var readers: [NodeID] = []
    for use in graph[value].uses {
      guard case .operand(let id, 0) = use else { return nil }
      switch graph[id].op {
      case is MaxPool2D where isWhole(id, axis), is Pad where isWhole(id, axis):
        guard let more = self.readers(of: graph[id].results[0], axis: axis) else { return nil }
        readers += more
      case let op as Conv2D where isLayer(id) && op.groups == 1 && axis == (op.layout == .first ? 1 : 3):
        readers.append(id)
      case is MatMul where isLayer(id) && axis == graph.type(of: value).rank - 1: readers.append(id)
      default: return nil
      }
    }
    return readers
  }

  /// Whether a pool of maxima or zeros around leave the channels along an axis whole.
  private func isWhole(_ id: NodeID, _ axis: Int) -> Bool {
    if let pool = graph[id].op as? MaxPool2D { return axis == (pool.layout == .first ? 1 : 3) }
    guard let pad = graph[id].op as? Pad, pad.value == 0 else { return false }
    return pad.before[axis] == 0 && pad.after[axis] == 0
  }

  /// For each operand the root mean square, over the rows of all readers, of the largest weight on its channels.
  private func largestWeights(_ readers: [NodeID], _ channels: [Int]) throws -> [Double] {
    var squares = [Double](repeating: 0, count: channels.count)
    var rows = 0
    for id in readers {
      let weight = graph[id].inputs[1]
      let numbers = try evaluator.tensor(weight).numbers()
      let sizes = graph.type(of: weight).shape.fixedSizes ?? []
      let isTransposed = (graph[id].op as? MatMul)?.transposeB == false
      let outputs = sizes[isTransposed ? 1 : 0], inputs = sizes[isTransposed ? 0 : 1]
      let taps = sizes.dropFirst(2).reduce(1, *)
      for row in 0..<outputs {
        var first = 0
        for (operand, count) in channels.enumerated() {
          var largest: Float = 0
          for channel in first..<min(first + count, inputs) {
            for tap in 0..<taps {
              let place = isTransposed ? channel * outputs + row : (row * inputs + channel) * taps + tap
              largest = max(largest, numbers[place].magnitude)
            }
          }
          squares[operand] += Double(largest) * Double(largest)
          first += count
        }
      }
      rows += outputs
    }
    return squares.map { ($0 / Double(max(rows, 1))).squareRoot() }
  }

  /// Gives the operands of a concatenation bytes with their own codes, read with the common one.
  private mutating func rescale(_ concat: SplitConcat) throws {
    let origin = graph[concat.node].origin
    for (operand, code) in concat.codes.enumerated() {
      let value = graph[concat.node].inputs[operand], name = graph[value].name
      let codes = try graph.addNode(QuantizeLinear(code), [value], names: ["\(name)_part"], origin: origin)
      let common = try graph.addNode(
        DequantizeLinear(concat.common), [graph[codes].results[0]], names: ["\(name)_steps"], origin: origin)
      graph.setInput(operand, of: concat.node, to: graph[common].results[0])
    }
    splits += 1
  }

  /// Multiplies the weights of a layer by what the operands of a concatenation were divided by.
  private mutating func multiplyChannels(of id: NodeID, _ concat: SplitConcat) throws {
    guard let op = graph[concat.node].op as? Concat else { return }
    let weight = graph[id].inputs[1]
    var factors: [Float] = []
    for (operand, factor) in zip(graph[concat.node].inputs, concat.factors) {
      let shape = graph.type(of: operand).shape
      let channels = shape.normalizedAxis(op.axis).flatMap { shape[$0].fixedValue } ?? 0
      factors += [Float](repeating: factor, count: channels)
    }
    var sizes = [1, factors.count] + [Int](repeating: 1, count: max(0, graph.type(of: weight).rank - 2))
    if (graph[id].op as? MatMul)?.transposeB == false { sizes = [factors.count, 1] }
    let constant = Constant.inline("\(graph[weight].name)_factors", .f32, sizes, factors)
    let value = graph.addConstant(constants.insert(constant), constant.name, constant.type)
    var operand = weight
    let origin = graph[id].origin
    if graph.type(of: weight).element != .f32 {
      let wide = try graph.addNode(Cast(.f32), [weight], names: ["\(graph[weight].name)_f32"], origin: origin)
      operand = graph[wide].results[0]
    }
    let scaled = try graph.addNode(
      Multiply(), [operand, value], names: ["\(graph[weight].name)_scaled"], origin: origin)
    graph.setInput(1, of: id, to: graph[scaled].results[0])
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
    let graph = model.functions[index]
    var work = StaticQuantization(
      self, graph, model.constants, context.constantEvaluator(for: graph, in: model), calibration)
    try work.run()
    (model.functions[index], model.constants) = (work.graph, work.constants)
    context.count("layers quantized", by: work.quantized)
    context.count("layers kept", by: work.kept)
    context.count("values in bytes", by: work.values)
    context.count("concatenations split", by: work.splits)
  }
}

/// Values that share one code (disjoint sets).
private struct ValueClasses {
  private var parents: [ValueID: ValueID] = [:]

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
