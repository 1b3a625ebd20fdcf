import IR
import Tensors

/// One specialised convolution of bytes with channels last in which every channel is a group of its own: the counterpart of
/// ``DepthwiseConfig`` for ``QuantizedConv2D``.
///
/// Products and sums are whole numbers below 2^24 and computed exactly in f32. A tile is `pixels` places and one vector of
/// channels; a line of the window reads its weights and each column of the image once for all places.
package struct QuantizedDepthwiseConfig: Hashable, Codable, Sendable {
  package var geometry: ConvGeometry
  var requantization: Requantization
  /// Places of the window computed at a time.
  package var pixels: Int

  init(geometry: ConvGeometry, requantization: Requantization, target: Target) {
    self.geometry = geometry
    self.requantization = requantization
    pixels = geometry.depthwisePixels(target: target)
  }

  /// The most taps whose sums are exact: 255 * 127 times as many stay below 2^24.
  static let mostTaps = 512

  /// The order of the weights: panels of one vector of channels, of the widest level where there are several.
  package func order(target: Target) -> QuantizedConvOrder {
    QuantizedConvOrder(
      rows: geometry.channels, groups: 1, channels: 1, kernel: geometry.kernel, merged: false, isDepthwise: true,
      panel: target.panelLanes)
  }

  /// `mcc_qdepthwise_3x3s2p1_56x56x64_bias_relu6_u8_14_1a2b3c_avx512`.
  package func name(target: Target) -> String {
    let parts =
      ["mcc_qdepthwise", geometry.text] + requantization.words + ["\(pixels)", shortHash("\(self)"), target.suffix]
    return parts.joined(separator: "_")
  }

  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share lines and channels.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = geometry, epilogue = requantization.epilogue
    k.comment = [
      "y[\(g.batch.text), \(g.outHeight), \(g.outWidth), \(g.channels)] = epilogue(depthwise convolution of "
        + "x: u8[\(g.batch.text), \(g.height), \(g.width), \(g.channels)]), window \(g.kernel[0]) x \(g.kernel[1])."
    ]
    let x = k.input("x", .u8)
    let w = k.input("w", .u8)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", requantization.residualType) : nil
    let y = k.output("y", requantization.resultType)
    let order = self.order(target: target)
    g.forEachChannelTile(in: k, pixels: pixels) { tile in
      let within: Expression = order.panel == k.lanes ? 0 : tile.channel % .integer(order.panel)
      let panel = tile.channel / .integer(order.panel)
      let factors = order.panel(panel, of: w, first: within, in: k)
      let codes = k.pointer("codes", factors, offset: .integer(order.headerWords))
      let start = k.define("start", factors.load(.integer(order.panel)))
      tile.prefetchNextLine(of: x, in: k)
      let sums = (0..<tile.run.count).map { k.variable("s\($0)", start) }
      tile.forEachProduct(of: x, weights: codes, lanes: order.panel, in: k) { place, value, weight in
        k.assign(sums[place], .multiplyAdd(value.asFloat, weight, sums[place]))
      }
      let channels = requantization.channels(
        factors.load(0), bias: bias.map { $0.load(tile.channel, count: tile.tail) },
        order.numbers(behind: factors, first: within, in: k), in: k)
      tile.forEachResult(in: k) { place, index in
        let value = requantization.result(
          sums[place], channels, residual: residual.map { $0.load(index, count: tile.tail) }, in: k)
        k.store(y, index, value, count: tile.tail)
      }
    }
    return k.finish()
  }
}
