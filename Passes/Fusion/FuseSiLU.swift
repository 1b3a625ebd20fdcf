import IR

/// multiply(x, sigmoid(x)) -> silu(x)
let fuseSiLU = RewriteRule("fuse-silu", on: Multiply.self, .shared) { _, node, rewriter in
  guard let (gate, x) = rewriter.operands(of: node, where: { rewriter.isDefined($0, by: Sigmoid.self) }),
    rewriter.match(gate, Sigmoid.self, .shared)?.inputs[0] == x, rewriter.matchAlone(gate, Sigmoid.self) != nil
  else { return nil }
  return try rewriter.emit(SiLU(), x)
}

/// multiply(x, hard_sigmoid(x)) -> hard_swish(x)
let fuseHardSwish = RewriteRule("fuse-hard-swish", on: Multiply.self, .shared) { _, node, rewriter in
  guard let (gate, x) = rewriter.operands(of: node, where: { rewriter.isDefined($0, by: HardSigmoid.self) }),
    rewriter.match(gate, HardSigmoid.self, .shared)?.inputs[0] == x,
    rewriter.matchAlone(gate, HardSigmoid.self) != nil
  else { return nil }
  return try rewriter.emit(HardSwish(), x)
}
