import Base

extension ModelEvaluation.Result {
  /// For scripts: `name`, `bytes` and a member per measure.
  package var json: JSON {
    var object = JSONObject()
    object["name"] = .string(name)
    object["bytes"] = .int(bytes)
    for measure in measures {
      object[measure.kind.rawValue] = measure.kind == .count ? .int(Int(measure.value)) : .number(measure.value)
    }
    return .object(object)
  }
}

extension ModelEvaluation {
  /// A column of a table that is no measure.
  package struct Column: Hashable, Sendable {
    let title: String
    let cells: [String]

    /// A column with a cell for each result.
    init(_ title: String, _ cells: [String]) {
      self.title = title
      self.cells = cells
    }
  }

  /// The results as lines of a table: the name, bytes, `further` columns, and one for each measure.
  package static func table(_ results: [Result], _ further: [Column] = []) -> [String] {
    let kinds = Measure.Kind.allCases.filter { kind in results.contains { $0.value(kind) != nil } }
    let columns =
      [Column("", results.map(\.name)), Column("bytes", results.map { "\($0.bytes)" })] + further
      + kinds.map { kind in
        Column(title(kind), results.map { result in result.value(kind).map { text($0, kind) } ?? "" })
      }
    let widths = columns.map { column in ([column.title] + column.cells).map(\.count).max() ?? 0 }
    func line(_ cells: [String]) -> String {
      zip(cells, widths).enumerated().map { index, pair in
        let space = String(repeating: " ", count: pair.1 - pair.0.count)
        return index == 0 ? pair.0 + space : "  " + space + pair.0
      }.joined()
    }
    return [line(columns.map(\.title))] + results.indices.map { row in line(columns.map { $0.cells[row] }) }
  }

  private static func title(_ kind: Measure.Kind) -> String {
    switch kind {
    case .perplexity: "perplexity"
    case .divergence: "KL"
    case .largestDivergence: "largest KL"
    case .agreement: "same top"
    case .accuracy: "right"
    case .cosine: "cosine"
    case .smallestCosine: "smallest"
    case .error: "error"
    case .count: "count"
    }
  }

  private static func text(_ value: Double, _ kind: Measure.Kind) -> String {
    switch kind {
    case .perplexity: Quantity.decimal(value, 4)
    case .divergence, .largestDivergence, .error: value.figure
    case .agreement, .accuracy: Quantity.decimal(100 * value, 2) + " %"
    case .cosine, .smallestCosine: Quantity.decimal(value, 6)
    case .count: Quantity.decimal(value, 0)
    }
  }
}
