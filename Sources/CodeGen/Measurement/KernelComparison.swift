import IR
import Tensors

/// The candidates of a survey, timed on this machine.
package struct KernelComparison: Sendable {
  /// A question with the seconds of a call of each candidate.
  package struct Row: Sendable {
    package var entry: KernelSurvey.Entry
    package var times: [CallTime]
    /// The ratio of an earlier measurement, which another one need not confirm.
    var earlier = Double.infinity

    init(entry: KernelSurvey.Entry, times: [CallTime]) {
      self.entry = entry
      self.times = times
    }

    /// The fastest candidate among those that take every constant in the layout of the chosen one.
    ///
    /// A constant has one layout for all functions, so that another layout is no choice of one function alone.
    package var best: Int { fitting.min { times[$0].least < times[$1].least } ?? entry.pick }

    /// The candidates that take every constant in the layout of the chosen one.
    private var fitting: [Int] {
      let pick = entry.choices[entry.pick]
      return times.indices.filter { index in
        entry.query.operands.indices.allSatisfy {
          !entry.query.operands[$0].isConstant || entry.choices[index].layouts[$0] == pick.layouts[$0]
        }
      }
    }

    /// How many times as long as the fastest the chosen candidate takes, by layout as in ``best``; 1 if none is faster by
    /// more than `tie`.
    package var ratio: Double {
      let pick = times[entry.pick]
      let ratios = fitting.filter { times[$0].least < pick.least - Self.tie }.map { pick.ratio(to: times[$0]) }
      return min(earlier, max(1, ratios.max() ?? 1))
    }

    /// A difference that is no longer one of kernels: calls of threads and the clock differ by as much.
    private static let tie = 1e-7
  }

  package var target: Target
  package var threads: Int
  package var rows: [Row]

  /// Times all candidates of the entries.
  ///
  /// - Parameters:
  ///   - entries: the questions.
  ///   - target: what the candidates are for.
  ///   - threads: those that share a call.
  ///   - spread: bytes over which copies of constants are spread.
  ///   - rounds: timings of each candidate, the least of which counts.
  ///   - toolchain: the compiler.
  /// - Returns: a row for each entry.
  /// - Throws: `CompileError` of kind `.toolchain` if the code does not compile or run.
  package static func measure(
    _ entries: [KernelSurvey.Entry], _ target: Target, threads: Int, spread: Int, rounds: Int = 9,
    _ toolchain: Toolchain
  ) async throws -> KernelComparison {
    var calls: [TimedCall] = []
    for (group, entry) in entries.enumerated() {
      for choice in entry.choices { calls.append(call(entry, choice, threads: threads, group: group)) }
    }
    let times = try await TimingProgram(calls, target: target, spread: spread, rounds: rounds).run(toolchain)
    var rows: [Row] = []
    var next = 0
    for entry in entries {
      rows.append(Row(entry: entry, times: Array(times[next..<(next + entry.choices.count)])))
      next += entry.choices.count
    }
    return KernelComparison(target: target, threads: threads, rows: rows)
  }

  /// Times the rows anew whose chosen candidate is behind by more than `limit`, with more rounds, up to three times: one that
  /// really is slower is so every time.
  package mutating func reviewCloseCalls(limit: Double, spread: Int, _ toolchain: Toolchain) async throws {
    for _ in 0..<3 {
      let doubtful = rows.indices.filter { rows[$0].ratio > limit }
      if doubtful.isEmpty { return }
      let again = try await Self.measure(
        doubtful.map { rows[$0].entry }, target, threads: threads, spread: spread, rounds: 31, toolchain)
      for (index, row) in zip(doubtful, again.rows) {
        rows[index].earlier = rows[index].ratio
        rows[index].times = row.times
      }
    }
  }

  /// Puts the times into a record.
  package func store(in record: inout MachineRecord) {
    for row in rows {
      for (choice, time) in zip(row.entry.choices, row.times) {
        record.kernels[choice.timingKey(threads: threads)] = time.least
      }
    }
  }

  /// A call of a candidate, with symbols at their largest and caches half full.
  private static func call(
    _ entry: KernelSurvey.Entry, _ choice: KernelChoice, threads: Int, group: Int
  ) -> TimedCall {
    let operands = entry.query.operands
    let arguments = choice.arguments.map { argument -> TimedCall.Argument in
      switch argument {
      case .size(let dim): return .size(dim.maximum)
      case .result(let result):
        if choice.updates.indices.contains(result) {
          return .result(bytes: entry.operandBytes[choice.updates[result]])
        }
        return .result(bytes: entry.resultBytes.indices.contains(result) ? entry.resultBytes[result] : 64)
      case .input(let input):
        let type = operands[input].type
        if type.isDense, type.element == .i32 || type.element == .i64 {
          return .integers(
            integer(entry, input), count: min(type.maximumCount, 1 << 20), wide: type.element == .i64)
        }
        guard operands[input].isConstant else { return .operand(bytes: entry.operandBytes[input]) }
        guard let layout = choice.layouts[input] else { return .constant(bytes: entry.operandBytes[input]) }
        return .constant(bytes: layout.byteCount(rows: type.shape.maximumSizes.first ?? 1))
      }
    }
    return TimedCall(choice.function(), arguments, threads: threads, group: group)
  }

  /// What an operand of integers is filled with: positions in the middle of a cache, first rows of tables.
  private static func integer(_ entry: KernelSurvey.Entry, _ input: Int) -> Int {
    let types = entry.query.operands.map(\.type)
    switch entry.query.operation.op {
    case let op as Attention where op.optionalInputs(types).position == input:
      return max(0, (types[1].shape.maximumSizes.dropLast().last ?? 1) - types[0].maximumTokens) / 2
    case is CacheUpdate where input == 2:
      return max(0, (types[0].shape.maximumSizes.first ?? 1) - types[1].maximumTokens) / 2
    default: return 0
    }
  }
}

extension TensorType {
  /// The largest size of the last axis but one.
  fileprivate var maximumTokens: Int { shape.maximumSizes.dropLast().last ?? 1 }
}
