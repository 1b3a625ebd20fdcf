import IR
import Tensors

/// Rules on convolutions.
let convolutionRules: [RewriteRule] = [absorbPadding]

/// conv2d(pad(x)) -> conv2d(x) with that padding, for zeros around height and width
let absorbPadding = RewriteRule("absorb-padding", on: Conv2D.self, .shared) { conv, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard let pad = rewriter.match(inputs[0], Pad.self, .shared), pad.op.before.count == 4 else { return nil }
  guard pad.op.value == 0 else { return rewriter.refuse("the padding is of \(pad.op.value), not of zeros") }
  let (height, width, others) = conv.layout == .first ? (2, 3, [0, 1]) : (1, 2, [0, 3])
  guard others.allSatisfy({ pad.op.before[$0] == 0 && pad.op.after[$0] == 0 }) else {
    return rewriter.refuse("images or channels are padded, not height and width alone")
  }
  var padded = conv
  let around = [pad.op.before[height], pad.op.before[width], pad.op.after[height], pad.op.after[width]]
  padded.padding = zip(conv.padding, around).map { $0 + $1 }
  inputs[0] = pad.inputs[0]
  return try rewriter.emit(padded, inputs)
}
