import IR
import Tensors

/// Folds sums of convolutions of one image, and of the image itself, into one convolution.
///
///     %a = conv2d(%x, %v, %b) {padding = [1, 1, 1, 1], epilogue = {bias = true}}     (3 x 3)
///     %c = conv2d(%x, %w, %d) {epilogue = {bias = true}}                             (1 x 1)
///     %e = batch_norm(%x, ...)
///     %y = add(add(%a, %c), %e)
///     // -> %y = conv2d(%x, %v + pad(%w + diagonal(%s)), %b + (%d + %t)) {padding = [1, 1, 1, 1], epilogue = {bias = true}}
///
/// where `%s` and `%t` are scale and shift of the normalization. These are the blocks that RepVGG (Ding and others, 2021)
/// and MobileOne (Vasu and others, 2023) are trained with. Branches may differ in window and padding as long as one window
/// holds the other; groups, strides and dilations must agree. Everything but the layer is a recipe on constants.
package struct FoldRepConv: RulePass {
  package static let name = "fold-repconv"
  package static let summary = "folds sums of convolutions of one image into one convolution"
  package static let legality =
    "where the branches read one image and only the sum reads them, weights are recipes, one window holds "
    + "the other, and groups, strides and dilations agree"
  package static let source =
    "X. Ding and others (RepVGG), 2021, arXiv:2101.03697; P. Vasu and others (MobileOne), 2023, "
    + "arXiv:2206.04040"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] { [foldSumOfConvolutions, foldConvolutionPlusImage] }
}

extension Rewriter {
  /// A convolution with channels first whose weights and bias are recipes and whose result only the sum uses.
  fileprivate func branch(_ value: ValueID) -> (match: Match<Conv2D>, kernel: [Int])? {
    guard let conv = match(value, Conv2D.self), conv.op.layout == .first, conv.op.epilogue.isAffine,
      conv.inputs.dropFirst().allSatisfy({ isRecipe($0) }), let weight = type(of: conv.inputs[1]).shape.fixedSizes
    else { return nil }
    return (conv, Array(weight[2...]))
  }

  /// The weights of a window with zeros around them, so that they are those of the window of `outer`; nil if they do not
  /// fit into it.
  fileprivate mutating func embedded(
    _ weight: ValueID, of conv: Conv2D, kernel: [Int], in outer: Conv2D, outerKernel: [Int]
  ) throws -> ValueID? {
    var before = [0, 0, 0, 0], after = [0, 0, 0, 0]
    for axis in 0..<2 {
      // A single tap has no dilation of its own.
      guard kernel[axis] == 1 || kernel[axis] == outerKernel[axis] || conv.dilations[axis] == outer.dilations[axis]
      else { return nil }
      let shift = outer.padding[axis] - conv.padding[axis]
      guard shift >= 0, shift % outer.dilations[axis] == 0 else { return nil }
      before[axis + 2] = shift / outer.dilations[axis]
      after[axis + 2] = outerKernel[axis] - kernel[axis] - before[axis + 2]
      guard after[axis + 2] >= 0 else { return nil }
    }
    let wide = try widened(weight)
    return kernel == outerKernel ? wide : try emit(Pad(before: before, after: after), wide)
  }

  /// `conv` with other weights and the sum of two biases.
  fileprivate mutating func folded(
    _ conv: Conv2D, _ inputs: [ValueID], weight: ValueID, plus shift: ValueID?
  ) throws -> ValueID {
    var result = conv
    var all = [inputs[0], weight]
    let old = conv.epilogue.biasIndex.map { inputs[$0] }
    if let shift {
      all.append(try bias(old, plus: shift))
    } else if let old {
      all.append(old)
    }
    result.epilogue.bias = all.count == 3
    return try emit(result, all)
  }

  /// The weights of a convolution of one tap that gives the image with each channel times `scale[C]`.
  fileprivate mutating func diagonal(_ scale: ValueID, channels: Int, groups: Int) throws -> ValueID {
    // In rows of one element more than the matrix has, the diagonal is a column.
    let size = channels / groups
    let column = try emit(Reshape([.fixed(groups), .fixed(size), 1]), scale)
    let rows = try emit(Pad(before: [0, 0, 0], after: [0, 0, size]), column)
    let flat = try emit(Reshape([.fixed(groups), .fixed(size * (size + 1))]), rows)
    let matrix = try emit(Slice(axis: 1, start: 0, size: .fixed(size * size)), flat)
    return try emit(Reshape([.fixed(channels), .fixed(size), 1, 1]), matrix)
  }
}

/// add(conv2d(x, v, b), conv2d(x, w, d)) -> conv2d(x, v + pad(w), b + d)
let foldSumOfConvolutions = RewriteRule("fold-sum-of-convolutions", on: Add.self, .shared) { _, node, rewriter in
  for (first, second) in rewriter.orders(of: node) {
    guard let outer = rewriter.branch(first), let inner = rewriter.branch(second),
      outer.match.inputs[0] == inner.match.inputs[0], outer.match.op.groups == inner.match.op.groups,
      outer.match.op.strides == inner.match.op.strides, rewriter.type(of: first) == rewriter.type(of: second),
      zip(outer.kernel, inner.kernel).allSatisfy({ $0 >= $1 }),
      let padded = try rewriter.embedded(
        inner.match.inputs[1], of: inner.match.op, kernel: inner.kernel, in: outer.match.op, outerKernel: outer.kernel)
    else { continue }
    let weight = try rewriter.emit(Add(), rewriter.widened(outer.match.inputs[1]), padded)
    return try rewriter.folded(
      outer.match.op, outer.match.inputs, weight: weight,
      plus: inner.match.op.epilogue.biasIndex.map { inner.match.inputs[$0] })
  }
  return nil
}

/// add(conv2d(x, w, b), batch_norm(x)) -> conv2d(x, w + pad(diagonal(s)), b + t), and with x itself, where s is 1
let foldConvolutionPlusImage = RewriteRule("fold-convolution-plus-image", on: Add.self, .shared) { _, node, rewriter in
  for (first, second) in rewriter.orders(of: node) {
    guard let conv = rewriter.branch(first), rewriter.type(of: first) == rewriter.type(of: second),
      conv.match.op.strides == [1, 1], let channels = rewriter.type(of: second).shape[1].fixedValue
    else { continue }
    let image = conv.match.inputs[0]
    let scale: ValueID, shift: ValueID?
    if second == image {
      scale = rewriter.constant(1, TensorType(.f32, [.fixed(channels)]))
      shift = nil
    } else if let norm = rewriter.match(second, BatchNorm.self), norm.inputs[0] == image,
      let affine = try rewriter.affine(of: norm.op, norm.inputs)
    {
      (scale, shift) = (affine.scale, affine.shift)
    } else {
      continue
    }
    let groups = conv.match.op.groups
    let point = Conv2D(groups: groups)
    let weight = try rewriter.diagonal(scale, channels: channels, groups: groups)
    guard
      let padded = try rewriter.embedded(
        weight, of: point, kernel: [1, 1], in: conv.match.op, outerKernel: conv.kernel)
    else { continue }
    let sum = try rewriter.emit(Add(), rewriter.widened(conv.match.inputs[1]), padded)
    return try rewriter.folded(conv.match.op, conv.match.inputs, weight: sum, plus: shift)
  }
  return nil
}
