import Base
import Passes
import TestSupport
import Testing

/// The knapsack of bit allocation against all choices that there are.
@Suite struct BudgetedChoiceTests {
  /// All choices within the budget, the least loss of them.
  static func exhaustive(_ units: [[BudgetedChoice.Option]], _ budget: Int) -> Double? {
    var states: [BudgetedChoice.Option] = [.init(bytes: 0, loss: 0)]
    for options in units {
      states = states.flatMap { (state: BudgetedChoice.Option) -> [BudgetedChoice.Option] in
        options.map { .init(bytes: state.bytes + $0.bytes, loss: state.loss + $0.loss) }
      }
    }
    return states.filter { $0.bytes <= budget }.map(\.loss).min()
  }

  @Test(arguments: 0..<40) func findsTheLeastLossOfAll(seed: Int) throws {
    var generator = SplitMix64(seed: UInt64(seed))
    let units = (0..<5).map { _ in
      (0..<(1 + generator.int(below: 4))).map { _ in
        BudgetedChoice.Option(bytes: 1 + generator.int(below: 300), loss: generator.uniform())
      }
    }
    let least = BudgetedChoice.least(units)
    for budget in [least, least + 7, least + 150, least + 400, least + 5000] {
      let choice = try #require(BudgetedChoice.choose(units, budget: budget))
      var bytes = 0, loss = 0.0
      for (index, options) in zip(choice, units) {
        bytes += options[index].bytes
        loss += options[index].loss
      }
      #expect(bytes <= budget)
      let least = try #require(Self.exhaustive(units, budget))
      // Sums in another order differ in the last digits.
      #expect(abs(loss - least) < 1e-12)
    }
    #expect(BudgetedChoice.choose(units, budget: least - 1) == nil)
  }

  /// With costs beyond the steps of the table the budget still holds, and what rounding leaves is spent.
  @Test func largeBudgetsHold() throws {
    let each = 999_983
    let units: [[BudgetedChoice.Option]] = (1...9).map { (unit: Int) -> [BudgetedChoice.Option] in
      [2, 3, 4, 8].map { (bits: Int) -> BudgetedChoice.Option in
        .init(bytes: unit * each * bits, loss: Double(unit) / Double(1 << (2 * bits)))
      }
    }
    let budget = each * 45 * 3
    let choice = try #require(BudgetedChoice.choose(units, budget: budget))
    var bytes = 0
    for (index, options) in zip(choice, units) { bytes += options[index].bytes }
    #expect(bytes <= budget && budget - bytes < each)
    #expect(choice == [Int](repeating: 1, count: 9))
  }

  @Test func nothingIsChosenFromNothing() {
    #expect(BudgetedChoice.choose([], budget: 0) == [])
    #expect(BudgetedChoice.choose([[]], budget: 100) == nil)
  }
}
