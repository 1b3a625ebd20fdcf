import Tensors

extension Conv2D: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, w, result) = (inputs[0], inputs[1], results[0])
    let shape = Geometry(self, image: x.sizes, weight: w.sizes, result: result.sizes)
    guard result.count > 0 else { return }
    // Computed with channels first; images with channels last are turned before and after.
    let turned = layout == .last
    let image = turned ? Scratch<R>(x.count) : nil
    let sums = turned ? Scratch<R>(result.count) : nil
    if let image {
      exchange(x.data, into: image.data, batch: shape.batch, rows: shape.pixels, columns: shape.channels)
    }
    let source = image.map { UnsafePointer($0.data) } ?? x.data
    let target = sums?.data ?? result.data
    if shape.channels == groups {
      depthwise(source, w.data, shape, into: target)
    } else {
      general(source, w.data, shape, into: target)
    }
    if let index = epilogue.biasIndex {
      let bias = inputs[index].data
      for plane in 0..<(shape.batch * shape.outputs) {
        let value = bias[plane % shape.outputs]
        let row = target + plane * shape.positions
        for i in 0..<shape.positions { row[i] += value }
      }
    }
    if let sums {
      exchange(sums.data, into: result.data, batch: shape.batch, rows: shape.outputs, columns: shape.positions)
    }
    var rest = epilogue
    rest.bias = false
    let rows = turned ? shape.batch * shape.positions : shape.batch * shape.outputs
    finish(
      rest, sums: result.data, rows: rows, columns: result.count / rows, bias: nil,
      residual: epilogue.residualIndex.map { inputs[$0].data }, into: result.data)
    withExtendedLifetime((image, sums)) {}
  }

  /// The sizes of one convolution.
  fileprivate struct Geometry: Sendable {
    let batch, channels, height, width: Int
    let outputs, outHeight, outWidth: Int
    let kernel: [Int]
    var pixels: Int { height * width }
    var positions: Int { outHeight * outWidth }

    init(_ op: Conv2D, image: [Int], weight: [Int], result: [Int]) {
      let first = op.layout == .first
      batch = image[0]
      channels = image[first ? 1 : 3]
      height = image[first ? 2 : 1]
      width = image[first ? 3 : 2]
      outputs = weight[0]
      outHeight = result[first ? 2 : 1]
      outWidth = result[first ? 3 : 2]
      kernel = [weight[2], weight[3]]
    }
  }

  /// As products of the weights of a group with the unrolled windows `[C/groups * kh * kw, OH * OW]` of an image.
  private func general<R: Real>(
    _ x: UnsafePointer<R>, _ w: UnsafePointer<R>, _ shape: Geometry, into y: UnsafeMutablePointer<R>
  ) {
    let channels = shape.channels / groups
    let outputs = shape.outputs / groups
    let depth = channels * shape.kernel[0] * shape.kernel[1]
    let pointwise = shape.kernel == [1, 1] && strides == [1, 1] && padding == [0, 0, 0, 0]
    let columns = Scratch<R>(pointwise ? 0 : depth * shape.positions)
    for image in 0..<shape.batch {
      for group in 0..<groups {
        let source = x + (image * shape.channels + group * channels) * shape.pixels
        if !pointwise { unroll(source, channels: channels, shape, into: columns.data) }
        R.multiply(
          MatrixProduct(rows: outputs, columns: shape.positions, depth: depth), w + group * outputs * depth,
          pointwise ? source : UnsafePointer(columns.data),
          into: y + (image * shape.outputs + group * outputs) * shape.positions)
      }
    }
  }

  private func unroll<R: Real>(
    _ x: UnsafePointer<R>, channels: Int, _ shape: Geometry, into columns: UnsafeMutablePointer<R>
  ) {
    nonisolated(unsafe) let (x, columns) = (x, columns)
    let taps = shape.kernel[0] * shape.kernel[1]
    parallelFor(channels * taps, grain: max(1, 65536 / shape.positions)) { range in
      for row in range {
        let (channel, tap) = row.quotientAndRemainder(dividingBy: taps)
        let (u, v) = tap.quotientAndRemainder(dividingBy: shape.kernel[1])
        let source = x + channel * shape.pixels
        for i in 0..<shape.outHeight {
          let target = columns + row * shape.positions + i * shape.outWidth
          let line = i * strides[0] + u * dilations[0] - padding[0]
          guard line >= 0, line < shape.height else {
            target.update(repeating: 0, count: shape.outWidth)
            continue
          }
          let offset = v * dilations[1] - padding[1]
          let inside = places(stride: strides[1], offset: offset, size: shape.width, count: shape.outWidth)
          target.update(repeating: 0, count: inside.lowerBound)
          for j in inside { target[j] = source[line * shape.width + j * strides[1] + offset] }
          (target + inside.upperBound).update(repeating: 0, count: shape.outWidth - inside.upperBound)
        }
      }
    }
  }

  /// With one input channel per group: each tap adds a scaled, shifted image.
  private func depthwise<R: Real>(
    _ x: UnsafePointer<R>, _ w: UnsafePointer<R>, _ shape: Geometry, into y: UnsafeMutablePointer<R>
  ) {
    nonisolated(unsafe) let (x, w, y) = (x, w, y)
    let perChannel = shape.outputs / shape.channels
    let taps = shape.kernel[0] * shape.kernel[1]
    parallelFor(shape.batch * shape.outputs, grain: max(1, 65536 / (shape.positions * taps))) { range in
      for plane in range {
        let (image, output) = plane.quotientAndRemainder(dividingBy: shape.outputs)
        let source = x + (image * shape.channels + output / perChannel) * shape.pixels
        let target = y + plane * shape.positions
        target.update(repeating: 0, count: shape.positions)
        for i in 0..<shape.outHeight {
          for tap in 0..<taps {
            let (u, v) = tap.quotientAndRemainder(dividingBy: shape.kernel[1])
            let line = i * strides[0] + u * dilations[0] - padding[0]
            guard line >= 0, line < shape.height else { continue }
            let weight = w[output * taps + tap]
            let offset = v * dilations[1] - padding[1]
            let row = target + i * shape.outWidth
            let pixels = source + line * shape.width
            for j in places(stride: strides[1], offset: offset, size: shape.width, count: shape.outWidth) {
              row[j] += weight * pixels[j * strides[1] + offset]
            }
          }
        }
      }
    }
  }
}

/// The `j` in `0..<count` for which `j * stride + offset` lies in `0..<size`.
func places(stride: Int, offset: Int, size: Int, count: Int) -> Range<Int> {
  let first = offset >= 0 ? 0 : (-offset + stride - 1) / stride
  let end = size > offset ? (size - offset - 1) / stride + 1 : 0
  let low = min(first, count)
  return low..<max(low, min(end, count))
}

/// Turns each of `batch` row-major matrices.
func exchange<R: Real>(
  _ source: UnsafePointer<R>, into target: UnsafeMutablePointer<R>, batch: Int, rows: Int, columns: Int
) {
  let block = 16
  for matrix in 0..<batch {
    let a = source + matrix * rows * columns
    let b = target + matrix * rows * columns
    for top in stride(from: 0, to: rows, by: block) {
      for left in stride(from: 0, to: columns, by: block) {
        for i in top..<min(top + block, rows) {
          for j in left..<min(left + block, columns) { b[j * rows + i] = a[i * columns + j] }
        }
      }
    }
  }
}
