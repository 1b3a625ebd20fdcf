import IR
import Tensors

/// Rules that bring slices and reshapes before transposes, where later ones can read their result in place, and reshapes
/// that only add or drop axes of size 1 out of sums.
let layoutRules: [RewriteRule] = [sliceOfTranspose, squeezeOfTranspose, sliceOfReshape, addInsideReshape]

/// slice(transpose(x)) -> transpose(slice(x)), where all users of the transpose cut pieces off
let sliceOfTranspose = RewriteRule("slice-of-transpose", on: Slice.self, .shared) { slice, node, rewriter in
  let x = rewriter.inputs(of: node)[0]
  guard let transpose = rewriter.match(x, Transpose.self, .shared),
    let axis = rewriter.type(of: x).shape.normalizedAxis(slice.axis)
  else { return nil }
  guard rewriter.users(of: x).allSatisfy({ rewriter[$0].op is Slice }),
    rewriter.users(of: x).count == rewriter.useCount(of: x)
  else {
    let name = rewriter.name(of: x)
    return rewriter.refuse("not all users of '%\(name)' cut pieces off")
  }
  var inner = slice
  inner.axis = transpose.op.permutation[axis]
  return try rewriter.emit(transpose.op, rewriter.emit(inner, transpose.inputs[0]))
}

/// reshape(transpose(x)) -> transpose(reshape(x)), where the reshape only drops axes of size 1
let squeezeOfTranspose = RewriteRule("squeeze-of-transpose", on: Reshape.self, .shared) { reshape, node, rewriter in
  guard let transpose = rewriter.match(rewriter.inputs(of: node)[0], Transpose.self) else { return nil }
  let dims = rewriter.type(of: rewriter.inputs(of: node)[0]).shape.dims
  guard let kept = keptAxes(of: dims, in: reshape.shape), kept.count < dims.count else { return nil }
  let source = rewriter.type(of: transpose.inputs[0]).shape.dims
  let axes = kept.map { transpose.op.permutation[$0] }
  let order = axes.sorted()
  let squeezed = try rewriter.emit(Reshape(order.map { source[$0] }), transpose.inputs[0])
  return try rewriter.emit(Transpose(axes.map { axis in order.firstIndex(of: axis) ?? 0 }), squeezed)
}

/// The axes of `dims` that make up `shape` when leading ones of size 1 are dropped; nil if others differ.
private func keptAxes(of dims: [Dim], in shape: [Dim]) -> [Int]? {
  var surplus = dims.count - shape.count
  var kept: [Int] = []
  for (axis, dim) in dims.enumerated() {
    if dim == 1, surplus > 0 {
      surplus -= 1
    } else {
      guard kept.count < shape.count, shape[kept.count] == dim else { return nil }
      kept.append(axis)
    }
  }
  return kept.count == shape.count ? kept : nil
}

/// slice(reshape(x)) -> reshape(slice(x)), where the reshape splits one axis of x and the slice cuts the first of its
/// parts
///
///     %r = reshape(%x) {shape = [8, 3, 4, 16]}              // %x: [8, 192]
///     %y = slice(%r) {axis = 1, start = 1, size = 1}
///     // -> %y = reshape(slice(%x) {axis = 1, start = 64, size = 64}) {shape = [8, 1, 4, 16]}
let sliceOfReshape = RewriteRule("slice-of-reshape", on: Slice.self, .shared) { slice, node, rewriter in
  guard slice.step == 1, let start = slice.start.fixedValue, let size = slice.size.fixedValue,
    let reshape = rewriter.match(rewriter.inputs(of: node)[0], Reshape.self, .shared),
    let axis = Shape(reshape.op.shape).normalizedAxis(slice.axis)
  else { return nil }
  let split = reshape.op.shape
  let source = rewriter.type(of: reshape.inputs[0]).shape.dims
  guard axis < source.count, Array(split[..<axis]) == Array(source[..<axis]) else { return nil }
  let behind = source.count - axis - 1
  guard behind < split.count - axis - 1, Array(split.suffix(behind)) == Array(source.suffix(behind)),
    let inner = Shape.product(Array(split[(axis + 1)..<(split.count - behind)]))?.fixedValue,
    Shape.product(Array(split[axis..<(split.count - behind)])) == source[axis]
  else { return nil }
  let cut = Slice(axis: axis, start: .fixed(start * inner), size: .fixed(size * inner))
  return try rewriter.emit(
    Reshape(rewriter.type(of: node).shape.dims), rewriter.emit(cut, reshape.inputs[0]))
}

/// reshape(add(reshape(x), c)) -> add(x, reshape(c)), where both reshapes only add or drop axes of size 1 at the front
/// and c is a recipe that has size 1 along them
let addInsideReshape = RewriteRule("add-inside-reshape", on: Reshape.self, .shared) { reshape, node, rewriter in
  guard let sum = rewriter.match(rewriter.inputs(of: node)[0], Add.self), rewriter.isRecipe(sum.inputs[1]),
    let inner = rewriter.match(sum.inputs[0], Reshape.self),
    rewriter.type(of: sum.inputs[0]) == rewriter.type(of: rewriter.inputs(of: node)[0]),
    rewriter.type(of: inner.inputs[0]) == rewriter.type(of: node)
  else { return nil }
  let outer = rewriter.type(of: node).shape.dims
  let dims = rewriter.type(of: sum.inputs[0]).shape.dims
  let own = rewriter.type(of: sum.inputs[1]).shape.dims
  guard dims.count > outer.count, dims.prefix(dims.count - outer.count).allSatisfy({ $0 == 1 }),
    Array(dims.suffix(outer.count)) == outer, own.count == dims.count,
    own.prefix(dims.count - outer.count).allSatisfy({ $0 == 1 })
  else { return nil }
  let constant = try rewriter.emit(Reshape(Array(own.suffix(outer.count))), sum.inputs[1])
  return try rewriter.emit(Add(), inner.inputs[0], constant)
}
