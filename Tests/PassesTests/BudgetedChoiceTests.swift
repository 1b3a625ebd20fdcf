import Base
import Glibc
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

  // MARK: The closed form

  /// Bits of equal losses: a thousandfold constant is worth about five bits more, the mean is the one asked for, and
  /// the printed gain is what is lost less than with equal bits.
  @Test func closedFormEqualizesLosses() {
    var random = SplitMix64(seed: 8)
    let counts = (0..<30).map { _ in 1000 + random.int(below: 9000) }
    let constants = (0..<30).map { _ in 1e-6 * Double(1 << random.int(below: 10)) * (1 + random.uniform()) }
    let form = ClosedFormBits(counts: counts, constants: constants)
    let free = [ClosedRange<Double>](repeating: -100...100, count: 30)
    let all = Double(counts.reduce(0, +))
    for mean in [2.2, 3.0, 4.5] {
      let bits = form.bits(mean: mean, limits: free)
      var sum = 0.0, lost = 0.0, alike = 0.0
      for index in 0..<30 {
        sum += Double(counts[index]) * bits[index]
        lost += Double(counts[index]) * constants[index] * Self.quarter(bits[index])
        alike += Double(counts[index]) * constants[index] * Self.quarter(mean)
      }
      // Halving an interval two hundred times leaves the last digits.
      #expect(abs(sum / all - mean) < 1e-9)
      let losses = zip(constants, bits).map { $0 * Self.quarter($1) }
      for loss in losses { #expect(abs(loss / losses[0] - 1) < 1e-9) }
      #expect(abs(alike / lost / form.gain - 1) < 1e-9)
    }
    // With limits the mean holds, and what is between them has equal losses.
    let bits = form.bits(mean: 3, limits: [ClosedRange<Double>](repeating: 2...4, count: 30))
    let mean = zip(counts, bits).reduce(0.0) { $0 + Double($1.0) * $1.1 } / all
    #expect(abs(mean - 3) < 1e-9 && bits.allSatisfy { (2...4).contains($0) })
    let inner = zip(constants, bits).filter { $0.1 > 2.001 && $0.1 < 3.999 }.map { $0.0 * Self.quarter($0.1) }
    for loss in inner { #expect(abs(loss / inner[0] - 1) < 1e-6) }
    #expect(inner.count > 3 && bits.contains { $0 < 2.001 } && bits.contains { $0 > 3.999 })
  }

  private static func quarter(_ bits: Double) -> Double { exp2(-2 * bits) }

  @Test func nothingLostByNothing() {
    let form = ClosedFormBits(counts: [10, 10], constants: [0, 4])
    let bits = form.bits(mean: 3, limits: [2...6, 2...6])
    #expect(abs(bits[0] - 2) < 1e-9 && abs(bits[1] - 4) < 1e-9)
    #expect(ClosedFormBits(counts: [], constants: []).gain == 1)
    #expect(ClosedFormBits(counts: [], constants: []).bits(mean: 3, limits: []) == [])
  }

  // MARK: Evolution

  /// Losses that do not add up: those of the options, and a number that follows from the whole choice.
  private static func rugged(_ choice: [Int], _ units: [[BudgetedChoice.Option]], seed: UInt64) -> Double {
    let hash = choice.reduce(seed) { ($0 &* 31 &+ UInt64($1)) &* 0x9E37_79B9_7F4A_7C15 }
    var random = SplitMix64(seed: hash)
    return loss(choice, units, []) * (0.5 + random.uniform())
  }

  /// From equal formats and from the choice for losses that add up alike: what survives takes no more bytes, is never
  /// worse than what it comes from, and is the same every time.
  @Test(arguments: 0..<10) func evolutionNeverLosesMore(seed: UInt64) throws {
    var random = SplitMix64(seed: seed)
    let units: [[BudgetedChoice.Option]] = (0..<12).map { _ in
      let scale = random.uniform()
      return [2, 3, 4, 6].map { .init(bytes: 100 * $0, loss: scale * Self.quarter(Double($0))) }
    }
    let equal = [Int](repeating: 1, count: 12)
    let additive = try #require(BudgetedChoice.choose(units, budget: 12 * 300))
    for start in [equal, additive] {
      func evolved() -> (choice: [Int], losses: [Double]) {
        var choice = start
        let losses = BitEvolution(generations: 30, offspring: 4, seed: seed).improve(&choice, units) {
          Self.rugged($0, units, seed: seed)
        }
        return (choice, losses)
      }
      let (choice, losses) = evolved()
      #expect(losses.count == 31 && losses[0] == Self.rugged(start, units, seed: seed))
      #expect(zip(losses, losses.dropFirst()).allSatisfy { $0 >= $1 })
      #expect(losses[30] == Self.rugged(choice, units, seed: seed))
      #expect(Self.bytes(choice, units) <= Self.bytes(start, units))
      #expect(evolved() == (choice, losses))
    }
  }

  /// More bytes for one layer and less for another do harm alone and good together: the choice by the losses of single
  /// changes stays with equal formats, evolution finds the pair.
  @Test(arguments: [1, 2, 3] as [UInt64]) func evolutionFindsWhatHelpsTogether(seed: UInt64) throws {
    let losses = [4.0, 1, 0.25]
    func measure(_ choice: [Int]) -> Double {
      let sum = choice.reduce(0) { $0 + losses[$1] }
      return switch (choice[2] == 2, choice[5] == 0) {
      case (true, true): sum - 6
      case (false, false): sum
      default: sum + 2
      }
    }
    let equal = [Int](repeating: 1, count: 8)
    // What each option loses when no other unit changes.
    let units = (0..<8).map { unit in
      (0..<3).map { option -> BudgetedChoice.Option in
        var choice = equal
        choice[unit] = option
        return .init(bytes: 1 + option, loss: measure(choice) - 7)
      }
    }
    #expect(units[2][2].loss > units[2][1].loss && units[5][0].loss > units[5][1].loss)
    #expect(BudgetedChoice.choose(units, budget: 16) == equal)
    var choice = equal
    let found = BitEvolution(generations: 100, offspring: 8, seed: seed).improve(&choice, units, measure: measure)
    #expect(choice[2] == 2 && choice[5] == 0 && Self.bytes(choice, units) == 16, "\(choice)")
    #expect(found.last == measure(choice) && measure(choice) < measure(equal))
  }

  // MARK: Steps

  private static func loss(_ choice: [Int], _ units: [[BudgetedChoice.Option]], _ pairs: [BitSteps.Pair]) -> Double {
    let own = zip(choice, units).map { $1[$0].loss }
    return pairs.reduce(own.reduce(0, +)) { sum, pair in
      sum + 2 * pair.correlation * (own[pair.first] * own[pair.second]).squareRoot()
    }
  }

  private static func bytes(_ choice: [Int], _ units: [[BudgetedChoice.Option]]) -> Int {
    zip(choice, units).reduce(0) { $0 + $1.1[$1.0].bytes }
  }

  /// Halving finds what going through all steps finds, with about as many measurements as the number of steps has digits.
  @Test(arguments: 0..<10) func halvingFindsTheLastStep(seed: Int) throws {
    var random = SplitMix64(seed: UInt64(seed))
    let units: [[BudgetedChoice.Option]] = (0..<40).map { _ in
      let scale = random.uniform()
      return [2, 3, 4, 6].map { .init(bytes: 100 * $0, loss: scale * Self.quarter(Double($0))) }
    }
    let steps = BitSteps(units)
    #expect(steps.steps.count == 120)
    for bound in [0.01, 0.05, 0.3, 9.0] {
      var measured = 0
      let found = try #require(
        steps.furthest(within: bound) { choice in
          measured += 1
          return Self.loss(choice, units, [])
        })
      let last = (0...120).last { Self.loss(steps.choice(after: $0), units, []) <= bound }
      #expect(found == steps.choice(after: try #require(last)) && measured <= 9)
    }
    #expect(steps.furthest(within: -1) { Self.loss($0, units, []) } == nil)
    // Each step gives bytes up, those of the least loss for a byte first.
    let prices = (0..<120).map { index -> Double in
      let (a, b) = (steps.choice(after: index), steps.choice(after: index + 1))
      return (Self.loss(b, units, []) - Self.loss(a, units, [])) / Double(Self.bytes(a, units) - Self.bytes(b, units))
    }
    #expect(zip(prices, prices.dropFirst()).allSatisfy { $0 <= $1 * (1 + 1e-12) })
    let budget = try #require(steps.choice(units, budget: 12_345))
    #expect(Self.bytes(budget, units) <= 12_345 && Self.bytes(budget, units) > 12_345 - 200)
    #expect(steps.choice(units, budget: 7999) == nil)
  }

  /// Three layers of little loss that lose nine times as much together: with the terms of pairs fewer bytes keep the bound.
  @Test func pairsLeadToFewerBytes() throws {
    let units: [[BudgetedChoice.Option]] = [1, 1, 1, 1.2, 1.2, 1.2].map { (loss: Double) -> [BudgetedChoice.Option] in
      [.init(bytes: 1, loss: loss), .init(bytes: 2, loss: 0)]
    }
    let pairs = [(0, 1), (0, 2), (1, 2)].map { BitSteps.Pair($0.0, $0.1, correlation: 1) }
    func bytes(_ steps: BitSteps) throws -> Int {
      Self.bytes(try #require(steps.furthest(within: 3.7) { Self.loss($0, units, pairs) }), units)
    }
    #expect(try bytes(BitSteps(units, pairs: pairs)) == 9)
    #expect(try bytes(BitSteps(units)) == 11)
  }
}
