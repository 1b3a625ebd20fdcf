/// One choice for each of several units, of least loss within a budget of bytes.
///
/// Dynamic programming over the bytes beyond the least that all units need, in equal steps (the knapsack problem with
/// multiple choices; H. Kellerer and others, Knapsack Problems, 2004, chapter 11). Costs are rounded up to steps, so
/// that the budget holds; what is left is spent on the changes that lower the loss most.
package struct BudgetedChoice {
  /// A way to store a unit.
  package struct Option: Hashable, Sendable {
    package var bytes: Int
    /// What is lost by it; losses of units add up.
    package var loss: Double

    package init(bytes: Int, loss: Double) {
      self.bytes = bytes
      self.loss = loss
    }
  }

  /// Steps that the budget is cut into.
  package static let steps = 8192

  /// The bytes of the smallest options of all units.
  package static func least(_ units: [[Option]]) -> Int { units.reduce(0) { $0 + ($1.map(\.bytes).min() ?? 0) } }

  /// The index of the option of each unit; nil if the budget is below what all need at least, or a unit has no option.
  package static func choose(_ units: [[Option]], budget: Int) -> [Int]? {
    let least = least(units)
    guard least <= budget, units.allSatisfy({ !$0.isEmpty }) else { return nil }
    let step = max(1, (budget - least + steps - 1) / steps), capacity = (budget - least) / step
    var best = [Double](repeating: 0, count: capacity + 1)
    var chosen: [[Int32]] = []
    for options in units {
      let floor = options.map(\.bytes).min() ?? 0
      var next = [Double](repeating: .infinity, count: capacity + 1)
      var choice = [Int32](repeating: -1, count: capacity + 1)
      for (index, option) in options.enumerated() {
        let cost = (option.bytes - floor + step - 1) / step
        guard cost <= capacity else { continue }
        for room in cost...capacity {
          let loss = best[room - cost] + option.loss
          if choice[room] < 0 || loss < next[room] { (next[room], choice[room]) = (loss, Int32(index)) }
        }
      }
      best = next
      chosen.append(choice)
    }
    var result = [Int](repeating: 0, count: units.count)
    var room = capacity
    for unit in units.indices.reversed() {
      let index = Int(chosen[unit][room])
      result[unit] = index
      room -= (units[unit][index].bytes - (units[unit].map(\.bytes).min() ?? 0) + step - 1) / step
    }
    spend(&result, units, budget)
    return result
  }

  /// Changes options as long as one lowers the loss within the budget, that of most first.
  static func spend(_ choice: inout [Int], _ units: [[Option]], _ budget: Int) {
    var spare = budget - zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes }
    while true {
      var best: (unit: Int, index: Int, gain: Double)?
      for (unit, options) in units.enumerated() {
        let now = options[choice[unit]]
        for (index, option) in options.enumerated() where option.bytes - now.bytes <= spare {
          let gain = now.loss - option.loss
          if gain > best?.gain ?? 0 { best = (unit, index, gain) }
        }
      }
      guard let best else { return }
      spare -= units[best.unit][best.index].bytes - units[best.unit][choice[best.unit]].bytes
      choice[best.unit] = best.index
    }
  }

  /// Gives bytes up until the budget holds, those of the least loss for a byte first.
  static func save(_ choice: inout [Int], _ units: [[Option]], _ budget: Int) {
    var over = zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes } - budget
    while over > 0 {
      var best: (unit: Int, index: Int, price: Double)?
      for (unit, options) in units.enumerated() {
        let now = options[choice[unit]]
        for (index, option) in options.enumerated() where option.bytes < now.bytes {
          let price = (option.loss - now.loss) / Double(now.bytes - option.bytes)
          if best.map({ price < $0.price }) ?? true { best = (unit, index, price) }
        }
      }
      guard let best else { return }
      over -= units[best.unit][choice[best.unit]].bytes - units[best.unit][best.index].bytes
      choice[best.unit] = best.index
    }
  }

  /// The options for which no other has as few bytes and less loss, by rising bytes.
  static func frontier(_ options: [Option]) -> [Int] {
    var result: [Int] = []
    let order = options.indices.sorted {
      (options[$0].bytes, options[$0].loss, $0) < (options[$1].bytes, options[$1].loss, $1)
    }
    for index in order where result.last.map({ options[index].loss < options[$0].loss }) ?? true {
      result.append(index)
    }
    return result
  }

  /// Those of the frontier that a mixture of two others does not beat, by rising bytes: the lower hull of loss over bytes.
  static func hull(_ options: [Option]) -> [Int] {
    var result: [Int] = []
    for index in frontier(options) {
      while result.count > 1 {
        let (a, b, c) = (options[result[result.count - 2]], options[result[result.count - 1]], options[index])
        let steep = (a.loss - b.loss) * Double(c.bytes - a.bytes),
          straight = (a.loss - c.loss) * Double(b.bytes - a.bytes)
        guard steep <= straight else { break }
        result.removeLast()
      }
      result.append(index)
    }
    return result
  }
}
