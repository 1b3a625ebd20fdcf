import IR

extension ConvConfig {
  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share the pairs of a panel and a line; one output element is always computed by one thread in one order.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = tiling.geometry
    let image = "\(g.batch.text), \(g.height), \(g.width), \(g.channels)"
    let result = "\(g.batch.text), \(g.outHeight), \(g.outWidth), \(tiling.outputs)"
    let layout = self.layout(target: target)
    k.comment = [
      "y[\(result)] = epilogue(conv2d(x[\(image)])), window \(g.kernel[0]) x \(g.kernel[1]), \(tiling.groups) groups.",
      "w: \(tiling.groups * layout.panelsPerGroup) panels of \(layout.panel) output channels, \(layout.panelBytes) bytes each",
    ]
    let x = k.input("x", .f32)
    let w = k.input("w", .f32)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let y = k.output("y", .f32)
    tiling.forEachPanelLine(in: k) { panel, line in
      let weights = k.pointer("wp", w, offset: panel.number * .integer(depth * layout.panel))
      panel.forEachTile(of: line) { places in
        let sums = sums(of: x, places, panel, weights, in: k)
        panel.store(sums, places, to: y) { v, tail in
          let added = bias.map { k.define("b", $0.load(panel.output + .integer(v * k.lanes), count: tail)) }
          return { sum, place in
            epilogue.result(sum, bias: added, residual: residual.map { $0.load(place, count: tail) }, in: k)
          }
        }
      }
    }
    return k.finish()
  }

  /// The sums of a tile, by places and vectors.
  private func sums(
    of x: Pointer, _ places: ConvPlaces, _ panel: ConvPanel, _ weights: Pointer, in k: KernelBuilder
  ) -> [[Expression]] {
    let g = tiling.geometry, vectors = tiling.vectors, channels = tiling.groupChannels
    let sums = (0..<places.run.count).map { q in
      (0..<vectors).map { v in k.variable("s\(q)_\(v)", .broadcast(.real(0))) }
    }
    let step = g.strides[1] * g.channels
    let ahead = prefetched(places, weights, in: k)
    let below = below(target: k.target)
    let order = ConvPanel.Weights(
      start: weights, stride: channels * vectors * k.lanes, contiguous: g.dilations[1] == 1 && tiling.groups == 1)
    panel.forEachRun(of: x, places, order) { values, panel, tap, count, seeing in
      let first = tap * .integer(channels)
      k.loop("c", to: .integer(count)) { c in
        if let ahead { k.prefetch(ahead.pointer, (first + c) * .integer(ahead.step)) }
        // The pixels of the next tile follow those of this one.
        if tiling.isFlat {
          let pixels = places.run.count
          k.prefetch(values, c * .integer(pixels) + .integer(pixels * g.channels))
        }
        if let below { k.prefetch(values, c * .integer(below.step) + .integer(below.offset)) }
        let loaded = (0..<vectors).map { v in
          k.define("w\(v)", panel.load((c * .integer(vectors) + .integer(v)) * .integer(k.lanes)))
        }
        for q in seeing {
          let a = k.define("a", .broadcast(values[c + .integer((q - seeing.lowerBound) * step)]))
          for v in 0..<vectors { k.assign(sums[q][v], .multiplyAdd(a, loaded[v], sums[q][v])) }
        }
      }
    }
    return sums
  }

  /// How far below a place of the image a tile asks for cache lines, and how many numbers further with every input value: what
  /// the tile below sees comes nearer while this one is computed. Nil where images stay in the second cache.
  private func below(target: Target) -> (offset: Int, step: Int)? {
    let g = tiling.geometry
    let line = g.width * g.channels
    guard !tiling.isFlat, tiling.groups == 1, g.height * line * 4 > target.cacheBytes.level2 else { return nil }
    return (g.strides[0] * line, (tiling.pixels * g.strides[1] + g.kernel[1] - 1) / g.kernel[1])
  }

  /// Where in the weights of the next panel a tile asks for cache lines, and how many numbers further with every input value:
  /// all tiles of a strip together ask for the whole panel, so that it comes from memory while this one is used. Nil where a
  /// panel is used so often that it does not matter.
  private func prefetched(
    _ places: ConvPlaces, _ weights: Pointer, in k: KernelBuilder
  ) -> (pointer: Pointer, step: Int)? {
    let width = tiling.panelOutputs(target: k.target)
    let perLine = tiling.isFlat ? 1 : (tiling.geometry.outWidth + tiling.pixels - 1) / tiling.pixels
    let tiles = tiling.stripLines * perLine
    guard tiling.groups * tiling.panelsPerGroup(target: k.target) > 1, tiles <= width else { return nil }
    let step = (width + tiles - 1) / tiles
    let inStrip = places.line % .integer(tiling.stripLines)
    let tile = perLine == 1 ? inStrip : inStrip * .integer(perLine) + places.column / .integer(tiling.pixels)
    let offset = .integer(depth * width) + tile * .integer(depth * step)
    return (k.pointer("next", weights, offset: offset), step)
  }
}
