import Base
import IR
import Tensors

/// Runs the model on samples with the evaluator and keeps the range of every value of element type f32, by its name, for
/// ``QuantizeWeights`` (`PassContext.calibration`). The model stays as it is.
///
/// `samples` is an archive with arrays named like the inputs (or one array, for a model of one input), samples stacked
/// along the first axis, or a folder of such files. `count` is how many of the samples are used, from the first.
/// `range` says how a range follows from the numbers:
///
/// - `minmax`: from the smallest to the largest;
/// - `percentile` (99.99) or `percentile:P`: without `100 - P` percent of them on each side;
/// - `sparse-minmax` (99.99) or `sparse-minmax:P`: the same of those that are not 0, for values that are 0 in most
///   places (W. Zhou and others, LiDAR-PTQ, 2024, arXiv:2401.15865), where a percentile of all would cut into the few
///   that count;
/// - `mse`: with the least squared error of bytes;
/// - `entropy`: with the least divergence of the numbers' distribution in bytes (S. Migacz, 2017).
///
/// A network that is run again and again on what it gave, such as a diffusion model, sees other numbers at each of its
/// steps. With `steps` every sample is run so many times: each output of `loop` becomes the input that is named with it
/// (`["y:x"]`), and the input `time` grows by `stride` from the sample's number on (X. Li and others, Q-Diffusion,
/// 2023).
///
/// Infinities, such as those of masks that are added to scores, are passed over; a value that is no number (NaN) on a
/// sample is an error.
///
/// Channels are measured as well, along the axis on which a convolution has them, else the last (`Calibration.channels`).
package struct Calibrate: Pass {
  package static let name = "calibrate"
  package static let summary = "measures the ranges of values on samples"
  package static let legality = "always: the model stays as it is; for networks of one function without states"
  package static let source = "B. Jacob and others, 2018, arXiv:1712.05877, section 3"

  /// How a range follows from the numbers.
  package enum Range: Hashable, Sendable {
    case minmax, mse, entropy
    case percentile(Double)
    case sparseMinmax(Double)
  }

  package var samples: String = ""
  package var range: Range = .minmax
  package var count: Int?
  /// How often each sample is run.
  package var steps: Int = 1
  /// Outputs that become inputs of the next step, each as `OUTPUT:INPUT`.
  package var loop: [String] = []
  /// The input that counts steps; empty for none.
  package var time: String = ""
  /// What a step adds to it.
  package var stride: Int = 1

  package init() {}

  package init(samples: String, range: Range = .minmax) {
    self.samples = samples
    self.range = range
  }

  package var fidelity: Fidelity { .exact }

  package func run(_ model: inout Model, _ context: inout PassContext) throws {
    guard !samples.isEmpty else { throw CompileError(.usage, "calibrate needs a file: calibrate{samples=FILE.npz}") }
    guard let read = context.samples else {
      throw CompileError(.usage, "samples cannot be read here", notes: ["the pass 'calibrate' needs 'mcc'"])
    }
    guard let graph = model.function(role: "main") ?? (model.functions.count == 1 ? model.functions.first : nil),
      graph.states.isEmpty
    else {
      throw CompileError(.unsupported, "calibration is for networks of one function without states")
    }
    let next = try StepLoop(self, graph)
    let all = try read(samples, graph)
    if let count, count < 1 { throw CompileError(.usage, "the count of samples is \(count), expected at least 1") }
    let runs = all.prefix(count ?? all.count)
    guard !runs.isEmpty else { throw CompileError(.input, "'\(samples)' holds no samples") }

    var histograms: [ValueID: Histogram] = [:]
    var channels: [ValueID: ChannelStatistics] = [:]
    let axes = Self.channelAxes(graph)
    /// The first value that is no number.
    var undefined: ValueID?
    func note(_ value: ValueID, _ tensor: Tensor) {
      guard tensor.type.isDense, tensor.type.element == .f32 else { return }
      histograms[value, default: Histogram()].add(tensor.view.elements(as: Float.self))
      if undefined == nil, histograms[value]?.hasNaN == true { undefined = value }
      channels[value, default: ChannelStatistics()].add(tensor.view, axis: axes[value])
    }
    let evaluator = try Evaluator(model, function: graph.name)
    evaluator.observer = { node, results in
      for (value, tensor) in zip(graph[node].results, results) { note(value, tensor) }
    }
    for (index, inputs) in runs.enumerated() {
      context.progress?.update("calibrating", done: index, of: runs.count)
      var inputs = inputs
      for step in 0..<steps {
        for (value, tensor) in zip(graph.inputs, inputs) { note(value, tensor) }
        let outputs = try evaluator.run(inputs).outputs
        if let undefined {
          throw CompileError(
            .input, "'%\(graph[undefined].name)' is not a number (NaN) on sample \(index) of '\(samples)'")
        }
        if step + 1 < steps { inputs = try next(inputs, outputs) }
      }
    }
    var calibration = Calibration()
    for (value, histogram) in histograms {
      let found: ClosedRange<Float>? =
        switch range {
        case .minmax: histogram.extremes
        case .percentile(let percent): histogram.range(percent: percent)
        case .sparseMinmax(let percent): histogram.range(percent: percent, countingZeros: false)
        case .mse: histogram.rangeOfLeastError()
        case .entropy: histogram.rangeOfLeastDivergence()
        }
      guard let found else { continue }
      calibration[graph.name, graph[value].name] = .init(range: found, count: histogram.count)
    }
    for (value, statistics) in channels {
      calibration.channels[graph.name, default: [:]][graph[value].name] = statistics
    }
    context.calibration = calibration
    context.count("samples", by: runs.count)
    if steps > 1 { context.count("steps", by: runs.count * steps) }
    context.count("values measured", by: histograms.count)
  }

  /// The axis along which channels run, of values that convolutions with channels first give or read.
  private static func channelAxes(_ graph: Graph) -> [ValueID: Int] {
    var axes: [ValueID: Int] = [:]
    for id in graph.nodeIDs {
      guard let conv = graph[id].op as? Conv2D, conv.layout == .first else { continue }
      for value in [graph[id].inputs[0], graph[id].results[0]] { axes[value] = 1 }
    }
    return axes
  }
}

extension Calibrate.Range: Codable {
  /// Reads `minmax`, `mse`, `entropy`, and `percentile` or `sparse-minmax` with or without `:99.9`.
  package init(parsing text: String) throws {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let percent = parts.count == 1 ? 99.99 : Double(parts[1])
    switch (parts[0], percent) {
    case ("minmax", _) where parts.count == 1: self = .minmax
    case ("mse", _) where parts.count == 1: self = .mse
    case ("entropy", _) where parts.count == 1: self = .entropy
    case ("percentile", let percent?) where percent > 50 && percent <= 100: self = .percentile(percent)
    case ("sparse-minmax", let percent?) where percent > 50 && percent <= 100: self = .sparseMinmax(percent)
    default:
      throw CompileError(
        .usage,
        "the calibration range is '\(text)', expected minmax, mse, entropy, percentile or sparse-minmax, the last two perhaps "
          + "with :P above 50 up to 100")
    }
  }

  package init(from decoder: any Decoder) throws {
    try self.init(parsing: try decoder.singleValueContainer().decode(String.self))
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .minmax: try container.encode("minmax")
    case .mse: try container.encode("mse")
    case .entropy: try container.encode("entropy")
    case .percentile(let percent): try container.encode("percentile:\(percent)")
    case .sparseMinmax(let percent): try container.encode("sparse-minmax:\(percent)")
    }
  }
}
