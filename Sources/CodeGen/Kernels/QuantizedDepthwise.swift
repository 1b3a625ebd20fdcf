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
    let most = target.vectorRegisters - 2 - min(geometry.kernel[1], target.vectorRegisters / 2)
    pixels = geometry.channelTilePixels(most: min(most, 16))
  }

  /// The most taps whose sums are exact: 255 * 127 times as many stay below 2^24.
  static let mostTaps = 512

  /// The layout of the weights: panels of one vector of channels.
  package func layout(target: Target) -> QuantizedConvLayout {
    QuantizedConvLayout(
      rows: geometry.channels, groups: 1, channels: 1, kernel: geometry.kernel, merged: false, isDepthwise: true,
      panel: target.lanes)
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
    let panelBytes = layout(target: target).panelBytes
    let zero = requantization.input.zeroPoint
    g.forEachChannelTile(in: k, pixels: pixels) { tile in
      let panel = k.pointer(
        "wp", w, offset: tile.channel / .integer(k.lanes) * .integer(panelBytes), as: .f32)
      let codes = k.pointer("codes", panel, offset: .integer(2 * k.lanes))
      var start: Expression = .broadcast(.real(0))
      if zero != 0 {
        let sums = k.pointer("code_sums", panel, offset: .integer(k.lanes), as: .i32)
        start = k.define("start", (sums.load(0) * .integer(-zero)).asFloat)
      }
      tile.prefetchNextLine(of: x, in: k)
      let sums = (0..<tile.run.count).map { k.variable("s\($0)", start) }
      var line: [Int: Expression] = [:]
      tile.forEachTap(
        of: x, in: k,
        prepare: { u in
          guard g.kernel[1] <= 16 else { return }
          for v in tile.run.groups.flatMap(\.taps) {
            line[v] = k.define("w\(v)", codes.load((u * .integer(g.kernel[1]) + .integer(v)) * .integer(k.lanes)))
          }
        }
      ) { u, v, place, value in
        let weight =
          v.constant.flatMap { line[$0] } ?? codes.load((u * .integer(g.kernel[1]) + v) * .integer(k.lanes))
        k.assign(sums[place], .multiplyAdd(value.asFloat, weight, sums[place]))
      }
      let channels = requantization.channels(
        panel.load(0), bias: bias.map { $0.load(tile.channel, count: tile.tail) }, in: k)
      tile.forEachResult(in: k) { place, index in
        let value = requantization.result(
          sums[place], channels, residual: residual.map { $0.load(index, count: tile.tail) }, in: k)
        k.store(y, index, value, count: tile.tail)
      }
    }
    return k.finish()
  }
}
