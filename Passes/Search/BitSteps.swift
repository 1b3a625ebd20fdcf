import Base

/// The way from the best formats of all layers to the smallest, one layer at a time: what gives up the least loss for a
/// byte comes first.
///
/// Losses of layers add up, and so do those of pairs: two layers that were rounded together lost `2 r sqrt(l_i l_j)`
/// beside their own losses `l_i` and `l_j`, the mixed term of a loss of second order. It is taken to keep `r` in other
/// formats (as in an "augmented Hessian" for mixed precision).
package struct BitSteps: Sendable {
  /// Two layers with their `r`, -1 to 1.
  package struct Pair: Hashable, Sendable {
    package var first, second: Int
    package var correlation: Double

    package init(_ first: Int, _ second: Int, correlation: Double) {
      self.first = first
      self.second = second
      self.correlation = correlation
    }
  }

  /// The choice before all steps: of each layer the option of least loss.
  package let best: [Int]
  /// The layer that changes, and its option afterwards.
  package private(set) var steps: [(unit: Int, option: Int)] = []

  /// The steps of units with their options.
  package init(_ units: [[BudgetedChoice.Option]], pairs: [Pair] = []) {
    let frontiers = units.map { BudgetedChoice.hull($0) }
    var partners = [[(other: Int, correlation: Double)]](repeating: [], count: units.count)
    for pair in pairs {
      partners[pair.first].append((pair.second, pair.correlation))
      partners[pair.second].append((pair.first, pair.correlation))
    }
    best = frontiers.map { $0.last ?? 0 }
    var places = frontiers.map { $0.count - 1 }
    func loss(_ unit: Int) -> Double { units[unit][frontiers[unit][places[unit]]].loss }
    while true {
      var next: (unit: Int, price: Double)?
      for unit in units.indices where places[unit] > 0 {
        let (now, then) = (units[unit][frontiers[unit][places[unit]]], units[unit][frontiers[unit][places[unit] - 1]])
        let root = then.loss.squareRoot() - now.loss.squareRoot()
        let mixed = partners[unit].reduce(0.0) { $0 + 2 * $1.correlation * root * loss($1.other).squareRoot() }
        let price = (then.loss - now.loss + mixed) / Double(max(1, now.bytes - then.bytes))
        if next.map({ price < $0.price }) ?? true { next = (unit, price) }
      }
      guard let next else { break }
      places[next.unit] -= 1
      steps.append((next.unit, frontiers[next.unit][places[next.unit]]))
    }
  }

  /// The choice after so many steps.
  package func choice(after count: Int) -> [Int] {
    steps.prefix(count).reduce(into: best) { $0[$1.unit] = $1.option }
  }

  /// The choice after the fewest steps that fits into a budget; nil if none does.
  package func choice(_ units: [[BudgetedChoice.Option]], budget: Int) -> [Int]? {
    var choice = best
    var bytes = zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes }
    for step in steps where bytes > budget {
      bytes += units[step.unit][step.option].bytes - units[step.unit][choice[step.unit]].bytes
      choice[step.unit] = step.option
    }
    return bytes <= budget ? choice : nil
  }

  /// The most steps after which `measure` of the choice is at most `bound`, found by halving, so that about `log2` of
  /// the number of steps are measured; nil if it is above the bound before all steps.
  package func furthest(within bound: Double, measure: ([Int]) throws -> Double) rethrows -> [Int]? {
    guard try measure(best) <= bound else { return nil }
    var low = 0, high = steps.count + 1
    while high - low > 1 {
      let middle = (low + high) / 2
      if try measure(choice(after: middle)) <= bound { low = middle } else { high = middle }
    }
    return choice(after: low)
  }
}
