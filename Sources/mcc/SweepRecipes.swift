import ArgumentParser
import Base
import Driver
import Formats
import IR

/// `mcc sweep`: quality against size and speed, recipe by recipe.
struct SweepRecipes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sweep",
    abstract: "Compiles a model by several quantizations and judges each: quality, size and speed.",
    discussion: """
      The first row is the model itself. Divergence, cosine and error are measured from it, as by 'mcc eval'; --plot draws \
      quality over bytes.

        mcc sweep Examples/stories260K --recipes w8,w6g32,w4g32 --text text.txt --plot sweep.svg
      """)

  @Argument(help: "A checkpoint or .mir file.")
  var model: String

  @Option(
    help: """
      Quantizations, with commas; a number gives each layer a format of its own, with so many bits on average. \
      (default: w8,w6g32,w5g32,w4g32,w3g32,w2g32)
      """)
  var recipes = "w8,w6g32,w5g32,w4g32,w3g32,w2g32"

  @OptionGroup var input: EvaluationArguments
  @OptionGroup var load: LoadArguments
  @OptionGroup var passes: PassArguments

  @Option(help: ArgumentHelp("Where to draw quality over bytes, as SVG.", valueName: "file.svg"))
  var plot: String?

  @Flag(help: "Does not time the programs.")
  var noSpeed = false

  func run() async throws {
    guard !passes.quantizes, passes.pipeline == nil else {
      throw CompileError(
        .usage, "a sweep takes its quantizations with --recipes, not --quantize, --bits, --max-size or --pipeline")
    }
    var sweep = Sweep()
    sweep.evaluation.options = try passes.options(load, quantizesLater: true)
    sweep.evaluation.windows = try input.windows()
    sweep.recipes = try recipes.split(separator: ",").map { try Sweep.Recipe(parsing: String($0)) }
    guard !sweep.recipes.isEmpty else { throw CompileError(.usage, "--recipes names no quantization") }
    sweep.measuresSpeed = !noSpeed
    if let plot { try OutputPath.check(file: plot) }
    let rows = try await sweep.run(model, on: try input.input())
    if let plot {
      guard let drawing = Sweep.plot(rows) else {
        throw CompileError(.usage, "there is nothing to draw: fewer than two programs have a figure")
      }
      try AtomicFile.write(drawing, to: plot)
    }
    if input.json {
      printJSON(.array(rows.map(\.json)))
    } else {
      for line in Sweep.table(rows) { Standard.output(line) }
    }
  }
}
