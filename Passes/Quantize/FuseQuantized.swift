import Base
import IR
import Tensors

/// Makes operators on bytes of those on numbers that bytes stand for.
///
///     %d = dequantize_linear(%q) {code = A}
///     %y = conv2d(%d, reshape(dequantize(%w)), %b) {epilogue = ...}
///     %p = quantize_linear(%y) {code = B}
///     // -> %p = quantized_conv2d(%q, %w, %b) {input = A, output = B, epilogue = ...}
///
/// Linear layers become convolutions of one line of pixels. Pooling by maxima and operators that move elements work on codes,
/// and codes that would be read and written again are left as they are.
package struct FuseQuantized: RulePass {
  package static let name = "fuse-quantized"
  package static let summary = "computes convolutions, linear layers and movements on bytes"
  package static let legality =
    "where both factors of a layer are bytes with one scale per tensor or row, and movements between bytes "
    + "keep the code"
  package static let source = "B. Jacob and others, 2018, arXiv:1712.05877, section 2"

  package init() {}

  package var fidelity: Fidelity { .rounding }

  package var rules: [RewriteRule] {
    [
      fuseQuantizedConvolution, fuseQuantizedMatMul, fuseQuantizedResult, padWithZeroPoint,
      moveQuantizationBeforeReshape,
      removeRequantization,
      moveCodes(Reshape.self), moveCodes(Transpose.self), moveCodes(Slice.self), moveCodes(Expand.self),
      moveCodes(Concat.self), moveCodes(MaxPool2D.self), moveCodesThroughPad,
    ]
  }
}

extension Rewriter {
  /// The rows of 8-bit codes behind a dequantized weight, which may have been given a shape.
  fileprivate func rows(_ weight: ValueID) -> ValueID? {
    let source = match(weight, Reshape.self, .shared)?.inputs[0] ?? weight
    guard let numbers = match(source, Dequantize.self, .shared), type(of: numbers.inputs[0]).encoding == .block(.w8c),
      type(of: numbers.inputs[0]).rank == 2
    else { return nil }
    return numbers.inputs[0]
  }
}

/// conv2d(dequantize_linear(x), dequantize(w)) -> quantized_conv2d(x, w), with a residual that is bytes as well
let fuseQuantizedConvolution = RewriteRule("fuse-quantized-conv2d", on: Conv2D.self, .shared) { op, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  let weight = rewriter.type(of: inputs[1]).shape
  guard let x = rewriter.match(inputs[0], DequantizeLinear.self, .shared), let rows = rewriter.rows(inputs[1]),
    weight.rank == 4, rewriter.type(of: rows).shape[0] == weight[0], let height = weight[2].fixedValue,
    let width = weight[3].fixedValue
  else { return nil }
  var result = QuantizedConv2D(op, kernel: [height, width], input: x.op.code)
  inputs[0] = x.inputs[0]
  inputs[1] = rows
  if let index = op.epilogue.residualIndex,
    let residual = rewriter.match(inputs[index], DequantizeLinear.self, .shared)
  {
    inputs[index] = residual.inputs[0]
    result.other = residual.op.code
  }
  return try rewriter.emit(result, inputs)
}

/// matmul(dequantize_linear(x), dequantize(w)) -> quantized_conv2d(x, w) with a window of one pixel
let fuseQuantizedMatMul = RewriteRule("fuse-quantized-matmul", on: MatMul.self, .shared) { op, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard op.transposeB, !op.epilogue.gated, let x = rewriter.match(inputs[0], DequantizeLinear.self, .shared),
    let numbers = rewriter.match(inputs[1], Dequantize.self, .shared), let rows = rewriter.rows(inputs[1]),
    numbers.inputs[0] == rows
  else { return nil }
  let shape = rewriter.type(of: node).shape
  var pixels: Dim = 1
  for dim in shape.dims.dropLast() {
    guard let product = Dim.product(pixels, dim) else { return nil }
    pixels = product
  }
  func line(_ value: ValueID) throws -> ValueID {
    try rewriter.emit(Reshape([1, 1, pixels, rewriter.type(of: value).shape.last]), value)
  }
  var result = QuantizedConv2D(Conv2D(layout: .last, epilogue: op.epilogue), kernel: [1, 1], input: x.op.code)
  inputs[0] = try line(x.inputs[0])
  inputs[1] = rows
  if let index = op.epilogue.residualIndex {
    if let residual = rewriter.match(inputs[index], DequantizeLinear.self, .shared) {
      inputs[index] = residual.inputs[0]
      result.other = residual.op.code
    }
    inputs[index] = try line(inputs[index])
  }
  return try rewriter.emit(Reshape(shape.dims), rewriter.emit(result, inputs))
}

/// quantize_linear(quantized_conv2d(...)) -> quantized_conv2d(...) {output = ...}
let fuseQuantizedResult = RewriteRule("fuse-quantized-result", on: QuantizeLinear.self, .shared) { op, node, rewriter in
  guard var conv = rewriter.match(rewriter.inputs(of: node)[0], QuantizedConv2D.self), conv.op.output == nil else {
    return nil
  }
  conv.op.output = op.code
  return try rewriter.emit(conv.op, conv.inputs)
}

/// quantized_conv2d(x) {padding = p} -> quantized_conv2d(pad(x)), where the bytes of the padding are not 0 or a line of the window
/// is read in steps that cross its pixels: kernels leave out what is padding, and begin steps with pixels
let padWithZeroPoint = RewriteRule("pad-with-zero-point", on: QuantizedConv2D.self, .shared) { op, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  let channels = op.layout.split(rewriter.type(of: inputs[0]).shape).channels.fixedValue ?? 1
  guard op.padding != [0, 0, 0, 0],
    op.input.zeroPoint != 0 || (op.groups == 1 && op.kernel[1] > 1 && channels % 4 != 0)
  else { return nil }
  let first = op.layout == .first
  let (top, left, bottom, right) = (op.padding[0], op.padding[1], op.padding[2], op.padding[3])
  inputs[0] = try rewriter.emit(
    Pad(
      before: first ? [0, 0, top, left] : [0, top, left, 0],
      after: first ? [0, 0, bottom, right] : [0, bottom, right, 0],
      value: Float(op.input.zeroPoint)), inputs[0])
  var plain = op
  plain.padding = [0, 0, 0, 0]
  return try rewriter.emit(plain, inputs)
}

/// quantize_linear(reshape(x)) -> reshape(quantize_linear(x))
let moveQuantizationBeforeReshape = RewriteRule(
  "move-quantization-before-reshape", on: QuantizeLinear.self, .shared
) { op, node, rewriter in
  guard let reshape = rewriter.match(rewriter.inputs(of: node)[0], Reshape.self) else { return nil }
  return try rewriter.emit(reshape.op, rewriter.emit(op, reshape.inputs[0]))
}

/// quantize_linear(dequantize_linear(x)) -> x, if the codes are the same
let removeRequantization = RewriteRule("remove-requantization", on: QuantizeLinear.self, .shared) {
  op, node, rewriter in
  guard let numbers = rewriter.match(rewriter.inputs(of: node)[0], DequantizeLinear.self, .shared),
    numbers.op.code == op.code
  else { return nil }
  return numbers.inputs[0]
}

/// An operator that hands numbers on, on codes: op(dequantize_linear(x), ...) -> dequantize_linear(op(x, ...))
private func moveCodes<Op: Operator>(_ type: Op.Type) -> RewriteRule {
  RewriteRule("move-codes-through-\(Op.name.split(separator: "_").joined(separator: "-"))", on: Op.self, .shared) {
    op, node, rewriter in
    let inputs = rewriter.inputs(of: node).map { rewriter.match($0, DequantizeLinear.self, .shared) }
    guard let first = inputs.first, let code = first?.op.code, inputs.allSatisfy({ $0?.op.code == code }) else {
      return nil
    }
    let codes = inputs.compactMap { $0?.inputs[0] }
    return try rewriter.emit(DequantizeLinear(code), rewriter.emit(op, codes))
  }
}

/// pad(dequantize_linear(x)) {value = 0} -> dequantize_linear(pad(x)) {value = zero point}
let moveCodesThroughPad = RewriteRule("move-codes-through-pad", on: Pad.self, .shared) { op, node, rewriter in
  guard op.value == 0, let numbers = rewriter.match(rewriter.inputs(of: node)[0], DequantizeLinear.self, .shared) else {
    return nil
  }
  var pad = op
  pad.value = Float(numbers.op.code.zeroPoint)
  return try rewriter.emit(numbers.op, rewriter.emit(pad, numbers.inputs[0]))
}
