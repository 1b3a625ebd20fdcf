import IR
import Tensors

/// multiply(gather(t, i), s) -> gather(t * s, i), for the rows of a table t and an s that is one number or varies along the
/// columns: the scale of embeddings
///
/// A power of two changes no digit of an f32 or bf16 number, so such a table is multiplied in the type that it has.
func foldFactorIntoTable(force: Bool) -> RewriteRule {
  RewriteRule("fold-factor-into-table", on: Multiply.self, .shared) { _, node, rewriter in
    for (rows, factor) in rewriter.orders(of: node) {
      guard let gather = rewriter.match(rows, Gather.self), case let table = gather.inputs[0],
        rewriter.isRecipe(table), rewriter.type(of: table).rank == 2,
        rewriter.type(of: table).shape.normalizedAxis(gather.op.axis) == 0,
        rewriter.type(of: rows) == rewriter.type(of: node), rewriter.type(of: rows).element == .f32,
        let variation = rewriter.variation(of: factor, over: rows),
        variation == .none || variation == .axis(rewriter.type(of: rows).rank - 1),
        let columns = rewriter.type(of: table).shape[1].fixedValue
      else { continue }
      let type = rewriter.type(of: table)
      if type.isDense, type.element == .bf16, rewriter.isUsedOnce(table), let number = rewriter.number(factor),
        number.isPowerOfTwo
      {
        let scale = rewriter.constant(number, TensorType(.bf16, [1]))
        return try rewriter.emit(gather.op, rewriter.emit(Multiply(), table, scale), gather.inputs[1])
      }
      if let reason = rewriter.obstacle(toChanging: table, force: force) { return rewriter.refuse(reason) }
      let vector = try rewriter.channelVector(factor, count: columns)
      let scaled = try rewriter.emit(Multiply(), rewriter.widened(table), vector)
      return try rewriter.emit(Gather(axis: 0, type: .f32), scaled, gather.inputs[1])
    }
    return nil
  }
}

extension Double {
  /// Whether a product with the number changes the exponent of an f32 alone, but for numbers at the ends of its range.
  fileprivate var isPowerOfTwo: Bool { isNormal && significand == 1 && self > 0 && abs(exponent) <= 16 }
}
