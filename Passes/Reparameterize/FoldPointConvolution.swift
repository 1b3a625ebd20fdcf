import IR
import Tensors

/// conv2d(conv2d(x, p, q), w, b) -> conv2d(x, w p, b + w q), for a p of one tap with strides of 1 and no activation, where that is
/// not more work or makes a branch of a sum; with a bias q the second convolution has no padding
let foldPointBeforeConvolution = RewriteRule("fold-point-before-convolution", on: Conv2D.self, .shared) {
  conv, node, rewriter in
  guard let outer = rewriter.layer(at: node), conv.layout == .first, conv.groups == 1,
    let point = rewriter.plainConvolution(outer.input), point.layer.isPoint, point.op.strides == [1, 1]
  else { return nil }
  guard point.layer.bias == nil || outer.takesTerms else {
    return rewriter.refuse("zeros of padding come between bias and convolution")
  }
  let (channels, middle, outputs) = (point.layer.channels, outer.channels, outer.outputs)
  let taps = outer.sizes[2] * outer.sizes[3]
  guard
    channels * outputs * taps <= channels * middle + middle * outputs * taps
      || (outer.hasPlainSums && rewriter.isBranch(node, of: point.layer.input))
  else { return rewriter.refuse("one convolution would be more work than both") }
  if let reason = rewriter.obstacle(toChanging: outer.weight) ?? rewriter.obstacle(toChanging: point.layer.weight) {
    return rewriter.refuse(reason)
  }
  // [O, M, h, w] as [O, h w, M], times [M, C].
  let matrix = try rewriter.emit(Reshape([.fixed(middle), .fixed(channels)]), point.layer.weight)
  let rows = try rewriter.emit(
    Transpose([0, 2, 1]), try rewriter.emit(Reshape([.fixed(outputs), .fixed(middle), .fixed(taps)]), outer.weight))
  let product = try rewriter.emit(Transpose([0, 2, 1]), try rewriter.emit(MatMul(), rows, matrix))
  var merged = outer
  merged.weight = try rewriter.emit(
    Reshape([.fixed(outputs), .fixed(channels), .fixed(outer.sizes[2]), .fixed(outer.sizes[3])]), product)
  merged.bias = try rewriter.bias(of: outer, behind: point.layer.bias)
  merged.input = point.layer.input
  return try rewriter.emit(merged)
}

/// conv2d(conv2d(x, w, b), p, q) -> conv2d(x, p w, q + p b), for a p of one tap with strides of 1 and no padding, where that is not
/// more work or makes a branch of a sum
let foldPointAfterConvolution = RewriteRule("fold-point-after-convolution", on: Conv2D.self, .shared) {
  conv, node, rewriter in
  guard let point = rewriter.layer(at: node), conv.layout == .first, conv.groups == 1, point.isPoint,
    conv.strides == [1, 1], let inner = rewriter.plainConvolution(point.input)
  else { return nil }
  let (channels, middle, outputs) = (inner.layer.channels, point.channels, point.outputs)
  let taps = inner.layer.sizes[2] * inner.layer.sizes[3]
  guard
    channels * outputs * taps <= channels * middle * taps + middle * outputs
      || (point.hasPlainSums && rewriter.isBranch(node, of: inner.layer.input))
  else { return rewriter.refuse("one convolution would be more work than both") }
  if let reason = rewriter.obstacle(toChanging: point.weight) ?? rewriter.obstacle(toChanging: inner.layer.weight) {
    return rewriter.refuse(reason)
  }
  let matrix = try rewriter.emit(Reshape([.fixed(outputs), .fixed(middle)]), point.weight)
  let columns = try rewriter.emit(Reshape([.fixed(middle), .fixed(channels * taps)]), inner.layer.weight)
  var merged = point
  let sizes = [outputs, channels] + inner.layer.sizes[2...]
  merged.weight = try rewriter.emit(
    Reshape(sizes.map { .fixed($0) }), try rewriter.emit(MatMul(), matrix, columns))
  merged.bias = try rewriter.bias(of: point, behind: inner.layer.bias)
  var op = inner.op
  op.epilogue = conv.epilogue
  merged.operation = .convolution(op)
  merged.input = inner.layer.input
  return try rewriter.emit(merged)
}

extension AffineLayer {
  /// Whether a convolution has one tap and no padding, so that it sees each pixel by itself.
  fileprivate var isPoint: Bool { takesTerms && sizes[2...].allSatisfy { $0 == 1 } }
}

extension Rewriter {
  /// A convolution with channels first in one group that only one operator uses and that has no activation.
  fileprivate func plainConvolution(_ value: ValueID) -> (layer: AffineLayer, op: Conv2D)? {
    guard let layer = layer(value), case .convolution(let op) = layer.operation, op.layout == .first, op.groups == 1,
      layer.hasPlainSums
    else { return nil }
    return (layer, op)
  }

  /// Whether a node is a summand beside another convolution of `image`.
  fileprivate func isBranch(_ node: NodeID, of image: ValueID) -> Bool {
    let value = self[node].results[0]
    guard useCount(of: value) == 1, let user = users(of: value).first, self[user].op is Add else { return false }
    return inputs(of: user).contains { other in
      other != value && layer(other).map { $0.input == image && $0.hasPlainSums } == true
    }
  }
}
