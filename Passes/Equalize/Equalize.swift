import Base
import IR
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Gives the channels between layers like ranges, so that one scale for all of them loses little.
///
///     %h = conv2d(%x, %w, %b) {epilogue = {activation = relu}}
///     %y = conv2d(%h, %v)
///     // -> %h = conv2d(%x, divide(%w, %s), divide(%b, %s)) {epilogue = {activation = relu}}
///     //    %y = conv2d(%h, multiply(%v, %s))
///
/// `relu(x / s) = relu(x) / s` for positive `s`. With `r1` the largest magnitude of what computes a channel and `r2`
/// that of the weights that read it `s = sqrt(r1 r2) / r2` makes both equal (M. Nagel and others, 2019). Layers are
/// convolutions, depthwise ones too, transposed convolutions and products, without activation or with relu between
/// them; pools, moves and padding by zeros may lie there as well. Chains are gone through until the scales stand, at
/// most `sweeps` times.
///
/// After ``Calibrate`` the largest activation stands for `r1`; where all readers see one channel for each output, whose
/// scale takes any factor, `s` is that activation alone. Then `norms` are worked on, too: gain, and bias, of a norm are
/// divided, the weights behind multiplied, and where these have biases the middle of each channel's range is moved to
/// zero, so that one code serves all channels (Z. Li and others, RepQ-ViT, 2023, arXiv:2212.08254). What was measured
/// of a changed value is forgotten: `calibrate` runs again behind.
package struct Equalize: Pass {
  package static let name = "equalize"
  package static let summary = "gives the channels between layers like ranges, by factors of the weights on both sides"
  package static let legality =
    "all readers of a layer or norm are layers with constant f32 weights of their own, with at most relu, pools and moves between"
  package static let source = "M. Nagel and others, 2019, arXiv:1906.04721, section 4.1"

  /// What computes the values whose channels are equalized.
  package enum Site: String, Hashable, Codable, Sendable, CaseIterable {
    case layers, norms
  }

  package var at: [Site] = [.layers, .norms]
  package var sweeps: Int = 20

  package init() {}

  package var fidelity: Fidelity { .exact }

  /// Scales within this factor of one are none.
  private static let closeness = 0.01
  /// The largest factor by which a channel may move.
  private static let limit = 4096.0

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard (1...1000).contains(sweeps) else {
      throw CompileError(.usage, "'equalize' goes through chains \(sweeps) times, expected 1 to 1000")
    }
    for index in model.functions.indices { try equalize(function: index, of: &model, &context) }
  }

  private func equalize(function index: Int, of model: inout Model, _ context: inout PassContext) throws {
    let graph = model.functions[index]
    let values = EqualizedValue.all(in: RecipeGraph(graph), at: at) { [context] value, reason in
      context.explain(Self.name, at: "%" + graph[value].name, reason)
    }
    guard !values.isEmpty else { return }
    let statistics = context.calibration?.channels[graph.name] ?? [:]
    let evaluator = context.constantEvaluator(for: graph, in: model)
    var layers: [NodeID: ScaledLayer] = [:]
    let lookup = RecipeGraph(graph)
    for id in Set(values.flatMap { [$0.writer] + $0.readers }).sorted(by: { $0.index < $1.index }) {
      guard let layer = AffineLayer(id, in: lookup) else { continue }
      layers[id] = ScaledLayer(id, layer, try evaluator.tensor(layer.weight).numbers())
    }

    var work = Work(values: values, layers: layers)
    for (number, value) in values.enumerated() {
      guard let seen = statistics[graph[value.value].name], seen.rows > 0, seen.maxima.count == value.channels else {
        continue
      }
      work.measured[number] = seen
    }
    for sweep in 0..<sweeps {
      context.progress?.update("equalizing", done: sweep, of: sweeps)
      if work.sweep(limit: Self.limit) < Self.closeness { break }
    }

    var builder = GraphBuilder(graph: graph, constants: model.constants)
    for (number, value) in values.enumerated() {
      let scales = work.scales[number].map { Float($0) }
      guard work.scales[number].contains(where: { abs(log($0)) > Self.closeness }) || work.shifts[number] != nil else {
        continue
      }
      try builder.apply(scales, shift: work.shifts[number], to: value)
      for changed in [value.value] + value.between {
        context.calibration?[graph.name, graph[changed].name] = nil
        context.calibration?.channels[graph.name]?[graph[changed].name] = nil
      }
      context.count("values equalized")
      context.count("channels equalized", by: value.channels)
    }
    _ = builder.graph.eraseDeadCode()
    (model.functions[index], model.constants) = (builder.graph, builder.constants)
  }
}

/// The scales on their way.
private struct Work {
  let values: [EqualizedValue]
  var layers: [NodeID: ScaledLayer]
  /// What was seen of values before they were scaled, by their place.
  var measured: [Int: ChannelStatistics] = [:]
  /// What the channels of each value are divided by.
  var scales: [[Double]]
  /// What is taken from the channels of the results of norms before that.
  var shifts: [[Float]?]

  init(values: [EqualizedValue], layers: [NodeID: ScaledLayer]) {
    self.values = values
    self.layers = layers
    scales = values.map { [Double](repeating: 1, count: $0.channels) }
    shifts = values.map { _ in nil }
  }

  /// Goes through all values once; the largest logarithm of a new scale.
  mutating func sweep(limit: Double) -> Double {
    var largest = 0.0
    for (number, value) in values.enumerated() {
      let isNorm = layers[value.writer] == nil
      if isNorm && measured[number] == nil { continue }
      var found = isNorm ? normScales(number) : layerScales(number, value)
      for channel in found.indices {
        let total = scales[number][channel] * found[channel]
        let bounded = min(max(total, 1 / limit), limit)
        found[channel] = bounded / scales[number][channel]
        scales[number][channel] = bounded
        largest = max(largest, abs(log(found[channel])))
      }
      layers[value.writer]?.divideOutputs(by: found)
      for reader in value.readers { layers[reader]?.multiplyChannels(by: found) }
    }
    return largest
  }

  /// What the channels of the value of a layer are to be divided by, beyond what they are already.
  private func layerScales(_ number: Int, _ value: EqualizedValue) -> [Double] {
    guard let writer = layers[value.writer] else { return [] }
    var behind = [Double](repeating: 0, count: value.channels)
    var seesOne = true
    for reader in value.readers {
      guard let layer = layers[reader] else { continue }
      seesOne = seesOne && layer.width == 1
      behind = zip(behind, layer.channelMaxima).map { max($0, $1) }
    }
    let before: [Double]
    if let seen = measured[number] {
      before = zip(seen.maxima, scales[number]).map { Double($0) / $1 }
    } else {
      before = writer.outputMaxima
    }
    // Channels that hold nothing, or that nobody reads, stay.
    let isUsed = zip(before, behind).map { $0 > 0 && $0.isFinite && $1 > 0 && $1.isFinite }
    guard measured[number] != nil, seesOne else {
      return (0..<value.channels).map { isUsed[$0] ? (before[$0] / behind[$0]).squareRoot() : 1 }
    }
    return relative(before, isUsed)
  }

  /// The scales of a norm, from the width of each channel's range.
  private mutating func normScales(_ number: Int) -> [Double] {
    guard let seen = measured[number] else { return [] }
    let moves = values[number].takesShifts
    let shift = zip(seen.smallest, seen.largest).map { moves ? ($0 + $1) / 2 : 0 }
    if moves { shifts[number] = shift }
    let reach = seen.smallest.indices.map { channel in
      Double(max(seen.largest[channel] - shift[channel], shift[channel] - seen.smallest[channel]))
        / scales[number][channel]
    }
    return relative(reach, reach.map { $0 > 0 && $0.isFinite })
  }

  /// Numbers over their geometric mean; 1 for those that are not used.
  private func relative(_ numbers: [Double], _ isUsed: [Bool]) -> [Double] {
    let logarithms = zip(numbers, isUsed).filter(\.1).map { log($0.0) }
    let mean = logarithms.isEmpty ? 0 : logarithms.reduce(0, +) / Double(logarithms.count)
    return zip(numbers, isUsed).map { $1 ? exp(log($0) - mean) : 1 }
  }
}

extension GraphBuilder {
  /// Takes `shift` from the channels of a value, divides them by scales and undoes both where they are read.
  fileprivate mutating func apply(_ scales: [Float], shift: [Float]?, to value: EqualizedValue) throws {
    func vector(_ numbers: [Float], _ sizes: [Int], _ name: String, in builder: inout GraphBuilder) -> ValueID {
      builder.constant(.inline(name, .f32, sizes, numbers))
    }
    origin = graph[value.writer].origin
    // Only weights and biases of layers have changed since these were found.
    let lookup = RecipeGraph(graph)
    if let layer = AffineLayer(value.writer, in: lookup) {
      let (sizes, numbers) = layer.alongOutputs(scales)
      let factor = vector(numbers, sizes, "scales", in: &self)
      graph.setInput(1, of: value.writer, to: try emit(Divide(), layer.weight, factor))
      if let bias = layer.bias {
        let factor = vector(scales, [scales.count], "scales", in: &self)
        graph.setInput(2, of: value.writer, to: try emit(Divide(), bias, factor))
      }
    } else {
      let factor = vector(scales, [scales.count], "scales", in: &self)
      for operand in 1..<graph[value.writer].inputs.count {
        var old = graph[value.writer].inputs[operand]
        if operand == 2, let shift {
          old = try emit(Subtract(), old, vector(shift, [shift.count], "shift", in: &self))
        }
        graph.setInput(operand, of: value.writer, to: try emit(Divide(), old, factor))
      }
    }
    for reader in value.readers {
      guard let layer = AffineLayer(reader, in: lookup) else { continue }
      origin = graph[reader].origin
      if let shift, let bias = layer.bias, case .product(let op) = layer.operation {
        let (sizes, numbers) = layer.alongChannels(shift)
        let moved = try emit(Multiply(), layer.weight, vector(numbers, sizes, "shift", in: &self))
        let sums = try emit(Reduce(.sum, axes: [op.transposeB ? 1 : 0]), moved)
        graph.setInput(2, of: reader, to: try emit(Add(), bias, sums))
      }
      let (sizes, numbers) = layer.alongChannels(scales)
      let factor = vector(numbers, sizes, "scales", in: &self)
      graph.setInput(1, of: reader, to: try emit(Multiply(), layer.weight, factor))
    }
  }
}

extension AffineLayer {
  /// Numbers of the outputs laid out along the weight: sizes that broadcast to it, and their numbers.
  fileprivate func alongOutputs(_ numbers: [Float]) -> (sizes: [Int], numbers: [Float]) {
    switch operation {
    case .product(let op): return (op.transposeB ? [outputs, 1] : [1, outputs], numbers)
    case .convolution: return ([outputs, 1, 1, 1], numbers)
    case .transposed:
      let (rows, columns) = (channels / groups, outputs / groups)
      let all = (0..<channels).flatMap { channel in
        (0..<columns).map { numbers[channel / rows * columns + $0] }
      }
      return ([channels, columns, 1, 1], all)
    }
  }

  /// The same with numbers of the input channels.
  fileprivate func alongChannels(_ numbers: [Float]) -> (sizes: [Int], numbers: [Float]) {
    switch operation {
    case .product(let op): return (op.transposeB ? [1, channels] : [channels, 1], numbers)
    case .convolution:
      if groups == 1 { return ([1, channels, 1, 1], numbers) }
      let (rows, columns) = (outputs / groups, channels / groups)
      let all = (0..<outputs).flatMap { output in
        (0..<columns).map { numbers[output / rows * columns + $0] }
      }
      return ([outputs, columns, 1, 1], all)
    case .transposed: return ([channels, 1, 1, 1], numbers)
    }
  }
}
