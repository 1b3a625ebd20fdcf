import Base
import IR

extension BitSearch {
  /// What each format costs and loses, and what pairs lose together: as it was kept, else measured. None of it depends
  /// on the budget.
  mutating func findings(_ context: inout PassContext) throws -> Findings {
    var pass = options
    pass.text = ""
    (pass.samples, pass.length, pass.bits, pass.bytes, pass.size, pass.accept) = (nil, nil, nil, nil, nil, nil)
    (pass.generations, pass.offspring, pass.trials, pass.seed) = (0, 1, 0, 0)
    pass.search = .dynamic
    let key = try context.results.map { try ResultKey(pass, model, [samples], $0.salt).text }
    if let key, let result = context.results?.find(key), let known = findings(in: result.facts) {
      for index in layers.indices {
        layers[index].roundings = known.units[index].map { .init(bytes: $0.bytes, error: 0, squares: 0) }
      }
      context.count("losses from the cache", by: layers.count)
      return known
    }
    try measureLayers(context.progress)
    let progress = context.progress
    var measured = 0
    let losses = try options.score.method.losses(layers) { formats in
      progress?.update("weighing layers", done: measured, of: layers.count)
      measured += 1
      return try measure(formats)
    }
    var found = Findings()
    found.units = zip(layers, losses).map { layer, losses in
      zip(layer.roundings, losses).map { BudgetedChoice.Option(bytes: $0.bytes, loss: $1) }
    }
    try measurePairs(&found, context.progress)
    if options.score == .entropy {
      for layer in layers { context.report("entropy of \(layer.name)", layer.entropy) }
    }
    if let key { context.results?.keep(CachedResult(facts: facts(found)), under: key) }
    return found
  }

  /// Measures what each layer and the next ones lose beyond the sum of their own losses, each in the format that it was
  /// measured with.
  private func measurePairs(_ found: inout Findings, _ progress: Progress?) throws {
    guard options.pairs > 0 else { return }
    let probes = layers.map { MeasuredScore.probe($0) ?? 0 }
    for first in layers.indices {
      progress?.update("measuring pairs", done: first, of: layers.count)
      let own = found.units[first][probes[first]].loss
      for second in layers.indices.dropFirst(first + 1).prefix(options.pairs) {
        let other = found.units[second][probes[second]].loss
        guard own > 0, other > 0 else { continue }
        let both = try measure([first: probes[first], second: probes[second]])
        let correlation = (both - own - other) / (2 * (own * other).squareRoot())
        found.pairs.append(.init(first, second, correlation: min(1, max(-1, correlation))))
      }
    }
  }

  /// Findings as they are kept; numbers by their bits, of which none gets lost in text.
  private func facts(_ found: Findings) -> JSON {
    let units = zip(layers, found.units).map { layer, options -> JSON in
      let options = options.map { option -> JSON in
        ["bytes": .int(option.bytes), "loss": .string("\(option.loss.bitPattern)")]
      }
      return ["name": .string(layer.name), "options": .array(options)]
    }
    let pairs = found.pairs.map { pair -> JSON in
      [
        "first": .int(pair.first), "second": .int(pair.second),
        "correlation": .string("\(pair.correlation.bitPattern)"),
      ]
    }
    return ["units": .array(units), "pairs": .array(pairs)]
  }

  /// What ``facts(_:)`` say, if that is of these layers.
  private func findings(in facts: JSON) -> Findings? {
    func number(_ json: JSON?) -> Double? {
      json?.string.flatMap { UInt64($0) }.map { Double(bitPattern: $0) }.flatMap { $0.isNaN ? nil : $0 }
    }
    guard let entries = facts["units"]?.array, entries.map({ $0["name"]?.string }) == layers.map(\.name) else {
      return nil
    }
    var findings = Findings()
    for entry in entries {
      let found = (entry["options"]?.array ?? []).compactMap { option -> BudgetedChoice.Option? in
        guard let bytes = option["bytes"]?.int, bytes >= 0, let loss = number(option["loss"]) else { return nil }
        return BudgetedChoice.Option(bytes: bytes, loss: loss)
      }
      guard found.count == options.formats.count else { return nil }
      findings.units.append(found)
    }
    for entry in facts["pairs"]?.array ?? [] {
      guard let first = entry["first"]?.int, let second = entry["second"]?.int, layers.indices.contains(first),
        layers.indices.contains(second), let correlation = number(entry["correlation"])
      else { return nil }
      findings.pairs.append(.init(first, second, correlation: correlation))
    }
    return findings
  }
}
