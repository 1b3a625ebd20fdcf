import IR
import Tensors

/// Values that sums, moves and concatenations connect and only layer norms read, such as the residual stream of a transformer;
/// here all of a function.
struct NormalizedStream {
  /// The layers and tables whose results are added to the stream.
  private(set) var writers: Set<NodeID> = []
  /// The sums and concatenations with an operand that is a recipe, and the axis of the operand that the norms run along.
  private(set) var terms: [NodeID: [Int: Int]] = [:]
  /// The layer norms without bias.
  private(set) var readers: Set<NodeID> = []

  /// A value of the stream and its axis that the norms run along.
  private struct Place: Hashable {
    var value: ValueID
    var axis: Int
  }

  /// The streams of a function out of which the mean can be taken, as one; says of the others why not.
  init(in graph: Graph, force: Bool, _ context: PassContext) {
    let lookup = RecipeGraph(graph)
    var done: Set<ValueID> = []
    for id in graph.topologicalOrder() {
      guard graph[id].op is LayerNorm, case let input = graph[id].inputs[0], !done.contains(input) else { continue }
      guard graph.type(of: input).element == .f32 else { continue }
      var stream = NormalizedStream()
      let start = Place(value: input, axis: graph.type(of: input).rank - 1)
      if let reason = stream.collect(from: start, in: lookup, force: force, done: &done) {
        context.explain("centre-stream", at: "%" + graph[graph[id].results[0]].name, reason)
      } else if !stream.readers.isEmpty {
        writers.formUnion(stream.writers)
        terms.merge(stream.terms) { first, _ in first }
        readers.formUnion(stream.readers)
      }
    }
  }

  private init() {}

  /// Follows the stream to its writers and readers; `done` has the values of others.
  ///
  /// - Returns: why the mean cannot be taken out; nil if it can.
  private mutating func collect(
    from start: Place, in lookup: RecipeGraph, force: Bool, done: inout Set<ValueID>
  ) -> String? {
    var seen: Set<ValueID> = [start.value]
    var waiting = [start]
    var failure: String?
    while let place = waiting.popLast() {
      var next: [Place] = []
      let definition = addDefinition(of: place, in: lookup, force: force, &next)
      let users = addUsers(of: place, in: lookup.graph, &next)
      failure = failure ?? definition ?? users
      for place in next where !lookup.isRecipe(place.value) && !seen.contains(place.value) {
        // A stream that can be centred is walked whole, so this is one that cannot.
        if done.contains(place.value) {
          failure = failure ?? "'%\(lookup.graph[place.value].name)' keeps its mean"
        } else {
          seen.insert(place.value)
          waiting.append(place)
        }
      }
    }
    done.formUnion(seen)
    return failure
  }

  /// What computes a value of the stream.
  private mutating func addDefinition(
    of place: Place, in lookup: RecipeGraph, force: Bool, _ next: inout [Place]
  ) -> String? {
    let graph = lookup.graph
    guard let id = graph.definingNode(of: place.value) else {
      return "'%\(graph[place.value].name)' comes from outside"
    }
    let node = graph[id]
    if let layer = AffineLayer(id, in: lookup) {
      guard layer.isCentrable(rank: graph.type(of: place.value).rank, axis: place.axis) else {
        return "what '%\(graph[place.value].name)' adds is no plain sum over the channels"
      }
      if let reason = lookup.obstacle(toChanging: layer.weight, force: force) { return reason }
      writers.insert(id)
      if let residual = layer.residual {
        guard !lookup.isRecipe(residual) else { return "'%\(graph[residual].name)' is a constant residual" }
        next.append(Place(value: residual, axis: place.axis))
      }
      return nil
    }
    let operands: [Int]
    switch node.op {
    case is Add: operands = [0, 1]
    case let op as Concat where graph.type(of: place.value).shape.normalizedAxis(op.axis) != place.axis:
      operands = Array(node.inputs.indices)
    case let op as Gather:
      let table = graph.type(of: node.inputs[0])
      guard lookup.isRecipe(node.inputs[0]), table.rank == 2, table.shape.normalizedAxis(op.axis) == 0,
        place.axis == graph.type(of: place.value).rank - 1
      else { return "'%\(graph[place.value].name)' is gathered from what is no table" }
      if let reason = lookup.obstacle(toChanging: node.inputs[0], force: force) { return reason }
      writers.insert(id)
      return nil
    default:
      guard isMove(node.op),
        let axis = axisBefore(
          node.op, place.axis, from: graph.type(of: node.inputs[0]).shape, to: graph.type(of: place.value).shape)
      else { return "'\(node.op.name)' computes '%\(graph[place.value].name)'" }
      next.append(Place(value: node.inputs[0], axis: axis))
      return nil
    }
    for index in operands {
      let (operand, rank) = (node.inputs[index], graph.type(of: place.value).rank)
      let axis = place.axis - (rank - graph.type(of: operand).rank)
      if lookup.isRecipe(operand) {
        guard axis >= 0 else { return "'%\(graph[operand].name)' is one number for all channels" }
        if let reason = lookup.obstacle(toChanging: operand, force: force) { return reason }
        terms[id, default: [:]][index] = axis
      } else {
        guard axis >= 0, graph.type(of: operand).shape[axis] == graph.type(of: place.value).shape[place.axis] else {
          return "'%\(graph[operand].name)' is broadcast along the channels"
        }
        next.append(Place(value: operand, axis: axis))
      }
    }
    return nil
  }

  /// What reads a value of the stream.
  private mutating func addUsers(of place: Place, in graph: Graph, _ next: inout [Place]) -> String? {
    let users = graph.users(of: place.value)
    let name = graph[place.value].name
    var uses = 0
    for id in users {
      let node = graph[id]
      uses += node.inputs.count { $0 == place.value }
      let result = Place(value: node.results[0], axis: place.axis)
      switch node.op {
      case let op as LayerNorm:
        guard node.inputs.dropFirst().allSatisfy({ $0 != place.value }),
          graph.type(of: place.value).shape.normalizedAxis(op.axis) == place.axis
        else { return "a norm reads '%\(name)' along other axes" }
        if node.inputs.count == 2 { readers.insert(id) }
      case is Add:
        let rank = graph.type(of: node.results[0]).rank
        next.append(Place(value: node.results[0], axis: place.axis + rank - graph.type(of: place.value).rank))
      case let op as Concat where graph.type(of: place.value).shape.normalizedAxis(op.axis) != place.axis:
        next.append(result)
      case let op as MatMul where op.epilogue.residualIndex.map({ node.inputs[$0] }) == place.value:
        guard node.inputs[0] != place.value, node.inputs[1] != place.value else { return "'matmul' reads '%\(name)'" }
        next.append(result)
      case let op as Conv2D where op.epilogue.residualIndex.map({ node.inputs[$0] }) == place.value:
        guard node.inputs[0] != place.value, node.inputs[1] != place.value else { return "'conv2d' reads '%\(name)'" }
        next.append(result)
      default:
        guard isMove(node.op),
          let axis = axisAfter(
            node.op, place.axis, from: graph.type(of: place.value).shape, to: graph.type(of: node.results[0]).shape)
        else { return "'\(node.op.name)' reads '%\(name)'" }
        next.append(Place(value: node.results[0], axis: axis))
      }
    }
    return uses == graph[place.value].uses.count ? nil : "'%\(name)' is an output"
  }
}

extension AffineLayer {
  /// Whether the mean of the result over its channels, along `axis`, is taken out by other weights.
  fileprivate func isCentrable(rank: Int, axis: Int) -> Bool {
    guard groups == 1, channelAxis(rank: rank) == axis else { return false }
    switch operation {
    case .product(let op): return op.epilogue.activation == .none && !op.epilogue.gated
    case .convolution(let op): return op.epilogue.activation == .none
    case .transposed: return true
    }
  }
}

extension NormalizedStream {
  /// The rules that take the mean out of what is added to the stream.
  var writerRules: [RewriteRule] {
    [
      centreLayer(MatMul.self), centreLayer(Conv2D.self), centreLayer(ConvTranspose2D.self), centreTable,
      centreTerm(Add.self), centreTerm(Concat.self),
    ]
  }

  /// matmul(x, w, b) -> matmul(x, w - mean(w), b - mean(b)), with the mean over the outputs; likewise for the other layers
  private func centreLayer<Op: Operator>(_ type: Op.Type) -> RewriteRule {
    let writers = writers
    return RewriteRule("centre-\(Op.name.kebabCase)", on: type, .shared) { _, node, rewriter in
      guard writers.contains(node), let layer = rewriter.layer(at: node) else { return nil }
      return try rewriter.emit(rewriter.centringSums(of: layer))
    }
  }

  /// gather(t, i) -> gather(t - mean(t), i), with the mean of each row
  private var centreTable: RewriteRule {
    let writers = writers
    return RewriteRule("centre-table", on: Gather.self, .shared) { gather, node, rewriter in
      guard writers.contains(node) else { return nil }
      let inputs = rewriter.inputs(of: node)
      return try rewriter.emit(
        Gather(axis: 0, type: gather.type), try rewriter.centred(inputs[0], axis: 1), inputs[1])
    }
  }

  /// add(x, c) -> add(x, c - mean(c)), with the mean along the axis of the norms; likewise for concat
  private func centreTerm<Op: Operator>(_ type: Op.Type) -> RewriteRule {
    let terms = terms
    return RewriteRule("centre-term-of-\(Op.name)", on: type, .shared) { op, node, rewriter in
      guard let axes = terms[node] else { return nil }
      var inputs = rewriter.inputs(of: node)
      for (index, axis) in axes.sorted(by: { $0.key < $1.key }) {
        inputs[index] = try rewriter.centred(inputs[index], axis: axis)
      }
      return try rewriter.emit(op, inputs)
    }
  }

  /// layer_norm(x, g) -> rms_norm(x, g), for an x without mean
  var readerRule: RewriteRule {
    let readers = readers
    return RewriteRule("layer-norm-to-rms-norm", on: LayerNorm.self, .shared) { norm, node, rewriter in
      guard readers.contains(node) else { return nil }
      return try rewriter.emit(RMSNorm(axis: norm.axis, epsilon: norm.epsilon), rewriter.inputs(of: node))
    }
  }
}
