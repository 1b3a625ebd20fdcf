import Base
import IR
import Tensors

/// A transposed convolution of strides s is a convolution with s x s as many outputs, one for each place of the result modulo
/// s, whose results are put side by side (sub-pixel convolution; Shi and others, 2016):
///
///     %y = conv_transpose2d(%x, %w) {strides = [2, 2]}
///     // -> %v = w, zeros up to a multiple of s taps, turned round, [s s O, C, taps / s, taps / s]
///     //    %c = conv2d(%x, %v) : [N, M, M, s s O]
///     //    %y = slice(reshape(transpose(reshape(%c))))
///
/// What is done to the weights is a recipe.
extension ConvTranspose2D: Decomposable {
  /// One axis of the convolution.
  private struct Axis {
    let stride: Int
    /// Taps that one place of the result sees, and zeros around the image.
    let taps: Int
    let before: Int
    let after: Int
    /// Where the result begins.
    let start: Int

    init(_ op: ConvTranspose2D, _ axis: Int, kernel: Int) {
      stride = op.strides[axis]
      let reach = op.dilations[axis] * (kernel - 1)
      taps = reach / stride + 1
      let skipped = min(op.padding[axis] / stride, taps - 1)
      before = taps - 1 - skipped
      start = op.padding[axis] - skipped * stride
      after = max(0, reach + op.extra[axis] - op.padding[axis + 2]) / stride
    }
  }

  package func decompose(_ inputs: [ValueID], in builder: inout GraphBuilder) throws -> [ValueID] {
    let weight = builder.type(of: inputs[1]), result = try inferTypes(inputs.map { builder.type(of: $0) })[0]
    guard let sizes = weight.shape.fixedSizes else {
      throw CompileError(.internal, "a weight of shape \(weight.shape) has no fixed sizes")
    }
    let (channels, outputs) = (sizes[0] / groups, sizes[1])
    let axes = (0..<2).map { Axis(self, $0, kernel: sizes[$0 + 2]) }
    let phases = axes[0].stride * axes[1].stride
    var w = inputs[1]
    for axis in 0..<2 { w = try prepared(w, axis, axes[axis], in: &builder) }
    let (tall, wide) = (axes[0], axes[1])
    w = try builder.emit(
      Reshape(
        [groups, channels, outputs, tall.taps, tall.stride, wide.taps, wide.stride].map { .fixed($0) }), w)
    w = try builder.emit(Transpose([0, 4, 6, 2, 1, 3, 5]), w)
    w = try builder.emit(
      Reshape([groups * phases * outputs, channels, tall.taps, wide.taps].map { .fixed($0) }), w)
    var conv = Conv2D(
      padding: [tall.before, wide.before, tall.after, wide.after], groups: groups, layout: .last)
    var operands = [try builder.emit(Transpose([0, 2, 3, 1]), inputs[0]), w]
    if inputs.count == 3 {
      conv.epilogue.bias = true
      let column = try builder.emit(Reshape([.fixed(groups), 1, .fixed(outputs)]), inputs[2])
      let repeated = try builder.emit(Expand([.fixed(groups), .fixed(phases), .fixed(outputs)]), column)
      operands.append(try builder.emit(Reshape([.fixed(groups * phases * outputs)]), repeated))
    }
    let sums = try builder.emit(conv, operands)
    let places = builder.type(of: sums).shape
    let parts: [Dim] = [.fixed(groups), .fixed(tall.stride), .fixed(wide.stride), .fixed(outputs)]
    var y = try builder.emit(Reshape([places[0], places[1], places[2]] + parts), sums)
    y = try builder.emit(Transpose([0, 1, 4, 2, 5, 3, 6]), y)
    let full = [places[1] * tall.stride, places[2] * wide.stride]
    y = try builder.emit(Reshape([places[0], full[0], full[1], .fixed(groups * outputs)]), y)
    for axis in 0..<2 {
      let size = result.shape[axis + 2]
      if axes[axis].start > 0 || size != builder.type(of: y).shape[axis + 1] {
        y = try builder.emit(Slice(axis: axis + 1, start: .fixed(axes[axis].start), size: size), y)
      }
    }
    return [try builder.emit(Transpose([0, 3, 1, 2]), y)]
  }

  /// The weights with dilated taps along one axis, in reversed order of the multiples of the stride, and with zeros up to a
  /// whole number of these.
  private func prepared(
    _ value: ValueID, _ axis: Int, _ form: Axis, in builder: inout GraphBuilder
  ) throws -> ValueID {
    var w = value
    let index = axis + 2
    var shape = builder.type(of: w).shape.dims
    guard let kernel = shape[index].fixedValue else { return w }
    if dilations[axis] > 1 {
      w = try builder.emit(Reshape(Array(shape[...index] + [1] + shape[(index + 1)...])), w)
      var after = [Int](repeating: 0, count: 5)
      after[index + 1] = dilations[axis] - 1
      w = try builder.emit(Pad(before: [0, 0, 0, 0, 0], after: after), w)
      shape[index] = .fixed(kernel * dilations[axis])
      w = try builder.emit(Reshape(shape), w)
      let reach = dilations[axis] * (kernel - 1) + 1
      w = try builder.emit(Slice(axis: index, start: 0, size: .fixed(reach)), w)
      shape[index] = .fixed(reach)
    }
    let count = form.taps * form.stride
    if let size = shape[index].fixedValue, size < count {
      var after = [0, 0, 0, 0]
      after[index] = count - size
      w = try builder.emit(Pad(before: [0, 0, 0, 0], after: after), w)
    }
    guard form.taps > 1 else { return w }
    let parts = try (0..<form.taps).reversed().map { tap in
      try builder.emit(Slice(axis: index, start: .fixed(tap * form.stride), size: .fixed(form.stride)), w)
    }
    return try builder.emit(Concat(axis: index), parts)
  }
}
