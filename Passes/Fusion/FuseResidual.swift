import IR
import Tensors

/// add(matmul(x, w), r) -> matmul(x, w, r) {epilogue = {residual = after_activation}}, for an r of the same shape that
/// is no constant
let fuseResidualIntoMatMul = RewriteRule("fuse-residual-into-matmul", on: Add.self, .shared) { _, node, rewriter in
  for (sums, residual) in rewriter.orders(of: node) {
    guard rewriter.type(of: sums) == rewriter.type(of: residual), !rewriter.isRecipe(residual),
      !rewriter.isRecipe(sums), let matmul = rewriter.matchAlone(sums, MatMul.self),
      rewriter.takesResidual(matmul.op.epilogue, sums)
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
    guard rewriter.type(of: sums) == rewriter.type(of: residual), !rewriter.isRecipe(residual),
      let conv = rewriter.matchAlone(sums, Conv2D.self), rewriter.takesResidual(conv.op.epilogue, sums)
    else { continue }
    var op = conv.op
    op.epilogue.residual = .afterActivation
    return try rewriter.emit(op, conv.inputs + [residual])
  }
  return nil
}

extension Rewriter {
  /// Whether a layer has room for a residual.
  fileprivate mutating func takesResidual(_ epilogue: Epilogue, _ sums: ValueID) -> Bool {
    if epilogue.residual == .none { return true }
    let name = self.name(of: sums)
    return refuse("'%\(name)' has a residual already") ?? false
  }
}
