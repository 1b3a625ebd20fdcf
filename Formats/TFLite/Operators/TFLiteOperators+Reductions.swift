import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Reductions over axes that are constants.
  static let reductions: [TFLiteOperator] = [
    reduction("MEAN", .mean), reduction("SUM", .sum), reduction("REDUCE_MAX", .max), reduction("REDUCE_MIN", .min),
    reduction("REDUCE_PROD", .product),
  ]

  private static func reduction(_ type: String, _ function: Reduce.Function) -> TFLiteOperator {
    TFLiteOperator(type) { node, importer in
      let x = try importer.real(node.input(0))
      let rank = importer.builder.type(of: x).rank
      let axes = try Set(importer.integers(node.input(1)).map { try axis($0, rank: rank, type) }).sorted()
      guard !axes.isEmpty else { return try importer.define(node.output(), numbers: x) }
      let op = Reduce(function, axes: axes, keepDims: try node.flag(TFLiteSchema.Reducer.keepDims))
      try importer.define(node.output(), numbers: importer.builder.emit(op, x))
    }
  }
}
