import IR
import Tensors

/// Writes batch normalization that no layer took up as a multiplication and an addition, which join other elementwise
/// operators.
///
///     %y = batch_norm(%x, %scale, %bias, %mean, %variance) {epsilon = 1e-05}
///     // -> %s = multiply(%scale, rsqrt(add(%variance, 1e-05)))
///     //    %t = add(multiply(negate(%mean), %s), %bias)
///     //    %y = add(multiply(%x, reshape(%s)), reshape(%t))
package struct ExpandBatchNorm: RulePass {
  package static let name = "expand-batch-norm"
  package static let summary = "writes batch normalization as a multiplication and an addition"
  package static let legality = "where the statistics are recipes and the numbers are f32"
  package static let source = "S. Ioffe and C. Szegedy, 2015, arXiv:1502.03167, algorithm 2"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] { [expandBatchNorm] }
}

/// batch_norm(x) -> x * s + t
let expandBatchNorm = RewriteRule("expand-batch-norm", on: BatchNorm.self, .shared) { norm, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  let type = rewriter.type(of: inputs[0])
  guard type.element == .f32, type.rank >= 2, let affine = try rewriter.affine(of: norm, inputs) else { return nil }
  let shape = [type.shape[1]] + [Dim](repeating: 1, count: type.rank - 2)
  let scaled = try rewriter.emit(Multiply(), inputs[0], try rewriter.emit(Reshape(shape), affine.scale))
  return try rewriter.emit(Add(), scaled, try rewriter.emit(Reshape(shape), affine.shift))
}
