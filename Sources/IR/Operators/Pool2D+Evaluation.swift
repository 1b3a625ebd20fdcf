import Tensors

extension MaxPool2D: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let windows = PoolWindows(
      layout, image: inputs[0].sizes, result: results[0].sizes, kernel: kernel, strides: strides, padding: padding,
      dilations: dilations)
    windows.run(inputs[0].data, results[0].data) { (pixels: UnsafePointer<R>, offsets: PoolWindows.Offsets) in
      var best = -R.infinity
      offsets.forEach { if pixels[$0] > best || pixels[$0].isNaN { best = pixels[$0] } }
      return best
    }
  }
}

extension AveragePool2D: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let windows = PoolWindows(
      layout, image: inputs[0].sizes, result: results[0].sizes, kernel: kernel, strides: strides, padding: padding,
      dilations: [1, 1])
    let whole = kernel[0] * kernel[1]
    windows.run(inputs[0].data, results[0].data) { (pixels: UnsafePointer<R>, offsets: PoolWindows.Offsets) in
      var sum = 0.0
      offsets.forEach { sum += Double(pixels[$0]) }
      return R(rounding: sum / Double(countIncludePad ? whole : offsets.count))
    }
  }
}

/// The windows of a pooling over images in either layout.
private struct PoolWindows: Sendable {
  /// The pixels under one window: lines and columns, as places in the image.
  struct Offsets {
    let lines, columns: Range<Int>
    let lineStride, columnStride, base: Int

    var count: Int { lines.count * columns.count }

    @inline(__always)
    func forEach(_ body: (Int) -> Void) {
      for u in lines { for v in columns { body(base + u * lineStride + v * columnStride) } }
    }
  }

  let batch, channels, height, width, outHeight, outWidth: Int
  let first: Bool
  let kernel, strides, padding, dilations: [Int]

  init(
    _ layout: ImageLayout, image: [Int], result: [Int], kernel: [Int], strides: [Int], padding: [Int], dilations: [Int]
  ) {
    first = layout == .first
    batch = image[0]
    channels = image[first ? 1 : 3]
    height = image[first ? 2 : 1]
    width = image[first ? 3 : 2]
    outHeight = result[first ? 2 : 1]
    outWidth = result[first ? 3 : 2]
    self.kernel = kernel
    self.strides = strides
    self.padding = padding
    self.dilations = dilations
  }

  func run<R: Real>(
    _ x: UnsafePointer<R>, _ y: UnsafeMutablePointer<R>, _ value: (UnsafePointer<R>, Offsets) -> R
  ) {
    let pixel = first ? 1 : channels
    let plane = first ? height * width : 1
    let outPlane = first ? outHeight * outWidth : 1
    for image in 0..<batch {
      for channel in 0..<channels {
        let source = x + image * channels * height * width + channel * plane
        let target = y + image * channels * outHeight * outWidth + channel * outPlane
        for i in 0..<outHeight {
          let top = i * strides[0] - padding[0]
          let lines = places(stride: dilations[0], offset: top, size: height, count: kernel[0])
          for j in 0..<outWidth {
            let left = j * strides[1] - padding[1]
            let columns = places(stride: dilations[1], offset: left, size: width, count: kernel[1])
            let offsets = Offsets(
              lines: lines, columns: columns, lineStride: dilations[0] * width * pixel,
              columnStride: dilations[1] * pixel, base: (top * width + left) * pixel)
            target[(i * outWidth + j) * pixel] = value(source, offsets)
          }
        }
      }
    }
  }
}
