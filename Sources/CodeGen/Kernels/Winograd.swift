import IR

extension WinogradConfig {
  /// Parameters: x, w, then bias and residual if the epilogue has them, y, then the batch if it is a run-time one. Threads
  /// share the pairs of a block and a panel; a thread transforms a block once for all of its panels.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let g = geometry
    k.comment = [
      "y[\(g.batch.text), \(g.outHeight), \(g.outWidth), \(outputs)] = epilogue(conv2d(x[\(g.batch.text), \(g.height), "
        + "\(g.width), \(g.channels)])), window 3 x 3, by F(\(tile) x \(tile), 3 x 3).",
      "w: \(panels(target: target)) panels of \(panelOutputs(target: target)) output channels, "
        + "\(layout(target: target).panelBytes) bytes each",
    ]
    let x = k.input("x", .f32)
    let w = k.input("w", .f32)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let y = k.output("y", .f32)
    let images = k.extent(g.batch)
    let panels = self.panels(target: target), width = panelOutputs(target: target)
    let tiles = k.array("tiles", .f32, count: products * planeStride(target: target))
    let sums = k.array("sums", .f32, count: products * block * width)
    let part = k.partition(images * .integer(blocks * panels))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let panel = panels == 1 ? Expression.integer(0) : k.define("panel", unit % .integer(panels))
      let number = k.define("block", unit / .integer(panels))
      let image = g.batch == .fixed(1) ? Expression.integer(0) : k.define("image", number / .integer(blocks))
      let first = k.define(
        "first_tile", (g.batch == .fixed(1) ? number : number % .integer(blocks)) * .integer(block))
      let count = k.define("count", .minimum(.integer(block), .integer(self.tiles) - first))
      let parts = WinogradParts(
        config: self, builder: k, x: x, bias: bias, residual: residual, y: y, tiles: tiles, sums: sums, image: image,
        first: first, count: count)
      if panels == 1 {
        parts.transformTiles()
      } else {
        k.condition(panel.isEqual(to: 0) | unit.isEqual(to: part.begin), then: parts.transformTiles)
      }
      let weights = k.pointer("wp", w, offset: panel * .integer(products * g.channels * width))
      if block == lastBlock || blocks == 1 {
        parts.multiply(weights, count: block)
      } else {
        k.condition(count.isEqual(to: .integer(block))) {
          parts.multiply(weights, count: block)
        } otherwise: {
          parts.multiply(weights, count: lastBlock)
        }
      }
      parts.finish(panel: panel)
    }
    return k.finish()
  }
}

/// The three steps of a block of tiles.
private struct WinogradParts {
  let config: WinogradConfig
  let builder: KernelBuilder
  let x: Pointer
  let bias: Pointer?
  let residual: Pointer?
  let y: Pointer
  let tiles: Pointer
  let sums: Pointer
  let image: Expression
  let first: Expression
  let count: Expression

  private var k: KernelBuilder { builder }
  private var g: ConvGeometry { config.geometry }
  private var size: Int { config.size }
  private var width: Int { config.panelOutputs(target: k.target) }

  /// The line and column of the tile that is `index` behind the first of the block.
  private func place(_ index: Expression) -> (row: Expression, column: Expression) {
    let tile = k.define("tile", first + index)
    return (
      k.define("row", tile / .integer(config.tileColumns)), k.define("column", tile % .integer(config.tileColumns))
    )
  }

  /// The pixels under the tiles, transformed.
  func transformTiles() {
    let stride = config.channelStride(target: k.target), plane = config.planeStride(target: k.target)
    let patch = k.array("patch", .f32, count: config.products * k.lanes)
    let matrix = WinogradTransform(tile: config.tile).input
    k.loop("t", to: count) { t in
      let (row, column) = place(t)
      let top = k.define("top", row * .integer(config.tile) - .integer(g.padding[0]))
      let left = k.define("left", column * .integer(config.tile) - .integer(g.padding[1]))
      let pixel = (image * .integer(g.height) + top) * .integer(g.width) + left
      func transform(_ from: Pointer, row: Int, column: Int, at c: Expression, offset: Expression, tail: Expression?) {
        let pixels = (0..<size).map { r in
          (0..<size).map { s in k.define("d", from.load(offset + .integer(r * row + s * column), count: tail)) }
        }
        let result = WinogradTransform.applyTwice(matrix, to: pixels, in: k)
        let target = k.pointer("target", tiles, offset: t * .integer(stride) + c)
        for r in 0..<size {
          for s in 0..<size { k.store(target, .integer((r * size + s) * plane), result[r][s]) }
        }
      }
      let isInside =
        (top >= 0) & (left >= 0)
        & ((top <= .integer(g.height - size)) & (left <= .integer(g.width - size)))
      k.condition(isInside) {
        let source = k.pointer("source", x, offset: pixel * .integer(g.channels))
        k.vectorLoop("c", count: .integer(g.channels)) { c, tail in
          transform(source, row: g.width * g.channels, column: g.channels, at: c, offset: c, tail: tail)
        }
      } otherwise: {
        k.vectorLoop("c", count: .integer(g.channels)) { c, tail in
          k.loop("r", to: .integer(size)) { r in
            k.loop("s", to: .integer(size)) { s in
              let line = k.define("line", top + r), place = k.define("place", left + s)
              let seen = (line >= 0) & (place >= 0) & ((line < .integer(g.height)) & (place < .integer(g.width)))
              let index = (r * .integer(size) + s) * .integer(k.lanes)
              k.condition(seen) {
                let from = ((image * .integer(g.height) + line) * .integer(g.width) + place) * .integer(g.channels) + c
                k.store(patch, index, x.load(from, count: tail))
              } otherwise: {
                k.store(patch, index, .broadcast(.real(0)))
              }
            }
          }
          transform(patch, row: size * k.lanes, column: k.lanes, at: c, offset: 0, tail: nil)
        }
      }
    }
  }

  /// The matrix products of `count` transformed tiles with the weights of a panel.
  func multiply(_ weights: Pointer, count: Int) {
    let stride = config.channelStride(target: k.target), plane = config.planeStride(target: k.target)
    let pixels = min(config.pixels, count), rest = count % pixels
    let steps = (count + pixels - 1) / pixels
    // The tiles of a product together ask for the weights of the next one.
    let ahead = (config.vectors + steps - 1) / steps * k.lanes
    k.loop("p", to: .integer(config.products)) { p in
      let panel = k.pointer("wt", weights, offset: p * .integer(g.channels * width))
      func emit(_ size: Int, at t: Expression, step: Expression) {
        let values = k.pointer("tp", tiles, offset: p * .integer(plane) + t * .integer(stride))
        let next = k.pointer("next", panel, offset: .integer(g.channels * width) + step * .integer(ahead))
        let results = (0..<size).map { q in
          (0..<config.vectors).map { v in k.variable("s\(q)_\(v)", .broadcast(.real(0))) }
        }
        k.loop("c", to: .integer(g.channels)) { c in
          for line in Swift.stride(from: 0, to: ahead, by: k.lanes) {
            k.prefetch(next, c * .integer(width) + .integer(line))
          }
          let loaded = (0..<config.vectors).map { v in
            k.define("w\(v)", panel.load(c * .integer(width) + .integer(v * k.lanes)))
          }
          for q in 0..<size {
            let a = k.define("a", .broadcast(values[c + .integer(q * stride)]))
            for v in 0..<config.vectors { k.assign(results[q][v], .multiplyAdd(a, loaded[v], results[q][v])) }
          }
        }
        let target = k.pointer("sp", sums, offset: (p * .integer(config.block) + t) * .integer(width))
        for q in 0..<size {
          for v in 0..<config.vectors { k.store(target, .integer(q * width + v * k.lanes), results[q][v]) }
        }
      }
      k.loop("t", to: .integer(count - rest), step: pixels) { t in emit(pixels, at: t, step: t / .integer(pixels)) }
      if rest > 0 { emit(rest, at: .integer(count - rest), step: .integer(count / pixels)) }
    }
  }

  /// Transforms the sums back, applies the epilogue and stores.
  func finish(panel: Expression) {
    let rest = config.outputs % width
    let panels = config.panels(target: k.target)
    let output = k.define("output", panel * .integer(width))
    k.loop("t", to: count) { t in
      let (row, column) = place(t)
      let line = k.define("line", row * .integer(config.tile))
      let place = k.define("place", column * .integer(config.tile))
      if rest == 0 {
        store(t, line, place, output, count: width)
      } else if panels == 1 {
        store(t, line, place, output, count: rest)
      } else {
        k.condition(panel < .integer(panels - 1)) {
          store(t, line, place, output, count: width)
        } otherwise: {
          store(t, line, place, output, count: rest)
        }
      }
    }
  }

  private func store(_ t: Expression, _ line: Expression, _ place: Expression, _ output: Expression, count: Int) {
    let matrix = WinogradTransform(tile: config.tile).output
    let pixel = (image * .integer(g.outHeight) + line) * .integer(g.outWidth) + place
    let first = k.define("first_result", pixel * .integer(config.outputs) + output)
    for v in 0..<config.vectors where v * k.lanes < count {
      let left = count - v * k.lanes
      let tail: Expression? = left < k.lanes ? .integer(left) : nil
      let from = k.pointer("from", sums, offset: t * .integer(width) + .integer(v * k.lanes))
      let values = (0..<size).map { r in
        (0..<size).map { s in k.define("m", from.load(.integer((r * size + s) * config.block * width))) }
      }
      let results = WinogradTransform.applyTwice(matrix, to: values, in: k)
      let added = bias.map { k.define("b", $0.load(output + .integer(v * k.lanes), count: tail)) }
      for r in 0..<config.tile {
        // Tiles at the edges reach beyond the result, but for what every tile has.
        inside(line, r, of: g.outHeight) {
          for s in 0..<config.tile {
            inside(place, s, of: g.outWidth) {
              let index = first + .integer((r * g.outWidth + s) * config.outputs + v * k.lanes)
              let other = residual.map { $0.load(index, count: tail) }
              let value = config.epilogue.result(results[r][s], bias: added, residual: other, in: k)
              k.store(y, index, value, count: tail)
            }
          }
        }
      }
    }
  }

  private func inside(_ start: Expression, _ offset: Int, of size: Int, _ body: () -> Void) {
    let partial = size % config.tile
    if partial == 0 || offset < partial {
      body()
    } else {
      k.condition(start + .integer(offset) < .integer(size), then: body)
    }
  }
}
