import Base
import CodeGen
import IR
import Passes

/// What a compilation did, for the end of `mcc compile`.
package struct Summary: Sendable {
  package var stages: [(stage: Stage, seconds: Double)] = []
  package var passes: [PassManager.Report] = []
  package var notes: [String] = []
  package var target: String?
  package var bitsPerWeight: BitsPerWeight?
  /// The formats of weights that were rounded.
  package var recipe: String?
  package var weightsBytes: Int?
  package var arenaBytes: Int?
  package var fileBytes: Int?
  package var objects: Toolchain.Report?
  /// Bytes of all caches for one token.
  package var cacheBytesPerToken: Int?
  /// Bytes of the states beside them, whatever the number of tokens.
  package var fixedStateBytes = 0
  package var seconds = 0.0

  package init() {}

  /// Lines for a person.
  package var lines: [String] {
    var lines = notes.map { "note: \($0)" }
    let times = stages.map { "\($0.stage.rawValue) \(Quantity.seconds($0.seconds))" }
    lines.append("stages: \(times.joined(separator: ", ")); \(Quantity.seconds(seconds)) in all")
    lines += Self.passes(passes)
    if let recipe {
      let isChosen = passes.contains { $0.name == ChooseCodes.name }
      lines.append("recipe: \(recipe), codes \(isChosen ? "chosen on samples" : "to the nearest")")
    }
    if let average = bitsPerWeight?.average { lines.append("bits per weight: \(Quantity.decimal(average, 2))") }
    if let fileBytes {
      let cached = objects.map { ", \($0.compiled) objects compiled, \($0.cached) from the cache" } ?? ""
      lines.append("file: \(Quantity.bytes(fileBytes)) for \(target ?? "")\(cached)")
    }
    if let weightsBytes, let arenaBytes {
      lines.append(
        "planned memory: \(Quantity.bytes(weightsBytes)) of weights, mapped, and \(Quantity.bytes(arenaBytes)) of "
          + "activations and states")
    }
    if let cacheBytesPerToken {
      let fixed = fixedStateBytes > 0 ? "\(Quantity.bytes(fixedStateBytes)) for any number of tokens" : nil
      let growing = cacheBytesPerToken > 0 || fixed == nil ? "\(Quantity.bytes(cacheBytesPerToken)) per token" : nil
      lines.append("KV cache: \([growing, fixed].compactMap { $0 }.joined(separator: ", and "))")
    }
    return lines
  }

  /// A line per pass: its time and what it counted; and one with what its check found.
  package static func passes(_ reports: [PassManager.Report]) -> [String] {
    reports.flatMap { report in
      let counts = report.counters.map { "\($0.name) \($0.count)" }.joined(separator: ", ")
      let line = "  \(report.text): \(counts.isEmpty ? "nothing to do" : counts) (\(Quantity.seconds(report.seconds)))"
      return [line] + (report.certificate.map { ["    \($0.line)"] } ?? [])
    }
  }

  /// The facts for a script.
  package var json: JSON {
    var object = JSONObject()
    object["seconds"] = .number(seconds)
    object["stages"] = .array(stages.map { ["name": .string($0.stage.rawValue), "seconds": .number($0.seconds)] })
    object["passes"] = .array(
      passes.map { report in
        var pass = JSONObject()
        pass["pass"] = .string(report.text)
        pass["fidelity"] = .string(report.fidelity.rawValue)
        pass["seconds"] = .number(report.seconds)
        pass["counters"] = .object(JSONObject(report.counters.map { ($0.name, JSON.int($0.count)) }))
        if let certificate = report.certificate { pass["check"] = certificate.json }
        return .object(pass)
      })
    object["notes"] = .array(notes.map { .string($0) })
    if let recipe { object["recipe"] = .string(recipe) }
    if let target { object["target"] = .string(target) }
    if let average = bitsPerWeight?.average { object["bits_per_weight"] = .number(average) }
    if let fileBytes { object["file_bytes"] = .int(fileBytes) }
    if let weightsBytes { object["weights_bytes"] = .int(weightsBytes) }
    if let arenaBytes { object["arena_bytes"] = .int(arenaBytes) }
    if let cacheBytesPerToken { object["cache_bytes_per_token"] = .int(cacheBytesPerToken) }
    if fixedStateBytes > 0 { object["fixed_state_bytes"] = .int(fixedStateBytes) }
    if let objects { object["objects"] = ["compiled": .int(objects.compiled), "cached": .int(objects.cached)] }
    return .object(object)
  }
}
