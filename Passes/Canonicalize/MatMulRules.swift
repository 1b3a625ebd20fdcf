import IR
import Tensors

/// Rules on the factors of matrix products.
let matMulRules: [RewriteRule] = [transposeConstantFactor, absorbTransposedFactor]

/// matmul(x, w) -> matmul(x, transpose(w)) {transposeB = true}, for a constant or recipe w of rank 2: weights have one
/// row per output column, whatever the checkpoint's order
let transposeConstantFactor = RewriteRule("transpose-constant-factor", on: MatMul.self, .shared) {
  matmul, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard !matmul.transposeB, rewriter.type(of: inputs[1]).rank == 2, rewriter.isRecipe(inputs[1]),
    !rewriter.isRecipe(inputs[0])
  else { return nil }
  inputs[1] = try rewriter.emit(Transpose([1, 0]), inputs[1])
  return try rewriter.emit(MatMul(transposeB: true, epilogue: matmul.epilogue), inputs)
}

/// matmul(x, transpose(y)) -> matmul(x, y) {transposeB = true}, for a y whose last two axes change places
let absorbTransposedFactor = RewriteRule("absorb-transposed-factor", on: MatMul.self, .shared) {
  matmul, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard !rewriter.isRecipe(inputs[1]), let factor = rewriter.match(inputs[1], Transpose.self, .shared) else {
    return nil
  }
  let rank = factor.op.permutation.count
  guard factor.op.permutation == Array(0..<rank - 2) + [rank - 1, rank - 2] else { return nil }
  inputs[1] = factor.inputs[0]
  return try rewriter.emit(MatMul(transposeB: !matmul.transposeB, epilogue: matmul.epilogue), inputs)
}
