import IR
import Tensors

/// Multiplies out chains of linear layers, and adds up those that read one input, where that is not more work.
///
///     %h = matmul(%x, %a, %p) {transposeB = true, epilogue = {bias = true}}       // %x: [T, K], %a: [M, K]
///     %y = matmul(%h, %b, %q) {transposeB = true, epilogue = {bias = true}}       // %b: [N, M]
///     // -> %y = matmul(%x, matmul(%b, %a), %q + reduce(%b * %p)) {transposeB = true, epilogue = {bias = true}}
///
/// if `K N <= K M + M N`; what a low-rank factorization saves is kept. Orthogonal transforms before or after a layer go into it
/// the same way (Yue and others, 2025), so do a trend, a product itself, and the remainder that are both forecast by a layer
/// (Zeng and others, 2023).
/// Weights are f32 and have no other user.
package struct CollapseLinear: RulePass {
  package static let name = "collapse-linear"
  package static let summary =
    "multiplies out chains of linear layers and adds up parallel ones, where that is not more work"
  package static let legality =
    "no activation and no other user between the layers; weights are f32 and used once; the product has at most as many numbers as its factors"
  package static let source = "Yue and others, 2025 (OLinear); Zeng and others, 2023 (LTSF-Linear)"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] { [collapseChain, collapseRemainder, collapseSum, collapseResidual] }
}

extension Rewriter {
  /// The matrix product with recipes at a node.
  fileprivate func product(at node: NodeID) -> (layer: AffineLayer, op: MatMul)? {
    guard let layer = layer(at: node), case .product(let op) = layer.operation else { return nil }
    return (layer, op)
  }

  /// A matrix product with recipes that gives its sums as they are to one user.
  fileprivate func plainProduct(_ value: ValueID) -> (layer: AffineLayer, op: MatMul)? {
    guard useCount(of: value) == 1, let node = definingNode(of: value), let product = product(at: node),
      product.layer.hasPlainSums
    else { return nil }
    return product
  }

  /// The weight of a product with one row per output.
  fileprivate mutating func rows(of layer: AffineLayer, _ op: MatMul) throws -> ValueID {
    let wide = try widened(layer.weight)
    return op.transposeB ? wide : try emit(Transpose([1, 0]), wide)
  }

  /// `first` with the rows and the bias of `second` added.
  fileprivate mutating func adding(
    _ second: (layer: AffineLayer, op: MatMul), to first: (layer: AffineLayer, op: MatMul)
  ) throws -> AffineLayer {
    var merged = first.layer
    merged.weight = try emit(Add(), rows(of: first.layer, first.op), rows(of: second.layer, second.op))
    if let shift = second.layer.bias { merged.bias = try bias(first.layer.bias, plus: widened(shift)) }
    merged.operation = .product(MatMul(transposeB: true, epilogue: first.op.epilogue))
    return merged
  }
}

/// matmul(matmul(x, a, p), b, q) -> matmul(x, b a, q + b p)
let collapseChain = RewriteRule("collapse-chain", on: MatMul.self, .shared) { _, node, rewriter in
  guard let outer = rewriter.product(at: node), let inner = rewriter.plainProduct(outer.layer.input) else {
    return nil
  }
  let (depth, middle, columns) = (inner.layer.channels, outer.layer.channels, outer.layer.outputs)
  guard depth * columns <= depth * middle + middle * columns else {
    return rewriter.refuse("one product would be more work than both")
  }
  let reason =
    rewriter.obstacle(toChanging: outer.layer.weight) ?? rewriter.obstacle(toChanging: inner.layer.weight)
  if let reason { return rewriter.refuse(reason) }
  var merged = outer.layer
  merged.weight = try rewriter.emit(
    MatMul(transposeB: !inner.op.transposeB), rewriter.rows(of: outer.layer, outer.op), inner.layer.weight)
  merged.bias = try rewriter.bias(of: outer.layer, behind: inner.layer.bias)
  merged.operation = .product(MatMul(transposeB: true, epilogue: outer.op.epilogue))
  merged.input = inner.layer.input
  return try rewriter.emit(merged)
}

/// add(matmul(x, a, p), matmul(x, b, q)) -> matmul(x, a + b, p + q)
let collapseSum = RewriteRule("collapse-sum", on: Add.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard let first = rewriter.plainProduct(inputs[0]), let second = rewriter.plainProduct(inputs[1]),
    first.layer.input == second.layer.input, rewriter.type(of: inputs[0]) == rewriter.type(of: inputs[1])
  else { return nil }
  let reason =
    rewriter.obstacle(toChanging: first.layer.weight) ?? rewriter.obstacle(toChanging: second.layer.weight)
  if let reason { return rewriter.refuse(reason) }
  return try rewriter.emit(rewriter.adding(second, to: first))
}

/// matmul(x, a, p, matmul(x, b, q)) {epilogue = {residual = before_activation}} -> matmul(x, a + b, p + q)
let collapseResidual = RewriteRule("collapse-residual", on: MatMul.self, .shared) { _, node, rewriter in
  guard var first = rewriter.product(at: node), let residual = first.layer.residual,
    let second = rewriter.plainProduct(residual), second.layer.input == first.layer.input,
    first.op.epilogue.residual == .beforeActivation || first.op.epilogue.activation == .none, !first.op.epilogue.gated
  else { return nil }
  let reason =
    rewriter.obstacle(toChanging: first.layer.weight) ?? rewriter.obstacle(toChanging: second.layer.weight)
  if let reason { return rewriter.refuse(reason) }
  first.op.epilogue.residual = .none
  first.layer.residual = nil
  return try rewriter.emit(rewriter.adding(second, to: first))
}

/// matmul(subtract(x, matmul(x, m, p)), a, q) -> matmul(x, a (1 - m), q - a p): what is left of x without its trend
let collapseRemainder = RewriteRule("collapse-remainder", on: MatMul.self, .shared) { _, node, rewriter in
  guard let outer = rewriter.product(at: node),
    let difference = rewriter.match(outer.layer.input, Subtract.self), !rewriter.isRecipe(difference.inputs[0]),
    let trend = rewriter.definingNode(of: difference.inputs[1]).flatMap({ rewriter.product(at: $0) }),
    trend.layer.hasPlainSums, trend.layer.input == difference.inputs[0],
    rewriter.type(of: difference.inputs[0]) == rewriter.type(of: difference.inputs[1])
  else { return nil }
  if let reason = rewriter.obstacle(toChanging: outer.layer.weight) { return rewriter.refuse(reason) }
  let one = rewriter.constant(1, TensorType(.f32, [trend.layer.channels]))
  let rest = try rewriter.emit(
    Subtract(), rewriter.diagonal(one, channels: trend.layer.channels, groups: 1),
    rewriter.rows(of: trend.layer, trend.op))
  var merged = outer.layer
  merged.weight = try rewriter.emit(MatMul(), rewriter.rows(of: outer.layer, outer.op), rest)
  let opposite = try trend.layer.bias.map { try rewriter.emit(Negate(), rewriter.widened($0)) }
  merged.bias = try rewriter.bias(of: outer.layer, behind: opposite)
  merged.operation = .product(MatMul(transposeB: true, epilogue: outer.op.epilogue))
  merged.input = trend.layer.input
  return try rewriter.emit(merged)
}
