import Base
import Tensors

/// An image of another size: each place of the result takes the nearest pixel, or the mean of the four around it weighted by
/// their distance (bilinear).
///
/// Input `x[N, C, H, W]` (layout `first`) or `[N, H, W, C]` (`last`), result of the same layout with `height` and `width`. Along an
/// axis, place i of the result stands at the place of the image that `coordinates` says, computed in f32 as ONNX's Resize
/// does.
package struct Resize2D: Operator {
  package static let name = "resize2d"

  package enum Mode: String, Hashable, Codable, Sendable {
    case nearest, linear
  }

  /// Where place i of a result of size n over an image of size m stands, with scale s = n / m unless given.
  package enum Coordinates: String, Hashable, Codable, Sendable {
    /// (i + 1/2) / s - 1/2
    case halfPixel = "half_pixel"
    /// The same, but 0 if n is 1.
    case pytorchHalfPixel = "pytorch_half_pixel"
    /// i (m - 1) / (n - 1)
    case alignCorners = "align_corners"
    /// i / s
    case asymmetric
  }

  /// What nearest means.
  package enum Rounding: String, Hashable, Codable, Sendable {
    case floor, ceil
    /// To the nearest; of two at the same distance the lower, or the upper.
    case preferFloor = "prefer_floor"
    case preferCeil = "prefer_ceil"
  }

  package var height: Int = 1
  package var width: Int = 1
  /// Places of the result for one of the image.
  @Exact package var heightScale: Float = 1
  @Exact package var widthScale: Float = 1
  package var mode: Mode = .nearest
  package var coordinates: Coordinates = .halfPixel
  package var rounding: Rounding = .preferFloor
  package var layout: ImageLayout = .first

  package init() {}

  package init(
    height: Int, width: Int, scales: [Float], mode: Mode, coordinates: Coordinates = .halfPixel,
    rounding: Rounding = .preferFloor, layout: ImageLayout = .first
  ) {
    self.height = height
    self.width = width
    self.heightScale = scales[0]
    self.widthScale = scales[1]
    self.mode = mode
    self.coordinates = coordinates
    self.rounding = rounding
    self.layout = layout
  }

  package func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    let x = inputs[0]
    try expectFloat(x, "image")
    try expectRank(x, 4...4, "image")
    try expectList([height, width], count: 2, minimum: 1, "height and width")
    let image = layout.split(x.shape)
    for (size, scale) in [(image.height, heightScale), (image.width, widthScale)] {
      let count = try expectFixed(size, "size")
      guard count >= 1, count <= 1 << 24 else {
        throw failure("found an image of size \(count), expected 1 to \(1 << 24)")
      }
      guard scale.isFinite, scale > 0, scale >= 1e-6 else {
        throw failure("found the scale \(scale), expected a positive number")
      }
    }
    guard height <= 1 << 24, width <= 1 << 24 else { throw failure("a result of \(height) x \(width) is too large") }
    return [
      x.with(
        shape: layout.shape(
          batch: image.batch, channels: image.channels, height: .fixed(height), width: .fixed(width)))
    ]
  }
}

extension Resize2D: NumericOperator {
  func compute<R: Real>(_ inputs: [Numbers<R>], into results: [Results<R>]) throws {
    let (x, y) = (inputs[0], results[0])
    let first = layout == .first
    let outer = first ? x.sizes[0] * x.sizes[1] : x.sizes[0], inner = first ? 1 : x.sizes[3]
    let (rows, columns) = first ? (x.sizes[2], x.sizes[3]) : (x.sizes[1], x.sizes[2])
    let lines = places(heightScale, of: rows, to: height), points = places(widthScale, of: columns, to: width)
    nonisolated(unsafe) let (source, target) = (x.data, y.data)
    parallelFor(outer * height, grain: max(1, 65536 / max(width * inner, 1))) { range in
      for index in range {
        let (image, i) = index.quotientAndRemainder(dividingBy: height)
        let line = lines[i]
        let low = source + (image * rows + line.low) * columns * inner
        let high = source + (image * rows + line.high) * columns * inner
        for j in 0..<width {
          let point = points[j]
          let result = target + (index * width + j) * inner
          for c in 0..<inner {
            guard mode == .linear else {
              result[c] = low[point.low * inner + c]
              continue
            }
            let a = Double(low[point.low * inner + c]), b = Double(low[point.high * inner + c])
            let d = Double(high[point.low * inner + c]), e = Double(high[point.high * inner + c])
            let (s, t) = (Double(point.part), Double(line.part))
            result[c] = R(rounding: (a * (1 - s) + b * s) * (1 - t) + (d * (1 - s) + e * s) * t)
          }
        }
      }
    }
  }

  /// For each place of the result along an axis the pixels below and above it and how far it is from the lower one.
  private func places(_ scale: Float, of size: Int, to count: Int) -> [(low: Int, high: Int, part: Float)] {
    (0..<count).map { index in
      let i = Float(index)
      let place: Float =
        switch coordinates {
        case .halfPixel: (i + 0.5) / scale - 0.5
        case .pytorchHalfPixel: count == 1 ? 0 : (i + 0.5) / scale - 0.5
        case .alignCorners: count == 1 ? 0 : i * Float(size - 1) / Float(count - 1)
        case .asymmetric: i / scale
        }
      let last = Float(size - 1)
      guard mode == .linear else {
        let nearest: Float =
          switch rounding {
          case .floor: place.rounded(.down)
          case .ceil: place.rounded(.up)
          case .preferFloor: (place - 0.5).rounded(.up)
          case .preferCeil: (place + 0.5).rounded(.down)
          }
        let pixel = Int(max(0, min(nearest, last)))
        return (pixel, pixel, 0)
      }
      let inside = max(0, min(place, last))
      let low = Int(inside.rounded(.down))
      return (low, min(low + 1, size - 1), inside - Float(low))
    }
  }
}
