import Base
import IR
import Tensors

/// A convolution or, as one over a line of pixels, a fully connected layer: on 8-bit codes, on numbers, or on numbers with
/// 8-bit weights.
///
/// On codes, sums are whole numbers, which become codes by one f32 factor for each output channel and rounding half to even,
/// as TensorFlow Lite's default CPU path computes; its older kernels round fixed-point products instead. On numbers with
/// 8-bit weights, that path first rounds the numbers of an image (of a pixel, where the window is one) to 255 steps between
/// their least and greatest.
struct TFLiteLinearLayer {
  /// The window, without epilogue.
  var conv: Conv2D
  var kernel: [Int]
  var outputs: Int
  /// The axis of the weights along which there may be a scale each.
  var channelAxis: Int
  /// Brings weights to `[O, C/groups, kh, kw]`.
  var permutation: [Int]
  var activation: TFLiteSchema.Activation

  /// The codes of the result; nil where operands or result are not 8-bit codes, or weights not symmetric i8. `image` brings
  /// `x` to channels last.
  func quantized(
    x: Int, w: Int, bias: Int?, y: Int, _ importer: inout TFLiteImporter,
    image: (ValueID, inout TFLiteImporter) throws -> ValueID
  ) throws -> ValueID? {
    let weight = try importer.tensor(w, "the inputs")
    guard let input = importer.code(of: try importer.tensor(x, "the inputs")),
      let output = importer.code(of: try importer.tensor(y, "the outputs")), weight.element == .i8,
      let data = weight.data, let scheme = weight.quantization, scheme.zeroPoints.allSatisfy({ $0 == 0 }),
      scheme.count == 1 || (scheme.axis == channelAxis && scheme.count == outputs),
      case let depth = weight.sizes.reduce(1, *) / outputs, depth <= QuantizedConv2D.mostProducts
    else { return nil }
    let codes = try importer.constant(weight.name, weight.type, data)
    let turned = try importer.builder.emit(Transpose(permutation), shaped(codes, &importer))
    let rows = try importer.builder.emit(Reshape([.fixed(outputs), .fixed(depth)]), turned)
    let scales = try scales(weight, scheme, &importer)
    var operands = [
      try image(importer.raw(x), &importer), try importer.builder.emit(QuantizedRows(), rows, scales),
    ]
    var window = conv
    // Kernels leave out what is padding, which fits codes of 0 alone, and begin steps of four bytes with pixels.
    let channels = try importer.sizes(operands[0])[3]
    if conv.padding != [0, 0, 0, 0], input.zeroPoint != 0 || (conv.groups == 1 && kernel[1] > 1 && channels % 4 != 0) {
      let pad = Pad(
        before: [0, conv.padding[0], conv.padding[1], 0], after: [0, conv.padding[2], conv.padding[3], 0],
        value: Float(input.zeroPoint))
      operands[0] = try importer.builder.emit(pad, operands[0])
      window.padding = [0, 0, 0, 0]
    }
    if let bias {
      operands.append(try self.bias(bias, scales, input, &importer))
      window.epilogue.bias = true
    }
    let cuts: [TFLiteSchema.Activation: Activation] = [.none: .none, .relu: .relu, .relu6: .relu6]
    if let cut = cuts[activation] {
      window.epilogue.activation = cut
      return try importer.builder.emit(
        QuantizedConv2D(window, kernel: kernel, input: input, output: output), operands)
    }
    let numbers = try importer.builder.emit(QuantizedConv2D(window, kernel: kernel, input: input), operands)
    return try importer.builder.emit(QuantizeLinear(output), importer.activated(numbers, activation))
  }

  /// The numbers of the result.
  func numbers(
    x: Int, w: Int, bias: Int?, _ importer: inout TFLiteImporter,
    image: (ValueID, inout TFLiteImporter) throws -> ValueID
  ) throws -> ValueID {
    let weight = try importer.tensor(w, "the inputs")
    var operands = [try image(importer.real(x), &importer)]
    let isHybrid =
      try importer.tensor(x, "the inputs").element == .f32 && weight.element == .i8 && weight.quantization != nil
    var step: ValueID?
    // A window of one pixel is a product of rows, each of which has a range of its own.
    let isPointwise = kernel == [1, 1] && conv.strides == [1, 1]
    if isHybrid { (operands[0], step) = try importer.rounded(operands[0], axes: isPointwise ? [3] : [1, 2, 3]) }
    var turned: ValueID
    if isHybrid, let data = weight.data {
      turned = try importer.builder.emit(Cast(.f32), importer.constant(weight.name, weight.type, data))
    } else {
      turned = try importer.real(w)
      if importer.builder.type(of: turned).element == .f16 { turned = try importer.builder.emit(Cast(.f32), turned) }
    }
    operands.append(try importer.builder.emit(Transpose(permutation), shaped(turned, &importer)))
    var y: ValueID
    var window = conv
    if isHybrid, let step, let scheme = weight.quantization {
      y = try importer.builder.emit(window, operands)
      y = try importer.builder.emit(Multiply(), y, step)
      y = try importer.builder.emit(Multiply(), y, scales(weight, scheme, &importer))
      if let bias { y = try importer.builder.emit(Add(), y, importer.real(bias)) }
    } else {
      if let bias {
        operands.append(try importer.real(bias))
        window.epilogue.bias = true
      }
      y = try importer.builder.emit(window, operands)
    }
    return try importer.activated(y, activation)
  }

  /// Weights of four axes; those of a fully connected layer have two.
  private func shaped(_ weight: ValueID, _ importer: inout TFLiteImporter) throws -> ValueID {
    let sizes = try importer.sizes(weight)
    if sizes.count == 4 { return weight }
    return try importer.builder.emit(Reshape([.fixed(sizes[0]), 1, 1, .fixed(sizes[1])]), weight)
  }

  /// One scale for each output channel.
  private func scales(
    _ weight: TFLiteTensor, _ scheme: TFLiteTensor.Quantization, _ importer: inout TFLiteImporter
  ) throws -> ValueID {
    let scales = try importer.constant("\(weight.name)_scales", TensorType(.f32, [scheme.count]), scheme.scales)
    return scheme.count == outputs ? scales : try importer.builder.emit(Expand([.fixed(outputs)]), scales)
  }

  /// Biases as numbers: whole multiples of the product of the scales of image and weights.
  private func bias(
    _ index: Int, _ scales: ValueID, _ input: AffineCode, _ importer: inout TFLiteImporter
  ) throws -> ValueID {
    let tensor = try importer.tensor(index, "the inputs")
    guard tensor.element == .i32, tensor.sizes == [outputs], let data = tensor.data else {
      throw CompileError(.unsupported, "a bias of type \(tensor.type) ('\(tensor.name)'), expected i32[\(outputs)]")
    }
    let steps = try importer.builder.emit(Cast(.f32), importer.constant(tensor.name, tensor.type, data))
    let step = try importer.builder.emit(Multiply(), scales, importer.number(input.scale))
    return try importer.builder.emit(Multiply(), steps, step)
  }
}

extension TFLiteImporter {
  /// Numbers in whole steps, 255 of them between the least and the greatest number along `axes`, zero included, and the
  /// length of a step: `x` is about `steps * length`.
  fileprivate mutating func rounded(_ x: ValueID, axes: [Int]) throws -> (steps: ValueID, length: ValueID) {
    func limit(_ function: Reduce.Function, _ cut: any Operator) throws -> ValueID {
      try builder.emit(cut, builder.emit(Reduce(function, axes: axes, keepDims: true), x), number(0))
    }
    let low = try limit(.min, Minimum()), high = try limit(.max, Maximum())
    // scale = 255 / (high - low), 1 where there is nothing but 0.
    let range = ScalarExpression.binary(.subtract, .input(1), .input(0))
    let scale = ScalarExpression.select(
      .binary(.equal, range, .number(0)), .number(1), .binary(.divide, .number(255), range))
    let factor = try builder.emit(FusedElementwise(scale), low, high)
    // The code of zero is that for which the end with the larger error is exact.
    let bottom = ScalarExpression.binary(.multiply, .input(0), .input(2))
    let top = ScalarExpression.binary(.multiply, .input(1), .input(2))
    let errors = ScalarExpression.binary(
      .add, .binary(.add, .number(-128), bottom), .binary(.add, .number(127), top))
    let zero = ScalarExpression.unary(
      .round,
      .clamp(
        .select(
          .binary(.greater, errors, .number(0)), .binary(.subtract, .number(-128), bottom),
          .binary(.subtract, .number(127), top)), -128, 127))
    let zeroPoint = try builder.emit(FusedElementwise(zero), low, high, factor)
    let moved = ScalarExpression.binary(
      .add, .unary(.round, .binary(.multiply, .input(0), .input(1))), .input(2))
    let steps = ScalarExpression.binary(.subtract, .clamp(moved, -128, 127), .input(2))
    return (
      try builder.emit(FusedElementwise(steps), x, factor, zeroPoint), try builder.emit(Reciprocal(), factor)
    )
  }
}
