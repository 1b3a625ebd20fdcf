import Base
import Tensors

/// Two-dimensional convolution (cross-correlation) with an epilogue:
/// `y[n, o, i, j] = epilogue(sum over c, u, v of x[n, c, i*s + u*d - p, j*s + v*d - p] * w[o, c, u, v])`.
///
/// Inputs: `x[N, C, H, W]` (layout `first`) or `[N, H, W, C]` (`last`); `w[O, C/groups, kh, kw]` in either layout;
/// `bias[O]` and the residual, of the shape of the result, as the epilogue says. The result has the layout of `x`.
package struct Conv2D: Operator {
  package static let name = "conv2d"

  package var strides: [Int] = [1, 1]
  /// Zeros around the image: top, left, bottom, right.
  package var padding: [Int] = [0, 0, 0, 0]
  package var dilations: [Int] = [1, 1]
  package var groups: Int = 1
  package var layout: ImageLayout = .first
  package var epilogue: Epilogue = .identity

  package init() {}

  package init(
    strides: [Int] = [1, 1], padding: [Int] = [0, 0, 0, 0], dilations: [Int] = [1, 1], groups: Int = 1,
    layout: ImageLayout = .first, epilogue: Epilogue = .identity
  ) {
    self.strides = strides
    self.padding = padding
    self.dilations = dilations
    self.groups = groups
    self.layout = layout
    self.epilogue = epilogue
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: (2 + epilogue.inputCount)...(2 + epilogue.inputCount))
    let (x, w) = (inputs[0], inputs[1])
    try expectFloat(x, "image")
    try expectFloat(w, "weight")
    try expectRank(x, 4...4, "image")
    try expectRank(w, 4...4, "weight")
    try expectList(strides, count: 2, minimum: 1, "strides")
    try expectList(padding, count: 4, minimum: 0, "padding")
    try expectList(dilations, count: 2, minimum: 1, "dilations")
    guard !epilogue.gated else { throw failure("a gated epilogue is for matmul alone") }
    guard groups >= 1 else { throw failure("attribute 'groups' is \(groups), expected at least 1") }
    let image = layout.split(x.shape)
    let channels = try expectFixed(image.channels, "channels")
    let outputs = try expectFixed(w.shape[0], "output channels")
    let perGroup = try expectFixed(w.shape[1], "channels of the weight")
    let kernel = [try expectFixed(w.shape[2], "kernel height"), try expectFixed(w.shape[3], "kernel width")]
    try expectList(kernel, count: 2, minimum: 1, "kernel")
    guard channels % groups == 0, channels / groups == perGroup else {
      throw failure("weight of shape \(w.shape) in \(groups) groups does not fit an image of \(channels) channels")
    }
    guard outputs % groups == 0 else { throw failure("\(outputs) output channels do not divide into \(groups) groups") }
    let height = try windowCount(
      image.height, kernel: kernel[0], stride: strides[0], dilation: dilations[0], before: padding[0],
      after: padding[2], "height")
    let width = try windowCount(
      image.width, kernel: kernel[1], stride: strides[1], dilation: dilations[1], before: padding[1],
      after: padding[3], "width")
    let shape = layout.shape(batch: image.batch, channels: .fixed(outputs), height: height, width: width)
    if let index = epilogue.biasIndex {
      try expectFloat(inputs[index], "bias")
      try expectShape(inputs[index], Shape([outputs]), "bias")
    }
    if let index = epilogue.residualIndex {
      try expectFloat(inputs[index], "residual")
      try expectShape(inputs[index], shape, "residual")
    }
    return [TensorType(x.element, shape)]
  }
}
