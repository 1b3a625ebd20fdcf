/// What a window over images sees at places of its result, as rows: channel by channel, the taps of each line by line,
/// 0 outside of the image (im2col).
package struct WindowRows: Sendable {
  /// Sizes of an image: channels, height, width; and from one channel, and from one pixel, to the next.
  package var channels, height, width: Int
  package var channelStep, pixelStep: Int
  /// Height and width of the window and of the results, and of the window's steps; zeros at the top and on the left.
  package var kernel, results, strides, padding, dilations: (height: Int, width: Int)

  package init(
    channels: Int, height: Int, width: Int, channelsFirst: Bool, kernel: (height: Int, width: Int),
    results: (height: Int, width: Int), strides: (height: Int, width: Int), padding: (height: Int, width: Int),
    dilations: (height: Int, width: Int)
  ) {
    (self.channels, self.height, self.width) = (channels, height, width)
    (channelStep, pixelStep) = channelsFirst ? (height * width, 1) : (1, channels)
    (self.kernel, self.results, self.strides) = (kernel, results, strides)
    (self.padding, self.dilations) = (padding, dilations)
  }

  /// The places of the results of `images` images, or about `limit` of them, evenly spread.
  package func places(images: Int, limit: Int) -> [Int] {
    let count = images * results.height * results.width
    let step = max(1, (count + limit - 1) / max(1, limit))
    return Array(stride(from: 0, to: count, by: step))
  }

  /// Writes a row for each place, with some channels.
  package func gather(
    _ images: UnsafePointer<Float>, places: [Int], channels range: Range<Int>, into rows: UnsafeMutablePointer<Float>
  ) {
    var target = rows
    let positions = results.height * results.width
    for place in places {
      let (image, position) = place.quotientAndRemainder(dividingBy: positions)
      let (i, j) = position.quotientAndRemainder(dividingBy: results.width)
      let base = images + image * channels * height * width
      for channel in range {
        for u in 0..<kernel.height {
          let line = i * strides.height + u * dilations.height - padding.height
          for v in 0..<kernel.width {
            let column = j * strides.width + v * dilations.width - padding.width
            let isInside = line >= 0 && line < height && column >= 0 && column < width
            target.pointee =
              isInside ? base[channel * channelStep + (line * width + column) * pixelStep] : 0
            target += 1
          }
        }
      }
    }
  }
}
