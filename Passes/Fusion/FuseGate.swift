import IR
import Tensors

/// multiply(silu(matmul(x, g)), matmul(x, u)) -> matmul(x, interleave(g, u)) {epilogue = {activation = silu, gated =
/// true}}, for recipes g and u with one row per column, and for the other activations (Shazeer, 2020)
///
/// The activation may stand in the epilogue of the first product already. Quantized weights are interleaved as codes.
let fuseGate = RewriteRule("fuse-gate", on: Multiply.self, .shared) { _, node, rewriter in
  for (left, right) in rewriter.orders(of: node) {
    guard let up = rewriter.match(right, MatMul.self), let gate = rewriter.gate(left), up.op.transposeB,
      gate.matmul.op.transposeB, gate.matmul.inputs[0] == up.inputs[0], up.op.epilogue.activation == .none,
      up.op.epilogue.residual == .none, gate.matmul.op.epilogue.residual == .none,
      !up.op.epilogue.gated, !gate.matmul.op.epilogue.gated, up.op.epilogue.bias == gate.matmul.op.epilogue.bias,
      rewriter.type(of: left) == rewriter.type(of: right),
      let weight = try rewriter.interleaved(gate.matmul.inputs[1], up.inputs[1])
    else { continue }
    var inputs = [up.inputs[0], weight]
    if up.op.epilogue.bias {
      let (a, b) = (gate.matmul.inputs[2], up.inputs[2])
      guard rewriter.isRecipe(a), rewriter.isRecipe(b), rewriter.type(of: a) == rewriter.type(of: b) else { continue }
      inputs.append(try rewriter.emit(Interleave(), a, b))
    }
    let epilogue = Epilogue(bias: up.op.epilogue.bias, activation: gate.activation, gated: true)
    return try rewriter.emit(MatMul(transposeB: true, epilogue: epilogue), inputs)
  }
  return nil
}

extension Rewriter {
  /// A product with an activation, in its epilogue or behind it.
  fileprivate func gate(_ value: ValueID) -> (matmul: Match<MatMul>, activation: Activation)? {
    if let matmul = match(value, MatMul.self), matmul.op.epilogue.activation != .none {
      return (matmul, matmul.op.epilogue.activation)
    }
    func behind<Op: UnaryOperator>(_ type: Op.Type, _ activation: Activation) -> (Match<MatMul>, Activation)? {
      guard let function = match(value, type), let matmul = match(function.inputs[0], MatMul.self),
        matmul.op.epilogue.activation == .none
      else { return nil }
      return (matmul, activation)
    }
    return behind(SiLU.self, .silu) ?? behind(GELU.self, .gelu) ?? behind(GELUTanh.self, .geluTanh)
      ?? behind(Sigmoid.self, .sigmoid) ?? behind(ReLU.self, .relu)
  }

  /// The rows of two weights in turn; nil if they are no recipes of one type and one way of storing.
  fileprivate mutating func interleaved(_ a: ValueID, _ b: ValueID) throws -> ValueID? {
    guard isRecipe(a), isRecipe(b), type(of: a).rank == 2 else { return nil }
    guard type(of: a) == type(of: b), storedEncoding(of: a) == storedEncoding(of: b) else {
      let names = (name(of: a), name(of: b))
      return refuse("the weights '%\(names.0)' and '%\(names.1)' differ in type or encoding")
    }
    guard isUsedOnce(a), isUsedOnce(b) else {
      let name = self.name(of: isUsedOnce(a) ? b : a)
      return refuse("'%\(name)' has another user, for which it would be stored twice")
    }
    guard let (codes, dequantize) = commonCodes(of: [a, b]) else { return try emit(Interleave(), a, b) }
    return try emit(dequantize, try emit(Interleave(), codes))
  }
}
