import IR

/// The numbers of largest magnitude of each row apart from the others, see `SplitOutliers` of the IR.
package struct SplitOutliersConfig: Hashable, Codable, Sendable {
  package var columns: Int
  package var count: Int
  package var tokens: Extent

  package init(columns: Int, count: Int, tokens: Extent) {
    self.columns = columns
    self.count = count
    self.tokens = tokens
  }

  package func name(target: Target) -> String {
    "mcc_split_outliers_\(count)of\(columns)\(tokens.fixedValue.map { "_tokens\($0)" } ?? "")_\(target.suffix)"
  }

  /// Parameters: x, rest, outliers, then the number of tokens if it is a run-time one. Threads share the rows.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "The \(count) numbers of largest magnitude of each row of x[\(tokens.text), \(columns)], and their places."
    ]
    let x = k.input("x", .f32)
    let rest = k.output("rest", .f32)
    let outliers = k.output("outliers", .f32)
    let width = Expression.integer(columns)
    k.share("token", of: k.extent(tokens)) { token in
      let from = k.pointer("from", x, offset: token * width)
      let row = k.pointer("row", rest, offset: token * width)
      let found = k.pointer("found", outliers, offset: token * .integer(2 * count))
      k.vectorLoop("j", count: width) { j, tail in k.store(row, j, from.load(j, count: tail), count: tail) }
      k.loop("slot", to: .integer(count)) { slot in
        let most = k.variable("most", .broadcast(.real(0)))
        k.vectorLoop("j", count: width) { j, tail in
          k.assign(most, .maximum(row.load(j, count: tail).absolute, most))
        }
        let largest = k.define("largest", .reduce(.maximum, most))
        let first = k.variable("first", .broadcast(.real(Float(columns))))
        k.vectorLoop("j", count: width) { j, tail in
          let place = k.define("at", (Expression.laneNumbers + .broadcast(j.asInt32)).asFloat)
          let isLargest = row.load(j, count: tail).absolute.isEqual(to: .broadcast(largest))
          k.assign(first, .minimum(.choose(isLargest, place, first), first))
        }
        let place = k.define("place", .reduce(.minimum, first))
        // No number but 0 is left where the largest is 0; places behind the row are those of lanes without number.
        k.condition(
          largest > 0.0,
          then: {
            let index = k.define("index", place.asIndex)
            k.store(found, slot, row[index])
            k.store(found, slot + .integer(count), place)
            k.store(row, index, .real(0))
          },
          otherwise: {
            k.store(found, slot, .real(0))
            k.store(found, slot + .integer(count), .real(-1))
          })
      }
    }
    return k.finish()
  }
}

/// Outliers of rows apart.
package enum SplitOutliersKernel: Kernel {
  package static let name = "split_outliers"
  package static let summary = "the numbers of largest magnitude of each row apart from the others"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? SplitOutliers, query.isPlain(), let x = query.operands.first?.type,
      x.element == .f32, let columns = x.shape[1].fixedValue
    else { return [] }
    var extents = ExtentTable()
    let config = SplitOutliersConfig(columns: columns, count: op.count, tokens: extents.extent(x.shape[0], "T"))
    let size = Double(x.maximumCount)
    return [
      KernelChoice(
        config.build(target: target),
        work: KernelWork(floatOperations: Double(1 + 4 * op.count) * size, bytes: 8 * size), target: target,
        pointers: [.input(0), .result(0), .result(1)], extents: extents, layouts: query.unpacked)
    ]
  }
}
