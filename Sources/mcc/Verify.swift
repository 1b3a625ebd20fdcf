import ArgumentParser
import Base
import Driver

/// `mcc verify`: a program against the evaluator.
struct Verify: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compares a generated program with the evaluator on the same inputs.",
    discussion: """
      The reference is the model after the passes that the program's manifest names, or, with --original, the model as \
      it was read. Exits with 1 if an output differs by more than the tolerance, relative to its largest magnitude.
      """)

  @Argument(help: "The checkpoint or .mir file that the program was made from.")
  var model: String

  @Argument(help: "The generated program.")
  var program: String

  @Flag(help: "Compares with the model before all passes, quantization included.")
  var original = false

  @Option(help: "A .npy or .npz file, or name=file; token ids for a language model. (default: seeded inputs)")
  var input: [String] = []

  @Option(help: "The seed of the inputs.")
  var seed: UInt64 = 0

  @Option(
    help: ArgumentHelp(
      """
      Reads at most that many tokens in a call, in the program and in the evaluator. (default: as many as there are; 32 where \
      results depend on it)
      """, valueName: "tokens"))
  var chunk: Int?

  @Option(help: "The largest relative difference. (default: 1e-4; 0.05 where activations are quantized)")
  var tolerance: Double?

  @Flag(help: "Prints JSON.")
  var json = false

  @OptionGroup var load: LoadArguments

  func run() async throws {
    if let tolerance, !(tolerance >= 0) {
      throw CompileError(.usage, "--tolerance is \(tolerance), expected a number that is not negative")
    }
    if let chunk, chunk < 1 { throw CompileError(.usage, "--chunk is \(chunk), expected at least 1") }
    var check = ProgramCheck()
    check.chunk = chunk
    check.load = try load.options()
    check.original = original
    check.inputs = input
    check.seed = seed
    let result = try await check.run(model: model, program: program)
    // A difference in the last bit may move an int8 activation by one step of 1/127 of its group's largest, and the
    // cache carries the change to all later tokens.
    let limit = tolerance ?? (result.quantizesActivations ? 0.05 : 1e-4)
    let passed = result.differences.allSatisfy { $0.relative <= limit }
    if json {
      printJSON([
        "passed": .bool(passed), "tolerance": .number(limit),
        "outputs": .array(
          result.differences.map {
            ["name": .string($0.output), "absolute": .number($0.absolute), "relative": .number($0.relative)]
          }),
      ])
    } else {
      for difference in result.differences {
        Standard.output(
          "\(difference.output): largest difference \(difference.absolute), relative \(difference.relative)")
      }
    }
    guard passed else {
      throw CompileError(.check, "the program differs from the evaluator by more than \(limit)")
    }
  }
}
