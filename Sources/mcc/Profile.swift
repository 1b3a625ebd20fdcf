import ArgumentParser
import Base
import Driver

/// `mcc profile`: the time of each kernel and layer of a generated program.
struct Profile: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows where the time of a generated program goes, by kernel and by layer.",
    discussion: """
      A language model reads a prompt (--prefill) or decodes (--decode, the default: 32 tokens); another network runs on \
      the given inputs or on random numbers. What follows -- is instead a command of the program, such as -- generate \
      --prompt-ids 1. Rates count the bytes and operations that are needed at least, whatever the kernel does. 'least' is \
      the time per step if all calls were like the fastest one, for machines that others use, too; 'slowest' is the time \
      of the slowest thread over the mean.
      """)

  @Argument(help: "The generated program.")
  var program: String

  @Option(help: "Tokens to decode one by one.")
  var decode: Int?

  @Option(help: "Tokens of a prompt to read at once.")
  var prefill: Int?

  @Option(help: "Tokens in the cache before.")
  var context = 0

  @Option(help: ArgumentHelp("A .npy or .npz file, or name=file; may be repeated.", valueName: "file"))
  var input: [String] = []

  @Option(name: .customLong("dim"), help: ArgumentHelp("A size that no input decides.", valueName: "name=N"))
  var dims: [String] = []

  @Option(help: "Threads to use. (default: those that the program takes)")
  var threads: Int?

  @Option(help: "Runs to add up, after one that warms up. (default: 5)")
  var `repeat`: Int?

  @Flag(help: "Shows every step, too.")
  var steps = false

  @Flag(help: "Prints JSON.")
  var json = false

  @Argument(parsing: .postTerminator, help: "A command of the program.")
  var command: [String] = []

  func run() async throws {
    guard decode == nil || prefill == nil else {
      throw CompileError(.usage, "--prefill and --decode exclude each other")
    }
    for (name, value) in [("decode", decode), ("prefill", prefill), ("threads", threads), ("repeat", `repeat`)] {
      if let value, value < 1 { throw CompileError(.usage, "--\(name) is \(value), expected at least 1") }
    }
    let work: ProgramProfile.Work
    if !command.isEmpty {
      work = .command(command)
    } else if let prefill {
      work = .prefill(prefill, context: context)
    } else if let decode {
      work = .decode(decode, context: context)
    } else if try ProgramProfile.isLanguageModel(program) {
      work = .decode(32, context: context)
    } else {
      work = .network(inputs: input, dimensions: dims)
    }
    let profile = try await ProgramProfile.measure(program, work, threads: threads, repeats: `repeat`)
    if json {
      printJSON(profile.json)
    } else {
      for line in profile.lines(details: steps) { Standard.output(line) }
    }
  }
}
