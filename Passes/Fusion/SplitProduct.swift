import IR
import Tensors

/// slice(matmul(x, w, b)) {axis = -1} -> matmul(x, slice(w) {axis = 0}, slice(b)), for parts of the columns of which each
/// takes its own way
///
///     %y = matmul(%x, %w) {transposeB = true}               // %w: [2 N, K]
///     %a = slice(%y) {axis = -1, start = 0, size = N}
///     %b = slice(%y) {axis = -1, start = N, size = N}
///     %z = multiply(sigmoid(%a), %b)
///     // -> two products with N rows of %w each, which a gate joins again in one kernel
///
/// All users are such parts, which do not overlap, and one has an activation behind it, or columns are read by none. Parts that
/// stay alike are multiplied at once again by `merge-matmuls`.
let splitProduct = RewriteRule("split-product", on: Slice.self, .shared) { slice, node, rewriter in
  let y = rewriter.inputs(of: node)[0]
  guard let product = rewriter.match(y, MatMul.self, .shared), product.op.transposeB, !rewriter.isRecipe(y),
    case let weight = product.inputs[1], rewriter.isRecipe(weight), rewriter.type(of: weight).rank == 2,
    let columns = rewriter.columns(of: slice, in: y)
  else { return nil }
  guard product.op.epilogue.residual == .none, !product.op.epilogue.gated,
    product.op.epilogue.biasIndex.map({ rewriter.isRecipe(product.inputs[$0]) }) ?? true
  else { return rewriter.refuse("a residual, a gate or a computed bias belongs to all columns") }
  let users = rewriter.users(of: y)
  guard users.count == rewriter.useCount(of: y),
    case let parts = users.compactMap({ user in
      (rewriter[user].op as? Slice).flatMap { rewriter.columns(of: $0, in: y) }
    }).sorted(by: { $0.lowerBound < $1.lowerBound }), parts.count == users.count,
    zip(parts, parts.dropFirst()).allSatisfy({ $0.upperBound <= $1.lowerBound })
  else { return rewriter.refuse("not all users cut columns off, or they share some") }
  let isComplete = parts.reduce(0) { $0 + $1.count } == rewriter.type(of: y).shape.last.fixedValue
  guard !isComplete || users.contains(where: { rewriter.isActivated(rewriter[$0].results[0]) }) else {
    return rewriter.refuse("no part has an activation behind it")
  }
  guard rewriter.isUsedOnce(weight) else {
    return rewriter.refuse("the weight has other users, so that it would be stored twice")
  }
  func rows(_ recipe: ValueID) throws -> ValueID {
    try rewriter.emit(Slice(axis: 0, start: .fixed(columns.lowerBound), size: .fixed(columns.count)), recipe)
  }
  var inputs = product.inputs
  if let (codes, dequantize) = rewriter.commonCodes(of: [weight]) {
    inputs[1] = try rewriter.emit(dequantize, rows(codes[0]))
  } else {
    inputs[1] = try rows(weight)
  }
  if let bias = product.op.epilogue.biasIndex { inputs[bias] = try rows(inputs[bias]) }
  return try rewriter.emit(product.op, inputs)
}

extension Rewriter {
  /// The columns that a slice cuts off `value`, if their numbers are known.
  fileprivate func columns(of slice: Slice, in value: ValueID) -> Range<Int>? {
    let shape = type(of: value).shape
    guard slice.step == 1, shape.normalizedAxis(slice.axis) == shape.rank - 1, let start = slice.start.fixedValue,
      let size = slice.size.fixedValue, size > 0
    else { return nil }
    return start..<start + size
  }

  /// Whether a function that a product takes into its epilogue is all that reads a value.
  fileprivate func isActivated(_ value: ValueID) -> Bool {
    guard useCount(of: value) == 1, let user = users(of: value).first else { return false }
    switch self[user].op {
    case is ReLU, is SiLU, is GELU, is GELUTanh, is Sigmoid, is Tanh, is HardSwish, is HardSigmoid: return true
    default: return false
    }
  }
}
