import IR
import Tensors

/// Folds batch normalization with known statistics into the weights of the convolution or matrix product beside it.
///
///     %y = conv2d(%x, %w)
///     %z = batch_norm(%y, %scale, %bias, %mean, %variance) {epsilon = 1e-05}
///     // -> %s = multiply(%scale, rsqrt(add(%variance, 1e-05)))
///     //    %v = multiply(%w, reshape(%s))
///     //    %t = add(multiply(negate(%mean), %s), %bias)
///     //    %z = conv2d(%x, %v, %t) {epilogue = {bias = true}}
///
/// Everything but the layer is a recipe on constants. A normalization before a layer is folded where no zeros of
/// padding come between (Jacob and others, 2018, section 3.2).
package struct FoldBatchNorm: RulePass {
  package static let name = "fold-batch-norm"
  package static let summary = "folds batch normalization into the weights of its neighbours"
  package static let legality =
    "where statistics, weights and bias are recipes, the layer's result has no other user and no activation "
    + "or residual stands between; before a layer only without padding"
  package static let source = "B. Jacob and others, 2018, arXiv:1712.05877, section 3.2"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] {
    [foldBatchNormIntoConvolution, foldBatchNormIntoMatMul, foldBatchNormBeforeConvolution, foldBatchNormBeforeMatMul]
  }
}

/// batch_norm(conv2d(x, w)) -> conv2d(x, w * s, t)
let foldBatchNormIntoConvolution = RewriteRule("fold-batch-norm-into-conv2d", on: BatchNorm.self, .shared) {
  norm, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard let conv = rewriter.match(inputs[0], Conv2D.self), conv.op.layout == .first, conv.op.epilogue.isAffine,
    rewriter.isRecipe(conv.inputs[1]), let channels = rewriter.type(of: conv.inputs[1]).shape[0].fixedValue,
    conv.op.epilogue.biasIndex.map({ rewriter.isRecipe(conv.inputs[$0]) }) ?? true,
    let affine = try rewriter.affine(of: norm, inputs)
  else { return nil }
  let factor = try rewriter.emit(Reshape([.fixed(channels), 1, 1, 1]), affine.scale)
  let weight = try rewriter.emit(Multiply(), rewriter.widened(conv.inputs[1]), factor)
  let bias = try rewriter.bias(conv.op.epilogue.biasIndex.map { conv.inputs[$0] }, affine)
  var folded = conv.op
  folded.epilogue.bias = true
  return try rewriter.emit(folded, conv.inputs[0], weight, bias)
}

/// batch_norm(matmul(x, w)) -> matmul(x, w * s, t)
let foldBatchNormIntoMatMul = RewriteRule("fold-batch-norm-into-matmul", on: BatchNorm.self, .shared) {
  norm, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard let matmul = rewriter.match(inputs[0], MatMul.self), matmul.op.epilogue.isAffine,
    rewriter.type(of: inputs[0]).rank == 2, rewriter.type(of: matmul.inputs[1]).rank == 2,
    rewriter.isRecipe(matmul.inputs[1]),
    let columns = rewriter.type(of: inputs[0]).shape[1].fixedValue,
    matmul.op.epilogue.biasIndex.map({ rewriter.isRecipe(matmul.inputs[$0]) }) ?? true,
    let affine = try rewriter.affine(of: norm, inputs)
  else { return nil }
  let factor =
    matmul.op.transposeB ? try rewriter.emit(Reshape([.fixed(columns), 1]), affine.scale) : affine.scale
  let weight = try rewriter.emit(Multiply(), rewriter.widened(matmul.inputs[1]), factor)
  let bias = try rewriter.bias(matmul.op.epilogue.biasIndex.map { matmul.inputs[$0] }, affine)
  var folded = matmul.op
  folded.epilogue.bias = true
  return try rewriter.emit(folded, matmul.inputs[0], weight, bias)
}

/// conv2d(batch_norm(x), w) -> conv2d(x, w * s, bias + sum(w * t)), without padding; groups of one channel or one group
let foldBatchNormBeforeConvolution = RewriteRule("fold-batch-norm-before-conv2d", on: Conv2D.self, .shared) {
  conv, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard conv.layout == .first, conv.padding.allSatisfy({ $0 == 0 }), rewriter.isRecipe(inputs[1]),
    let norm = rewriter.match(inputs[0], BatchNorm.self),
    let channels = rewriter.type(of: inputs[0]).shape[1].fixedValue,
    conv.groups == 1 || (conv.groups == channels && rewriter.type(of: inputs[1]).shape[0] == .fixed(channels)),
    conv.epilogue.biasIndex.map({ rewriter.isRecipe(inputs[$0]) }) ?? true,
    let affine = try rewriter.affine(of: norm.op, norm.inputs)
  else { return nil }
  let shape: [Dim] = conv.groups == 1 ? [1, .fixed(channels), 1, 1] : [.fixed(channels), 1, 1, 1]
  let weight = try rewriter.widened(inputs[1])
  let scaled = try rewriter.emit(Multiply(), weight, try rewriter.emit(Reshape(shape), affine.scale))
  let shifted = try rewriter.emit(Multiply(), weight, try rewriter.emit(Reshape(shape), affine.shift))
  let shift = try rewriter.emit(Reduce(.sum, axes: [1, 2, 3]), shifted)
  let bias = try rewriter.bias(conv.epilogue.biasIndex.map { inputs[$0] }, plus: shift)
  inputs[0] = norm.inputs[0]
  inputs[1] = scaled
  var folded = conv
  folded.epilogue.bias = true
  if let index = conv.epilogue.biasIndex { inputs[index] = bias } else { inputs.insert(bias, at: 2) }
  return try rewriter.emit(folded, inputs)
}

/// matmul(batch_norm(x), w) -> matmul(x, w * s, bias + sum(w * t))
let foldBatchNormBeforeMatMul = RewriteRule("fold-batch-norm-before-matmul", on: MatMul.self, .shared) {
  matmul, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard let norm = rewriter.match(inputs[0], BatchNorm.self), rewriter.type(of: inputs[0]).rank == 2,
    rewriter.type(of: inputs[1]).rank == 2, rewriter.isRecipe(inputs[1]),
    let depth = rewriter.type(of: inputs[0]).shape[1].fixedValue,
    matmul.epilogue.biasIndex.map({ rewriter.isRecipe(inputs[$0]) }) ?? true,
    let affine = try rewriter.affine(of: norm.op, norm.inputs)
  else { return nil }
  let shape: [Dim] = matmul.transposeB ? [1, .fixed(depth)] : [.fixed(depth), 1]
  let weight = try rewriter.widened(inputs[1])
  let scaled = try rewriter.emit(Multiply(), weight, try rewriter.emit(Reshape(shape), affine.scale))
  let shifted = try rewriter.emit(Multiply(), weight, try rewriter.emit(Reshape(shape), affine.shift))
  let shift = try rewriter.emit(Reduce(.sum, axes: [matmul.transposeB ? 1 : 0]), shifted)
  let bias = try rewriter.bias(matmul.epilogue.biasIndex.map { inputs[$0] }, plus: shift)
  inputs[0] = norm.inputs[0]
  inputs[1] = scaled
  var folded = matmul
  folded.epilogue.bias = true
  if let index = matmul.epilogue.biasIndex { inputs[index] = bias } else { inputs.insert(bias, at: 2) }
  return try rewriter.emit(folded, inputs)
}
