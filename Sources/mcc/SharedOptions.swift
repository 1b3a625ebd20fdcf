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

  @Option(
    help: """
      Bits of the KV cache: 32, 16, 8, 4, 4t for one scale a head, or 4n, 3n and 2n for levels that are not uniform. \
      (default: 32 for f32 checkpoints, else 16)
      """)
  var kv: String?

  @Option(
    name: .customLong("dim"), help: ArgumentHelp("A symbolic size of an input: N or A...B.", valueName: "name=range"))
  var dims: [String] = []

  @Option(
    help: ArgumentHelp("An adapter (LoRA, DoRA or IA3, as peft saves it) to add to the weights.", valueName: "folder"))
  var adapter: String?

  @Flag(help: "Keeps the adapter's products beside the weights instead of adding them.")
  var keepAdapter = false

  @Option(
    help: ArgumentHelp(
      "The tokenizer of a llama2.c checkpoint. (default: tokN.bin or tokenizer.bin beside it)", valueName: "file"))
  var tokenizer: String?

  /// The options by name, as far as they are given.
  var given: [String] {
    let all: [(String, Bool)] = [
      ("--context", context != nil), ("--kv", kv != nil), ("--dim", !dims.isEmpty), ("--adapter", adapter != nil),
      ("--keep-adapter", keepAdapter), ("--tokenizer", tokenizer != nil),
    ]
    return all.filter(\.1).map(\.0)
  }

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
    options.cacheType = try kv.map { text in
      guard let type = CacheType(spelling: text) else {
        let choices = CacheType.allCases.map(\.spelling).joined(separator: ", ")
        throw CompileError(.usage, "--kv is '\(text)', expected one of \(choices)")
      }
      return type
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

extension Presets.Level: EnumerableFlag {
  package static func name(for value: Presets.Level) -> NameSpecification {
    .customLong(value.rawValue, withSingleDash: true)
  }

  package static func help(for value: Presets.Level) -> ArgumentHelp? {
    switch value {
    case .o0: "Does only what compilation needs."
    case .o1: "Does everything that keeps the function. (default)"
    case .o2: "Changes the precision of values as well."
    }
  }
}

/// How what passes do is checked.
struct CheckArguments: ParsableArguments {
  @Flag(
    help: """
      Runs the model before and after every pass on the same inputs and compares; an exact pass that changes more than \
      roundings account for ends in an error that names pass, rule and tensor.
      """)
  var check = false

  @Option(
    help: ArgumentHelp(
      "Inputs for --check beside the made-up ones: samples by the names of the inputs, or token ids.",
      valueName: "file.npz"))
  var checkInputs: String?

  @Flag(help: "Lets --check run models of any size through the evaluator.")
  var checkLarge = false

  @Option(help: "Checks, and fails if the mean KL divergence of next tokens from the original model is larger.")
  var maxKl: Double?

  @Option(help: "Checks, and fails if the relative error (RMS) of an output from the original model is larger.")
  var maxError: Double?

  /// The options of the check; nil for none.
  func options() throws -> CheckOptions? {
    for (name, value) in [("--max-kl", maxKl), ("--max-error", maxError)] {
      if let value, !(value >= 0) {
        throw CompileError(.usage, "\(name) is \(value), expected a number that is not negative")
      }
    }
    guard check || maxKl != nil || maxError != nil else {
      if checkInputs != nil || checkLarge {
        throw CompileError(.usage, "--check-inputs and --check-large need --check, --max-kl or --max-error")
      }
      return nil
    }
    var options = CheckOptions()
    options.inputs = checkInputs
    options.checksLarge = checkLarge
    options.maximumDivergence = maxKl
    options.maximumError = maxError
    return options
  }
}

/// Which passes run.
struct PassArguments: ParsableArguments {
  @Flag(exclusivity: .exclusive)
  var level: Presets.Level?

  @Option(
    help: ArgumentHelp(
      "Drops all other outputs, with what only they need: auxiliary heads of a training form.", valueName: "names"))
  var outputs: String?

  @Option(help: "Quantizes the linear layers: w8 or w4 with a group (w4g32, w4g64, w4g128), a8 (to a4) or a32.")
  var quantize: String?

  @Option(
    help: "Gives each layer a format of its own, so that weights take this many bits on average; needs --calibrate.")
  var bits: Double?

  @Option(
    help: ArgumentHelp(
      "The same, so that weights, scales and tokenizer take at most this, such as 300MB; chooses formats, groups and codes.",
      valueName: "size"))
  var maxSize: String?

  @Option(
    help: ArgumentHelp(
      """
      For models of language a text or token ids (.npy, .npz) to choose the codes of weights on, with --kv 4, 4n, 3n or \
      2n to measure what keys and values are like, and with --kv-keep and --kv-rank what they are looked at; for other \
      networks samples (.npz, .npy or a folder of them) to measure the ranges of activations on, whose convolutions and linear layers then compute in 8 bits.
      """, valueName: "file"))
  var calibrate: String?

  @Option(
    help: """
      How codes are chosen: rtn (to the nearest, whatever else --calibrate serves), gptq (by their effect on --calibrate), adaptive (the same, one code at a \
      time from the nearest) or best, which in models that embed fits levels to each tensor where weights have 3 or 4 bits. (default: best with --calibrate, else rtn)
      """)
  var method: QuantizationMethod?

  @Option(
    help: ArgumentHelp(
      """
      Keeps what is computed on --calibrate in a folder, for the next time; none for not at all. (default: \
      mcc/calibration in XDG_CACHE_HOME, if that is set)
      """, valueName: "folder"))
  var calibrationCache: String?

  @Option(
    help: """
      How ranges follow from samples: minmax, mse, entropy, percentile or percentile:P (of all numbers), sparse-minmax \
      or sparse-minmax:P (of those other than 0). (default: minmax)
      """)
  var calibrationRange: String?

  @Option(
    help: """
      Turns activations and weights before they are quantized: hadamard, random, outlier-aware (by the directions that stand \
      out on --calibrate), auto (whichever loses least there) or none. (default: none)
      """)
  var rotate: String?

  @Option(
    help: """
      Moves scale between activations and weights before they are quantized: smoothquant, awq or none; by the activations \
      on --calibrate where that is a text. (default: none)
      """)
  var smooth: String?

  @Option(
    help: ArgumentHelp(
      """
      Keeps this share of the rows of the KV cache, of each layer as many as the attention on --calibrate asks for, and of \
      a text those that receive most of it; needs --calibrate.
      """, valueName: "share"))
  var kvKeep: Double?

  @Option(
    help: ArgumentHelp(
      """
      Keeps this share of the numbers of old rows of the KV cache, the first in bases in which these carry the most of the \
      attention on --calibrate, and the last 32 rows whole; needs --calibrate.
      """, valueName: "share"))
  var kvRank: Double?

  @Option(
    help: ArgumentHelp(
      """
      With --kv-rank, so many successive layers take their keys and values from common rows; 0 leaves each head rows of \
      its own, which are read faster and lose far more. (default: 1)
      """, valueName: "count"))
  var kvLayers: Int?

  @Option(
    help: ArgumentHelp(
      """
      With --kv 4n, 3n or 2n and --calibrate, keeps this share of the numbers of a row apart in f16, those of largest \
      magnitude. (default: 0.01)
      """, valueName: "share"))
  var kvOutliers: Double?

  @Option(help: "Passes that replace the preset, such as canonicalize,fuse.")
  var pipeline: String?

  @Option(help: "Does no rewrite after this many, to find the one that breaks a model.")
  var stopAfterRewrites: Int?

  @Flag(help: "Prints every rewrite to standard error.")
  var traceRewrites = false

  @Option(
    help: ArgumentHelp(
      "Prints to standard error where this pass or rule found its pattern but did nothing, and why.", valueName: "pass")
  )
  var explain: String?

  @Option(help: "Verifies the graph after each 'pass' or each 'rewrite'.")
  var verifyEach: VerifyEach = .pass

  enum VerifyEach: String, ExpressibleByArgument, CaseIterable {
    case pass, rewrite
  }

  /// The options that change what a model becomes, by name, as far as they are given.
  var given: [String] {
    let all: [(String, Bool)] = [
      ("-\(level?.rawValue ?? "O")", level != nil), ("--outputs", outputs != nil), ("--quantize", quantize != nil),
      ("--bits", bits != nil), ("--max-size", maxSize != nil), ("--calibrate", calibrate != nil),
      ("--method", method != nil), ("--rotate", rotate != nil), ("--smooth", smooth != nil),
      ("--kv-keep", kvKeep != nil), ("--kv-rank", kvRank != nil), ("--kv-outliers", kvOutliers != nil),
      ("--pipeline", pipeline != nil),
    ]
    return all.filter(\.1).map(\.0)
  }

  /// Whether weights are rounded by these options.
  var quantizes: Bool { quantize != nil || bits != nil || maxSize != nil }

  /// The options of the passes, with `load` for the loader; `quantizesLater` if recipes say elsewhere how weights are
  /// rounded.
  func options(_ load: LoadArguments, quantizesLater: Bool = false) throws -> FrontendOptions {
    let quantizes = quantizes || quantizesLater
    let isBudgeted = bits != nil || maxSize != nil
    guard [quantize != nil, bits != nil, maxSize != nil].count(where: { $0 }) <= 1 else {
      throw CompileError(.usage, "--quantize, --bits and --max-size exclude one another")
    }
    guard !isBudgeted || pipeline == nil else {
      throw CompileError(
        .usage, "--bits and --max-size exclude --pipeline; name 'allocate-bits{bits=...}' in the pipeline")
    }
    if let bits, !(bits > 0 && bits <= 16) { throw CompileError(.usage, "--bits is \(bits), expected up to 16") }
    guard !isBudgeted || calibrate != nil else {
      throw CompileError(.usage, "--\(bits == nil ? "max-size" : "bits") needs a text: --calibrate FILE")
    }
    guard quantize == nil || pipeline == nil else {
      throw CompileError(
        .usage, "--quantize and --pipeline exclude each other; name 'quantize{spec=...}' in the pipeline")
    }
    guard level == nil || pipeline == nil else {
      throw CompileError(.usage, "-\(level?.rawValue ?? "O") and --pipeline exclude each other")
    }
    if let kvKeep {
      guard kvKeep > 0, kvKeep <= 1 else { throw CompileError(.usage, "--kv-keep is \(kvKeep), expected up to 1") }
      guard calibrate != nil else { throw CompileError(.usage, "--kv-keep needs a text: --calibrate FILE") }
      guard pipeline == nil else {
        throw CompileError(
          .usage, "--kv-keep and --pipeline exclude each other; name 'bound-cache{keep=...}' in the pipeline")
      }
    }
    if let kvRank {
      guard kvRank > 0, kvRank <= 1 else { throw CompileError(.usage, "--kv-rank is \(kvRank), expected up to 1") }
      guard calibrate != nil else { throw CompileError(.usage, "--kv-rank needs a text: --calibrate FILE") }
      guard pipeline == nil else {
        throw CompileError(
          .usage, "--kv-rank and --pipeline exclude each other; name 'factor-cache{rank=...}' in the pipeline")
      }
      guard kvKeep == nil else { throw CompileError(.usage, "--kv-rank and --kv-keep exclude each other") }
    }
    if let kvLayers {
      guard kvRank != nil else { throw CompileError(.usage, "--kv-layers needs --kv-rank") }
      guard (0...1024).contains(kvLayers) else {
        throw CompileError(.usage, "--kv-layers is \(kvLayers), expected 0 to 1024")
      }
    }
    if let kvOutliers {
      guard kvOutliers >= 0, kvOutliers <= ChannelCache.largestShare else {
        throw CompileError(.usage, "--kv-outliers is \(kvOutliers), expected 0 to \(ChannelCache.largestShare)")
      }
      guard calibrate != nil else { throw CompileError(.usage, "--kv-outliers needs a text: --calibrate FILE") }
      guard pipeline == nil else {
        throw CompileError(
          .usage,
          "--kv-outliers and --pipeline exclude each other; name 'channel-cache{outliers=...}' in the pipeline")
      }
    }
    guard
      calibrate == nil || quantizes || kvKeep != nil || kvRank != nil
        || pipeline == nil && load.kv.flatMap({ CacheType(spelling: $0) })?.isMeasured == true
    else {
      throw CompileError(
        .usage,
        "--calibrate needs --quantize, --kv-keep, --kv-rank or --kv 4, 4n, 3n or 2n; in a pipeline write "
          + "'quantize,gptq{text=...}' or 'calibrate{samples=...},quantize'"
      )
    }
    guard method == nil || quantizes else { throw CompileError(.usage, "--method needs --quantize") }
    if let method, method != .rtn, calibrate == nil {
      throw CompileError(.usage, "--method \(method.rawValue) needs --calibrate")
    }
    guard rotate == nil || quantizes else {
      throw CompileError(.usage, "--rotate needs --quantize; in a pipeline write 'rotate,quantize'")
    }
    guard smooth == nil || quantizes else {
      throw CompileError(.usage, "--smooth needs --quantize; in a pipeline write 'smooth,quantize'")
    }
    guard calibrationRange == nil || calibrate != nil else {
      throw CompileError(.usage, "--calibration-range needs --calibrate")
    }
    var options = FrontendOptions()
    options.load = try load.options()
    options.level = level ?? .o1
    options.outputs = try outputs.map { text in
      let names = text.split(separator: ",").map(String.init)
      guard !names.isEmpty else { throw CompileError(.usage, "--outputs has no names") }
      return SelectOutputs(names)
    }
    options.explained = explain
    options.quantization = try quantize.map { try QuantizationSpec(parsing: $0) }
    options.calibration = try calibrate.map {
      Calibrate(samples: $0, range: try calibrationRange.map { try Calibrate.Range(parsing: $0) } ?? .minmax)
    }
    options.calibrationCache = CalibrationCache.chosen(calibrationCache)
    // One that nobody named is a help where there is room for it.
    if calibrationCache != nil { try options.calibrationCache?.check() }
    options.method = method
    options.budget = try bits.map { .bits($0) } ?? maxSize.map { try QuantizationBudget(parsingSize: $0) }
    options.rotation = try rotate.map { text in
      guard let kind = Rotate.Kind(rawValue: text) else {
        let kinds = Rotate.Kind.allCases.map(\.rawValue)
        throw CompileError(
          .usage,
          "--rotate is '\(text)', expected one of \(kinds.joined(separator: ", "))"
            + suggestion(for: text, in: kinds))
      }
      return Rotate(kind)
    }
    options.smoothing = try smooth.flatMap { text in
      guard text != "none" else { return nil }
      guard let kind = Smooth.Kind(rawValue: text) else {
        let kinds = Smooth.Kind.allCases.map(\.rawValue) + ["none"]
        throw CompileError(
          .usage,
          "--smooth is '\(text)', expected one of \(kinds.joined(separator: ", "))" + suggestion(for: text, in: kinds))
      }
      return Smooth(kind)
    }
    if let type = options.quantization?.cacheType { options.load.cacheType = type }
    options.cacheShare = kvKeep
    if kvKeep != nil {
      guard options.load.cacheType.map({ $0.element != nil }) ?? true else {
        throw CompileError(.usage, "--kv-keep needs a cache of numbers: --kv 32 or 16")
      }
      guard options.quantization?.attentionBits == nil else {
        throw CompileError(.usage, "--kv-keep and attention in bytes (at8) exclude each other")
      }
    }
    if kvRank != nil || kvOutliers != nil {
      let hasLevels = options.load.cacheType?.levels != nil
      guard kvRank == nil || !hasLevels else {
        throw CompileError(.usage, "--kv-rank is for caches without tables of levels: --kv 32, 16, 8, 4 or 4t")
      }
      guard kvOutliers == nil || hasLevels else {
        throw CompileError(.usage, "--kv-outliers needs a cache of levels: --kv 4n, 3n or 2n")
      }
    }
    options.cacheOutliers = kvOutliers ?? options.cacheOutliers
    options.cacheRank = kvRank
    options.cacheLayers = kvLayers ?? options.cacheLayers
    guard kvRank == nil || options.quantization?.attentionBits == nil else {
      throw CompileError(.usage, "--kv-rank and attention in bytes (at8) exclude each other")
    }
    options.pipeline = try pipeline.map { try Pipeline(parsing: $0, registry: Presets.registry) }
    options.rewriteLimit = stopAfterRewrites
    options.tracesRewrites = traceRewrites
    options.verifiesEachRewrite = verifyEach == .rewrite
    return options
  }
}

extension PassArguments {
  /// Where new data of passes goes that text IR refers to: beside the output, or in the working folder.
  static func spillPath(output: String?, model: String) -> String {
    (output ?? ArchivePath.name(of: model)) + ".weights"
  }
}

extension QuantizationMethod: ExpressibleByArgument {}

extension Stage: ExpressibleByArgument {
  /// The stages that have a text form.
  static let withText: [Stage] = allCases.filter(\.hasText)
}

/// Prints `value` as indented JSON.
func printJSON(_ value: JSON) { Standard.write(value.text(pretty: true), to: 1) }
