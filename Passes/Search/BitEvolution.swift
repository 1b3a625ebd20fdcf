import Base

/// Improves a choice of options by changes that take no more bytes: of copies, in each of which one unit takes more
/// bytes and others less, the one that loses least survives if it beats its parent (Sieberling and others, "EvoPress",
/// 2024).
package struct BitEvolution: Sendable {
  package var generations: Int
  /// Copies in a generation.
  package var offspring: Int
  package var seed: UInt64

  package init(generations: Int, offspring: Int, seed: UInt64) {
    self.generations = generations
    self.offspring = offspring
    self.seed = seed
  }

  /// Improves `choice`, one option of each unit; `measure` says what a choice loses, `began` is told each generation.
  ///
  /// - Returns: what the choice lost at first, and after each generation.
  package func improve(
    _ choice: inout [Int], _ units: [[BudgetedChoice.Option]], began: (Int) -> Void = { _ in },
    measure: ([Int]) throws -> Double
  ) rethrows -> [Double] {
    let budget = zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes }
    var generator = SplitMix64(seed: seed)
    var least = try measure(choice)
    var losses = [least]
    for generation in 0..<generations {
      began(generation)
      var best: (choice: [Int], loss: Double)?
      for _ in 0..<offspring {
        let child = Self.mutated(choice, units, budget, &generator)
        guard child != choice else { continue }
        let found = try measure(child)
        if found < best?.loss ?? least { best = (child, found) }
      }
      if let best { (choice, least) = best }
      losses.append(least)
    }
    return losses
  }

  /// A copy in which one unit has an option of more bytes and others give them up.
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
