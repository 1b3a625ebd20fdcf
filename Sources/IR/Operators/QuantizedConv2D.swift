import Base
import Tensors

/// A two-dimensional convolution of bytes with 8-bit weights, exact in whole numbers, and its epilogue.
///
/// Inputs: `x: u8` and the residual `r` as images like those of ``Conv2D``, with the codes `input` and `other`, without which
/// `r` is f32; the weights as rows `w: f32[O, C/groups * kh * kw] block<q8f32row>` with codes `q` and one scale `sw` per row; `bias: f32[O]`.
/// The padding of `x` has the code that stands for zero.
///
///     sum[o]  = sum over the window of (x - zero point of input) * q[o]            (i32)
///
/// With an `output` code and an activation that only cuts off (none, relu, relu6), in f32 with fused multiply-adds:
///
///     v = sum * (sw[o] * (s_input / s_output)) + bias[o] / s_output + (r - zero point of other) * (s_other / s_output)
///                                                                                  (+ r * (1 / s_output) for f32)
///     y = round(min(max(v, low), high)) + zero point of output                    (half to even; low, high: the activation)
///
/// else `v = activation(sum * (sw[o] * s_input) + bias[o] + ...)` with the residual before or after the activation, which is
/// the f32 result, or rounded to codes as `v * (1 / s_output)`.
package struct QuantizedConv2D: Operator {
  package static let name = "quantized_conv2d"

  package var kernel: [Int] = [1, 1]
  package var strides: [Int] = [1, 1]
  /// Top, left, bottom, right.
  package var padding: [Int] = [0, 0, 0, 0]
  package var dilations: [Int] = [1, 1]
  package var groups: Int = 1
  package var layout: ImageLayout = .first
  package var epilogue: Epilogue = .identity
  package var input = AffineCode()
  /// The code of the result; nil for f32.
  package var output: AffineCode?
  /// The code of the residual; nil for f32.
  package var other: AffineCode?

  package init() {}

  /// The convolution with the window, layout and epilogue of `conv`.
  package init(_ conv: Conv2D, kernel: [Int], input: AffineCode, output: AffineCode? = nil, other: AffineCode? = nil) {
    self.kernel = kernel
    strides = conv.strides
    padding = conv.padding
    dilations = conv.dilations
    groups = conv.groups
    layout = conv.layout
    epilogue = conv.epilogue
    self.input = input
    self.output = output
    self.other = other
  }

  /// The most products that one sum may have: 255 * 127 times as many stay within i32.
  package static let mostProducts = 1 << 16

  /// The same window as an operator on numbers, without epilogue.
  var window: Conv2D {
    Conv2D(strides: strides, padding: padding, dilations: dilations, groups: groups, layout: layout)
  }

  /// How codes of the result follow from sums: factors of the weight scales, of the bias and of the residual, and the limits
  /// of the rounded value before the zero point is added. Nil where the activation needs real numbers.
  package var requantization: (sum: Float, bias: Float, residual: Float, low: Float, high: Float)? {
    guard let output, epilogue.residual != .afterActivation || epilogue.activation == .none,
      let limits = output.limits(of: epilogue.activation)
    else { return nil }
    return (
      input.scale / output.scale, 1 / output.scale, (other?.scale ?? 1) / output.scale,
      Float(limits.lowerBound - output.zeroPoint), Float(limits.upperBound - output.zeroPoint)
    )
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: (2 + epilogue.inputCount)...(2 + epilogue.inputCount))
    let (x, w) = (inputs[0], inputs[1])
    try expectDense(x, "image")
    guard x.element == .u8 else { throw failure("found image of element type \(x.element.rawValue), expected u8") }
    guard w.encoding == .block(.w8c), w.rank == 2 else {
      throw failure("found weight of type \(w), expected rows of \(BlockFormat.w8c.name)")
    }
    try expectList(kernel, count: 2, minimum: 1, "kernel")
    guard groups >= 1 else { throw failure("attribute 'groups' is \(groups), expected at least 1") }
    let outputs = try expectFixed(w.shape[0], "output channels"), depth = try expectFixed(w.shape[1], "depth")
    try expectRank(x, 4...4, "image")
    let channels = try expectFixed(layout.split(x.shape).channels, "channels")
    let taps = kernel[0].multipliedReportingOverflow(by: kernel[1])
    guard !taps.overflow, depth <= Self.mostProducts, channels % groups == 0,
      (channels / groups).multipliedReportingOverflow(by: taps.partialValue) == (depth, false)
    else {
      throw failure(
        "weights of shape \(w.shape) do not fit windows of \(kernel) over \(channels) channels in \(groups) groups")
    }
    try expectValid(input)
    if let output { try expectValid(output) }
    var types = [TensorType(.f32, x.shape), TensorType(.f32, [outputs, channels / groups] + kernel)]
    var result = try windowType(window, types)
    if let index = epilogue.biasIndex { types.append(inputs[index]) }
    var whole = window
    whole.epilogue = epilogue
    if let index = epilogue.residualIndex {
      let wanted = TensorType(other == nil ? .f32 : .u8, result.shape)
      guard inputs[index] == wanted else {
        throw failure("found residual of type \(inputs[index]), expected \(wanted)")
      }
      if let other { try expectValid(other) }
      types.append(result)
    }
    result = try windowType(whole, types)
    if let index = epilogue.biasIndex, inputs[index].element != .f32 {
      throw failure("found bias of type \(inputs[index]), expected f32 elements")
    }
    return [TensorType(output == nil ? .f32 : .u8, result.shape)]
  }

  /// The result of the convolution of numbers; its errors are those of this operator.
  private func windowType(_ conv: Conv2D, _ inputs: [TensorType]) throws -> TensorType {
    do {
      return try conv.inferTypes(inputs)[0]
    } catch var error as CompileError {
      let prefix = "\(Conv2D.name): "
      if error.message.hasPrefix(prefix) { error.message = "\(Self.name): \(error.message.dropFirst(prefix.count))" }
      throw error
    }
  }
}
