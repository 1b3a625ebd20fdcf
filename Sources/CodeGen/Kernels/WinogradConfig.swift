import IR
import Tensors

/// One specialised 3 x 3 convolution of images with channels last, strides and dilations 1, by F(m x m, 3 x 3): tiles of the
/// image are transformed, multiplied with transformed weights and transformed back.
///
/// A block of tiles is transformed into `[(m + 2)^2][tiles][C]`; for a panel of output channels there follow (m + 2)^2
/// matrix products, `[tiles][C]` times `[C][panel]`, in register tiles of `pixels` x `vectors`, and the transform of their
/// sums with the epilogue. All of it stays in the caches of one core; weights lie as `[panel][(m + 2)^2][C][panel]`.
///
/// In f32 results differ from those of the sums in order by less than 1e-4 of the largest, mostly by 1e-6 (m = 2) and 1e-5
/// (m = 4).
package struct WinogradConfig: Hashable, Codable, Sendable {
  package var geometry: ConvGeometry
  /// Output channels.
  package var outputs: Int
  package var epilogue: Epilogue
  /// Places of a tile of the result along an axis: 2 or 4.
  package var tile: Int
  /// Tiles of the image that are transformed at a time.
  package var block: Int
  /// Tiles and vectors of output channels whose sums are in registers.
  package var pixels: Int
  package var vectors: Int

  package init(
    geometry: ConvGeometry, outputs: Int, epilogue: Epilogue = .identity, tile: Int, block: Int, pixels: Int,
    vectors: Int
  ) {
    self.geometry = geometry
    self.outputs = outputs
    self.epilogue = epilogue
    self.tile = tile
    self.block = block
    self.pixels = pixels
    self.vectors = vectors
  }

  /// Pixels under a tile along an axis, and matrix products.
  var size: Int { tile + 2 }
  var products: Int { size * size }

  /// Tiles of an image along its axes.
  var tileRows: Int { (geometry.outHeight + tile - 1) / tile }
  var tileColumns: Int { (geometry.outWidth + tile - 1) / tile }
  var tiles: Int { tileRows * tileColumns }
  var blocks: Int { (tiles + block - 1) / block }

  /// Tiles of the last block.
  var lastBlock: Int { tiles - (blocks - 1) * block }

  func panelOutputs(target: Target) -> Int { vectors * target.lanes }
  func panels(target: Target) -> Int {
    (outputs + panelOutputs(target: target) - 1) / panelOutputs(target: target)
  }

  /// Channels of a transformed tile: whole vectors.
  func channelStride(target: Target) -> Int { geometry.channels.aligned(to: target.lanes) }

  /// Numbers from one product's transformed tiles to the next one's: no multiple of a page, so that stores of one tile do not
  /// compete for the same lines of a cache.
  func planeStride(target: Target) -> Int {
    let plane = block * channelStride(target: target)
    return plane % 512 < 32 || plane % 512 > 480 ? plane + 32 : plane
  }

  /// Bytes of transformed tiles and of the sums of a panel.
  func scratchBytes(target: Target) -> Int {
    4 * products * (planeStride(target: target) + block * panelOutputs(target: target))
  }

  /// The layout of the weights.
  package func layout(target: Target) -> WinogradLayout {
    WinogradLayout(
      rows: outputs, channels: geometry.channels, tile: tile, panel: panelOutputs(target: target))
  }

  /// `mcc_winograd4_3x3p1_56x56x64_64_bias_relu_14x32_1a2b3c_avx512`.
  package func name(target: Target) -> String {
    var parts = ["mcc_winograd\(tile)", geometry.text, "\(outputs)"] + epilogue.words
    parts += ["\(pixels)x\(panelOutputs(target: target))", shortHash("\(self)"), target.suffix]
    return parts.joined(separator: "_")
  }

  /// Estimated cycles of the arithmetic of a call (on one image, for a batch of run time).
  func cycles(target: Target) -> Double {
    func step(_ count: Int) -> Double { ConvTiling.stepCycles(pixels: count, vectors: vectors) }
    func rows(_ count: Int) -> Double {
      Double(count / pixels) * step(pixels) + (count % pixels > 0 ? step(count % pixels) : 0)
    }
    let perChannel = (Double(blocks - 1) * rows(block) + rows(lastBlock)) * Double(products * panels(target: target))
    // Transforms, with loads, stores and what does not fit into registers.
    let perVector = tile == 2 ? 60.0 : 200.0
    let vectorCount = (geometry.channels + outputs) / target.lanes + 2
    return
      (perChannel * Double(geometry.channels) + perVector * Double(tiles * vectorCount))
      * Double(geometry.batch.fixedValue ?? 1)
  }

  /// Candidates for a convolution, best first; empty where there is no such algorithm.
  static func candidates(
    _ geometry: ConvGeometry, outputs: Int, epilogue: Epilogue, target: Target
  ) -> [WinogradConfig] {
    guard geometry.kernel == [3, 3], geometry.strides == [1, 1], geometry.dilations == [1, 1],
      geometry.outHeight >= 2, geometry.outWidth >= 2, geometry.channels >= 8, outputs >= 8
    else { return [] }
    let block = target.vectorsPerPanelLanes
    let most = max((outputs + target.lanes - 1) / target.lanes, block)
    var found: [(config: WinogradConfig, cycles: Double)] = []
    for tile in [2, 4] {
      var forms: [(config: WinogradConfig, cycles: Double)] = []
      for vectors in [1, 2, 3, 4] where vectors <= most && vectors % block == 0 {
        let room = min((target.vectorRegisters - 1 - vectors) / vectors, 16)
        guard room >= 1 else { continue }
        var best: (config: WinogradConfig, cycles: Double)?
        for pixels in 1...room {
          var config = WinogradConfig(
            geometry: geometry, outputs: outputs, epilogue: epilogue, tile: tile, block: 1, pixels: pixels,
            vectors: vectors)
          config.block = config.largestBlock(target: target)
          let cycles = config.cycles(target: target)
          if config.scratchBytes(target: target) <= target.cacheBytes.level2, cycles < (best?.cycles ?? .infinity) {
            best = (config, cycles)
          }
        }
        if let best { forms.append(best) }
      }
      // With several levels only widths that all of them offer can be chosen.
      found += target.joint == nil ? forms.min { $0.cycles < $1.cycles }.map { [$0] } ?? [] : forms
    }
    return found.sorted { $0.cycles < $1.cycles }.map(\.config)
  }

  /// Tiles of equally long blocks, of which each leaves room for weights in the second-level cache.
  private func largestBlock(target: Target) -> Int {
    let perTile = 4 * products * (channelStride(target: target) + panelOutputs(target: target))
    let limit = max(1, target.cacheBytes.level2 * 5 / 8 / perTile)
    let blocks = (tiles + limit - 1) / limit
    return (tiles + blocks - 1) / blocks
  }
}
