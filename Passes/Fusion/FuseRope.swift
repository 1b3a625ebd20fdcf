import IR
import Tensors

/// Rotary embedding as exporters write it -> rope(x, table): pairs `(j, j + W)` of a head's numbers turn by angles of which
/// cosines and sines are repeated in both halves (Su and others, 2021)
///
///     %h = concat(negate(slice(%x) {start = 4, size = 4}), slice(%x) {start = 0, size = 4}) {axis = -1}
///     %y = add(multiply(%x, %cos), multiply(%h, %sin))     // %cos = cos(concat(%f, %f)): [1, 1, T, 8]
///     // -> %y = transpose(reshape(rope(%rows, %table) {headDim = 8})), where %x is a transpose of %rows: [1, T, H * 8]
///
/// Heads may stand before or behind the rows. The table is made of the first halves of cosines and sines.
let fuseRope = RewriteRule("fuse-rope", on: Add.self, .shared) { _, node, rewriter in
  for (straight, turned) in rewriter.orders(of: node) {
    guard let first = rewriter.match(straight, Multiply.self), let second = rewriter.match(turned, Multiply.self)
    else { continue }
    for (x, cos) in rewriter.orders(of: first.node) {
      for (half, sin) in rewriter.orders(of: second.node) {
        guard rewriter.type(of: x) == rewriter.type(of: node), rewriter.isRotatedHalf(half, of: x),
          let width = rewriter.type(of: x).shape.last.fixedValue.map({ $0 / 2 })
        else { continue }
        guard rewriter.hasEqualHalves(cos), rewriter.hasEqualHalves(sin) else {
          return rewriter.refuse("cosines and sines are not known to be the same in both halves")
        }
        let cut = Slice(axis: -1, start: 0, size: .fixed(width))
        let (c, s) = (try rewriter.emit(cut, cos), try rewriter.emit(cut, sin))
        return try rewriter.rope(x, cosines: c, sines: s)
      }
    }
  }
  return nil
}

/// concat(subtract(multiply(a, cos), multiply(b, sin)), add(multiply(b, cos), multiply(a, sin))) -> rope(x, table), with a
/// and b the first and the second half of what turns of x
let fuseRopeOfHalves = RewriteRule("fuse-rope-of-halves", on: Concat.self, .shared) { concat, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard inputs.count == 2,
    rewriter.type(of: node).shape.normalizedAxis(concat.axis) == rewriter.type(of: node).rank - 1,
    let difference = rewriter.match(inputs[0], Subtract.self), let sum = rewriter.match(inputs[1], Add.self),
    let left = rewriter.match(difference.inputs[0], Multiply.self),
    let right = rewriter.match(difference.inputs[1], Multiply.self)
  else { return nil }
  for (a, cos) in rewriter.orders(of: left.node) {
    for (b, sin) in rewriter.orders(of: right.node) {
      guard let first = rewriter.match(a, Slice.self, .shared), let second = rewriter.match(b, Slice.self, .shared),
        first.inputs == second.inputs, rewriter.isProduct(sum, of: (b, cos), and: (a, sin)),
        rewriter.type(of: a) == rewriter.type(of: inputs[0])
      else { continue }
      let x = first.inputs[0]
      let rank = rewriter.type(of: x).rank
      guard let width = first.op.size.fixedValue, first.op.start == 0, second.op.start == .fixed(width),
        second.op.size == .fixed(width), first.op.step == 1, second.op.step == 1,
        rewriter.type(of: x).shape.normalizedAxis(first.op.axis) == rank - 1,
        rewriter.type(of: x).shape.normalizedAxis(second.op.axis) == rank - 1
      else { continue }
      let all = rewriter.type(of: x).shape.last == .fixed(2 * width)
      let part = try all ? x : rewriter.emit(Slice(axis: -1, start: 0, size: .fixed(2 * width)), x)
      return try rewriter.rope(part, cosines: cos, sines: sin)
    }
  }
  return nil
}

extension Rewriter {
  /// Whether a value is `concat(-x[W...], x[..<W])` along the last axis, `W` half its size.
  fileprivate func isRotatedHalf(_ value: ValueID, of x: ValueID) -> Bool {
    let shape = type(of: x).shape
    guard let columns = shape.last.fixedValue, columns > 0, columns % 2 == 0, let concat = match(value, Concat.self),
      concat.inputs.count == 2, shape.normalizedAxis(concat.op.axis) == shape.rank - 1,
      let negative = match(concat.inputs[0], Negate.self),
      let upper = match(negative.inputs[0], Slice.self, .shared),
      let lower = match(concat.inputs[1], Slice.self, .shared)
    else { return false }
    let half = Dim.fixed(columns / 2)
    return upper.inputs == [x] && lower.inputs == [x] && upper.op.start == half && lower.op.start == 0
      && [upper.op, lower.op].allSatisfy {
        $0.size == half && $0.step == 1 && shape.normalizedAxis($0.axis) == shape.rank - 1
      }
  }

  /// Whether the second half of the last axis is known to repeat the first.
  fileprivate func hasEqualHalves(_ value: ValueID) -> Bool {
    var value = value
    while let node = definingNode(of: value) {
      let inputs = inputs(of: node)
      switch self[node].op {
      case let concat as Concat:
        let rank = type(of: value).rank
        return inputs.count == 2 && inputs[0] == inputs[1]
          && type(of: value).shape.normalizedAxis(concat.axis) == rank - 1
      case is Cos, is Sin, is Cast: value = inputs[0]
      case is Multiply:
        guard number(inputs[1]) != nil else { return false }
        value = inputs[0]
      case is Reshape:
        guard type(of: inputs[0]).rank > 0, type(of: inputs[0]).shape.last == type(of: value).shape.last else {
          return false
        }
        value = inputs[0]
      default: return false
      }
    }
    return false
  }

  /// Whether a sum is `x.0 * x.1 + y.0 * y.1`, in any order.
  fileprivate func isProduct(
    _ sum: Match<Add>, of x: (ValueID, ValueID), and y: (ValueID, ValueID)
  ) -> Bool {
    let products = sum.inputs.compactMap { match($0, Multiply.self) }
    guard products.count == 2 else { return false }
    func isSame(_ product: Match<Multiply>, _ factors: (ValueID, ValueID)) -> Bool {
      product.inputs == [factors.0, factors.1] || product.inputs == [factors.1, factors.0]
    }
    return (isSame(products[0], x) && isSame(products[1], y)) || (isSame(products[0], y) && isSame(products[1], x))
  }

  /// Turns the heads of `x` by cosines and sines of one row per token, `[..., T, W]` or `[..., T, 1, W]`; nil if there is
  /// more than one text, or x is in another order.
  fileprivate mutating func rope(_ x: ValueID, cosines: ValueID, sines: ValueID) throws -> ValueID? {
    let dims = type(of: x).shape.dims
    let table = type(of: cosines)
    guard dims.count >= 2, type(of: sines) == table, table.rank >= 2, table.rank <= dims.count,
      table.element == type(of: x).element, let columns = dims[dims.count - 1].fixedValue,
      let width = table.shape.last.fixedValue
    else { return nil }
    // The axis of x that the rows of the table lie on, from the end.
    let rest = [Dim](repeating: 1, count: dims.count - table.rank) + table.shape.dims.dropLast()
    let rows = dims.count - 2
    let isInner = rest[rows] == dims[rows] && rest[..<rows].allSatisfy { $0 == 1 }
    let isOuter =
      rows > 0 && rest[rows] == 1 && rest[rows - 1] == dims[rows - 1] && rest[..<(rows - 1)].allSatisfy { $0 == 1 }
    var source = x
    var order: Transpose?
    if isInner {
      if let transpose = match(x, Transpose.self, .shared),
        transpose.op.permutation == (dims.count == 4 ? [0, 2, 1, 3] : [1, 0, 2]), dims.count == 3 || dims[0] == 1
      {
        (source, order) = (transpose.inputs[0], transpose.op)
      } else if !dims[..<rows].allSatisfy({ $0 == 1 }) {
        return refuse("the heads stand before the rows, and no transpose brought them there")
      }
    } else {
      guard isOuter, dims[..<(rows - 1)].allSatisfy({ $0 == 1 }) else {
        return refuse("cosines and sines are not one row per token of one text")
      }
    }
    let length = isInner ? dims[rows] : dims[rows - 1]
    let parts = try [cosines, sines].map { try emit(Reshape([length, 1, .fixed(width)]), $0) }
    let angles = try emit(Concat(axis: 1), parts)
    let shape = type(of: source).shape.dims
    guard order != nil || isOuter && !isInner else {
      return try emit(Rope(headDim: columns), source, angles)
    }
    guard let heads = shape[shape.count - 2].fixedValue else { return nil }
    let flat = try emit(Reshape(Array(shape.dropLast(2)) + [.fixed(heads * columns)]), source)
    let turned = try emit(Reshape(shape), emit(Rope(headDim: columns), flat, angles))
    return try order.map { try emit($0, turned) } ?? turned
  }
}
