import IR
import Tensors

/// Finds steps that repeat, as the layers of a network do, so that they can be emitted as a loop.
struct LoopDetection {
  /// What an argument of a step is before places are assigned.
  enum Operand: Hashable {
    case weight(Int)
    case state(Int, offset: Dim)
    case value(ValueID, offset: Dim)
    case size(Dim)
  }

  /// A step before places are assigned.
  struct Draft {
    var kernel: Int
    var operands: [Operand]
    var writes: Set<Int>
    var inPlace: [(input: Int, result: Int)]
    /// The type of each operand, for those that have one.
    var types: [TensorType?]
    var name: String
    var origin: Origin?
    var work = StepWork()
  }

  /// A loop and the values that share a buffer because of it.
  struct Found {
    var loop: Schedule.Loop
    /// Values that must have one place.
    var shared: [[ValueID]]
    /// How many values go from one round to the next.
    var carried: Int
  }

  private let steps: [Draft]
  private let signatures: [Int]
  private var definition: [ValueID: Int] = [:]
  /// Values whose place nothing else may take.
  private let fixed: Set<ValueID>
  /// The fewest steps a loop must save.
  private static let smallestSaving = 4

  init(_ steps: [Draft], fixed: Set<ValueID>) {
    self.steps = steps
    self.fixed = fixed
    var numbers: [Signature: Int] = [:]
    var signatures: [Int] = []
    for (index, step) in steps.enumerated() {
      let signature = Signature(step)
      let number = numbers[signature] ?? numbers.count
      numbers[signature] = number
      signatures.append(number)
      for write in step.writes {
        if case .value(let value, _) = step.operands[write] { definition[value] = index }
      }
    }
    self.signatures = signatures
  }

  /// What steps of one round have in common with those of another.
  private struct Signature: Hashable {
    var kernel: Int
    var operands: [Operand]
    var types: [TensorType?]

    init(_ step: Draft) {
      kernel = step.kernel
      types = step.types
      operands = step.operands.map { operand in
        switch operand {
        case .weight: .weight(0)
        case .state(_, let offset): .state(0, offset: offset)
        case .value(_, let offset): .value(ValueID(index: 0), offset: offset)
        case .size: operand
        }
      }
    }
  }

  /// Loops that do not overlap, in order.
  func loops() -> [Found] {
    var found: [Found] = []
    search(0..<steps.count, &found)
    return found.sorted { $0.loop.start < $1.loop.start }
  }

  private func search(_ range: Range<Int>, _ found: inout [Found]) {
    guard range.count > Self.smallestSaving, let best = best(in: range) else { return }
    found.append(best)
    search(range.lowerBound..<best.loop.start, &found)
    search(best.loop.steps.upperBound..<range.upperBound, &found)
  }

  /// The loop in `range` that saves most steps.
  private func best(in range: Range<Int>) -> Found? {
    struct Run {
      var start: Int
      var period: Int
      var length: Int
      var saving: Int { (length / period) * period }
    }
    var runs: [Run] = []
    for period in 1...max(1, range.count / 2) where 2 * period <= range.count {
      var start = range.lowerBound
      while start + period < range.upperBound {
        var length = 0
        while start + length + period < range.upperBound,
          signatures[start + length] == signatures[start + length + period]
        {
          length += 1
        }
        if length >= period { runs.append(Run(start: start, period: period, length: length)) }
        start += max(length, 1)
      }
    }
    runs.sort { ($0.saving, -$0.period, -$0.start) > ($1.saving, -$1.period, -$1.start) }
    var bestFound: Found?
    for run in runs.prefix(32) where run.saving >= Self.smallestSaving {
      if let found = bestFound, run.saving <= saving(found) { break }
      for count in [run.length / run.period + 1, run.length / run.period] where count >= 2 {
        var candidates: [Found] = []
        let slack = run.length + run.period - count * run.period
        for shift in 0...min(slack, run.period) {
          let loop = Schedule.Loop(start: run.start + shift, period: run.period, count: count)
          if let found = verified(loop) { candidates.append(found) }
        }
        if let found = candidates.min(by: { ($0.carried, $0.loop.start) < ($1.carried, $1.loop.start) }),
          saving(found) >= Self.smallestSaving, saving(found) > (bestFound.map { saving($0) } ?? 0)
        {
          bestFound = found
        }
      }
    }
    return bestFound
  }

  private func saving(_ found: Found) -> Int { (found.loop.count - 1) * found.loop.period }

  /// The loop with its shared values, if its rounds are the same but for weights, states and carried values.
  private func verified(_ loop: Schedule.Loop) -> Found? {
    var shared: [[ValueID]] = []
    /// For a value carried into the first round: the step of a round and operand that make its successor.
    var carried: [ValueID: (step: Int, operand: Int)] = [:]
    for step in 0..<loop.period {
      let first = steps[loop.start + step]
      for (index, operand) in first.operands.enumerated() {
        let others = (0..<loop.count).map { steps[loop.start + $0 * loop.period + step].operands[index] }
        switch operand {
        case .size, .weight, .state: continue
        case .value(let value, _):
          let values = others.compactMap { other in
            if case .value(let id, _) = other { id } else { nil }
          }
          guard values.count == loop.count else { return nil }
          if first.writes.contains(index) {
            shared.append(values)
            continue
          }
          if let made = definition[value], (loop.start..<loop.start + loop.period).contains(made) {
            for (round, other) in values.enumerated() {
              guard definition[other] == made + round * loop.period else { return nil }
              guard sameResult(value, other, made, made + round * loop.period) else { return nil }
            }
          } else if values.allSatisfy({ $0 == value }) {
            continue
          } else {
            guard !fixed.contains(value), let made = definition[values[1]] else { return nil }
            let place = made - loop.start
            guard (0..<loop.period).contains(place) else { return nil }
            for round in 2..<max(loop.count, 2) {
              guard definition[values[round]] == made + (round - 1) * loop.period,
                sameResult(values[1], values[round], made, made + (round - 1) * loop.period)
              else { return nil }
            }
            guard let result = resultIndex(values[1], made) else { return nil }
            if let known = carried[value] {
              guard known == (place, result) else { return nil }
            }
            carried[value] = (place, result)
          }
        }
      }
    }
    for (value, source) in carried {
      let rounds = (0..<loop.count).map { loop.start + $0 * loop.period + source.step }
      let values = rounds.compactMap { step -> ValueID? in
        if case .value(let id, _) = steps[step].operands[source.operand] { id } else { nil }
      }
      shared.append([value] + values)
    }
    return Found(loop: loop, shared: shared, carried: carried.count)
  }

  private func resultIndex(_ value: ValueID, _ step: Int) -> Int? {
    steps[step].writes.first { index in
      if case .value(value, _) = steps[step].operands[index] { true } else { false }
    }
  }

  private func sameResult(_ a: ValueID, _ b: ValueID, _ stepA: Int, _ stepB: Int) -> Bool {
    guard let index = resultIndex(a, stepA) else { return false }
    return resultIndex(b, stepB) == index
  }
}
