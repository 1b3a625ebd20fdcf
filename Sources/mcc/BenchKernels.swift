import ArgumentParser
import Base
import Driver

/// `mcc bench-kernels`: all candidates for the kernels of a model.
struct BenchKernels: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench-kernels",
    abstract: "Times all candidates for the kernels of a model on this machine.",
    discussion: """
      Each distinct operation is timed with every kernel that computes it, in turn, on weights that come from where they \
      would in a run; a star marks the one that a compilation chooses. The share is that of the machine's limit, which is \
      measured once. A constant has one layout for all functions: candidates of another layout are shown, but not held \
      against the chosen one.
      """)

  @Argument(help: "A checkpoint or a .mir file.")
  var model: String?

  @Option(help: ArgumentHelp("Times one product instead, such as matmul:1x2048x5632:w4g32a8.", valueName: "shapes"))
  var shapes: String?

  @Option(help: "The CPU to compile for; it must run on this machine.")
  var target = "native"

  @Option(help: "Threads to use. (default: one per core)")
  var threads: Int?

  @Option(help: "Only kernels and operations with this text in their names.")
  var filter: String?

  @Flag(name: .customLong("assert"), help: "Exits with 1 if a chosen kernel is more than 5% behind the best.")
  var asserts = false

  @Flag(help: "Keeps the times: later compilations choose by them.")
  var save = false

  @Option(help: "The folder of the cache. (default: mcc in XDG_CACHE_HOME or ~/.cache)")
  var cacheDir: String?

  @Flag(help: "Prints JSON.")
  var json = false

  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments

  func run() async throws {
    if let threads, !(1...256 ~= threads) {
      throw CompileError(.usage, "--threads is \(threads), expected 1 to 256")
    }
    var benchmark = KernelBenchmark()
    benchmark.target = target
    benchmark.threads = threads
    benchmark.filter = filter
    benchmark.cacheFolder = cacheDir
    benchmark.saves = save
    benchmark.judges = asserts
    let result: KernelBenchmark.Result
    switch (model, shapes) {
    case (let path?, nil):
      var options = try passes.options(load)
      try await options.readTexts(for: path)
      var frontend = Frontend(options)
      result = try await benchmark.run(frontend.run(path, to: .transform))
    case (nil, let text?):
      // One product of a large model: its weights come from memory.
      benchmark.spread = 256 << 20
      result = try await benchmark.run(KernelBenchmark.model(ofShapes: text))
    default: throw CompileError(.usage, "name either a model or --shapes")
    }
    if json {
      printJSON(result.json)
    } else {
      for line in result.lines { Standard.output(line) }
    }
    if asserts, !result.passed {
      let behind = result.comparison.rows.filter { $0.ratio > KernelBenchmark.limit }.count
      throw CompileError(.check, "\(behind) chosen kernels are more than 5% behind the best")
    }
  }
}
