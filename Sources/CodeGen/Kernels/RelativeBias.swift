import IR
import Tensors

/// A bias by distance laid out for queries and keys: y[h, i, j] = bias[h, j - i - position + before].
package struct RelativeBiasConfig: Hashable, Codable, Sendable {
  package var heads: Int
  /// Columns of the bias, and that of distance 0.
  package var width: Int
  package var before: Int
  package var rows: Extent
  package var columns: Extent
  package var hasPosition: Bool

  package func name(target: Target) -> String {
    "mcc_relative_bias_\(heads)x\(width)_\(before)" + (hasPosition ? "" : "_start")
      + (rows.fixedValue.map { "_rows\($0)" } ?? "") + (columns.fixedValue.map { "_columns\($0)" } ?? "")
      + "_\(target.suffix)"
  }

  /// Parameters: bias, position if there is one, y, then rows and columns as far as they are run-time ones. Threads share
  /// the rows of all heads. The distances of a row are neighbours in the bias; those beyond its ends take its end.
  package func build(target: Target) -> KernelFunction {
    let k = KernelBuilder(name(target: target), target: target)
    k.comment = ["y[\(heads), \(rows.text), \(columns.text)] by distance from bias[\(heads), \(width)]."]
    let bias = k.input("bias", .f32)
    let position = hasPosition ? k.input("position", .i32) : nil
    let y = k.output("y", .f32)
    let rowCount = k.extent(rows), count = k.extent(columns)
    let part = k.partition(rowCount * .integer(heads))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let row = k.define("row", unit % rowCount)
      let source = k.pointer("source", bias, offset: unit / rowCount * .integer(width))
      let target = k.pointer("target", y, offset: unit * count)
      let query = k.define("query", position.map { $0[0].asIndex + row } ?? row)
      // The columns that lie within the bias: first ..< end.
      let first = k.define("first", .minimum(.maximum(query - .integer(before), 0), count))
      let end = k.define("end", .maximum(.minimum(query + .integer(width - before), count), first))
      k.loop("j", to: first) { k.store(target, $0, source[0]) }
      let from = k.define("from", first + .integer(before) - query)
      k.vectorLoop("j", count: end - first) { j, tail in
        k.store(target, first + j, source.load(from + j, count: tail), count: tail)
      }
      k.loop("j", from: end, to: count) { k.store(target, $0, source[.integer(width - 1)]) }
    }
    return k.finish()
  }
}

/// Biases of attention by distance.
package enum RelativeBiasKernel: Kernel {
  package static let name = "relative_bias"
  package static let summary = "biases of attention by the distance of query and key"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? RelativeBias, query.isPlain(), let bias = query.operands.first?.type,
      bias.element == .f32, let heads = bias.shape[0].fixedValue, let width = bias.shape[1].fixedValue, heads > 0,
      query.operands.dropFirst().allSatisfy({ $0.type.element == .i32 })
    else { return [] }
    var extents = ExtentTable()
    let config = RelativeBiasConfig(
      heads: heads, width: width, before: op.before, rows: extents.extent(op.rows, "T"),
      columns: extents.extent(op.columns, "S"), hasPosition: query.operands.count > 1)
    let size = Double(heads) * Double(op.rows.maximum) * Double(op.columns.maximum)
    return [
      KernelChoice(
        config.build(target: target), work: KernelWork(floatOperations: size, bytes: 8 * size), target: target,
        pointers: query.operands.indices.map { .input($0) } + [.result(0)], extents: extents, layouts: query.unpacked)
    ]
  }
}
