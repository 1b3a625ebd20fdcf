import IR
import Tensors

/// One specialised convolution of bytes with channels last, as tiles of pixels times output channels: the counterpart of
/// ``ConvConfig`` for ``QuantizedConv2D``.
///
/// A step of a tile (``ConvTiling``) reads `vectors` vectors of weights and, per pixel, four neighbouring input bytes, which are
/// multiplied with four codes of every channel (`ByteDot.unsignedActivations`); one byte of weights is read per tile and product.
/// Sums begin with what the zero point of the input adds too much.
package struct QuantizedConvConfig: Hashable, Codable, Sendable {
  package var tiling: ConvTiling
  var requantization: Requantization

  /// Whether the bytes under a line of the window are contiguous, and no tap fills its steps.
  static func isMerged(_ geometry: ConvGeometry, groups: Int) -> Bool {
    groups == 1 && geometry.dilations[1] == 1 && geometry.channels % 4 != 0 && geometry.kernel[1] > 1
  }

  /// Whether the kernel computes the convolution: padding must be bytes of 0, and no window may begin inside of a step.
  static func isPossible(_ geometry: ConvGeometry, groups: Int, zeroPoint: Int) -> Bool {
    geometry.padding == [0, 0, 0, 0] || (zeroPoint == 0 && !isMerged(geometry, groups: groups))
  }

  /// The order of the weights.
  package func order(target: Target) -> QuantizedConvOrder {
    QuantizedConvOrder(
      rows: tiling.outputs, groups: tiling.groups, channels: tiling.groupChannels, kernel: tiling.geometry.kernel,
      merged: Self.isMerged(tiling.geometry, groups: tiling.groups), panel: tiling.panelOutputs(target: target))
  }

  /// `mcc_qconv2d_3x3p1_56x56x64_64_bias_relu_u8_14x32_1a2b3c_avx512`: window, image, output channels, epilogue, tile, a hash
  /// of everything.
  package func name(target: Target) -> String {
    let tile = "\(tiling.pixels)x\(tiling.panelOutputs(target: target))"
    return (["mcc_qconv2d"] + tiling.words + requantization.words + [tile, shortHash("\(self)"), target.suffix])
      .joined(separator: "_")
  }

  /// Estimated cycles of the arithmetic of a call (on one image, for a batch of run time); what the tile is chosen by.
  func cycles(target: Target) -> Double {
    let order = order(target: target)
    // What is done once per tile: the way from sums to codes.
    return tiling.cycles(steps: order.runs * order.runSteps, panelBytes: order.panelBytes, target: target) { sums in
      6 * Double(sums) + 10
    }
  }

  /// The tiles worth trying for a convolution, best first, one for each number of vectors.
  static func candidates(
    _ geometry: ConvGeometry, outputs: Int, groups: Int, requantization: Requantization, target: Target
  ) -> [QuantizedConvConfig] {
    ConvTiling.candidates(
      geometry, outputs: outputs, groups: groups, vectors: [1, 2, 3, 4], elementBytes: 1,
      stripBytes: target.cacheBytes.level2 / 2, target: target
    ) { QuantizedConvConfig(tiling: $0, requantization: requantization).cycles(target: target) }
    .map { QuantizedConvConfig(tiling: $0, requantization: requantization) }
  }

  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share the pairs of a panel and a line.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = tiling.geometry, order = self.order(target: target)
    k.comment = [
      "y[\(g.batch.text), \(g.outHeight), \(g.outWidth), \(tiling.outputs)] = epilogue(conv2d(x: u8[\(g.batch.text), "
        + "\(g.height), \(g.width), \(g.channels)])), window \(g.kernel[0]) x \(g.kernel[1]), \(tiling.groups) groups.",
      "w: \(order.groups * order.panelsPerGroup) panels of \(order.panel) output channels, \(order.panelBytes) bytes each: "
        + "f32 factors, i32 starts, numbers of the layer, i8 codes",
    ]
    let epilogue = requantization.epilogue
    let x = k.input("x", .u8)
    let w = k.input("w", .u8)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", requantization.residualType) : nil
    let y = k.output("y", requantization.resultType)
    tiling.forEachPanelLine(in: k) { panel, line in
      let factors = order.panel(panel.number, of: w, in: k)
      let words = k.pointer("words", factors, offset: 0, as: .i32)
      panel.forEachTile(of: line) { places in
        let sums = sums(of: x, places, panel, words, order, in: k)
        panel.store(sums, places, to: y) { v, tail in
          let added = bias.map { $0.load(panel.output + .integer(v * k.lanes), count: tail) }
          let channels = requantization.channels(
            factors.load(.integer(v * k.lanes)), bias: added, order.numbers(behind: factors, in: k), in: k)
          return { sum, place in
            requantization.result(sum, channels, residual: residual.map { $0.load(place, count: tail) }, in: k)
          }
        }
      }
    }
    return k.finish()
  }

  /// The sums of a tile, by places and vectors.
  private func sums(
    of x: Pointer, _ places: ConvPlaces, _ panel: ConvPanel, _ words: Pointer, _ order: QuantizedConvOrder,
    in k: KernelBuilder
  ) -> [[Expression]] {
    let g = tiling.geometry, vectors = tiling.vectors
    let starts = (0..<vectors).map { v in k.define("start", words.load(.integer(order.panel + v * k.lanes))) }
    let sums = (0..<places.run.count).map { q in (0..<vectors).map { v in k.variable("s\(q)_\(v)", starts[v]) } }
    let step = g.strides[1] * g.channels
    let weights = ConvPanel.Weights(
      start: words, header: order.headerWords, stride: order.runSteps * order.panel, merged: order.merged,
      contiguous: g.dilations[1] == 1 && tiling.groups == 1 && g.channels % 4 == 0)
    panel.forEachRun(of: x, places, weights) { values, codes, _, bytes, seeing in
      let whole = bytes / 4, rest = bytes % 4
      func multiply(_ index: Expression, _ four: (Int) -> Expression) {
        let loaded = (0..<vectors).map { v in
          k.define("w\(v)", codes.load((index * .integer(vectors) + .integer(v)) * .integer(k.lanes)))
        }
        for q in seeing {
          let a = k.define("a", .broadcast(four(q - seeing.lowerBound)))
          for v in 0..<vectors { k.assign(sums[q][v], .dotStep(.unsignedActivations, sums[q][v], loaded[v], a)) }
        }
      }
      if whole > 0 {
        let fours = step % 4 == 0 ? k.pointer("x4", values, offset: 0, as: .i32) : nil
        let pointers = seeing.map { q -> Pointer in
          fours ?? k.pointer("x4", values, offset: .integer((q - seeing.lowerBound) * step), as: .i32)
        }
        k.loop("c", to: .integer(whole)) { c in
          multiply(c) { q in fours.map { $0[c + .integer(q * step / 4)] } ?? pointers[q][c] }
        }
      }
      if rest > 0 {
        multiply(.integer(whole)) { q in
          let parts = (0..<rest).map { byte in
            Expression.convert(values[.integer(q * step + 4 * whole + byte)], .i32) << (8 * byte)
          }
          return parts.dropFirst().reduce(parts[0]) { $0 | $1 }
        }
      }
    }
    return sums
  }
}
