import IR
import Tensors

/// Rules that move a function of one number into the layer before it.
let activationFusions: [RewriteRule] = [
  fuseActivation(ReLU.self, .relu), fuseActivation(SiLU.self, .silu), fuseActivation(GELU.self, .gelu),
  fuseActivation(GELUTanh.self, .geluTanh), fuseActivation(Sigmoid.self, .sigmoid), fuseActivation(Tanh.self, .tanh),
  fuseActivation(HardSwish.self, .hardSwish), fuseActivation(HardSigmoid.self, .hardSigmoid), fuseReLU6,
]

/// relu(matmul(x, w)) -> matmul(x, w) {epilogue = {activation = relu}}, and likewise for convolutions and the other
/// functions; a residual that was added to the sums is added before the function
func fuseActivation<Op: UnaryOperator>(_ type: Op.Type, _ activation: Activation) -> RewriteRule {
  RewriteRule("fuse-\(activation.rawValue.kebabCase)-epilogue", on: type, .shared) { _, node, rewriter in
    try rewriter.fuse(activation, into: rewriter.inputs(of: node)[0])
  }
}

/// clip(matmul(x, w)) {minimum = 0, maximum = 6} -> matmul(x, w) {epilogue = {activation = relu6}}, and likewise for
/// convolutions
let fuseReLU6 = RewriteRule("fuse-relu6-epilogue", on: Clip.self, .shared) { clip, node, rewriter in
  guard clip.minimum == 0, clip.maximum == 6 else { return nil }
  return try rewriter.fuse(.relu6, into: rewriter.inputs(of: node)[0])
}

extension Rewriter {
  fileprivate mutating func fuse(_ activation: Activation, into sums: ValueID) throws -> ValueID? {
    let name = self.name(of: sums)
    if !isRecipe(sums), let matmul = matchAlone(sums, MatMul.self) {
      guard let epilogue = matmul.op.epilogue.applying(activation) else {
        return refuse("'%\(name)' has an activation already")
      }
      return try emit(MatMul(transposeB: matmul.op.transposeB, epilogue: epilogue), matmul.inputs)
    }
    if let conv = matchAlone(sums, Conv2D.self) {
      guard let epilogue = conv.op.epilogue.applying(activation) else {
        return refuse("'%\(name)' has an activation already")
      }
      var op = conv.op
      op.epilogue = epilogue
      return try emit(op, conv.inputs)
    }
    return nil
  }
}

extension Epilogue {
  /// The epilogue with a function of its result; nil if it has one already.
  fileprivate func applying(_ activation: Activation) -> Epilogue? {
    guard self.activation == .none, !gated else { return nil }
    var epilogue = self
    epilogue.activation = activation
    if residual != .none { epilogue.residual = .beforeActivation }
    return epilogue
  }
}

extension String {
  /// `hard_swish` as `hard-swish`.
  var kebabCase: String { String(map { $0 == "_" ? "-" : $0 }) }
}
