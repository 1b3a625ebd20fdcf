import Base
import Tensors

/// The largest number under a moving window; padding never wins.
///
/// Input `x[N, C, H, W]` (layout `first`) or `[N, H, W, C]` (`last`) of floating-point numbers or u8 codes, result of the same
/// layout.
package struct MaxPool2D: Operator {
  package static let name = "max_pool2d"

  package var kernel: [Int] = [1, 1]
  package var strides: [Int] = [1, 1]
  /// Top, left, bottom, right.
  package var padding: [Int] = [0, 0, 0, 0]
  package var dilations: [Int] = [1, 1]
  package var layout: ImageLayout = .first

  package init() {}

  package init(
    kernel: [Int], strides: [Int] = [1, 1], padding: [Int] = [0, 0, 0, 0], dilations: [Int] = [1, 1],
    layout: ImageLayout = .first
  ) {
    self.kernel = kernel
    self.strides = strides
    self.padding = padding
    self.dilations = dilations
    self.layout = layout
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    return [
      try pooledType(
        inputs[0], kernel: kernel, strides: strides, padding: padding, dilations: dilations, layout: layout,
        takesBytes: true)
    ]
  }
}

/// The mean of the numbers under a moving window.
///
/// Input and result as in ``MaxPool2D``. With `countIncludePad` the sum is divided by the size of the window, padding
/// included; else by the number of pixels under it.
package struct AveragePool2D: Operator {
  package static let name = "average_pool2d"

  package var kernel: [Int] = [1, 1]
  package var strides: [Int] = [1, 1]
  /// Top, left, bottom, right.
  package var padding: [Int] = [0, 0, 0, 0]
  package var countIncludePad: Bool = false
  package var layout: ImageLayout = .first

  package init() {}

  package init(
    kernel: [Int], strides: [Int] = [1, 1], padding: [Int] = [0, 0, 0, 0], countIncludePad: Bool = false,
    layout: ImageLayout = .first
  ) {
    self.kernel = kernel
    self.strides = strides
    self.padding = padding
    self.countIncludePad = countIncludePad
    self.layout = layout
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    return [
      try pooledType(inputs[0], kernel: kernel, strides: strides, padding: padding, dilations: [1, 1], layout: layout)
    ]
  }
}

extension Operator {
  fileprivate func pooledType(
    _ x: TensorType, kernel: [Int], strides: [Int], padding: [Int], dilations: [Int], layout: ImageLayout,
    takesBytes: Bool = false
  ) throws -> TensorType {
    if takesBytes, x.element == .u8 { try expectDense(x, "image") } else { try expectFloat(x, "image") }
    try expectRank(x, 4...4, "image")
    try expectList(kernel, count: 2, minimum: 1, "kernel")
    try expectList(strides, count: 2, minimum: 1, "strides")
    try expectList(padding, count: 4, minimum: 0, "padding")
    try expectList(dilations, count: 2, minimum: 1, "dilations")
    for side in 0..<4 where padding[side] > dilations[side % 2] * (kernel[side % 2] - 1) {
      throw failure("padding \(padding) leaves a window of kernel \(kernel) without a pixel")
    }
    let image = layout.split(x.shape)
    let height = try windowCount(
      image.height, kernel: kernel[0], stride: strides[0], dilation: dilations[0], before: padding[0],
      after: padding[2], "height")
    let width = try windowCount(
      image.width, kernel: kernel[1], stride: strides[1], dilation: dilations[1], before: padding[1],
      after: padding[3], "width")
    return x.with(
      shape: layout.shape(batch: image.batch, channels: image.channels, height: height, width: width))
  }
}
