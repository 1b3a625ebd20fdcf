import Base
import IR
import Tensors

/// Moves scale between activations and the weights that read them, so that both round well.
///
///     %n = rms_norm(%x, %g)
///     %y = matmul(%n, %w) {transposeB = true}
///     // -> %n = rms_norm(%x, divide(%g, %s))
///     //    %y = matmul(%n, multiply(%w, %s)) {transposeB = true}
///
/// `(X / s) (s W) = X W`. The scale of each channel follows from the largest activations and weights, the strength from
/// a search (``SmoothingSearch``). Activations are measured on `samples` windows of `length` tokens of `text`, a text
/// or token ids, where one is named, or are those of the pass `calibrate`, where it ran; else a norm's gain stands for
/// them, and the lengths of the rows of weights that compute them.
///
/// - `norms`: the gain, and the bias, of a norm, and all layers behind;
/// - `down`: rows that compute what is gated, and columns of the layer behind;
/// - `values`: rows of the value projection, and columns of the output projection, where no cache keeps the values;
/// - `queries`: rows of the projections of keys and of queries, for a cache of few bits (``QueryPair``), which needs a
///   text.
package struct Smooth: TokenSampled {
  package static let name = "smooth"
  package static let summary = "moves scale between activations and weights, so that both round well"
  package static let legality =
    "all readers of a norm, of what is gated or of attention are layers with constant weights of their own; keys and queries alike within what a rotary embedding turns"
  package static let source =
    "Xiao and others, 2023 (SmoothQuant); Pan and others, 2023 (SmoothQuant+); Lin and others, 2024 (AWQ)"

  /// The formula of the scales.
  package enum Kind: String, Hashable, Codable, Sendable, CaseIterable {
    case smoothquant, awq
  }

  /// Where scale is moved.
  package enum Site: String, Hashable, Codable, Sendable, CaseIterable {
    case norms, down, values, queries
  }

  package var kind: Kind = .smoothquant
  package var at: [Site] = [.norms, .down, .values]
  /// How the weights will be rounded.
  package var spec = Smooth.defaultSpec
  /// Strengths that are tried, but for no scaling.
  package var steps: Int = 20
  /// What activations are measured on; empty for nothing.
  package var text: String = ""
  /// Windows; nil for 16 or as many as there are.
  package var samples: Int?
  /// Tokens of a window; nil for the usual number.
  package var length: Int?

  private static let usualSamples = 16

  private static let defaultSpec = QuantizationSpec(weights: .bits4, group: 32, activationBits: 8)

  package init() {}

  package init(_ kind: Kind) { self.kind = kind }

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard (1...1000).contains(steps) else {
      throw CompileError(.usage, "'smooth' tries \(steps) strengths, expected 1 to 1000")
    }
    guard let format = spec.weightFormat else { return }
    if at.contains(.queries) { try smoothQueries(&model, &context) }
    guard at.contains(where: { $0 != .queries }) else { return }
    let channels = try text.isEmpty ? context.calibration?.channels ?? [:] : measure(model, context)
    for index in model.functions.indices {
      let search = SmoothingSearch(format: format, kind: kind, steps: steps)
      try smooth(function: index, of: &model, search, channels[model.functions[index].name] ?? [:], &context)
    }
  }

  /// The windows that channels are measured on, spread over the text, for each function.
  func chosenWindows(_ model: Model, _ context: PassContext) throws -> [[FunctionInputs]] {
    try windows(for: model, context, usual: Self.usualSamples)
  }

  /// The channels between weights on the windows, by function and value.
  private func measure(
    _ model: Model, _ context: PassContext
  ) throws -> [String: [String: ChannelStatistics]] {
    let runs = try chosenWindows(model, context)
    var channels: [String: [String: ChannelStatistics]] = [:]
    var states: [[String: Tensor]] = []
    for (graph, samples) in zip(model.functions, runs) {
      let values = Set(SmoothingPair.all(in: RecipeGraph(graph), at: at) { _, _ in }.map(\.value))
      var walk = try SampleWalk(model, graph, samples.begun(states, model, graph), keepsStates: true)
      while let node = walk.next {
        context.progress?.update("measuring channels", done: walk.step, of: walk.order.count)
        try walk.advance()
        for value in graph[node].results where values.contains(value) {
          let statistics = try walk.channels(of: value)
          guard statistics.rows > 0 else {
            throw CompileError(
              .input, "the value '%\(graph[value].name)' has numbers that are not finite in all samples")
          }
          channels[graph.name, default: [:]][graph[value].name] = statistics
        }
      }
      states = try (0..<walk.count).map { try walk.states(of: $0) }
    }
    return channels
  }

  private func smooth(
    function index: Int, of model: inout Model, _ search: SmoothingSearch, _ channels: [String: ChannelStatistics],
    _ context: inout PassContext
  ) throws {
    let graph = model.functions[index]
    let pairs = SmoothingPair.all(in: RecipeGraph(graph), at: at) { [context] value, reason in
      context.explain(Self.name, at: "%" + graph[value].name, reason)
    }
    for (number, pair) in pairs.enumerated() {
      context.progress?.update("smoothing", done: number, of: pairs.count)
      // Weights as the pairs before left them.
      let now = model.functions[index]
      let evaluator = context.constantEvaluator(for: now, in: model)
      let weights = try pair.multiplied.map { try Self.weights($0, pair, now, evaluator) }
      let (maxima, squares) =
        try measured(pair, channels[graph[pair.value].name])
        ?? pair.estimate(now) { try Self.numbers($0, evaluator, now) }
      guard let found = search.scales(weights, maxima: maxima, squares: squares) else { continue }
      var builder = GraphBuilder(graph: now, constants: model.constants)
      try builder.apply(found.scales, to: pair)
      _ = builder.graph.eraseDeadCode()
      (model.functions[index], model.constants) = (builder.graph, builder.constants)
      context.count("channels smoothed", by: pair.width)
      context.count("places smoothed")
      context.report("error left at %\(now[pair.value].name)", found.before > 0 ? found.after / found.before : 1)
    }
  }

  /// What was seen of the channels; nil if nothing was.
  private func measured(
    _ pair: SmoothingPair, _ channels: ChannelStatistics?
  ) -> (maxima: [Float], squares: [Double])? {
    guard let channels, channels.rows > 0, channels.maxima.count == pair.width * pair.repeats else { return nil }
    return (pair.joined(channels.maxima) { max($0, $1) }, pair.joined(channels.meanSquares) { $0 + $1 })
  }

  /// The numbers of a recipe in f32.
  private static func numbers(_ value: ValueID, _ evaluator: ConstantEvaluator, _ graph: Graph) throws -> [Float] {
    try evaluator.tensor(value).numbers()
  }

  /// A weight with one row per output, some of its rows and all their maxima.
  private static func weights(
    _ recipe: ResidualStream.Recipe, _ pair: SmoothingPair, _ graph: Graph, _ evaluator: ConstantEvaluator
  ) throws -> SmoothingSearch.Weights {
    let value = graph[recipe.node].inputs[recipe.operand]
    let numbers = try Self.numbers(value, evaluator, graph)
    let sizes = graph.type(of: value).shape.fixedSizes ?? []
    let columns = sizes[recipe.axis], inner = sizes[(recipe.axis + 1)...].reduce(1, *)
    let rows = numbers.count / max(columns, 1)
    var maxima = [Float](repeating: 0, count: columns)
    let step = max(1, rows / SmoothingSearch.rowLimit)
    var some: [Float] = []
    for row in 0..<rows {
      let first = row / inner * columns * inner + row % inner
      let isTaken = row % step == 0
      for j in 0..<columns {
        let number = numbers[first + j * inner]
        maxima[j] = max(maxima[j], number.magnitude)
        if isTaken { some.append(number) }
      }
    }
    guard pair.repeats > 1 else { return SmoothingSearch.Weights(maxima: maxima, rows: some) }
    // Each channel of the value is read by several: as rows of their own.
    var own: [Float] = []
    for first in stride(from: 0, to: some.count, by: columns) {
      let row = Array(some[first..<first + columns])
      for copy in 0..<pair.repeats { own += pair.part(row, copy) }
    }
    return SmoothingSearch.Weights(maxima: pair.joined(maxima) { max($0, $1) }, rows: own)
  }
}

extension SmoothingPair {
  /// The numbers of one of the readers' channels for each channel of the value.
  func part<Number>(_ numbers: [Number], _ copy: Int) -> [Number] {
    (0..<width).map { j in numbers[(j / block * repeats + copy) * block + j % block] }
  }

  /// One number for each channel of the value from those of the readers' channels.
  func joined<Number>(_ numbers: [Number], _ join: (Number, Number) -> Number) -> [Number] {
    guard repeats > 1 else { return numbers }
    return (1..<repeats).reduce(part(numbers, 0)) { sum, copy in zip(sum, part(numbers, copy)).map(join) }
  }

  /// What stands for the largest and the mean square activations where none were measured: the gain of a norm, or the
  /// lengths of the rows that compute a channel.
  func estimate(
    _ graph: Graph, _ numbers: (ValueID) throws -> [Float]
  ) throws -> (maxima: [Float], squares: [Double]) {
    var squares = [Double](repeating: 0, count: width)
    guard let first = divided.first else { return (squares.map { Float($0) }, squares) }
    let value = graph[first.recipe.node].inputs[first.recipe.operand]
    let all = try numbers(value)
    if graph.type(of: value).rank == 1 {
      for operand in divided {
        for (j, number) in try numbers(graph[operand.recipe.node].inputs[operand.recipe.operand]).enumerated() {
          squares[j] += Double(number) * Double(number)
        }
      }
    } else {
      let sizes = graph.type(of: value).shape.fixedSizes ?? []
      let inner = sizes[1...].reduce(1, *)
      func length(_ row: Int) -> Double {
        var sum = 0.0
        if first.recipe.axis == 0 {
          for i in row * inner..<(row + 1) * inner { sum += Double(all[i]) * Double(all[i]) }
        } else {
          for i in stride(from: row, to: all.count, by: inner) { sum += Double(all[i]) * Double(all[i]) }
        }
        return sum
      }
      for j in 0..<width {
        squares[j] =
          first.interleaved ? length(2 * j) * length(2 * j + 1) : length((first.range?.lowerBound ?? 0) + j)
      }
    }
    return (squares.map { Float($0.squareRoot()) }, squares)
  }
}

extension GraphBuilder {
  /// Divides the channels of a pair on one side by scales and multiplies them on the other.
  fileprivate mutating func apply(_ scales: [Float], to pair: SmoothingPair) throws {
    let vector = constant(.inline("scales", .f32, [scales.count], scales))
    /// A vector along an axis of a recipe.
    func along(_ axis: Int, _ rank: Int, _ vector: ValueID, in builder: inout GraphBuilder) throws -> ValueID {
      let behind = rank - 1 - axis
      guard behind > 0 else { return vector }
      return try builder.emit(
        Reshape(builder.type(of: vector).shape.dims + [Dim](repeating: 1, count: behind)), vector)
    }
    for part in pair.divided {
      let recipe = part.recipe
      origin = graph[recipe.node].origin
      let wide = try widened(graph[recipe.node].inputs[recipe.operand])
      let size = type(of: wide).shape[recipe.axis].fixedValue ?? 0
      var divisor = vector
      if part.interleaved {
        let ones = constant(Constant(name: "one", type: TensorType(.f32, [scales.count]), source: .splat(1.0)))
        divisor = try emit(Interleave(), [ones, vector])
      } else if let range = part.range {
        var parts: [ValueID] = []
        for count in [range.lowerBound, size - range.upperBound] {
          guard count > 0 else { continue }
          parts.append(constant(Constant(name: "one", type: TensorType(.f32, [count]), source: .splat(1.0))))
        }
        parts.insert(vector, at: range.lowerBound > 0 ? 1 : 0)
        divisor = try emit(Concat(axis: 0), parts)
      }
      let factor = try along(recipe.axis, type(of: wide).rank, divisor, in: &self)
      graph.setInput(recipe.operand, of: recipe.node, to: try emit(Divide(), wide, factor))
    }
    for recipe in pair.multiplied {
      origin = graph[recipe.node].origin
      let wide = try widened(graph[recipe.node].inputs[recipe.operand])
      var factor = vector
      if pair.repeats > 1 {
        let heads = pair.width / pair.block
        let apart = try emit(Reshape([.fixed(heads), 1, .fixed(pair.block)]), vector)
        let spread = try emit(Expand([.fixed(heads), .fixed(pair.repeats), .fixed(pair.block)]), apart)
        factor = try emit(Reshape([.fixed(pair.width * pair.repeats)]), spread)
      }
      factor = try along(recipe.axis, type(of: wide).rank, factor, in: &self)
      graph.setInput(recipe.operand, of: recipe.node, to: try emit(Multiply(), wide, factor))
    }
  }
}
