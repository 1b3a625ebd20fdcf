import Base
import Tensors

/// Two-dimensional transposed convolution: every pixel adds its multiples of the weights to the places around it,
/// `y[n, o, i s - p + u d, j s - p + v d] = bias[o] + sum of x[n, c, i, j] * w[c, o, u, v]`.
///
/// Inputs: `x[N, C, H, W]`, `w[C, O/groups, kh, kw]`, perhaps `bias[O]`. The result is `[N, O, (H - 1) s + d (kh - 1) + 1 + extra -
/// padding, ...]`.
package struct ConvTranspose2D: Operator {
  package static let name = "conv_transpose2d"

  package var strides: [Int] = [1, 1]
  /// Lines and columns of the result that are left out: top, left, bottom, right.
  package var padding: [Int] = [0, 0, 0, 0]
  /// Lines and columns added at the bottom and at the right.
  package var extra: [Int] = [0, 0]
  package var dilations: [Int] = [1, 1]
  package var groups: Int = 1

  package init() {}

  package init(
    strides: [Int] = [1, 1], padding: [Int] = [0, 0, 0, 0], extra: [Int] = [0, 0], dilations: [Int] = [1, 1],
    groups: Int = 1
  ) {
    self.strides = strides
    self.padding = padding
    self.extra = extra
    self.dilations = dilations
    self.groups = groups
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...3)
    let (x, w) = (inputs[0], inputs[1])
    try expectFloat(x, "image")
    try expectFloat(w, "weight")
    try expectRank(x, 4...4, "image")
    try expectRank(w, 4...4, "weight")
    try expectList(strides, count: 2, minimum: 1, "strides")
    try expectList(padding, count: 4, minimum: 0, "padding")
    try expectList(extra, count: 2, minimum: 0, "extra")
    try expectList(dilations, count: 2, minimum: 1, "dilations")
    let channels = try expectFixed(x.shape[1], "channels")
    let perGroup = try expectFixed(w.shape[1], "output channels")
    guard groups >= 1, channels % groups == 0, w.shape[0] == .fixed(channels), channels > 0, perGroup > 0 else {
      throw failure("weight of shape \(w.shape) in \(groups) groups does not fit an image of \(channels) channels")
    }
    let (outputs, overflow) = perGroup.multipliedReportingOverflow(by: groups)
    guard !overflow, outputs <= 1 << 31 else { throw failure("\(groups) groups of \(perGroup) channels are too many") }
    var sizes: [Dim] = []
    for axis in 0..<2 {
      let kernel = try expectFixed(w.shape[axis + 2], "kernel")
      guard kernel >= 1, kernel <= 1 << 20, dilations[axis] <= 1 << 20, strides[axis] <= 1 << 20 else {
        throw failure("a kernel of \(kernel), dilated by \(dilations[axis]), is not between 1 and \(1 << 20)")
      }
      let rest = dilations[axis] * (kernel - 1) + 1 + extra[axis] - padding[axis] - padding[axis + 2]
      let size = (x.shape[axis + 2] - 1) * strides[axis] + .fixed(rest)
      guard size.bounds.lowerBound >= 1 else {
        throw failure("padding \(padding) leaves nothing of axis \(axis + 2) of the result")
      }
      sizes.append(size)
    }
    if inputs.count == 3 {
      try expectFloat(inputs[2], "bias")
      try expectShape(inputs[2], Shape([outputs]), "bias")
    }
    return [x.with(shape: Shape([x.shape[0], .fixed(outputs)] + sizes))]
  }
}

extension ConvTranspose2D: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, w, result) = (inputs[0], inputs[1], results[0])
    let (image, kernel, size) = (x.sizes, w.sizes, result.sizes)
    let channels = image[1] / groups, outputs = kernel[1]
    let plane = size[2] * size[3], pixels = image[2] * image[3], taps = kernel[2] * kernel[3]
    nonisolated(unsafe) let (source, weights, target) = (x.data, w.data, result.data)
    nonisolated(unsafe) let bias = inputs.count == 3 ? inputs[2].data : nil
    parallelFor(size[0] * size[1], grain: 1) { range in
      for index in range {
        let (batch, output) = index.quotientAndRemainder(dividingBy: size[1])
        let group = output / outputs
        let y = target + index * plane
        y.update(repeating: bias.map { $0[output] } ?? 0, count: plane)
        for channel in group * channels..<(group + 1) * channels {
          let from = source + (batch * image[1] + channel) * pixels
          let tap = weights + (channel * outputs + output % outputs) * taps
          for u in 0..<kernel[2] {
            for i in 0..<image[2] {
              let line = i * strides[0] + u * dilations[0] - padding[0]
              guard line >= 0, line < size[2] else { continue }
              for v in 0..<kernel[3] {
                let weight = tap[u * kernel[3] + v]
                for j in 0..<image[3] {
                  let column = j * strides[1] + v * dilations[1] - padding[1]
                  if column >= 0, column < size[3] { y[line * size[3] + column] += from[i * image[3] + j] * weight }
                }
              }
            }
          }
        }
      }
    }
  }
}
