import ArgumentParser
import Base
import CodeGen
import Driver
import Formats
import IR

/// A command that lists things by name and summary.
protocol ListCommand: AsyncParsableCommand {
  var json: Bool { get }
  /// Names, summaries and further facts.
  func rows() throws -> [(name: String, summary: String, facts: [(String, String)])]
}

extension ListCommand {
  func run() async throws { try list() }

  /// Prints the rows.
  func list() throws {
    let rows = try rows()
    if json {
      printJSON(
        .array(
          rows.map { row in
            let facts = [("name", row.name), ("summary", row.summary)] + row.facts
            return .object(JSONObject(facts.map { ($0.0, JSON.string($0.1)) }))
          }))
      return
    }
    let width = rows.map(\.name.count).max() ?? 0
    for row in rows {
      Standard.output(row.name + String(repeating: " ", count: width - row.name.count + 2) + row.summary)
    }
  }
}

/// `mcc kernels`.
struct ListKernels: ListCommand {
  static let configuration = CommandConfiguration(commandName: "kernels", abstract: "Lists the kernel families.")

  @Flag(help: "Prints JSON.")
  var json = false

  func rows() throws -> [(name: String, summary: String, facts: [(String, String)])] {
    KernelRegistry.families.map { ($0.name, $0.summary, []) }
  }
}

/// `mcc formats`.
struct ListFormats: ListCommand {
  static let configuration = CommandConfiguration(commandName: "formats", abstract: "Lists the checkpoint formats.")

  @Flag(help: "Prints JSON.")
  var json = false

  func rows() throws -> [(name: String, summary: String, facts: [(String, String)])] {
    FormatRegistry.formats.map { ($0.name, $0.summary, []) }
  }
}

/// `mcc targets`.
struct ListTargets: ListCommand {
  static let configuration = CommandConfiguration(
    commandName: "targets", abstract: "Lists the CPUs code is made for, or measures this machine.")

  @Flag(help: "Prints JSON.")
  var json = false

  @Flag(help: "Measures this machine with the code of a target, for the choice of kernels, and keeps the figures.")
  var measure = false

  @Option(help: "The target to measure with.")
  var target = "native"

  @Option(help: "The folder of the cache. (default: mcc in XDG_CACHE_HOME or ~/.cache)")
  var cacheDir: String?

  func run() async throws {
    guard measure else { return try list() }
    let record = try await Measurements.measured(
      TargetRegistry.target(named: target), cache: Measurements.folder(cacheDir), again: true)
    guard let machine = record.machine else { return }
    if json { return printJSON(record.summary) }
    Standard.output("\(record.processor), \(record.target)")
    for (name, value) in machine.json.object ?? JSONObject() {
      let amount = value.double ?? 0
      let text = name == "threads" ? "\(Int(amount))" : "\(Quantity.decimal(amount * 1e-9, 1)) G/s"
      Standard.output(name + String(repeating: " ", count: max(1, 20 - name.count)) + text)
    }
  }

  func rows() throws -> [(name: String, summary: String, facts: [(String, String)])] {
    let native = TargetRegistry.native(features: HostCPU.features()).name
    return TargetRegistry.all.map { target in
      (
        target.name, target.summary + (target.name == native ? " (this machine)" : ""),
        [("native", "\(target.name == native)")]
      )
    } + TargetRegistry.groups.map { ($0.name, $0.summary, [("native", "false")]) }
  }
}
