import IR
import Tensors

/// transpose(matmul(softmax(matmul(q, k) * scale + mask), v)) with q, k and v split into heads by reshape and
/// transpose -> reshape(attention(q, k, v, mask))
///
///     %q4 = transpose(%qh) {permutation = [0, 2, 1, 3]}            // %qh: [B, T, H, D], likewise k and v
///     %s = matmul(%q4, %k4) {transposeB = true}                    // [B, H, T, S]
///     %p = softmax(add(multiply(%s, 0.125), %mask)) {axis = -1}
///     %o = transpose(matmul(%p, %v4)) {permutation = [0, 2, 1, 3]}
///     // -> %o = reshape(attention(reshape(%qh), reshape(%kh), reshape(%vh), %mask))
///
/// Without the batch axis the permutations are `[1, 0, 2]`. Keys may be transposed as a whole (`[0, 2, 3, 1]`); the
/// scale may stand at the scores, the queries or the keys, as a product or a quotient. Several masks are added up.
let fuseAttentionOfHeads = RewriteRule("fuse-attention-of-heads", on: Transpose.self, .shared) {
  transpose, node, rewriter in
  let result = rewriter.type(of: node)
  let rank = result.rank
  guard rank == 3 || rank == 4, transpose.permutation == headPermutation(rank),
    let output = rewriter.match(rewriter.inputs(of: node)[0], MatMul.self),
    let core = rewriter.attentionCore(output),
    let v = rewriter.heads(core.v, transposed: false), let q = rewriter.heads(core.q, transposed: false),
    let k = rewriter.heads(core.k, transposed: !core.keysInRows)
  else { return nil }
  guard let heads = rewriter.type(of: q).shape[rank - 2].fixedValue,
    rewriter.type(of: k).shape[rank - 2] == .fixed(heads), rewriter.type(of: v).shape[rank - 2] == .fixed(heads)
  else { return rewriter.refuse("queries, keys and values do not have one number of heads") }
  guard rewriter.type(of: q).element == rewriter.type(of: k).element else {
    return rewriter.refuse("queries and keys differ in element type")
  }
  var inputs: [ValueID] = []
  for value in [q, k, v] {
    guard let flat = try rewriter.joiningHeads(value) else {
      let name = rewriter.name(of: value)
      return rewriter.refuse("the number of heads of '%\(name)' or their size is no number")
    }
    inputs.append(flat)
  }
  if rank == 4, Set([q, k, v].map { rewriter.type(of: $0).shape[0] }).count > 1 {
    return rewriter.refuse("queries, keys and values have different batches")
  }
  if let mask = try rewriter.sum(of: core.masks) { inputs.append(mask) }
  let op = Attention(heads: heads, kvHeads: heads, scale: core.scale, causal: false)
  return try rewriter.emit(Reshape(result.shape.dims), try rewriter.emit(op, inputs))
}

/// matmul(softmax(matmul(q, k) {transposeB = true} * scale + mask), v) -> attention(q, k, v, mask), for one head: q, k
/// and v of rank 2 or 3 that no transpose splits into heads
let fuseAttention = RewriteRule("fuse-attention", on: MatMul.self, .shared) { matmul, node, rewriter in
  let result = rewriter.type(of: node)
  guard result.rank == 2 || result.rank == 3,
    let core = rewriter.attentionCore(Rewriter.Match(op: matmul, node: node, inputs: rewriter.inputs(of: node))),
    core.keysInRows,
    [core.q, core.k, core.v].allSatisfy({ value in
      rewriter.type(of: value).rank == result.rank && !rewriter.isRecipe(value)
        && !rewriter.isDefined(value, by: Transpose.self)
    })
  else { return nil }
  let shapes = [core.q, core.k, core.v].map { rewriter.type(of: $0).shape }
  if result.rank == 3, shapes[0][0] != shapes[1][0] || shapes[0][0] != shapes[2][0] {
    return rewriter.refuse("queries, keys and values have different batches")
  }
  guard shapes.allSatisfy({ $0.last.isFixed }) else {
    return rewriter.refuse("the size of the head is no number")
  }
  var inputs = [core.q, core.k, core.v]
  if let mask = try rewriter.sum(of: core.masks) {
    let shape = rewriter.type(of: mask).shape
    if result.rank == 3, shape.rank == 3, shape[0] != 1 {
      inputs.append(try rewriter.emit(Reshape([shape[0], 1, shape[1], shape[2]]), mask))
    } else {
      inputs.append(mask)
    }
  }
  return try rewriter.emit(Attention(heads: 1, kvHeads: 1, scale: core.scale, causal: false), inputs)
}

/// The permutation that exchanges rows and heads.
private func headPermutation(_ rank: Int) -> [Int] { rank == 4 ? [0, 2, 1, 3] : [1, 0, 2] }

/// What attention is computed from.
private struct AttentionCore {
  var q: ValueID
  var k: ValueID
  var v: ValueID
  /// Whether keys are `[..., S, D]`; else `[..., D, S]`.
  var keysInRows: Bool
  var scale: Float
  /// What is added to the scores, in turn from the last.
  var masks: [ValueID]
}

extension Rewriter {
  /// The parts of `softmax(q k * scale + mask) v`.
  fileprivate func attentionCore(_ output: Match<MatMul>) -> AttentionCore? {
    guard output.op == MatMul(), let softmax = match(output.inputs[0], Softmax.self),
      case let rank = type(of: softmax.inputs[0]).rank,
      softmax.op.axis == -1 || softmax.op.axis == rank - 1
    else { return nil }
    var scores = softmax.inputs[0]
    var masks: [ValueID] = []
    while let sum = match(scores, Add.self) {
      // The scores are the operand that is computed from a product of two values with the full shape.
      guard let index = sum.inputs.indices.first(where: { isScores(sum.inputs[$0]) }) else { return nil }
      scores = sum.inputs[index]
      let other = sum.inputs[1 - index]
      guard type(of: scores) == type(of: softmax.inputs[0]), type(of: other).element.isFloat else { return nil }
      masks.append(other)
    }
    var scale = 1.0
    strip(&scores, &scale)
    guard let product = match(scores, MatMul.self), product.op.epilogue == .identity else { return nil }
    var (q, k) = (product.inputs[0], product.inputs[1])
    strip(&q, &scale)
    strip(&k, &scale)
    guard Float(scale).isFinite else { return nil }
    return AttentionCore(
      q: q, k: k, v: output.inputs[1], keysInRows: product.op.transposeB, scale: Float(scale), masks: masks)
  }

  /// Whether a value is a product of two values, perhaps scaled, perhaps with something added.
  private func isScores(_ value: ValueID) -> Bool {
    var value = value
    var scale = 1.0
    strip(&value, &scale)
    if let sum = match(value, Add.self), scale == 1 { return sum.inputs.contains { isScores($0) } }
    return match(value, MatMul.self) != nil
  }

  /// The sum of masks, whose shapes may differ.
  fileprivate mutating func sum(of masks: [ValueID]) throws -> ValueID? {
    guard var sum = masks.last else { return nil }
    for mask in masks.dropLast().reversed() { sum = try emit(Add(), sum, mask) }
    return sum
  }

  /// Takes products with and quotients by numbers off a value.
  private func strip(_ value: inout ValueID, _ scale: inout Double) {
    while let next = scaled(value), type(of: next.value) == type(of: value) {
      value = next.value
      scale *= next.factor
    }
  }

  /// The value `[B, T, H, D]` (or `[T, H, D]`) that a transpose splits into heads; `transposed` for `[B, H, D, T]`.
  fileprivate func heads(_ value: ValueID, transposed: Bool) -> ValueID? {
    guard let transpose = match(value, Transpose.self, .shared) else { return nil }
    let rank = transpose.op.permutation.count
    guard rank == 3 || rank == 4 else { return nil }
    let wanted = transposed ? (rank == 4 ? [0, 2, 3, 1] : [1, 2, 0]) : headPermutation(rank)
    return transpose.op.permutation == wanted ? transpose.inputs[0] : nil
  }

  /// `[B, T, H, D]` as `[B, T, H * D]`.
  fileprivate mutating func joiningHeads(_ value: ValueID) throws -> ValueID? {
    let dims = type(of: value).shape.dims
    guard let heads = dims[dims.count - 2].fixedValue, let size = dims[dims.count - 1].fixedValue else { return nil }
    return try emit(Reshape(Array(dims[..<(dims.count - 2)]) + [.fixed(heads * size)]), value)
  }
}
