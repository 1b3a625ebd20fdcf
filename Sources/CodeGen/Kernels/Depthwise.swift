import IR
import Tensors

/// One specialised convolution of images with channels last in which every channel is a group of its own:
/// `y[n, i, j, c] = epilogue(sum over u, v of x[n, i s + u d - p, j s + v d - p, c] w[c, u, v])`.
///
/// A tile is `pixels` places and one vector of channels. A line of the window reads its weights and each column of the image
/// once for all places. Weights lie as `[C/lanes][kh][kw][lanes]`, with
/// the lanes of the widest level of the program.
package struct DepthwiseConfig: Hashable, Codable, Sendable {
  package var geometry: ConvGeometry
  package var epilogue: Epilogue
  /// Places of the window computed at a time.
  package var pixels: Int

  package init(geometry: ConvGeometry, epilogue: Epilogue = .identity, pixels: Int) {
    self.geometry = geometry
    self.epilogue = epilogue
    self.pixels = pixels
  }

  /// As many places as leave room for the weights of a line of the window in registers.
  init(geometry: ConvGeometry, epilogue: Epilogue, target: Target) {
    self.init(geometry: geometry, epilogue: epilogue, pixels: geometry.depthwisePixels(target: target))
  }

  /// The layout of the weights: panels of one vector of channels, of the widest level where there are several.
  package func layout(target: Target) -> ConvLayout {
    ConvLayout(
      rows: geometry.channels, groups: 1, channels: 1, taps: geometry.kernel[0] * geometry.kernel[1],
      panel: target.panelLanes)
  }

  /// `mcc_depthwise_3x3s2p1_56x56x64_bias_relu6_14_1a2b3c_avx512`.
  package func name(target: Target) -> String {
    let parts = ["mcc_depthwise", geometry.text] + epilogue.words + ["\(pixels)", shortHash("\(self)"), target.suffix]
    return parts.joined(separator: "_")
  }

  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share lines and channels.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = geometry
    k.comment = [
      "y[\(g.batch.text), \(g.outHeight), \(g.outWidth), \(g.channels)] = epilogue(depthwise convolution of "
        + "x[\(g.batch.text), \(g.height), \(g.width), \(g.channels)]), window \(g.kernel[0]) x \(g.kernel[1])."
    ]
    let x = k.input("x", .f32)
    let w = k.input("w", .f32)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let y = k.output("y", .f32)
    let taps = g.kernel[0] * g.kernel[1], lanes = target.panelLanes
    g.forEachChannelTile(in: k, pixels: pixels) { tile in
      // Panel number c / lanes begins at c / lanes * taps * lanes.
      let within = lanes == k.lanes ? .integer(0) : tile.channel % .integer(lanes)
      let weights = k.pointer("wp", w, offset: (tile.channel - within) * .integer(taps) + within)
      let start = bias.map { k.define("b", $0.load(tile.channel, count: tile.tail)) } ?? .broadcast(.real(0))
      tile.prefetchNextLine(of: x, in: k)
      let sums = (0..<tile.run.count).map { k.variable("s\($0)", start) }
      tile.forEachProduct(of: x, weights: weights, lanes: lanes, in: k) { place, value, weight in
        k.assign(sums[place], .multiplyAdd(value, weight, sums[place]))
      }
      tile.forEachResult(in: k) { place, index in
        let other = residual.map { $0.load(index, count: tile.tail) }
        k.store(y, index, epilogue.result(sums[place], residual: other, in: k), count: tile.tail)
      }
    }
    return k.finish()
  }
}

/// Depthwise convolutions of images with channels last.
package enum DepthwiseKernel: Kernel {
  package static let name = "depthwise"
  package static let summary = "f32 convolutions with channels last in which every channel is a group of its own"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Conv2D, let shape = ConvShape(op, query), shape.isDepthwise else { return [] }
    let config = DepthwiseConfig(geometry: shape.geometry, epilogue: op.epilogue, target: target)
    let layout = config.layout(target: target).packed
    // Bound by loads, of which two go with one product; for all images of the batch that is fixed.
    let images = shape.geometry.batch.fixedValue ?? 1
    let products =
      images * shape.geometry.outHeight * shape.geometry.outWidth * shape.outputs
      * shape.geometry.kernel[0] * shape.geometry.kernel[1]
    return [
      shape.choice(
        name: config.name(target: target), query: query, cycles: Double(products) / Double(target.lanes),
        target: target,
        layout: layout
      ) { config.build(target: target) }
    ]
  }
}
