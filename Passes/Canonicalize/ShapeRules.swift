import IR
import Tensors

/// Rules on operators that move numbers without changing them.
let shapeRules: [RewriteRule] = [
  reshapeTwice, reshapeToSame, transposeTwice, transposeToSame, transposeOfUnits, sliceOfAll, sliceTwice, concatOfOne,
  castToSame, castThereAndBack, expandToSame, padByNothing, reduceOfUnits, gatherCodes,
]

/// reshape(reshape(x)) -> reshape(x), where the sizes show that the numbers of elements agree
let reshapeTwice = RewriteRule("reshape-twice", on: Reshape.self, .shared) { reshape, node, rewriter in
  guard let inner = rewriter.match(rewriter.inputs(of: node)[0], Reshape.self, .shared),
    (try? reshape.inferTypes([rewriter.type(of: inner.inputs[0])])) != nil
  else { return nil }
  return try rewriter.emit(reshape, inner.inputs[0])
}

/// reshape(x) -> x, to the shape that x has
let reshapeToSame = RewriteRule("reshape-to-same", on: Reshape.self, .shared) { _, node, rewriter in
  rewriter.inputIfUnchanged(of: node)
}

/// transpose(transpose(x)) -> transpose(x)
let transposeTwice = RewriteRule("transpose-twice", on: Transpose.self, .shared) { outer, node, rewriter in
  guard let inner = rewriter.match(rewriter.inputs(of: node)[0], Transpose.self, .shared) else { return nil }
  return try rewriter.emit(Transpose(outer.permutation.map { inner.op.permutation[$0] }), inner.inputs[0])
}

/// transpose(x) {permutation = [0, 1, 2]} -> x
let transposeToSame = RewriteRule("transpose-to-same", on: Transpose.self, .shared) { transpose, node, rewriter in
  guard transpose.permutation == Array(transpose.permutation.indices) else { return nil }
  return rewriter.inputs(of: node)[0]
}

/// transpose(x) -> reshape(x), where only axes of size 1 change their place among the others
let transposeOfUnits = RewriteRule("transpose-of-units", on: Transpose.self, .shared) { transpose, node, rewriter in
  let x = rewriter.inputs(of: node)[0]
  let shape = rewriter.type(of: x).shape
  let moved = transpose.permutation.filter { shape[$0] != 1 }
  guard moved == moved.sorted() else { return nil }
  return try rewriter.emit(Reshape(rewriter.type(of: node).shape.dims), x)
}

/// slice(x) -> x, of the whole axis
let sliceOfAll = RewriteRule("slice-of-all", on: Slice.self, .shared) { slice, node, rewriter in
  guard slice.start == 0, slice.step == 1 else { return nil }
  return rewriter.inputIfUnchanged(of: node)
}

/// slice(slice(x)) -> slice(x), along one axis
let sliceTwice = RewriteRule("slice-twice", on: Slice.self, .shared) { outer, node, rewriter in
  let x = rewriter.inputs(of: node)[0]
  let shape = rewriter.type(of: x).shape
  guard let inner = rewriter.match(x, Slice.self, .shared),
    shape.normalizedAxis(outer.axis) == shape.normalizedAxis(inner.op.axis)
  else { return nil }
  let start = inner.op.start + outer.start * inner.op.step
  return try rewriter.emit(
    Slice(axis: inner.op.axis, start: start, size: outer.size, step: inner.op.step * outer.step), inner.inputs[0])
}

/// concat(x) -> x
let concatOfOne = RewriteRule("concat-of-one", on: Concat.self, .shared) { _, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  return inputs.count == 1 ? inputs[0] : nil
}

/// cast(x) -> x, to the type that x has
let castToSame = RewriteRule("cast-to-same", on: Cast.self, .shared) { _, node, rewriter in
  rewriter.inputIfUnchanged(of: node)
}

/// cast(cast(x) {type = f32}) {type = f16} -> x, for an x of f16: through a type that holds all its numbers
let castThereAndBack = RewriteRule("cast-there-and-back", on: Cast.self, .shared) { outer, node, rewriter in
  guard let inner = rewriter.match(rewriter.inputs(of: node)[0], Cast.self, .shared),
    rewriter.type(of: inner.inputs[0]).element == outer.type
  else { return nil }
  guard inner.op.type.holds(outer.type) else {
    return rewriter.refuse("\(inner.op.type.rawValue) does not hold every number of \(outer.type.rawValue)")
  }
  return inner.inputs[0]
}

extension DType {
  /// Whether every number of `other` is a number of this type.
  fileprivate func holds(_ other: DType) -> Bool {
    switch (self, other) {
    case (.f64, .f32), (.f64, .f16), (.f64, .bf16), (.f64, .i32), (.f64, .i16), (.f64, .i8), (.f64, .u8): true
    case (.f32, .f16), (.f32, .bf16), (.f32, .i16), (.f32, .i8), (.f32, .u8): true
    case (.i64, .i32), (.i64, .i16), (.i64, .i8), (.i64, .u8), (.i32, .i16), (.i32, .i8), (.i32, .u8): true
    case (.i16, .i8), (.i16, .u8): true
    default: self == other
    }
  }
}

/// expand(x) -> x, to the shape that x has
let expandToSame = RewriteRule("expand-to-same", on: Expand.self, .shared) { _, node, rewriter in
  rewriter.inputIfUnchanged(of: node)
}

/// pad(x) -> x, by nothing
let padByNothing = RewriteRule("pad-by-nothing", on: Pad.self, .shared) { pad, node, rewriter in
  guard pad.before.allSatisfy({ $0 == 0 }), pad.after.allSatisfy({ $0 == 0 }) else { return nil }
  return rewriter.inputs(of: node)[0]
}

/// reduce(x) -> reshape(x), over axes of size 1
let reduceOfUnits = RewriteRule("reduce-of-units", on: Reduce.self, .shared) { reduce, node, rewriter in
  let x = rewriter.inputs(of: node)[0]
  let type = rewriter.type(of: x)
  guard let reduced = try? reduce.reducedAxes(of: type.shape),
    zip(reduced, type.shape.dims).allSatisfy({ !$0 || $1 == 1 })
  else { return nil }
  return try rewriter.emit(Reshape(rewriter.type(of: node).shape.dims), x)
}

/// gather(dequantize(c), i) -> gather(c, i) with the element type: a table of codes is read by rows, not whole
let gatherCodes = RewriteRule("gather-codes", on: Gather.self, .shared) { gather, node, rewriter in
  let inputs = rewriter.inputs(of: node)
  guard let table = rewriter.match(inputs[0], Dequantize.self, .shared),
    let axis = rewriter.type(of: inputs[0]).shape.normalizedAxis(gather.axis),
    axis < rewriter.type(of: inputs[0]).rank - 1
  else { return nil }
  let element = rewriter.type(of: node).element
  return try rewriter.emit(Gather(axis: gather.axis, type: element), table.inputs[0], inputs[1])
}
