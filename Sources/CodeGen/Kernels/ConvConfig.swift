import IR
import Tensors

/// One specialised convolution of images with channels last, as tiles of pixels times output channels:
/// `y[n, i, j, o] = epilogue(sum over u, v, c of x[n, i s + u d - p, j s + v d - p, c] w[o, c, u, v])`.
///
/// For every input value under the window a tile (``ConvTiling``) reads `vectors` vectors of weights and one number per pixel.
/// The weights of a panel lie as `[kh][kw][C/groups][vectors * lanes]`, so 4 bytes of weights are read per tile and product.
package struct ConvConfig: Hashable, Codable, Sendable {
  package var tiling: ConvTiling
  package var epilogue: Epilogue

  /// Input values under a window that one output channel sees.
  var depth: Int { tiling.geometry.kernel[0] * tiling.geometry.kernel[1] * tiling.groupChannels }

  /// The layout of the weights; its panels are whole groups where there are several, as these begin a new panel.
  package func layout(target: Target) -> ConvLayout {
    ConvLayout(
      rows: tiling.outputs, groups: tiling.groups, channels: tiling.groupChannels,
      taps: tiling.geometry.kernel[0] * tiling.geometry.kernel[1], panel: tiling.panelOutputs(target: target))
  }

  /// `mcc_conv2d_3x3p1_56x56x64_64_bias_relu_14x32_1a2b3c_avx512`: window, image, output channels, epilogue, tile, a hash of
  /// everything.
  package func name(target: Target) -> String {
    let tile = "\(tiling.pixels)x\(tiling.panelOutputs(target: target))"
    return (["mcc_conv2d"] + tiling.words + epilogue.words + [tile, shortHash("\(self)"), target.suffix])
      .joined(separator: "_")
  }

  /// Estimated cycles of the arithmetic of a call (on one image, for a batch of run time); what the tile is chosen by.
  func cycles(target: Target) -> Double {
    tiling.cycles(steps: depth, panelBytes: 4 * depth * tiling.panelOutputs(target: target), target: target)
  }

  /// The tiles worth trying for a convolution, best first, one for each number of vectors.
  static func candidates(
    _ geometry: ConvGeometry, outputs: Int, groups: Int, epilogue: Epilogue, target: Target
  ) -> [ConvConfig] {
    ConvTiling.candidates(
      geometry, outputs: outputs, groups: groups, vectors: [1, 2, 3, 4, 6, 8], elementBytes: 4,
      stripBytes: target.cacheBytes.level2 / 4, target: target
    ) { ConvConfig(tiling: $0, epilogue: epilogue).cycles(target: target) }
    .map { ConvConfig(tiling: $0, epilogue: epilogue) }
  }
}

extension Epilogue {
  /// The parts of a kernel's name, in the order in which they are applied.
  var words: [String] {
    var words: [String] = []
    if bias { words.append("bias") }
    if residual == .beforeActivation { words.append("residual") }
    if activation != .none { words.append(activation.rawValue) }
    if residual == .afterActivation { words.append("residual") }
    return words
  }

  /// The result of a sum of f32: with the bias, unless that is in it already, the residual and the activation.
  func result(_ sum: Expression, bias: Expression? = nil, residual: Expression?, in k: KernelBuilder) -> Expression {
    var value = sum
    if let bias { value = value + bias }
    if self.residual == .beforeActivation, let residual { value = value + residual }
    value = activation.function.render([k.define("s", value)], in: k)
    if self.residual == .afterActivation, let residual { value = value + residual }
    return value
  }
}
