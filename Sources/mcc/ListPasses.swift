import ArgumentParser
import Base
import Driver
import IR

/// `mcc passes`.
struct ListPasses: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "passes", abstract: "Lists the passes, tells about one, or prints a preset.")

  @Argument(help: "A pass to tell about.")
  var name: String?

  @Flag(help: "Prints JSON.")
  var json = false

  @Flag(help: "Prints the page docs/passes.md.")
  var markdown = false

  @Option(help: "Prints the pipeline of a preset, O0, O1 or O2, with the fidelity of each pass.")
  var preset: String?

  func run() async throws {
    if let preset {
      try print(Presets.Level(parsing: preset))
    } else if markdown {
      Standard.write(try PassPage.markdown(), to: 1)
    } else if let name {
      let description = try PassDescription(named: name)
      if json { printJSON(description.json) } else { for line in description.lines { Standard.output(line) } }
    } else if json {
      printJSON(.array(PassDescription.all.map(\.json)))
    } else {
      let passes = PassDescription.all
      let width = passes.map(\.name.count).max() ?? 0
      for pass in passes {
        let name = pass.name + String(repeating: " ", count: width - pass.name.count + 2)
        let fidelity = pass.fidelity.rawValue + String(repeating: " ", count: 10 - pass.fidelity.rawValue.count)
        Standard.output(name + fidelity + pass.summary)
      }
    }
  }

  private func print(_ level: Presets.Level) throws {
    let passes = try Presets.simplify(level).passes
    if json {
      return printJSON(
        .array(passes.map { ["pass": .string(Pipeline.text(of: $0)), "fidelity": .string($0.fidelity.rawValue)] }))
    }
    let width = passes.map(\.name.count).max() ?? 0
    for pass in passes {
      Standard.output(
        pass.name + String(repeating: " ", count: width - pass.name.count + 2) + pass.fidelity.rawValue)
    }
  }
}
