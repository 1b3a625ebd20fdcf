import IR
import Tensors

/// One specialised pooling of images with channels last: the largest or the mean number under a moving window, channel by
/// channel. A tile is `pixels` places and one vector of channels; a column of the image is read once for all places.
package struct PoolConfig: Hashable, Codable, Sendable {
  package enum Function: String, Hashable, Codable, Sendable {
    /// The largest; NaN if there is one.
    case max
    /// The sum divided by the number of pixels under the window.
    case average
    /// The sum divided by the size of the window.
    case averageOfWindow = "average_of_window"
  }

  package var function: Function
  package var geometry: ConvGeometry
  /// Places of the window computed at a time.
  package var pixels: Int
  /// The elements: f32, or u8 codes for the largest.
  package var element = ScalarType.f32

  package init(function: Function, geometry: ConvGeometry, pixels: Int) {
    self.function = function
    self.geometry = geometry
    self.pixels = pixels
  }

  init(function: Function, geometry: ConvGeometry, target: Target) {
    let most = min(target.vectorRegisters - 4, 16)
    self.init(function: function, geometry: geometry, pixels: geometry.channelTilePixels(most: most))
  }

  /// `mcc_pool_max_3x3s2p1_112x112x64_14_1a2b3c_avx512`.
  package func name(target: Target) -> String {
    "mcc_pool_\(function.rawValue)_\(element == .f32 ? "" : "\(element.rawValue)_")\(geometry.text)_\(pixels)_\(shortHash("\(self)"))_\(target.suffix)"
  }

  /// Parameters: x, y, then the batch if it is a run-time one. Threads share lines and channels.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = geometry
    k.comment = [
      "y[\(g.batch.text), \(g.outHeight), \(g.outWidth), \(g.channels)] = \(function.rawValue) of "
        + "x[\(g.batch.text), \(g.height), \(g.width), \(g.channels)] under a window of \(g.kernel[0]) x \(g.kernel[1])."
    ]
    let x = k.input("x", element)
    let y = k.output("y", element)
    g.forEachChannelTile(in: k, pixels: pixels) { tile in
      let isCode = element == .u8
      let initial: Expression = .broadcast(isCode ? .integer(0) : .real(function == .max ? -.infinity : 0))
      let folded = (0..<tile.run.count).map { k.variable("s\($0)", initial) }
      tile.forEachTap(of: x, in: k) { _, _, place, value in
        let old = folded[place]
        switch function {
        case .max where isCode: k.assign(old, .maximum(value, old))
        case .max: k.assign(old, .choose(value.isNotEqual(to: value), value, .maximum(value, old)))
        case .average, .averageOfWindow: k.assign(old, old + value)
        }
      }
      tile.forEachResult(in: k) { place, index in
        var value = folded[place]
        switch function {
        case .max: break
        case .averageOfWindow: value = value / .real(Float(g.kernel[0] * g.kernel[1]))
        case .average:
          let lines = tile.lines.end - tile.lines.first
          let count = k.define("count", (lines * .integer(tile.run.taps(at: place))).asFloat)
          value = value / count
        }
        k.store(y, index, value, count: tile.tail)
      }
    }
    return k.finish()
  }
}

/// Poolings of images with channels last.
package enum PoolKernel: Kernel {
  package static let name = "pool2d"
  package static let summary = "largest (also of u8) and mean of f32 images with channels last under a moving window"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard query.isPlain(), let x = query.operands.first?.type, x.rank == 4,
      x.element == .f32 || (x.element == .u8 && query.operation.op is MaxPool2D),
      let height = x.shape[1].fixedValue, let width = x.shape[2].fixedValue, let channels = x.shape[3].fixedValue
    else { return [] }
    var extents = ExtentTable()
    let batch = extents.extent(x.shape[0], "N")
    let function: PoolConfig.Function, geometry: ConvGeometry
    switch query.operation.op {
    case let op as MaxPool2D where op.layout == .last:
      function = .max
      geometry = ConvGeometry(
        batch: batch, height: height, width: width, channels: channels, kernel: op.kernel, strides: op.strides,
        padding: op.padding, dilations: op.dilations)
    case let op as AveragePool2D where op.layout == .last:
      function = op.countIncludePad ? .averageOfWindow : .average
      geometry = ConvGeometry(
        batch: batch, height: height, width: width, channels: channels, kernel: op.kernel, strides: op.strides,
        padding: op.padding)
    default: return []
    }
    var config = PoolConfig(function: function, geometry: geometry, target: target)
    if x.element == .u8 { config.element = .u8 }
    let results = Double(geometry.outHeight * geometry.outWidth * channels) * Double(x.shape[0].maximum)
    let taps = Double(geometry.kernel[0] * geometry.kernel[1])
    let work = KernelWork(floatOperations: 4 * results * taps, bytes: Double(x.maximumByteCount) + 4 * results)
    return [
      KernelChoice(
        config.build(target: target), work: work, target: target, pointers: [.input(0), .result(0)], extents: extents,
        layouts: query.unpacked)
    ]
  }
}
