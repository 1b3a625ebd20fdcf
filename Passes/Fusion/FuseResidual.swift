import IR
import Tensors

/// add(matmul(x, w), r) -> matmul(x, w, r) {epilogue = {residual = after_activation}}, for an r of the same shape that
/// is no constant
let fuseResidualIntoMatMul = RewriteRule("fuse-residual-into-matmul", on: Add.self, .shared) { _, node, rewriter in
  for (sums, residual) in rewriter.orders(of: node) {
    guard let matmul = rewriter.match(sums, MatMul.self), matmul.op.epilogue.residual == .none,
      rewriter.type(of: sums) == rewriter.type(of: residual), !rewriter.isRecipe(residual), !rewriter.isRecipe(sums)
    else { continue }
    var op = matmul.op
    op.epilogue.residual = .afterActivation
    return try rewriter.emit(op, matmul.inputs + [residual])
  }
  return nil
}

/// add(conv2d(x, w), r) -> conv2d(x, w, r) {epilogue = {residual = after_activation}}, for an r of the same shape that
/// is no constant
let fuseResidualIntoConvolution = RewriteRule("fuse-residual-into-conv2d", on: Add.self, .shared) { _, node, rewriter in
  for (sums, residual) in rewriter.orders(of: node) {
    guard let conv = rewriter.match(sums, Conv2D.self), conv.op.epilogue.residual == .none,
      rewriter.type(of: sums) == rewriter.type(of: residual), !rewriter.isRecipe(residual)
    else { continue }
    var op = conv.op
    op.epilogue.residual = .afterActivation
    return try rewriter.emit(op, conv.inputs + [residual])
  }
  return nil
}
