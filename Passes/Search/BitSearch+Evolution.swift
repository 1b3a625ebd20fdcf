import Base
import IR

extension BitSearch {
  /// Improves a choice by changes that take no more bytes.
  func evolve(_ choice: inout [Int], _ units: [[BudgetedChoice.Option]], _ context: inout PassContext) throws {
    let budget = bytes(choice, units)
    var generator = SplitMix64(seed: UInt64(truncatingIfNeeded: options.seed))
    var least = try divergence(specs(choice))
    var improved = 0
    for generation in 0..<options.generations {
      context.progress?.update("evolving", done: generation, of: options.generations)
      var best: (choice: [Int], divergence: Double)?
      for _ in 0..<options.offspring {
        let child = Self.mutated(choice, units, budget, &generator)
        guard child != choice else { continue }
        let found = try divergence(specs(child))
        if found < best?.divergence ?? least { best = (child, found) }
      }
      if let best {
        (choice, least) = (best.choice, best.divergence)
        improved += 1
      }
    }
    context.count("generations that improved", by: improved)
  }

  /// A copy in which one layer has a format of more bytes and others give them up.
  private static func mutated(
    _ choice: [Int], _ units: [[BudgetedChoice.Option]], _ budget: Int, _ generator: inout SplitMix64
  ) -> [Int] {
    var child = choice
    func bytes(_ unit: Int, _ option: Int) -> Int { units[unit][option].bytes }
    let unit = generator.int(below: units.count)
    let larger = units[unit].indices.filter { bytes(unit, $0) > bytes(unit, choice[unit]) }
    guard !larger.isEmpty else { return choice }
    child[unit] = larger[generator.int(below: larger.count)]
    for _ in 0..<(4 * units.count) {
      let total = child.indices.reduce(0) { $0 + bytes($1, child[$1]) }
      if total <= budget { return child }
      let other = generator.int(below: units.count)
      let smaller = units[other].indices.filter { bytes(other, $0) < bytes(other, child[other]) }
      if other != unit, !smaller.isEmpty { child[other] = smaller[generator.int(below: smaller.count)] }
    }
    return choice
  }
}
