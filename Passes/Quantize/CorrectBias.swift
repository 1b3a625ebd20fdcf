import Base
import IR
import Tensors

/// Adds to the biases of rounded layers what rounding took from the mean of each output channel.
///
///     %y = conv2d(%x, dequantize(quantize(%w)), %b)
///     // -> %y = conv2d(%x, dequantize(quantize(%w)), %c)      c[o] = b[o] + mean(y_exact[o]) - mean(y[o])
///
/// With few inputs to a sum, as in depthwise convolutions, the errors of its weights do not cancel, and the mean of a
/// channel moves by `sum (round(w) - w) E[x]`. It is measured: samples go through the rounded function and through that
/// without rounding side by side, layer after layer, each with the biases corrected before it, so that what rounding
/// and cutting off activations did is made up for as well. The difference `m` of the means of a channel, with variance
/// `v` among `n` samples, is an estimate: `m max(0, 1 - v / (n m^2))` of it is added, and nothing for a single sample.
///
/// `samples` and `count` are those of ``Calibrate``.
package struct CorrectBias: Pass {
  package static let name = "correct-bias"
  package static let summary = "adds to biases what rounding took from the means of channels, on samples"
  package static let legality =
    "after quantize: layers with rounded weights, the numbers still known; in networks of one function without states"
  package static let source = "M. Nagel and others, 2019, arXiv:1906.04721, section 4.2"

  package var samples: String = ""
  package var count: Int?

  package init() {}

  package init(samples: String, count: Int? = nil) {
    self.samples = samples
    self.count = count
  }

  package var fidelity: Fidelity { .lossy }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard !samples.isEmpty else {
      throw CompileError(.usage, "correct-bias needs a file: correct-bias{samples=FILE.npz}")
    }
    guard let read = context.samples else {
      throw CompileError(.usage, "samples cannot be read here", notes: ["the pass 'correct-bias' needs 'mcc'"])
    }
    if let count, count < 1 { throw CompileError(.usage, "the count of samples is \(count), expected at least 1") }
    guard
      let index = model.functions.firstIndex(where: { $0.role == "main" })
        ?? (model.functions.count == 1 ? 0 : nil), model.functions[index].states.isEmpty
    else {
      throw CompileError(.unsupported, "biases are corrected in networks of one function without states")
    }
    let all = try read(samples, model.functions[index])
    let runs = all.prefix(count ?? all.count).map { FunctionInputs(inputs: $0) }
    guard !runs.isEmpty else { throw CompileError(.input, "'\(samples)' holds no samples") }
    guard runs.count > 1 else {
      return context.remark("one sample does not tell how means differ among samples, so that no bias is corrected")
    }

    var builder = GraphBuilder(graph: model.functions[index], constants: model.constants)
    let layers = try Self.layers(&builder)
    guard !layers.isEmpty else { return context.remark("no layer has rounded weights, so that no bias is corrected") }
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
    let order = builder.graph.topologicalOrder()
    var rounded = try SampleWalk(model, builder.graph, order: order, runs)
    var exact = try SampleWalk(model, builder.graph.withoutRounding(), order: order, runs)
    var left = layers
    while !left.isEmpty, let id = rounded.next {
      var others: [ValueID: Tensor] = [:]
      if left.remove(id) != nil {
        context.progress?.update("correcting biases", done: layers.count - left.count, of: layers.count)
        let old = builder.graph[id].inputs[2]
        let shift = try Self.shift(at: id, from: rounded, to: exact)
        let bias = try rounded.recipe(old).numbers()
        let new = zip(bias, shift).map { Float(Double($0) + $1) }
        others[old] = Tensor(.f32, [new.count], new)
        builder.graph.setInput(
          2, of: id, to: builder.constant(.inline("\(builder.graph[old].name)_corrected", .f32, [new.count], new)))
      }
      try rounded.advance(replacing: others)
      if exact.next == id { try exact.advance() }
    }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
    context.count("samples", by: runs.count)
    context.count("layers corrected", by: layers.count)
  }

  // MARK: Layers

  /// The layers whose weights are rounded, each with a bias; those without one get zeros.
  private static func layers(_ builder: inout GraphBuilder) throws -> Set<NodeID> {
    let recipes = RecipeSet(builder.graph)
    var layers: Set<NodeID> = []
    for id in builder.graph.topologicalOrder() {
      let node = builder.graph[id]
      guard node.inputs.count >= 2, isRounded(node.inputs[1], builder.graph), !recipes.contains(node.inputs[0]),
        builder.type(of: node.results[0]).element == .f32, builder.type(of: node.results[0]).isDense
      else { continue }
      let epilogue: Epilogue
      let outputs: Dim
      switch node.op {
      case let op as Conv2D: (epilogue, outputs) = (op.epilogue, builder.type(of: node.inputs[1]).shape[0])
      case let op as MatMul where builder.type(of: node.inputs[1]).rank == 2 && !op.epilogue.gated:
        (epilogue, outputs) = (op.epilogue, builder.type(of: node.inputs[1]).shape[op.transposeB ? 0 : 1])
      default: continue
      }
      guard let bias = epilogue.biasIndex else {
        layers.insert(try addingBias(to: id, outputs, &builder))
        continue
      }
      if recipes.contains(node.inputs[bias]), builder.type(of: node.inputs[bias]).element == .f32 { layers.insert(id) }
    }
    return layers
  }

  /// Whether a weight is numbers that are rounded to codes, perhaps in another shape.
  private static func isRounded(_ weight: ValueID, _ graph: Graph) -> Bool {
    var value = weight
    while let node = graph.definingNode(of: value) {
      if graph[node].op is Quantize { return true }
      guard graph[node].op is Reshape || graph[node].op is Dequantize else { return false }
      value = graph[node].inputs[0]
    }
    return false
  }

  private static func addingBias(to id: NodeID, _ outputs: Dim, _ builder: inout GraphBuilder) throws -> NodeID {
    let node = builder.graph[id]
    var inputs = node.inputs
    inputs.insert(
      builder.constant(Constant(name: "bias", type: TensorType(.f32, [outputs]), source: .splat(0.0))), at: 2)
    let op: any Operator
    switch node.op {
    case var conv as Conv2D:
      conv.epilogue.bias = true
      op = conv
    case var product as MatMul:
      product.epilogue.bias = true
      op = product
    default: return id
    }
    let old = node.results[0], name = builder.graph[old].name
    let new = try builder.graph.addNode(op, inputs, names: [name], origin: node.origin)
    let result = builder.graph[new].results[0]
    builder.graph.replaceUses(of: old, with: result)
    builder.graph.erase(id)
    builder.graph.rename(result, to: name)
    return new
  }

  // MARK: Means

  /// What is to be added to the sums of each output channel.
  private static func shift(at id: NodeID, from rounded: SampleWalk, to exact: SampleWalk) throws -> [Double] {
    let (wanted, found) = (try means(at: id, in: exact), try means(at: id, in: rounded))
    let samples = Double(wanted.count)
    return try (wanted.first ?? []).indices.map { channel in
      let differences = zip(wanted, found).map { $0[channel] - $1[channel] }
      let mean = differences.reduce(0, +) / samples
      guard mean.isFinite else {
        let name = rounded.graph[rounded.graph[id].results[0]].name
        throw CompileError(.input, "the value '%\(name)' has numbers that are not finite on the samples")
      }
      guard mean != 0 else { return 0 }
      let squares = differences.reduce(0.0) { $0 + ($1 - mean) * ($1 - mean) }
      return mean * max(0, 1 - squares / (samples - 1) / samples / (mean * mean))
    }
  }

  /// The mean of the sums of each output channel, for every sample.
  private static func means(at id: NodeID, in walk: SampleWalk) throws -> [[Double]] {
    let node = walk.graph[id]
    let op: any Operator
    let axis: Int
    switch node.op {
    case var conv as Conv2D:
      conv.epilogue = .identity
      op = conv
      axis = conv.layout == .first ? 1 : 3
    case var product as MatMul:
      product.epilogue = .identity
      op = product
      axis = walk.graph.type(of: node.results[0]).rank - 1
    default: return []
    }
    let weight = try walk.recipe(node.inputs[1]).floats()
    return try parallelMap(walk.count) { sample in
      let x = try walk.tensor(node.inputs[0], of: sample).floats()
      let sums = Tensor(try op.inferTypes([x.type, weight.type])[0])
      try op.evaluate([x.view, weight.view], into: [sums.mutableView])
      return sums.view.channelMeans(axis: axis)
    }
  }
}
