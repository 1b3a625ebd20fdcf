import Base
import Passes
import TestSupport
import Testing

/// The knapsack of bit allocation against all choices that there are.
@Suite struct BudgetedChoiceTests {
  /// All choices within the budget, the least loss of them.
  static func exhaustive(_ units: [[BudgetedChoice.Option]], _ budget: Int) -> Double? {
    var states: [(bytes: Int, loss: Double)] = [(0, 0)]
    for options in units {
      states = states.flatMap { state in options.map { (state.bytes + $0.bytes, state.loss + $0.loss) } }
    }
    return states.filter { $0.bytes <= budget }.map(\.loss).min()
  }

  @Test(arguments: 0..<40) func findsTheLeastLossOfAll(seed: Int) {
    var generator = SplitMix64(seed: UInt64(seed))
    let units = (0..<5).map { _ in
      (0..<(1 + generator.int(below: 4))).map { _ in
        BudgetedChoice.Option(bytes: 1 + generator.int(below: 300), loss: generator.uniform())
      }
    }
    let least = BudgetedChoice.least(units)
    for budget in [least, least + 7, least + 150, least + 400, least + 5000] {
      let choice = BudgetedChoice.choose(units, budget: budget)
      let bytes = choice.map { zip($0, units).reduce(0) { $0 + $1.1[$1.0].bytes } }
      let loss = choice.map { zip($0, units).reduce(0.0) { $0 + $1.1[$1.0].loss } }
      #expect(bytes ?? .max <= budget)
      // Sums in another order differ in the last digits.
      #expect(abs((loss ?? .infinity) - (Self.exhaustive(units, budget) ?? -.infinity)) < 1e-12)
    }
    #expect(BudgetedChoice.choose(units, budget: least - 1) == nil)
  }

  /// With costs beyond the steps of the table the budget still holds, and what rounding leaves is spent.
  @Test func largeBudgetsHold() throws {
    let units = (1...9).map { unit in
      [2, 3, 4, 8].map { bits in
        BudgetedChoice.Option(bytes: unit * 999_983 * bits, loss: Double(unit) / Double(1 << (2 * bits)))
      }
    }
    let budget = 999_983 * 45 * 3
    let choice = try #require(BudgetedChoice.choose(units, budget: budget))
    let bytes = zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes }
    #expect(bytes <= budget && budget - bytes < 999_983)
    #expect(choice == [Int](repeating: 1, count: 9))
  }

  @Test func nothingIsChosenFromNothing() {
    #expect(BudgetedChoice.choose([], budget: 0) == [])
    #expect(BudgetedChoice.choose([[]], budget: 100) == nil)
  }
}
