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
/// scale may stand at the scores, the queries or the keys, as a product or a quotient. Several masks are added up. A soft
/// cap, `c * tanh(s / c)`, stands before the masks. Heads of keys and values that are repeated for groups of queries,
/// `reshape(expand(reshape(%k)))`, are read as they are. `select(%visible, %s, -1e30)` is the mask
/// `select(%visible, 0, -1e30)`, since a number of that size swallows any score. Keys and values may be a cache with the new
/// ones behind it, `concat(%past, %k4) {axis = 2}`.
let fuseAttentionOfHeads = RewriteRule("fuse-attention-of-heads", on: Transpose.self, .shared) {
  transpose, node, rewriter in
  let result = rewriter.type(of: node)
  let rank = result.rank
  guard rank == 3 || rank == 4, transpose.permutation == headPermutation(rank),
    let output = rewriter.match(rewriter.inputs(of: node)[0], MatMul.self),
    let core = rewriter.attentionCore(output),
    let q = rewriter.heads(core.q, transposed: false),
    let v = try rewriter.cachedHeads(rewriter.ungrouped(core.v), transposed: false, queries: q),
    let k = try rewriter.cachedHeads(
      core.keysInRows ? rewriter.ungrouped(core.k) : core.k, transposed: !core.keysInRows, queries: q)
  else { return nil }
  guard let heads = rewriter.type(of: q).shape[rank - 2].fixedValue,
    let groups = rewriter.type(of: k).shape[rank - 2].fixedValue, groups > 0, heads % groups == 0,
    rewriter.type(of: v).shape[rank - 2] == .fixed(groups)
  else { return rewriter.refuse("the heads of queries are no multiple of those of keys and values") }
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
  let op = Attention(heads: heads, kvHeads: groups, scale: core.scale, causal: false, softcap: core.softcap)
  return try rewriter.emit(Reshape(result.shape.dims), try rewriter.emit(op, inputs))
}

/// The same with an axis for the queries of a group, `[B, G, R, T, S]`, along which keys and values are broadcast ->
/// reshape(attention(q, k, v, mask) {heads = G * R, kvHeads = G})
///
///     %q5 = transpose(%qh) {permutation = [0, 2, 3, 1, 4]}          // %qh: [B, T, G, R, D]
///     %k5 = reshape(%k) {shape = [B, G, 1, S, D]}                   // %k: [B, G, S, D], likewise %v
///     %p = softmax(add(matmul(%q5, %k5) {transposeB = true}, %mask)) {axis = -1}
///     %o = transpose(matmul(%p, %v5)) {permutation = [0, 3, 1, 2, 4]}
///     // -> %o = reshape(attention(reshape(%qh), reshape(transpose(%k)), reshape(transpose(%v)), %mask))
let fuseGroupedAttention = RewriteRule("fuse-grouped-attention", on: Transpose.self, .shared) {
  transpose, node, rewriter in
  let result = rewriter.type(of: node)
  guard transpose.permutation == [0, 3, 1, 2, 4],
    let output = rewriter.match(rewriter.inputs(of: node)[0], MatMul.self), let core = rewriter.attentionCore(output),
    core.keysInRows, let query = rewriter.match(core.q, Transpose.self, .shared),
    query.op.permutation == [0, 2, 3, 1, 4],
    case let dims = rewriter.type(of: query.inputs[0]).shape.dims, let groups = dims[2].fixedValue,
    let repeats = dims[3].fixedValue, let width = dims[4].fixedValue,
    let k = try rewriter.rowsOfGroups(core.k, dims[0], groups),
    let v = try rewriter.rowsOfGroups(core.v, dims[0], groups),
    rewriter.type(of: k).element == rewriter.type(of: query.inputs[0]).element
  else { return nil }
  var inputs = [
    try rewriter.emit(Reshape([dims[0], dims[1], .fixed(groups * repeats * width)]), query.inputs[0]), k, v,
  ]
  if let mask = try rewriter.sum(of: core.masks) {
    // One mask for all heads is what exporters write.
    let shape = rewriter.type(of: mask).shape
    if shape.rank > 2 {
      let inner = Array(shape.dims.suffix(2)), outer = shape.dims.dropLast(2)
      guard outer.suffix(2).allSatisfy({ $0 == 1 }) else {
        return rewriter.refuse("heads have masks of their own")
      }
      let batch = shape.rank == 5 ? shape[0] : 1
      inputs.append(try rewriter.emit(Reshape([batch, 1] + inner), mask))
    } else {
      inputs.append(mask)
    }
  }
  let op = Attention(
    heads: groups * repeats, kvHeads: groups, scale: core.scale, causal: false, softcap: core.softcap)
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
  let op = Attention(heads: 1, kvHeads: 1, scale: core.scale, causal: false, softcap: core.softcap)
  return try rewriter.emit(op, inputs)
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
  var softcap: Float?
  /// What is added to the scores, in turn from the last.
  var masks: [Mask]

  /// A mask of scores.
  enum Mask {
    case added(ValueID)
    /// Scores are replaced by the number where the truth value is false.
    case selected(ValueID, TensorType, Double)
  }
}

extension Rewriter {
  /// The parts of `softmax(q k * scale + mask) v`.
  fileprivate func attentionCore(_ output: Match<MatMul>) -> AttentionCore? {
    guard output.op == MatMul(), let softmax = match(output.inputs[0], Softmax.self),
      case let rank = type(of: softmax.inputs[0]).rank,
      softmax.op.axis == -1 || softmax.op.axis == rank - 1
    else { return nil }
    var scores = softmax.inputs[0]
    var masks: [AttentionCore.Mask] = []
    while true {
      if let sum = match(scores, Add.self) {
        // The scores are the operand that is computed from a product of two values with the full shape.
        guard let index = sum.inputs.indices.first(where: { isScores(sum.inputs[$0]) }) else { return nil }
        scores = sum.inputs[index]
        let other = sum.inputs[1 - index]
        guard type(of: other).element.isFloat else { return nil }
        masks.append(.added(other))
      } else if let choice = match(scores, Select.self) {
        guard let number = number(choice.inputs[2]), number <= -1e30 else { return nil }
        scores = choice.inputs[1]
        masks.append(.selected(choice.inputs[0], type(of: choice.inputs[2]).with(shape: []), number))
      } else {
        break
      }
      guard type(of: scores) == type(of: softmax.inputs[0]) else { return nil }
    }
    var scale = 1.0
    strip(&scores, &scale)
    var softcap: Float?
    if let tanh = match(scores, Tanh.self), scale > 0 {
      softcap = Float(scale)
      scores = tanh.inputs[0]
      strip(&scores, &scale)
    }
    guard let product = match(scores, MatMul.self), product.op.epilogue == .identity else { return nil }
    var (q, k) = (product.inputs[0], product.inputs[1])
    strip(&q, &scale)
    strip(&k, &scale)
    guard Float(scale).isFinite else { return nil }
    return AttentionCore(
      q: q, k: k, v: output.inputs[1], keysInRows: product.op.transposeB, scale: Float(scale), softcap: softcap,
      masks: masks)
  }

  /// Whether a value is a product of two values, perhaps scaled, perhaps with something added.
  private func isScores(_ value: ValueID) -> Bool {
    var value = value
    var scale = 1.0
    strip(&value, &scale)
    if let sum = match(value, Add.self), scale == 1 { return sum.inputs.contains { isScores($0) } }
    if let choice = match(value, Select.self), scale == 1 { return isScores(choice.inputs[1]) }
    if let tanh = match(value, Tanh.self) { return isScores(tanh.inputs[0]) }
    return match(value, MatMul.self) != nil
  }

  /// The sum of masks, whose shapes may differ.
  fileprivate mutating func sum(of masks: [AttentionCore.Mask]) throws -> ValueID? {
    var sum: ValueID?
    for mask in masks.reversed() {
      let value =
        switch mask {
        case .added(let value): value
        case .selected(let visible, let type, let number):
          try emit(Select(), visible, constant(0, type), constant(number, type))
        }
      sum = try sum.map { try emit(Add(), $0, value) } ?? value
    }
    return sum
  }

  /// The heads of keys or values that are repeated for groups: `[B, G, S, D]` of `[B, G * R, S, D]`, where
  /// `reshape(expand(reshape(%x) {shape = [B, G, 1, S, D]}))` repeats each R times; else the value itself.
  fileprivate func ungrouped(_ value: ValueID) -> ValueID {
    guard let joined = match(value, Reshape.self), let expand = match(joined.inputs[0], Expand.self),
      let split = match(expand.inputs[0], Reshape.self)
    else { return value }
    let (inner, outer) = (type(of: split.inputs[0]).shape.dims, type(of: value).shape.dims)
    let (single, repeated) = (type(of: expand.inputs[0]).shape.dims, type(of: joined.inputs[0]).shape.dims)
    guard inner.count == outer.count, inner.count >= 3, single.count == inner.count + 1,
      case let axis = inner.count - 2, single[axis] == 1, Array(single[..<axis]) == Array(inner[..<axis]),
      Array(single[(axis + 1)...]) == Array(inner[axis...]),
      repeated.indices.allSatisfy({ $0 == axis || repeated[$0] == single[$0] }),
      outer.indices.allSatisfy({ $0 == axis - 1 || outer[$0] == inner[$0] }),
      outer[axis - 1] == inner[axis - 1] * (repeated[axis].fixedValue ?? 0)
    else { return value }
    return split.inputs[0]
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

  /// The same for keys or values, which may be those of earlier calls joined with the new ones, `concat(%past, %new)
  /// {axis = 2}` of `[B, H, S, D]`: turned back as a whole, which takes as long as the products of some queries.
  fileprivate mutating func cachedHeads(
    _ value: ValueID, transposed: Bool, queries: ValueID
  ) throws -> ValueID? {
    if let found = heads(value, transposed: transposed) { return found }
    let rank = type(of: value).rank
    guard !transposed, rank == 3 || rank == 4, let joined = match(value, Concat.self, .shared),
      type(of: value).shape.normalizedAxis(joined.op.axis) == rank - 2
    else { return nil }
    guard type(of: queries).shape[rank - 3].bounds.lowerBound >= Self.queriesOfTurnedCache else {
      return refuse("for few queries it takes longer to turn the cache than to attend to it")
    }
    return try emit(Transpose(headPermutation(rank)), value)
  }

  /// The queries from which on a cache with heads before rows is worth turning, measured with heads of 64 numbers.
  private static var queriesOfTurnedCache: Int { 16 }

  /// `[B, S, G * D]` of keys or values `[B, G, 1, S, D]`, which are a reshape of `[B, G, S, D]`.
  fileprivate mutating func rowsOfGroups(_ value: ValueID, _ batch: Dim, _ groups: Int) throws -> ValueID? {
    guard let split = match(value, Reshape.self, .shared), case let inner = split.inputs[0],
      case let dims = type(of: inner).shape.dims, dims.count == 4, dims[0] == batch, dims[1] == .fixed(groups),
      type(of: value).shape.dims == [dims[0], dims[1], 1, dims[2], dims[3]]
    else { return nil }
    let turned = Transpose(headPermutation(4))
    if let transpose = match(inner, Transpose.self, .shared), transpose.op == turned {
      return try joiningHeads(transpose.inputs[0])
    }
    return try joiningHeads(try emit(turned, inner))
  }

  /// `[B, T, H, D]` as `[B, T, H * D]`.
  fileprivate mutating func joiningHeads(_ value: ValueID) throws -> ValueID? {
    let dims = type(of: value).shape.dims
    guard let heads = dims[dims.count - 2].fixedValue, let size = dims[dims.count - 1].fixedValue else { return nil }
    return try emit(Reshape(Array(dims[..<(dims.count - 2)]) + [.fixed(heads * size)]), value)
  }
}
