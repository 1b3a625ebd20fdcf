import IR
import Tensors

/// Rules on pieces that are put together and taken apart again.
let concatRules: [RewriteRule] = [sliceOfConcat, concatOfSlices]

/// slice(concat(x, y)) -> slice(x), along one axis, for a piece that lies in one operand
let sliceOfConcat = RewriteRule("slice-of-concat", on: Slice.self, .shared) { slice, node, rewriter in
  let whole = rewriter.inputs(of: node)[0]
  let shape = rewriter.type(of: whole).shape
  guard slice.step == 1, let concat = rewriter.match(whole, Concat.self, .shared),
    let axis = shape.normalizedAxis(slice.axis), shape.normalizedAxis(concat.op.axis) == axis,
    let start = slice.start.fixedValue, let size = slice.size.fixedValue
  else { return nil }
  var first = 0
  for operand in concat.inputs {
    guard let own = rewriter.type(of: operand).shape[axis].fixedValue else { return nil }
    if start >= first, start + size <= first + own {
      return try rewriter.emit(Slice(axis: axis, start: .fixed(start - first), size: .fixed(size)), operand)
    }
    first += own
  }
  return rewriter.refuse("the piece lies in several operands")
}

/// concat(slice(x), slice(x)) -> slice(x), for pieces of one value that follow each other along the axis; what stands before
/// and behind them stays
let concatOfSlices = RewriteRule("concat-of-slices", on: Concat.self, .shared) { concat, node, rewriter in
  guard let axis = rewriter.type(of: node).shape.normalizedAxis(concat.axis) else { return nil }
  var operands: [ValueID] = []
  var last: (source: ValueID, start: Dim, size: Dim)?
  for operand in rewriter.inputs(of: node) {
    guard let piece = rewriter.match(operand, Slice.self, .shared), piece.op.step == 1,
      rewriter.type(of: operand).shape.normalizedAxis(piece.op.axis) == axis
    else {
      operands.append(operand)
      last = nil
      continue
    }
    if let before = last, before.source == piece.inputs[0], piece.op.start == before.start + before.size {
      let size = before.size + piece.op.size
      operands[operands.count - 1] = try rewriter.emit(
        Slice(axis: axis, start: before.start, size: size), before.source)
      last = (before.source, before.start, size)
    } else {
      operands.append(operand)
      last = (piece.inputs[0], piece.op.start, piece.op.size)
    }
  }
  guard operands.count < rewriter.inputs(of: node).count else { return nil }
  return operands.count == 1 ? operands[0] : try rewriter.emit(concat, operands)
}
