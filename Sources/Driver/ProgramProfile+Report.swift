import Base

extension ProgramProfile {
  /// Tables for a person: every function by kernel and by layer, and with `details` by step.
  package func lines(details: Bool) -> [String] {
    var lines: [String] = []
    for function in functions {
      let each = function.calls > 0 ? function.seconds / Double(function.calls) : 0
      var head = "\(function.role): \(function.calls) calls of \(Quantity.seconds(each)), \(threads) threads, \(target)"
      let sizes = function.sizes.map {
        "\($0.name) \(Quantity.decimal($0.value, $0.value.rounded() == $0.value ? 0 : 1))"
      }
      if !sizes.isEmpty { head += "; on average \(sizes.joined(separator: ", "))" }
      lines.append(head)
      lines += Self.table("kernel", function.kernels, function)
      lines.append("")
      lines += Self.table("layer", function.layers, function)
      if details {
        lines.append("")
        lines += Self.table("step", function.steps, function)
      }
      lines.append("")
    }
    return Array(lines.dropLast())
  }

  private static func table(_ title: String, _ rows: [Row], _ function: Function) -> [String] {
    func cell(_ text: String, _ width: Int) -> String {
      String(repeating: " ", count: max(0, width - text.count)) + text
    }
    func line(_ row: Row) -> String {
      let perCall = 1e6 * row.seconds / max(row.calls, 1)
      let least = 1e6 * row.least / max(row.calls, 1)
      let balance = row.seconds > 0 ? row.slowest / row.seconds : 1
      return cell(percent(row.seconds, function), 7) + cell("\(Int((row.calls / Double(function.calls)).rounded()))", 7)
        + cell(Quantity.decimal(perCall, perCall < 100 ? 1 : 0), 11)
        + cell(Quantity.decimal(least, least < 100 ? 1 : 0), 10)
        + cell(Quantity.decimal(row.bytesPerSecond * 1e-9, 1), 8)
        + cell(Quantity.decimal(row.operationsPerSecond * 1e-9, 1), 8) + cell(Quantity.decimal(balance, 2), 9)
        + "  \(row.name)"
    }
    var lines = [
      cell("share", 7) + cell("steps", 7) + cell("us/step", 11) + cell("least", 10) + cell("GB/s", 8)
        + cell("GOP/s", 8) + cell("slowest", 9) + "  \(title)"
    ]
    lines += rows.map(line)
    if title == "kernel" {
      lines.append(line(function.total))
      lines.append(cell(percent(function.waiting, function), 7) + String(repeating: " ", count: 53) + "  waiting")
    }
    return lines
  }

  private static func percent(_ seconds: Double, _ function: Function) -> String {
    Quantity.decimal(function.seconds > 0 ? 100 * seconds / function.seconds : 0, 1) + "%"
  }

  /// The facts for a script; seconds are those of all calls.
  package var json: JSON {
    [
      "name": .string(name), "target": .string(target), "threads": .int(threads),
      "functions": .array(
        functions.map { function in
          [
            "role": .string(function.role), "calls": .int(function.calls), "seconds": .number(function.seconds),
            "waiting_seconds": .number(function.waiting),
            "sizes": .object(JSONObject(function.sizes.map { ($0.name, .number($0.value)) })),
            "kernels": .array(function.kernels.map { json($0, function) }),
            "layers": .array(function.layers.map { json($0, function) }),
            "steps": .array(function.steps.map { json($0, function) }),
          ]
        }),
    ]
  }

  private func json(_ row: Row, _ function: Function) -> JSON {
    [
      "name": .string(row.name), "steps": .int(Int((row.calls / Double(max(function.calls, 1))).rounded())),
      "seconds": .number(row.seconds), "slowest_seconds": .number(row.slowest),
      "least_seconds": .number(row.least),
      "share": .number(function.seconds > 0 ? row.seconds / function.seconds : 0), "bytes": .number(row.bytes),
      "operations": .number(row.operations),
    ]
  }
}
