import IR
import Tensors

/// Rules on functions with limits.
let activationRules: [RewriteRule] = [
  maximumToClip, minimumToClip, clipToReLU, clipWithoutLimits, clipTwice, clipOfReLU, reluTwice, hardSigmoidFromClip,
]

/// maximum(x, c) -> clip(x) {minimum = c}, for one number c
let maximumToClip = RewriteRule("maximum-to-clip", on: Maximum.self, .shared) { _, node, rewriter in
  guard let (x, limit) = rewriter.limit(of: node) else { return nil }
  return try rewriter.emit(Clip(minimum: limit), x)
}

/// minimum(x, c) -> clip(x) {maximum = c}, for one number c
let minimumToClip = RewriteRule("minimum-to-clip", on: Minimum.self, .shared) { _, node, rewriter in
  guard let (x, limit) = rewriter.limit(of: node) else { return nil }
  return try rewriter.emit(Clip(maximum: limit), x)
}

extension Rewriter {
  /// The left operand and the number the right one is, if the result has the type of the left and f32 elements.
  fileprivate func limit(of node: NodeID) -> (ValueID, Float)? {
    let inputs = inputs(of: node)
    guard type(of: inputs[0]) == type(of: node), type(of: inputs[0]).element == .f32,
      let number = number(inputs[1]), !number.isNaN
    else { return nil }
    return (inputs[0], Float(number))
  }
}

/// clip(x) {minimum = 0, maximum = inf} -> relu(x)
let clipToReLU = RewriteRule("clip-to-relu", on: Clip.self, .shared) { clip, node, rewriter in
  let x = rewriter.inputs(of: node)[0]
  guard clip.minimum == 0, clip.maximum == .infinity, rewriter.type(of: x).element.isFloat else { return nil }
  return try rewriter.emit(ReLU(), x)
}

/// clip(x) {minimum = -inf, maximum = inf} -> x
let clipWithoutLimits = RewriteRule("clip-without-limits", on: Clip.self, .shared) { clip, node, rewriter in
  guard clip.minimum == -.infinity, clip.maximum == .infinity else { return nil }
  return rewriter.inputs(of: node)[0]
}

/// clip(clip(x) {minimum = a, maximum = b}) {minimum = c, maximum = d} -> clip(x) {minimum = max(a, c),
/// maximum = min(b, d)}, where the ranges overlap
let clipTwice = RewriteRule("clip-twice", on: Clip.self, .shared) { outer, node, rewriter in
  guard let inner = rewriter.matchAlone(rewriter.inputs(of: node)[0], Clip.self) else { return nil }
  let low = max(inner.op.minimum, outer.minimum)
  let high = min(inner.op.maximum, outer.maximum)
  guard low <= high else { return rewriter.refuse("the ranges do not overlap") }
  return try rewriter.emit(Clip(minimum: low, maximum: high), inner.inputs[0])
}

/// clip(relu(x)) {minimum = a, maximum = b} -> clip(x) {minimum = max(a, 0), maximum = b}, for b of at least 0
let clipOfReLU = RewriteRule("clip-of-relu", on: Clip.self, .shared) { outer, node, rewriter in
  guard let relu = rewriter.match(rewriter.inputs(of: node)[0], ReLU.self), outer.maximum >= 0 else { return nil }
  return try rewriter.emit(Clip(minimum: max(outer.minimum, 0), maximum: outer.maximum), relu.inputs[0])
}

/// relu(relu(x)) -> relu(x), and relu(clip(x)) with limits that are not below 0
let reluTwice = RewriteRule("relu-twice", on: ReLU.self, .shared) { _, node, rewriter in
  let x = rewriter.inputs(of: node)[0]
  if rewriter.isDefined(x, by: ReLU.self) { return x }
  if let clip = rewriter.match(x, Clip.self, .shared), clip.op.minimum >= 0 { return x }
  return nil
}

/// multiply(clip(add(x, 3)) {minimum = 0, maximum = 6}, 1/6) -> hard_sigmoid(x), also with division by 6
let hardSigmoidFromClip = RewriteRule("hard-sigmoid-from-clip", on: Multiply.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard let sixth = rewriter.number(inputs[1]), Float(sixth) == 1 / 6,
    let clip = rewriter.match(inputs[0], Clip.self), clip.op.minimum == 0, clip.op.maximum == 6,
    let sum = rewriter.match(clip.inputs[0], Add.self), rewriter.number(sum.inputs[1]) == 3,
    rewriter.type(of: sum.inputs[0]) == rewriter.type(of: node)
  else { return nil }
  return try rewriter.emit(HardSigmoid(), sum.inputs[0])
}
