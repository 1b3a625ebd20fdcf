import IR
import Tensors

/// Rules on operators with windows.
let convolutionRules: [RewriteRule] = [absorbPadding, absorbPaddingIntoMaxPool, absorbPaddingIntoAveragePool]

/// conv2d(pad(x)) -> conv2d(x) with that padding, for zeros around height and width
let absorbPadding = RewriteRule("absorb-padding", on: Conv2D.self, .shared) { conv, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard let pad = rewriter.match(inputs[0], Pad.self, .shared), pad.op.before.count == 4 else { return nil }
  guard pad.op.value == 0 else { return rewriter.refuse("the padding is of \(pad.op.value), not of zeros") }
  guard let around = rewriter.around(pad.op, conv.layout) else { return nil }
  var padded = conv
  padded.padding = zip(conv.padding, around).map { $0 + $1 }
  inputs[0] = pad.inputs[0]
  return try rewriter.emit(padded, inputs)
}

/// max_pool2d(pad(x)) -> max_pool2d(x) with that padding, for minus infinity around height and width, or zeros around numbers
/// that are not negative
let absorbPaddingIntoMaxPool = RewriteRule("absorb-padding-into-max-pool", on: MaxPool2D.self, .shared) {
  pool, node, rewriter in
  guard let pad = rewriter.match(rewriter.inputs(of: node)[0], Pad.self, .shared), pad.op.before.count == 4 else {
    return nil
  }
  guard pad.op.value == -.infinity || (pad.op.value == 0 && rewriter.isNotNegative(pad.inputs[0])) else {
    return rewriter.refuse("the padding may be larger than what it surrounds")
  }
  guard let around = rewriter.around(pad.op, pool.layout) else { return nil }
  var padded = pool
  padded.padding = zip(pool.padding, around).map { $0 + $1 }
  // Every window must hold a pixel: the largest of none is no number of the padding.
  guard pool.dilations == [1, 1], padded.padding.indices.allSatisfy({ padded.padding[$0] < pool.kernel[$0 % 2] }) else {
    return rewriter.refuse("a window may hold padding alone")
  }
  return try rewriter.emit(padded, pad.inputs[0])
}

/// average_pool2d(pad(x)) -> average_pool2d(x) {countIncludePad = true} with that padding, for zeros around height and width
let absorbPaddingIntoAveragePool = RewriteRule("absorb-padding-into-average-pool", on: AveragePool2D.self, .shared) {
  pool, node, rewriter in
  guard let pad = rewriter.match(rewriter.inputs(of: node)[0], Pad.self, .shared), pad.op.before.count == 4 else {
    return nil
  }
  guard pad.op.value == 0 else { return rewriter.refuse("the padding is of \(pad.op.value), not of zeros") }
  guard pool.countIncludePad || pool.padding.allSatisfy({ $0 == 0 }) else {
    return rewriter.refuse("the pool's own padding does not count")
  }
  guard let around = rewriter.around(pad.op, pool.layout) else { return nil }
  var padded = pool
  padded.padding = zip(pool.padding, around).map { $0 + $1 }
  padded.countIncludePad = true
  guard padded.padding.indices.allSatisfy({ padded.padding[$0] < pool.kernel[$0 % 2] }) else {
    return rewriter.refuse("a window may hold padding alone")
  }
  return try rewriter.emit(padded, pad.inputs[0])
}

extension Rewriter {
  /// The padding of height and width: top, left, bottom, right; nil if anything else is padded.
  fileprivate mutating func around(_ pad: Pad, _ layout: ImageLayout) -> [Int]? {
    let (height, width, others) = layout == .first ? (2, 3, [0, 1]) : (1, 2, [0, 3])
    guard others.allSatisfy({ pad.before[$0] == 0 && pad.after[$0] == 0 }) else {
      return refuse("images or channels are padded, not height and width alone")
    }
    return [pad.before[height], pad.before[width], pad.after[height], pad.after[width]]
  }

  /// Whether a function without negative values computes a value.
  fileprivate func isNotNegative(_ value: ValueID) -> Bool {
    guard let node = definingNode(of: value) else { return false }
    switch self[node].op {
    case is ReLU, is Sigmoid, is HardSigmoid, is Abs, is Exp, is Softmax: return true
    case let clip as Clip: return clip.minimum >= 0
    case let conv as Conv2D: return [.relu, .relu6, .sigmoid].contains(conv.epilogue.activation)
    default: return false
    }
  }
}
