import IR
import Tensors

/// What a model asks of the kernels of a target: each distinct question once, with all candidates and the chosen one.
package struct KernelSurvey: Sendable {
  /// A question.
  package struct Entry: Sendable {
    /// The role of the function that asks.
    package var role: String
    /// The index of the target whose kernels it calls.
    package var level: Int
    package var query: KernelQuery
    package var work: StepWork
    /// Bytes of the operands as they lie in memory unless packed, and of the results, with symbols at their largest.
    package var operandBytes: [Int]
    package var resultBytes: [Int]
    package var choices: [KernelChoice]
    /// The index of the chosen one.
    package var pick: Int
    /// Calls of it in one run of the function.
    package var count: Int
    /// Numbers that stand for the constants among the operands of the first call.
    package var constants: [Int?]

    /// What is computed, without what a chain does to its input.
    package var operation: any Operator {
      (query.operation.op as? Chained)?.operation.op ?? query.operation.op
    }

    /// `matmul f32[1, 2048], ...`; of a chain `quantize+dequantize+matmul`.
    package var title: String {
      let types = query.operands.map { operand -> String in
        switch operand.type.encoding {
        case .dense, .block: operand.type.description
        case .packed(let layout): "\(operand.type.shape) \(layout.name)"
        }
      }
      let links = (query.operation.op as? Chained)?.before.map(\.operation.op.name) ?? []
      return "\((links + [operation.name]).joined(separator: "+")) \(types.joined(separator: ", "))"
    }

    /// The largest values of the symbols.
    package var sizes: [String: Double] {
      var sizes: [String: Double] = [:]
      for operand in query.operands {
        for symbol in operand.type.shape.dims.flatMap(\.symbols) { sizes[symbol.name] = Double(symbol.maximum) }
      }
      return sizes
    }
  }

  package private(set) var entries: [Entry] = []
  private var known: [String: [Int]] = [:]

  package init() {}

  mutating func add(
    role: String, level: Int, query: KernelQuery, stored: [TensorType], results: [TensorType], choices: [KernelChoice],
    pick: KernelChoice, constants: [Int?]
  ) {
    guard let index = choices.firstIndex(where: { $0.name == pick.name }) else { return }
    let key = "\(role) \(pick.name)"
    for entry in known[key] ?? [] where entries[entry].query == query {
      entries[entry].count += 1
      return
    }
    known[key, default: []].append(entries.count)
    var work = StepWork(query.operation.op, query, stored: stored, results: results)
    // Constants are not packed yet: their bytes are those of the chosen layout.
    for (input, layout) in pick.layouts.enumerated() {
      guard let layout, query.operands[input].isConstant, !(query.operation.op is Gather) else { continue }
      let packed = Double(layout.byteCount(rows: stored[input].shape.maximumSizes.first ?? 1))
      work.weightBytes = SizePolynomial(packed)
    }
    entries.append(
      Entry(
        role: role, level: level, query: query, work: work, operandBytes: stored.map(\.largestByteCount),
        resultBytes: results.enumerated().map { result, type in
          result == 0 && pick.result != nil
            ? pick.result?.byteCount(rows: type.shape.maximumSizes.dropLast().reduce(1, *)) ?? 0
            : type.largestByteCount
        }, choices: choices, pick: index, count: 1, constants: constants))
  }

  /// Bytes of all constants that products read in a run of a function, for the role that reads most.
  package var weightBytes: Int {
    var sums: [String: Double] = [:]
    for entry in entries {
      sums[entry.role, default: 0] += entry.work.weightBytes.value(entry.sizes) * Double(entry.count)
    }
    return Int(min(sums.values.max() ?? 0, 1e15))
  }
}
