import IR
import Tensors

/// Folds constant factors and terms per channel into the layers, norms and attention beside them.
///
///     %y = matmul(%x, %w, %b) {transposeB = true, epilogue = {bias = true}}
///     %z = multiply(%y, %s)                  // %s: f32[N], or one number
///     // -> %z = matmul(%x, multiply(%w, reshape(%s)), multiply(%b, %s)) {transposeB = true, epilogue = {bias = true}}
///
///     %y = add(multiply(%x, %s), %t)         // all users are layers
///     %z = matmul(%y, %w) {transposeB = true}
///     // -> %z = matmul(%x, multiply(%w, %s), reduce(multiply(%w, %t)) {axes = [1]}) {...}
///
/// These are scale and shift of SSF (Lian and others, 2022), LayerScale (Touvron and others, 2021), factors of residual
/// branches, attention and norms (Sun and others, 2025), biases, and what a network without norms has in their place
/// (Heimersheim, 2024): a product by a constant deviation, and centring, which is a factor `I - 1/n` of the next weight.
/// A weight that is stored in fewer bits than f32, or that has other users, is left as it is; with `force` the bits do not count.
package struct FoldAffine: RulePass {
  package static let name = "fold-affine"
  package static let summary = "folds constant factors and terms of channels into their neighbours"
  package static let legality =
    "the layer before has no other user and no activation, or all users are layers (without padding, for a term); weights are f32 and used once"
  package static let source = "Lian and others, 2022 (SSF); Touvron and others, 2021 (LayerScale); Heimersheim, 2024"

  /// Whether weights in f16, bf16 and codes are widened to f32 for it.
  package var force: Bool = false

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] {
    [foldFactorIntoLayer(force: force), foldDivisorIntoLayer(force: force), foldTermIntoLayer]
      + [foldFactorIntoNorm, foldTermIntoNorm, foldFactorIntoAttention, foldFactorIntoTable(force: force)]
      + foldIntoNextLayer(force: force)
      + [joinConstants(Multiply.self), joinConstants(Add.self)]
  }
}

extension Rewriter {
  /// For an operand and a recipe of an elementwise node: the layer that computes the operand, perhaps moved, if the recipe
  /// varies along its channels alone.
  fileprivate func layer(
    behind value: ValueID, _ recipe: ValueID, at node: NodeID
  ) -> (layer: AffineLayer, moves: Moves)? {
    guard !isRecipe(value), type(of: value) == type(of: node), type(of: value).element == .f32,
      let variation = variation(of: recipe, over: value)
    else { return nil }
    return movedLayer(value, variation)
  }

  /// `multiply(layer, s)` with the factor in the layer.
  fileprivate mutating func folding(
    _ factor: ValueID, into found: (layer: AffineLayer, moves: Moves), force: Bool, reciprocal: Bool
  ) throws -> ValueID? {
    guard found.layer.hasPlainSums else { return refuse("an activation or a residual stands between") }
    if let reason = obstacle(toChanging: found.layer.weight, force: force) { return refuse(reason) }
    var vector = try channelVector(factor, count: found.layer.outputs)
    if reciprocal { vector = try emit(Reciprocal(), vector) }
    let layer = try scalingSums(of: found.layer, by: vector, adding: nil)
    return try emit(found.moves, emit(layer))
  }
}

/// multiply(matmul(x, w, b), s) -> matmul(x, w * s, b * s), and likewise for the other layers, through transposes, reshapes and
/// slices that keep channels whole
func foldFactorIntoLayer(force: Bool) -> RewriteRule {
  RewriteRule("fold-factor-into-layer", on: Multiply.self, .shared) { _, node, rewriter in
    for (value, factor) in rewriter.orders(of: node) {
      guard let found = rewriter.layer(behind: value, factor, at: node) else { continue }
      return try rewriter.folding(factor, into: found, force: force, reciprocal: false)
    }
    return nil
  }
}

/// divide(matmul(x, w, b), s) -> matmul(x, w / s, b / s), likewise
func foldDivisorIntoLayer(force: Bool) -> RewriteRule {
  RewriteRule("fold-divisor-into-layer", on: Divide.self, .shared) { _, node, rewriter in
    let inputs = rewriter.inputs(of: node)
    guard let found = rewriter.layer(behind: inputs[0], inputs[1], at: node) else { return nil }
    return try rewriter.folding(inputs[1], into: found, force: force, reciprocal: true)
  }
}

/// add(conv_transpose2d(x, w), t) -> conv_transpose2d(x, w, t), and likewise for the other layers
let foldTermIntoLayer = RewriteRule("fold-term-into-layer", on: Add.self, .shared) { _, node, rewriter in
  for (value, term) in rewriter.orders(of: node) {
    guard let found = rewriter.layer(behind: value, term, at: node) else { continue }
    guard found.layer.hasPlainSums else { return rewriter.refuse("an activation or a residual stands between") }
    let vector = try rewriter.channelVector(term, count: found.layer.outputs)
    let layer = try rewriter.scalingSums(of: found.layer, by: nil, adding: vector)
    return try rewriter.emit(found.moves, rewriter.emit(layer))
  }
  return nil
}

/// multiply(layer_norm(x, g, b), s) -> layer_norm(x, g * s, b * s), and likewise for rms_norm
let foldFactorIntoNorm = RewriteRule("fold-factor-into-norm", on: Multiply.self, .shared) { _, node, rewriter in
  for (value, factor) in rewriter.orders(of: node) {
    guard let norm = rewriter.norm(value, of: node, with: factor) else { continue }
    var inputs = norm.inputs
    let vector = try rewriter.channelVector(factor, count: norm.count)
    for index in 1..<inputs.count {
      inputs[index] = try rewriter.emit(Multiply(), rewriter.widened(inputs[index]), vector)
    }
    return try rewriter.emit(norm.op, inputs)
  }
  return nil
}

/// add(layer_norm(x, g, b), t) -> layer_norm(x, g, b + t)
let foldTermIntoNorm = RewriteRule("fold-term-into-norm", on: Add.self, .shared) { _, node, rewriter in
  for (value, term) in rewriter.orders(of: node) {
    guard let norm = rewriter.norm(value, of: node, with: term), norm.op is LayerNorm else { continue }
    var inputs = norm.inputs
    let vector = try rewriter.channelVector(term, count: norm.count)
    if inputs.count > 2 {
      inputs[2] = try rewriter.emit(Add(), rewriter.widened(inputs[2]), vector)
    } else {
      inputs.append(vector)
    }
    return try rewriter.emit(norm.op, inputs)
  }
  return nil
}

extension Rewriter {
  /// A norm over the last axis that computes an operand of `node` and that nothing else uses, where the other operand is a
  /// recipe that varies along that axis at most.
  fileprivate func norm(
    _ value: ValueID, of node: NodeID, with recipe: ValueID
  ) -> (op: any Operator, inputs: [ValueID], count: Int)? {
    guard useCount(of: value) == 1, let defining = definingNode(of: value), type(of: value) == type(of: node),
      type(of: value).element == .f32, let variation = variation(of: recipe, over: value)
    else { return nil }
    let (op, inputs, rank) = (self[defining].op, inputs(of: defining), type(of: value).rank)
    guard op is RMSNorm || op is LayerNorm, type(of: inputs[1]).rank == 1,
      variation == .none || variation == .axis(rank - 1),
      inputs.dropFirst().allSatisfy({ isRecipe($0) }), let count = type(of: inputs[1]).shape[0].fixedValue
    else { return nil }
    return (op, inputs, count)
  }
}

/// attention(multiply(q, c), k, v) -> attention(q, k, v) with c times the scale, for one number c; likewise for the keys
let foldFactorIntoAttention = RewriteRule("fold-factor-into-attention", on: Attention.self, .shared) {
  attention, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  for index in 0..<2 {
    guard let product = rewriter.match(inputs[index], Multiply.self), let number = rewriter.number(product.inputs[1]),
      case let scale = Float(Double(attention.scale) * number), scale.isFinite,
      rewriter.type(of: product.inputs[0]) == rewriter.type(of: inputs[index])
    else { continue }
    inputs[index] = product.inputs[0]
    var scaled = attention
    scaled.scale = scale
    return try rewriter.emit(scaled, inputs)
  }
  return nil
}

/// The rules that fold what is done to the input of layers into their weights, where all users can take it:
///
/// - matmul(multiply(x, s), w) -> matmul(x, w * s)
/// - matmul(add(x, t), w, b) -> matmul(x, w, b + sum(w * t))
/// - matmul(subtract(x, reduce(x) {function = mean}), w) -> matmul(x, w - mean(w)), for the mean of the channels
///
/// and likewise for the other layers; for convolutions without padding, where something is added.
func foldIntoNextLayer(force: Bool) -> [RewriteRule] {
  [
    foldIntoNext(MatMul.self, force: force), foldIntoNext(Conv2D.self, force: force),
    foldIntoNext(ConvTranspose2D.self, force: force),
  ]
}

private func foldIntoNext<Op: Operator>(_ type: Op.Type, force: Bool) -> RewriteRule {
  RewriteRule("fold-into-next-\(Op.name.kebabCase)", on: type, .shared) { _, node, rewriter in
    guard let layer = rewriter.layer(at: node), case let source = rewriter.movedInput(of: layer),
      rewriter.type(of: source.value).element == .f32,
      let change = rewriter.channelChange(source.value, axis: source.axis)
    else { return nil }
    let terms = change.kind == .term
    if let reason = rewriter.obstacle(
      toFoldingInto: source.value, axis: change.axis, terms: terms, changesWeight: !terms, force: force)
    {
      return rewriter.refuse(reason)
    }
    var folded: AffineLayer
    switch change.kind {
    case .factor:
      let vector = try rewriter.channelVector(change.recipe, count: layer.channels)
      folded = try rewriter.scalingChannels(of: layer, by: vector, adding: nil)
    case .term:
      let vector = try rewriter.channelVector(change.recipe, count: layer.channels)
      folded = try rewriter.scalingChannels(of: layer, by: nil, adding: vector)
    case .centring:
      guard layer.groups == 1 else { return rewriter.refuse("the mean is that of channels of several groups") }
      folded = try rewriter.centringChannels(of: layer)
    }
    folded.input = try rewriter.emit(source.moves, change.input)
    return try rewriter.emit(folded)
  }
}

/// Something done to the channels of a value that a layer can take into its weights.
private struct ChannelChange {
  enum Kind { case factor, term, centring }
  var kind: Kind
  var input: ValueID
  /// The factor or the term.
  var recipe: ValueID
  /// The axis that it varies along; nil for one number.
  var axis: Int?
}

extension Rewriter {
  /// What the node that computes `value` does to the channels along `axis`.
  fileprivate func channelChange(_ value: ValueID, axis: Int?) -> ChannelChange? {
    guard let node = definingNode(of: value) else { return nil }
    let op = self[node].op
    if op is Multiply || op is Add {
      for (input, recipe) in orders(of: node) {
        guard !isRecipe(input), type(of: input) == type(of: value), let variation = variation(of: recipe, over: value),
          variation == .none || variation.axis == axis
        else { continue }
        return ChannelChange(kind: op is Add ? .term : .factor, input: input, recipe: recipe, axis: variation.axis)
      }
    }
    if let axis, let difference = match(value, Subtract.self, .shared), !isRecipe(difference.inputs[0]),
      let mean = match(difference.inputs[1], Reduce.self, .shared), mean.inputs[0] == difference.inputs[0],
      mean.op.function == .mean, mean.op.keepDims,
      let reduced = try? mean.op.reducedAxes(of: type(of: value).shape),
      reduced.indices.allSatisfy({ reduced[$0] == ($0 == axis) })
    {
      return ChannelChange(kind: .centring, input: difference.inputs[0], recipe: difference.inputs[0], axis: axis)
    }
    return nil
  }
}

/// multiply(multiply(x, a), b) -> multiply(x, a * b), for recipes a and b of which one is as large as their product; likewise
/// for sums
func joinConstants<Op: BinaryOperator & Commutative>(_ type: Op.Type) -> RewriteRule {
  RewriteRule("join-constants-of-\(Op.name)", on: type, .shared) { op, node, rewriter in
    let outer = rewriter.inputs(of: node)
    guard rewriter.isRecipe(outer[1]), !rewriter.isRecipe(outer[0]), let inner = rewriter.match(outer[0], Op.self),
      rewriter.isRecipe(inner.inputs[1]), rewriter.type(of: inner.inputs[0]) == rewriter.type(of: node),
      rewriter.type(of: node).element == .f32
    else { return nil }
    let shapes = [outer[1], inner.inputs[1]].map { rewriter.type(of: $0).shape }
    guard let joint = Shape.broadcast(shapes[0], shapes[1]), shapes.contains(joint) else { return nil }
    return try rewriter.emit(op, inner.inputs[0], rewriter.emit(op, inner.inputs[1], outer[1]))
  }
}
