import IR
import Tensors

/// Folds batch normalization with known statistics into the weights of the layer beside it.
///
///     %y = conv2d(%x, %w)
///     %z = batch_norm(%y, %scale, %bias, %mean, %variance) {epsilon = 1e-05}
///     // -> %s = multiply(%scale, rsqrt(add(%variance, 1e-05)))
///     //    %v = multiply(%w, reshape(%s))
///     //    %t = add(multiply(negate(%mean), %s), %bias)
///     //    %z = conv2d(%x, %v, %t) {epilogue = {bias = true}}
///
/// Layers are matrix products, convolutions and transposed convolutions in any number of groups; transposes and reshapes
/// may stand between. Everything but the layer is a recipe on constants. A normalization before layers is folded where
/// all its users are layers and no zeros of padding come between (Jacob and others, 2018, section 3.2).
package struct FoldBatchNorm: RulePass {
  package static let name = "fold-batch-norm"
  package static let summary = "folds batch normalization into the weights of its neighbours"
  package static let legality =
    "statistics are constants; the layer before has no other user and no activation, or all users behind are layers without padding"
  package static let source = "B. Jacob and others, 2018, arXiv:1712.05877, section 3.2"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] {
    [
      foldBatchNormIntoLayer, foldBatchNormBefore(Conv2D.self), foldBatchNormBefore(MatMul.self),
      foldBatchNormBefore(ConvTranspose2D.self),
    ]
  }
}

/// batch_norm(conv2d(x, w)) -> conv2d(x, w * s, t), and likewise for the other layers, through transposes and reshapes that
/// keep channels whole
let foldBatchNormIntoLayer = RewriteRule("fold-batch-norm-into-layer", on: BatchNorm.self, .shared) {
  norm, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard rewriter.type(of: inputs[0]).element == .f32, let found = rewriter.movedLayer(inputs[0], .axis(1)) else {
    return nil
  }
  guard found.layer.hasPlainSums else {
    return rewriter.refuse("an activation or a residual stands between layer and normalization")
  }
  guard let affine = try rewriter.affine(of: norm, inputs) else {
    return rewriter.refuse("the statistics are computed at run time")
  }
  let layer = try rewriter.scalingSums(of: found.layer, by: affine.scale, adding: affine.shift)
  return try rewriter.emit(found.moves, rewriter.emit(layer))
}

/// conv2d(batch_norm(x), w) -> conv2d(x, w * s, bias + sum(w * t)), without padding, and likewise for the other layers
func foldBatchNormBefore<Op: Operator>(_ type: Op.Type) -> RewriteRule {
  RewriteRule("fold-batch-norm-before-\(Op.name.kebabCase)", on: type, .shared) { _, node, rewriter in
    guard let layer = rewriter.layer(at: node), case let source = rewriter.movedInput(of: layer),
      let norm = rewriter.match(source.value, BatchNorm.self, .shared),
      rewriter.type(of: source.value).element == .f32
    else { return nil }
    guard source.axis == 1 else { return rewriter.refuse("the layer reads other channels than the normalization's") }
    // Weights that several layers share are few, and each of them saves a pass over its input.
    if let reason = rewriter.obstacle(
      toFoldingInto: source.value, axis: 1, terms: true, changesWeight: false, force: true)
    {
      return rewriter.refuse(reason)
    }
    guard let affine = try rewriter.affine(of: norm.op, norm.inputs) else {
      return rewriter.refuse("the statistics are computed at run time")
    }
    var folded = try rewriter.scalingChannels(of: layer, by: affine.scale, adding: affine.shift)
    folded.input = try rewriter.emit(source.moves, norm.inputs[0])
    return try rewriter.emit(folded)
  }
}
