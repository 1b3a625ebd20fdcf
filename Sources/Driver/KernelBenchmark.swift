import Base
import CodeGen
import Formats
import IR
import Tensors

/// `mcc bench-kernels`: the candidates for all kernels of a model, timed on this machine.
package struct KernelBenchmark: Sendable {
  package var target = "native"
  /// nil for all cores.
  package var threads: Int?
  /// Part of the name of a candidate or of the question; nil for all.
  package var filter: String?
  package var cacheFolder: String?
  /// Bytes over which copies of constants are spread; nil for as many as the model reads.
  package var spread: Int?
  /// Whether times are kept for later compilations.
  package var saves = false
  /// Whether the chosen candidate is compared with the best, so that close calls are timed again.
  package var judges = false

  package init() {}

  /// The largest ratio of the chosen candidate's time to the best one's that passes.
  package static let limit = 1.05

  /// What was found.
  package struct Result: Sendable {
    package var machine: Machine
    package var comparison: KernelComparison
    /// Whether weights come from memory and not from the cache.
    package var streams: Bool

    /// Whether every chosen candidate is within the limit.
    package var passed: Bool { comparison.rows.allSatisfy { $0.ratio <= KernelBenchmark.limit } }

    /// The share of the machine's limit that a call of some seconds reaches.
    package func share(_ row: KernelComparison.Row, seconds: Double) -> Double {
      let sizes = row.entry.sizes, work = row.entry.work, threads = comparison.threads
      let least = max(
        work.weightBytes.value(sizes) / (streams ? machine.bytes(threads: threads) : machine.level2 * Double(threads)),
        work.otherBytes.value(sizes) / (machine.level2 * Double(threads)),
        work.operations.value(sizes) / machine.operations(work.arithmetic, threads: threads))
      return seconds > 0 ? least / seconds : 0
    }
  }

  /// Times the kernels of a model of the stage `transform`.
  ///
  /// - Throws: `CompileError`: `.unsupported` if the target's code does not run here, `.usage` if nothing is left to time.
  package func run(_ model: Model) async throws -> Result {
    let target = try TargetRegistry.target(named: target)
    let folder = Measurements.folder(cacheFolder)
    var record = try await Measurements.measured(target, cache: folder)
    guard let machine = record.machine else { throw CompileError(.internal, "the machine was not measured") }
    let survey = try CodeGenerator(target: target, record: record).survey(model)
    let entries = survey.entries.filter { entry in
      guard let filter else { return true }
      return entry.title.contains(filter) || entry.choices.contains { $0.name.contains(filter) }
    }
    guard !entries.isEmpty else {
      throw CompileError(.usage, "no kernel of the model has '\(filter ?? "")' in its name")
    }
    let toolchain = try await Measurements.toolchain(cache: folder)
    let spread = self.spread ?? Measurements.spread(survey)
    var comparison = try await KernelComparison.measure(
      entries, target, threads: threads ?? max(availableThreads, 1), spread: spread, toolchain)
    if judges { try await comparison.reviewCloseCalls(limit: Self.limit, spread: spread, toolchain) }
    if saves, let folder {
      comparison.store(in: &record)
      try record.store(in: folder)
    }
    return Result(machine: machine, comparison: comparison, streams: spread > 64 << 20)
  }

  /// A model of one product: `matmul:TxKxN` or `matmul:TxKxN:w4g32a8`, for T tokens of K numbers and N results.
  ///
  /// - Throws: `CompileError` of kind `.usage` for another text.
  package static func model(ofShapes text: String) throws -> Model {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    let sizes = parts.count > 1 ? parts[1].split(separator: "x", omittingEmptySubsequences: false).map { Int($0) } : []
    guard 2...3 ~= parts.count, parts[0] == "matmul", sizes.count == 3,
      case let numbers = sizes.compactMap({ $0 }), numbers.count == 3, numbers.allSatisfy({ 1...(1 << 20) ~= $0 }),
      let products = numbers[1].multipliedReportingOverflow(by: numbers[2]).0 as Int?, products <= 1 << 31
    else {
      throw CompileError(
        .usage, "--shapes is '\(text)', expected matmul:TxKxN or matmul:TxKxN:w4g32a8, such as matmul:1x2048x5632:w8")
    }
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [numbers[0], numbers[1]]))
    let w = builder.constant(
      Constant(
        name: "w", type: TensorType(.f32, [numbers[2], numbers[1]]),
        source: .random(seed: 1, deviation: 0.02 as Double)))
    builder.output("y", try builder.emit(MatMul(transposeB: true), x, w))
    var model = Model(name: "shapes", stage: .transform)
    model.constants = builder.constants
    model.functions = [builder.graph]
    if parts.count == 3 {
      var frontend = Frontend(FrontendOptions())
      try frontend.run(Presets.quantize(QuantizationSpec(parsing: parts[2])), on: &model)
    }
    return model
  }
}

extension KernelBenchmark.Result {
  /// A block of lines per question; the chosen candidate has a star.
  package var lines: [String] {
    func cell(_ value: Double, _ digits: Int, _ width: Int) -> String {
      let text = Quantity.decimal(value, digits)
      return String(repeating: " ", count: max(0, width - text.count)) + text
    }
    var lines = ["\(comparison.target.name), \(comparison.threads) threads"]
    for row in comparison.rows {
      lines.append("")
      lines.append("\(row.entry.role): \(row.entry.count) x \(row.entry.title)")
      lines.append("        us   GB/s   GOP/s  of limit")
      let sizes = row.entry.sizes
      for (index, time) in row.times.enumerated() {
        let seconds = time.least
        lines.append(
          cell(seconds * 1e6, 2, 10) + cell(row.entry.work.bytes.value(sizes) / seconds * 1e-9, 1, 7)
            + cell(row.entry.work.operations.value(sizes) / seconds * 1e-9, 1, 8)
            + cell(100 * share(row, seconds: seconds), 0, 9) + "% \(index == row.entry.pick ? "*" : " ") "
            + row.entry.choices[index].name)
      }
      if row.ratio > KernelBenchmark.limit {
        lines.append("  the chosen one takes \(Quantity.decimal(row.ratio, 2)) times as long as the best of its layout")
      }
    }
    return lines
  }

  /// The facts for a script.
  package var json: JSON {
    [
      "target": .string(comparison.target.name), "threads": .int(comparison.threads), "machine": machine.json,
      "passed": .bool(passed),
      "calls": .array(
        comparison.rows.map { row in
          [
            "function": .string(row.entry.role), "count": .int(row.entry.count), "operation": .string(row.entry.title),
            "bytes": .number(row.entry.work.bytes.value(row.entry.sizes)),
            "operations": .number(row.entry.work.operations.value(row.entry.sizes)), "ratio": .number(row.ratio),
            "candidates": .array(
              zip(row.entry.choices, row.times).enumerated().map { index, candidate in
                [
                  "name": .string(candidate.0.name), "seconds": .number(candidate.1.least),
                  "median_seconds": .number(candidate.1.median), "chosen": .bool(index == row.entry.pick),
                  "share_of_limit": .number(share(row, seconds: candidate.1.least)),
                ]
              }),
          ]
        }),
    ]
  }
}
