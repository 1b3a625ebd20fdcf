import ArgumentParser
import Base
import Driver
import Formats
import IR
import Passes
import Tensors

/// How a checkpoint is read.
struct LoadArguments: ParsableArguments {
  @Option(help: "Rows of the KV cache. (default: the smaller of the checkpoint's and 2048)")
  var context: Int?

  @Option(help: "Element type of the KV cache: 32, 16 or 8 bits. (default: 32 for f32 checkpoints, else 16)")
  var kv: Int?

  @Option(
    name: .customLong("dim"), help: ArgumentHelp("A symbolic size of an input: N or A...B.", valueName: "name=range"))
  var dims: [String] = []

  @Option(
    help: ArgumentHelp("A low-rank adapter (LoRA, as peft saves it) to add to the weights.", valueName: "folder"))
  var adapter: String?

  @Flag(help: "Keeps the adapter's products beside the weights instead of adding them.")
  var keepAdapter = false

  @Option(
    help: ArgumentHelp(
      "The tokenizer of a llama2.c checkpoint. (default: tokN.bin or tokenizer.bin beside it)", valueName: "file"))
  var tokenizer: String?

  /// The options of the loader.
  func options() throws -> LoadOptions {
    var options = LoadOptions()
    options.tokenizer = tokenizer
    if let context {
      guard context > 0 else { throw CompileError(.usage, "--context is \(context), expected at least 1") }
      options.context = context
    }
    guard adapter != nil || !keepAdapter else { throw CompileError(.usage, "--keep-adapter needs --adapter") }
    options.adapter = adapter
    options.keepsAdapter = keepAdapter
    switch kv {
    case nil: break
    case 32?: options.cacheType = .f32
    case 16?: options.cacheType = .f16
    case 8?: options.cacheType = .i8
    case let other?: throw CompileError(.usage, "--kv is \(other), expected 32, 16 or 8")
    }
    for text in dims {
      let (name, range) = try Self.dimension(text)
      guard options.dimensions.updateValue(range, forKey: name) == nil else {
        throw CompileError(.usage, "--dim names '\(name)' twice")
      }
    }
    return options
  }

  private static func dimension(_ text: String) throws -> (String, ClosedRange<Int>) {
    guard let equals = text.lastIndex(of: "="), equals != text.startIndex else {
      throw CompileError(.usage, "--dim is '\(text)', expected name=N or name=A...B")
    }
    let name = String(text[..<equals])
    let range = text[text.index(after: equals)...]
    if let number = Int(range), number > 0 { return (name, number...number) }
    if let dots = range.firstRange(of: "..."), let low = Int(range[..<dots.lowerBound]),
      let high = Int(range[dots.upperBound...]), low > 0, low <= high
    {
      return (name, low...high)
    }
    throw CompileError(.usage, "--dim \(name) is '\(range)', expected a positive number or a range such as 1...128")
  }
}

/// Which passes run.
struct PassArguments: ParsableArguments {
  @Option(help: "Quantizes the linear layers: w8 or w4 with a group (w4g32, w4g64, w4g128), a8 or a32.")
  var quantize: String?

  @Option(
    help: ArgumentHelp(
      "Samples (.npz) to measure the ranges of activations on: convolutions and linear layers compute in 8 bits.",
      valueName: "file"))
  var calibrate: String?

  @Option(help: "How ranges follow from samples: minmax, percentile (99.99) or percentile:P. (default: minmax)")
  var calibrationRange: String?

  @Option(help: "Passes that replace the preset, such as canonicalize,fuse.")
  var pipeline: String?

  @Option(help: "Does no rewrite after this many, to find the one that breaks a model.")
  var stopAfterRewrites: Int?

  @Flag(help: "Prints every rewrite to standard error.")
  var traceRewrites = false

  @Option(help: "Verifies the graph after each 'pass' or each 'rewrite'.")
  var verifyEach: VerifyEach = .pass

  enum VerifyEach: String, ExpressibleByArgument, CaseIterable {
    case pass, rewrite
  }

  /// The options of the passes, with `load` for the loader.
  func options(_ load: LoadArguments) throws -> FrontendOptions {
    guard quantize == nil || pipeline == nil else {
      throw CompileError(
        .usage, "--quantize and --pipeline exclude each other; name 'quantize{spec=...}' in the pipeline")
    }
    guard calibrate == nil || quantize != nil else {
      throw CompileError(
        .usage, "--calibrate needs --quantize w8; in a pipeline write 'calibrate{samples=...},quantize'")
    }
    guard calibrationRange == nil || calibrate != nil else {
      throw CompileError(.usage, "--calibration-range needs --calibrate")
    }
    var options = FrontendOptions()
    options.load = try load.options()
    options.quantization = try quantize.map { try QuantizationSpec(parsing: $0) }
    options.calibration = try calibrate.map {
      Calibrate(samples: $0, range: try calibrationRange.map { try Calibrate.Range(parsing: $0) } ?? .minmax)
    }
    if let type = options.quantization?.cacheType { options.load.cacheType = type }
    options.pipeline = try pipeline.map { try Pipeline(parsing: $0, registry: Presets.registry) }
    options.rewriteLimit = stopAfterRewrites
    options.tracesRewrites = traceRewrites
    options.verifiesEachRewrite = verifyEach == .rewrite
    return options
  }
}

extension Stage: ExpressibleByArgument {
  /// The stages that have a text form.
  static let withText: [Stage] = allCases.filter(\.hasText)
}

/// Prints `value` as indented JSON.
func printJSON(_ value: JSON) { Standard.write(value.text(pretty: true), to: 1) }
