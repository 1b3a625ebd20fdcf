import Base
import IR
import Tensors

/// Turns activations and weights into bases in which no channel stands out, by Hadamard matrices, so that they round well.
///
///     %n = rms_norm(%x, %g)                                     // %x: sums of what layers and tables write
///     %y = matmul(%n, %w, %x) {transposeB = true, epilogue = {residual = after_activation}}
///     // -> %n = rms_norm(%x, 1)
///     //    %y = matmul(%n, hadamard(hadamard(multiply(%w, %g)) {axis = 1}) {axis = 0}, %x) {...}
///
/// - `residual`: the stream between the layers (``ResidualStream``). Writers turn the rows of their weights, readers
///   the columns, gains of norms go into the readers; all of it is done at compile time. What cannot be folded (a table
///   that is the head's weight as well) is turned when the program runs, where one such turn serves two layers or more,
///   or with `online` anywhere.
/// - `values`: what attention weighs, head by head: rows of the value projection, columns of the output projection.
/// - `queries`: queries and keys behind the rotary embedding, head by head, at run time: for a cache of few bits.
/// - `down`: what a layer reads of a nonlinear one before it, at run time; the columns of its weight undo it.
///
/// The matrices are products of Paley's and Sylvester's (``HadamardMatrix``); where a width has none, blocks of such.
/// `random` multiplies them by signs that follow from the seed. `outlier-aware` puts reflections before them that give
/// the directions in which activations on a text stand out an axis each (``OutlierDirections``): in streams, and in
/// values that no cache keeps, whose basis could not be told otherwise. `auto` takes for each place what loses least
/// (``RotationTrial``). (Ashkboos and others, "QuaRot", 2024; Liu and others, "SpinQuant", 2024.)
package struct Rotate: TokenSampled {
  package static let name = "rotate"
  package static let summary = "turns activations and weights into bases without outliers, by Hadamard matrices"
  package static let legality =
    "all that writes to a stream or reads it can be turned: layers and tables with weights of their own, norms whose gains fold; a few places at run time"
  package static let source = "Ashkboos and others, 2024 (QuaRot); Liu and others, 2024 (SpinQuant); Paley, 1933"

  /// The matrices.
  package enum Kind: String, Hashable, Codable, Sendable, CaseIterable {
    case none, hadamard, random
    case outlierAware = "outlier-aware"
    /// For each place the one of these with which rounding loses least on a text.
    case auto
  }

  /// What is turned.
  package enum Site: String, Hashable, Codable, Sendable, CaseIterable {
    case residual, values, queries, down

    /// What is turned there.
    fileprivate var place: String {
      switch self {
      case .residual: "stream between layers"
      case .values: "values of attention"
      case .queries: "queries and keys"
      case .down: "hidden layer"
      }
    }
  }

  package var kind: Kind = .hadamard
  package var at: [Site] = [.residual, .values]
  /// Where random signs come from.
  package var seed: Int = 0
  /// Whether a stream may be crossed at run time in every layer.
  package var online: Bool = false
  /// How weights and activations will be rounded, for `auto`.
  package var spec = Rotate.defaultSpec
  /// What `auto` and `outlier-aware` measure on: a text or token ids.
  package var text: String = ""
  /// Windows; nil for 4 or as many as there are.
  package var samples: Int?
  /// Tokens of a window.
  package var length: Int? = 256

  private static let defaultSpec = QuantizationSpec(weights: .bits4, group: 32, activationBits: 8)

  package init() {}

  package init(_ kind: Kind, at: [Site] = [.residual, .values], seed: Int = 0, online: Bool = false) {
    self.kind = kind
    self.at = at
    self.seed = seed
    self.online = online
  }

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard kind != .none else { return }
    guard kind != .auto else {
      let rotations = try RotationTrial(self, model, context).best()
      for rotation in rotations {
        try rotation.run(&model, &context)
        context.count("places turned by \(rotation.kind.rawValue)", by: rotation.at.count)
      }
      if rotations.isEmpty { context.remark("nothing is turned: on '\(text)' no rotation loses less than none") }
      return
    }
    var windows: [FunctionInputs] = []
    if kind == .outlierAware, at.contains(.residual) || at.contains(.values) {
      windows = try chosenWindows(for: model, context, "directions of outliers are measured")
    }
    let before = context.counters.reduce(0) { $0 + $1.count }
    for index in model.functions.indices {
      if at.contains(.residual) { try rotateStreams(function: index, of: &model, windows, &context) }
      if at.contains(.values) { try rotateValues(function: index, of: &model, windows, &context) }
      if at.contains(.queries) { try rotateQueries(function: index, of: &model, &context) }
      if at.contains(.down) { try rotateHidden(function: index, of: &model, &context) }
    }
    if context.counters.reduce(0, { $0 + $1.count }) == before {
      context.remark("nothing is turned: the network has no \(at.map(\.place).joined(separator: " or ")) that could be")
    }
  }

  /// The rotation of an axis of that width; nil if there is none but the identity.
  func rotation(width: Int, isOnline: Bool) -> Hadamard? {
    let blocks = HadamardMatrix.blocks(
      of: width, largestFactor: isOnline ? Hadamard.largestKernelFactor : FiniteField.largestOrder)
    guard blocks.count <= Hadamard.blockLimit, blocks.contains(where: { $0 > 1 }) else { return nil }
    return Hadamard(blocks: blocks, seed: kind == .random ? seed : nil)
  }

  // MARK: Streams

  private func rotateStreams(
    function index: Int, of model: inout Model, _ windows: [FunctionInputs], _ context: inout PassContext
  ) throws {
    let (original, originalContext) = (model, context)
    if model.functions[index].nodeIDs.contains(where: { model.functions[index][$0].op is LayerNorm }) {
      // Without their means layer norms are norms that a rotation leaves alone.
      var fold = FoldNorm()
      fold.force = true
      try fold.run(function: index, of: &model, &context)
    }
    let graph = model.functions[index]
    let lookup = RecipeGraph(graph)
    var done: Set<ValueID> = []
    var streams: [ResidualStream] = []
    for id in graph.topologicalOrder() {
      guard graph[id].op is RMSNorm || graph[id].op is LayerNorm, case let value = graph[id].inputs[0],
        !done.contains(value), !lookup.isRecipe(value)
      else { continue }
      let (stream, obstacle) = ResidualStream.find(from: value, in: lookup, model.constants, done: &done)
      if let obstacle {
        context.explain(
          Self.name, at: "%" + graph[obstacle.value].name, "the stream keeps its basis: \(obstacle.reason)")
      } else if isWorthwhile(stream, in: graph, context) {
        streams.append(stream)
      }
    }
    guard !streams.isEmpty else {
      (model, context) = (original, originalContext)
      return
    }
    let moments = try windows.isEmpty ? [] : moments(of: streams, model, function: index, windows, context)
    var builder = GraphBuilder(graph: graph, constants: model.constants)
    for (number, stream) in streams.enumerated() {
      guard let rotation = rotation(width: stream.width, isOnline: !stream.crossings.isEmpty) else { continue }
      var turning = Turning(rotation)
      if moments.indices.contains(number) {
        let directions = try OutlierDirections(moment: moments[number], width: stream.width)
        turning.reflections = directions.reflections(for: rotation, width: stream.width)
        context.count("directions reflected", by: turning.reflections.count)
      }
      try builder.turn(stream, by: turning)
      context.count("streams turned")
      context.count("weights turned", by: stream.weights)
      context.count("turns at run time", by: stream.crossings.count)
    }
    _ = builder.graph.eraseDeadCode()
    model.functions[index] = builder.graph
    model.constants = builder.constants
  }

  /// For each stream the sum of products of what its norms read.
  private func moments(
    of streams: [ResidualStream], _ model: Model, function index: Int, _ windows: [FunctionInputs],
    _ context: PassContext
  ) throws -> [[Double]] {
    let graph = model.functions[index]
    var parts: [ValueID: [Range<Int>]] = [:]
    for stream in streams {
      for value in stream.values where graph.users(of: value).contains(where: { graph[$0].op is RMSNorm }) {
        parts[value] = [0..<stream.width]
      }
    }
    let found = try moments(of: parts, model, function: index, windows, context)
    return streams.map { stream in
      var sum = [Double](repeating: 0, count: stream.width * stream.width)
      for value in graph.valueIDs where stream.values.contains(value) {
        guard let part = found[value]?.first, part.count == sum.count else { continue }
        for i in sum.indices { sum[i] += part[i] }
      }
      return sum
    }
  }

  /// Whether what a stream gains is worth its crossings; says of each crossing why it is one.
  private func isWorthwhile(_ stream: ResidualStream, in graph: Graph, _ context: PassContext) -> Bool {
    guard stream.weights > 0 else { return false }
    let isAllowed = online || 2 * stream.crossings.count <= stream.weights
    for crossing in stream.crossings {
      let value: ValueID
      switch crossing.place {
      case .entry(let entry): value = entry
      case .exit(let node, let operand): value = graph[node].inputs[operand]
      case .output(let output): value = graph.outputs[output]
      }
      context.explain(
        Self.name, at: "%" + graph[value].name,
        (isAllowed ? "turned at run time: " : "the stream keeps its basis: ") + crossing.reason)
    }
    return isAllowed
  }
}

extension GraphBuilder {
  /// A recipe in f32.
  mutating func widened(_ value: ValueID) throws -> ValueID {
    guard type(of: value).isDense else { return try emit(Dequantize(.f32), value) }
    return type(of: value).element == .f32 ? value : try emit(Cast(.f32), value)
  }

  /// Turns a recipe that a node reads, along an axis, after its numbers were multiplied by those of a gain, if there is
  /// one.
  mutating func turn(_ recipe: ResidualStream.Recipe, by turning: Turning, gain: ValueID? = nil) throws {
    let node = graph[recipe.node]
    origin = node.origin
    let old = node.inputs[recipe.operand]
    var value = try widened(old)
    if let gain {
      let behind = type(of: value).rank - 1 - recipe.axis
      var factor = try widened(gain)
      if behind > 0 {
        factor = try emit(Reshape(type(of: factor).shape.dims + [Dim](repeating: 1, count: behind)), factor)
      }
      value = try emit(Multiply(), value, factor)
    }
    value = try emit(turning, value, axis: recipe.axis, name: graph[old].name + "_turned")
    graph.setInput(recipe.operand, of: recipe.node, to: value)
    // The result of a gather has the type of the table unless it says otherwise.
    if let gather = node.op as? Gather, gather.type == nil {
      graph.setOperator(
        Gather(axis: gather.axis, type: type(of: node.results[0]).element), of: recipe.node)
    }
  }

  /// Changes the basis of a stream.
  fileprivate mutating func turn(_ stream: ResidualStream, by turning: Turning) throws {
    for recipe in stream.recipes { try turn(recipe, by: turning) }
    for (norm, readers) in stream.norms {
      let gain = graph[norm].inputs[1]
      for reader in readers { try turn(reader, by: turning, gain: gain) }
      origin = graph[norm].origin
      let one = constant(
        Constant(name: "one", type: TensorType(.f32, type(of: gain).shape), source: .splat(1.0)))
      graph.setInput(1, of: norm, to: one)
    }
    for crossing in stream.crossings {
      guard case .entry(let value) = crossing.place else { continue }
      origin = graph.definingNode(of: value).flatMap { graph[$0].origin }
      let uses = graph[value].uses
      let turned = try emit(turning, value, name: graph[value].name + "_turned")
      for use in uses { redirect(use, to: turned) }
    }
    var undone: [ValueID: ValueID] = [:]
    for crossing in stream.crossings {
      let value: ValueID
      switch crossing.place {
      case .entry: continue
      case .exit(let node, let operand):
        value = graph[node].inputs[operand]
        origin = graph[node].origin
      case .output(let output):
        value = graph.outputs[output]
        origin = graph.definingNode(of: value).flatMap { graph[$0].origin }
      }
      if undone[value] == nil {
        undone[value] = try emit(turning.inverted, value, name: graph[value].name + "_back")
      }
      guard let back = undone[value] else { continue }
      switch crossing.place {
      case .entry: continue
      case .exit(let node, let operand): graph.setInput(operand, of: node, to: back)
      case .output(let output): graph.setOutput(output, to: back)
      }
    }
  }

  /// Gives a use another value.
  mutating func redirect(_ use: Use, to value: ValueID) {
    switch use {
    case .operand(let node, let operand): graph.setInput(operand, of: node, to: value)
    case .output(let output): graph.setOutput(output, to: value)
    case .update(let state): graph.setUpdate(ofState: state, to: value)
    }
  }
}
