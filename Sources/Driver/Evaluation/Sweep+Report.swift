import Base

extension Sweep.Row {
  /// For scripts: `recipe`, `bits_per_weight`, `tokens_per_second` and the measures.
  package var json: JSON {
    var object = JSONObject()
    object["recipe"] = .string(recipe)
    if let bitsPerWeight { object["bits_per_weight"] = .number(bitsPerWeight) }
    if let speed { object["tokens_per_second"] = .number(speed) }
    for (key, value) in result.json.object ?? JSONObject() where key != "name" { object[key] = value }
    return .object(object)
  }
}

extension Sweep {
  /// The rows as lines of a table.
  package static func table(_ rows: [Row]) -> [String] {
    let hasBits = rows.contains { $0.bitsPerWeight != nil }, hasSpeed = rows.contains { $0.speed != nil }
    var columns: [ModelEvaluation.Column] = []
    if hasBits { columns.append(.init("bits", rows.map { $0.bitsPerWeight.map { Quantity.decimal($0, 2) } ?? "" })) }
    if hasSpeed { columns.append(.init("tokens/s", rows.map { $0.speed.map { Quantity.decimal($0, 1) } ?? "" })) }
    return ModelEvaluation.table(rows.map(\.result), columns)
  }

  /// The plot of a measure over the bytes of the programs, as SVG: a logarithmic axis for what is above zero everywhere.
  ///
  /// Nil if fewer than two rows have the measure.
  package static func plot(_ rows: [Row]) -> String? {
    let kinds: [ModelEvaluation.Measure.Kind] = [.divergence, .error, .accuracy, .perplexity]
    func points(_ kind: ModelEvaluation.Measure.Kind) -> [(String, Double, Double)] {
      rows.compactMap { row in
        row.result.value(kind).flatMap { $0.isFinite ? (row.recipe, Double(row.result.bytes), $0) : nil }
      }
    }
    guard let kind = kinds.first(where: { points($0).count > 1 }) else { return nil }
    let points = points(kind)
    let isLogarithmic = kind != .accuracy && points.allSatisfy { $0.2 > 0 }
    return ScatterPlot(
      title: "\(kind.rawValue) over bytes", x: "bytes of weights, scales and tokenizer", y: kind.rawValue,
      isLogarithmic: isLogarithmic, points: points.map { .init(label: $0.0, x: $0.1, y: $0.2) }
    ).svg
  }
}
