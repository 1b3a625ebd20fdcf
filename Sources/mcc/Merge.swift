import ArgumentParser
import Base
import Driver

extension MergeMethod: ExpressibleByArgument {}
extension MergeMetric: ExpressibleByArgument {}

/// `mcc merge`: one checkpoint of several that have the same graph.
struct Merge: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Merges checkpoints of one graph into one.",
    discussion: """
      Checkpoints are Hugging Face folders, GGUF files and files of weights. The form of the output follows from its \
      name, as in 'mcc convert'.
      """)

  @Argument(help: "The checkpoints.")
  var inputs: [String]

  @Option(name: .shortAndLong, help: "The file or folder to write.")
  var output: String

  @Option(help: "How numbers become one.")
  var method: MergeMethod = .mean

  @Option(help: ArgumentHelp("One weight per checkpoint. (default: equal ones)", valueName: "a,b,..."))
  var weights: String?

  @Option(help: "The checkpoint that all come from; for task-arithmetic, ties and dare.")
  var base: String?

  @Option(help: "What the sum of the differences from the base is multiplied by. (default: 1)")
  var scale: Double?

  @Option(help: "The share of the differences that is kept. (default: 0.2 for ties, 0.1 for dare)")
  var density: Double?

  @Option(help: "Chooses the numbers that dare drops. (default: 0)")
  var seed: Int?

  @Option(help: "The place between the two checkpoints of slerp, 0 to 1. (default: 0.5)")
  var interpolation: Double?

  @Option(help: "What weighs checkpoints in mwa.")
  var metric: MergeMetric?

  @Option(help: ArgumentHelp("The metric of each checkpoint.", valueName: "a,b,..."))
  var values: String?

  @Option(help: "The power of the metric in mwa; 0 gives equal weights. (default: 1)")
  var penalty: Double?

  @Option(
    help: ArgumentHelp(
      "Merges only the tensors whose names match, with * and ?; may be repeated.", valueName: "pattern"))
  var layers: [String] = []

  @Option(
    help: ArgumentHelp(
      "For regmean and regmean++, once for each checkpoint: a text, or token ids (.npy, .npz).", valueName: "file"))
  var calibrate: [String] = []

  @Option(help: "Samples per checkpoint. (default: 16)")
  var samples: Int?

  @Option(help: "Tokens per sample. (default: 256)")
  var length: Int?

  @Option(help: "What numbers off the diagonal of the statistics are multiplied by, 0 to 1. (default: 0.9)")
  var diagonal: Double?

  @Flag(name: .shortAndLong, help: "Prints nothing.")
  var quiet = false

  func run() async throws {
    var options = MergeOptions()
    options.method = method
    options.weights = try weights.map { try Self.numbers($0, "--weights") }
    options.base = base
    options.scale = scale
    options.density = density
    options.seed = seed
    options.interpolation = interpolation
    options.metric = metric
    options.values = try values.map { try Self.numbers($0, "--values") }
    options.penalty = penalty
    options.layers = layers
    options.calibration = calibrate
    options.samples = samples
    options.length = length
    options.diagonal = diagonal
    let notes = try await Merger(options).merge(inputs, to: output)
    if quiet { return }
    for line in notes { Standard.error("note: \(line)") }
  }

  /// Numbers with commas between them.
  private static func numbers(_ text: String, _ option: String) throws -> [Double] {
    try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
      guard let number = Double(part) else {
        throw CompileError(.usage, "\(option) is '\(text)', expected numbers with commas between them")
      }
      return number
    }
  }
}
