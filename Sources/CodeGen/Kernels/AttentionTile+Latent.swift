import IR

/// Rows of a cache from which all heads take their keys and values, see `LatentRows` of the IR.
package struct LatentConfig: Hashable, Codable, Sendable {
  /// Numbers of a row of keys and of values.
  var keys, values: Int
  var rows: LatentRows
  /// Numbers of a head that turn by the position.
  var turning: Int

  /// Products and sums for a key: keys are multiplied out for each tile, values once for all keys.
  func operations(heads: Int, headDim: Int, tiles: Int) -> Double { 2 * Double(heads * tiles) * Double(keys * headDim) }
}

extension AttentionTile {
  /// What latent rows are multiplied by, and the angles of keys.
  struct Latent {
    let config: LatentConfig
    let keys, values: Pointer
    let angles: KeyAngles?
  }

  /// Local memory for latent rows.
  struct LatentScratch {
    /// Widened rows; nil where rows are f32.
    let rows: Pointer?
    /// Keys of the head, a row for each key of a block.
    let keys: Pointer
    /// Weighted sums of latent values, a row for each pair.
    let sums: Sums

    init(_ tile: AttentionTile, _ latent: LatentConfig, width: Int) {
      let (k, block, lanes) = (tile.k, AttentionTile.block, tile.lanes)
      let isPlain = tile.config.key == .f32 && tile.config.value == .f32
      rows =
        isPlain ? nil : k.array("latent_rows", .f32, count: block * max(latent.keys, latent.values).aligned(to: lanes))
      keys = k.array("latent_keys", .f32, count: block * tile.paddedHeadDim)
      let stride = latent.values.aligned(to: lanes)
      sums = Sums(pointer: k.array("latent_sums", .f32, count: width * stride), stride: stride, size: latent.values)
    }
  }

  /// Latent rows from `first` on as f32: where they lie, or widened into local memory.
  func latentRows(_ source: CacheRows, _ first: Expression, _ rows: Expression, _ local: Pointer?) -> Rows {
    guard let local, source.element != .f32, let format = source.element.format, format.bits == 8,
      let group = format.group
    else { return widened(source, first, rows, local) }
    // 8-bit codes lie in blocks that have a scale each.
    let padded = source.size.aligned(to: lanes)
    k.loop("r", to: rows) { r in
      prefetch(source, first + r)
      k.loop("part", to: .integer(source.size / group)) { part in
        let row = CacheRow(
          k, source.pointer, source.element,
          at: (first + r) * .integer(source.stride) + part * .integer(source.element.headStride(group)), size: group)
        let start = k.define("start", r * .integer(padded) + part * .integer(group))
        k.vectorLoop("d", count: .integer(group)) { d, tail in
          k.store(local, start + d, row.load(d, count: tail), count: tail)
        }
      }
    }
    return Rows(pointer: local, stride: padded, isPadded: source.size % lanes == 0)
  }

  /// The keys of a head from latent rows, turned by their positions from `key` on.
  func expandedKeys(
    _ latent: Latent, _ rows: Rows, from key: Expression, count: Expression, head: Expression, into local: Pointer
  ) -> CacheRows {
    let depth = latent.config.keys
    let factors = k.pointer("key_factors", latent.keys, offset: head * .integer(depth * headDim))
    multiply(
      rows, count: count, depth: depth, by: factors, columns: headDim, most: Self.block, into: local,
      stride: paddedHeadDim)
    if let angles = latent.angles { turn(local, angles, from: key, count: count) }
    return CacheRows(pointer: local, element: .f32, stride: paddedHeadDim, size: headDim, isLocal: true)
  }

  /// Makes sums of latent values those of the values of a head.
  func expandSums(_ latent: Latent, _ scratch: LatentScratch, head: Expression, pairs: Expression, into sums: Sums) {
    let depth = latent.config.values
    let factors = k.pointer("value_factors", latent.values, offset: head * .integer(depth * sums.size))
    multiply(
      Rows(pointer: scratch.sums.pointer, stride: scratch.sums.stride, isPadded: true), count: pairs, depth: depth,
      by: factors, columns: sums.size, most: lanes, into: sums.pointer, stride: sums.stride)
  }

  /// `to[r, c] = sum over i of rows[r, i] factors[i, c]`, at most `most` rows at a time, whose number divides that of the
  /// rows of local memory; beyond the last row there are copies of it.
  private func multiply(
    _ rows: Rows, count: Expression, depth: Int, by factors: Pointer, columns: Int, most: Int, into local: Pointer,
    stride: Int
  ) {
    let chunk = Self.chunkVectors(k.target, valueDim: columns)
    let registers = k.target.vectorRegisters >= 32 ? 16 : 8
    let step = min(most, registers >> Self.chunkShift(chunk), 8)
    let starts = Array(Swift.stride(from: 0, to: columns, by: lanes))
    for part in Swift.stride(from: 0, to: starts.count, by: chunk) {
      let starts = Array(starts[part..<min(starts.count, part + chunk)])
      k.loop("r", to: count, step: step) { r in
        let places = (0..<step).map {
          k.define("at", .minimum(r + .integer($0), count - 1) * .integer(rows.stride))
        }
        let sums = places.map { _ in starts.map { _ in k.variable("s", .broadcast(.real(0))) } }
        k.loop("i", to: .integer(depth)) { i in
          let row = starts.map { column in
            let tail = columns - column < lanes ? Expression.integer(columns - column) : nil
            return k.define("f", factors.load(i * .integer(columns) + .integer(column), count: tail))
          }
          for (place, sums) in zip(places, sums) {
            let number = k.define("x", .broadcast(rows.pointer[place + i]))
            for (sum, factor) in zip(sums, row) { k.assign(sum, .multiplyAdd(number, factor, sum)) }
          }
        }
        for (index, sums) in sums.enumerated() {
          for (column, sum) in zip(starts, sums) {
            k.store(local, (r + .integer(index)) * .integer(stride) + .integer(column), sum)
          }
        }
      }
    }
  }
}
