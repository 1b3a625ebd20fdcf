import IR

/// Rows of a cache with scales and offsets of columns and outliers apart, see `ChannelRows` of the IR.
package struct ChannelConfig: Hashable, Codable, Sendable {
  var rows: ChannelRows
  /// Numbers of a head that turn by the position.
  var turning: Int
  /// The element of the outliers of keys and values.
  var outliers: [ScalarType]
}

extension AttentionTile {
  /// Cosines and sines by which keys turn when they are read.
  struct KeyAngles {
    let pointer: Pointer
    let block: Int
    let interleaved: Bool
    /// Numbers of a head that turn.
    let turning: Int
  }

  /// What rows with scales of columns stand for.
  struct Channels {
    /// Scales of the columns of all heads, behind them the offsets.
    let scales: Pointer
    let angles: KeyAngles?
    /// Outliers of a row of keys and of values, and how many there are of each.
    let outliers: (keys: Pointer, values: Pointer, count: Int)?
  }

  /// The keys of a head from the row `first` on, turned by their positions, which begin at `key`.
  func channelKeys(
    _ channels: Channels, _ source: CacheRows, _ first: Expression, from key: Expression, count: Expression,
    head: Expression, into local: Pointer
  ) -> CacheRows {
    let start = k.define("first_column", head * .integer(headDim))
    let scales = k.pointer("column_scales", channels.scales, offset: start)
    let offsets = k.pointer("column_offsets", channels.scales, offset: start + .integer(config.kvHeads * headDim))
    k.loop("r", to: count) { r in
      prefetch(source, first + r)
      let row = CacheRow(
        k, source.pointer, source.element, at: (first + r) * .integer(source.stride), size: source.size,
        table: source.table)
      forEachVector(of: source.element, source.size) { d, tail, load in
        let number = Expression.multiplyAdd(load(row), scales.load(d, count: tail), offsets.load(d, count: tail))
        k.store(local, r * .integer(paddedHeadDim) + d, number, count: tail)
      }
    }
    if let outliers = channels.outliers {
      placeOutliers(
        outliers.keys, outliers.count, first, count: count, from: start, size: headDim, into: local,
        stride: paddedHeadDim
      ) { .multiplyAdd($0, scales[$1], offsets[$1]) }
    }
    if let angles = channels.angles { turn(local, angles, from: key, count: count) }
    return CacheRows(pointer: local, element: .f32, stride: paddedHeadDim, size: headDim, isLocal: true)
  }

  /// The values of a head from the row `first` on with their outliers in place.
  func channelValues(
    _ channels: Channels, _ source: CacheRows, _ first: Expression, count: Expression, head: Expression,
    _ local: Pointer?
  ) -> Rows {
    guard let outliers = channels.outliers, let local else { return widened(source, first, count, local) }
    let rows =
      source.element == .f32 ? copied(source, first, count, into: local) : widened(source, first, count, local)
    placeOutliers(
      outliers.values, outliers.count, first, count: count,
      from: k.define("first_value", head * .integer(source.size)), size: source.size, into: local, stride: rows.stride
    ) { number, _ in number }
    return rows
  }

  /// Rows of f32 in local memory, where they may be changed.
  private func copied(_ source: CacheRows, _ first: Expression, _ count: Expression, into local: Pointer) -> Rows {
    let stride = source.size.aligned(to: lanes)
    k.loop("r", to: count) { r in
      let row = k.pointer("from_row", source.pointer, offset: (first + r) * .integer(source.stride))
      k.vectorLoop("d", count: .integer(source.size)) { d, tail in
        k.store(local, r * .integer(stride) + d, row.load(d, count: tail), count: tail)
      }
    }
    return Rows(pointer: local, stride: stride, isPadded: true)
  }

  /// Puts the outliers of rows that belong to a head into their places, as `body` makes them of a number and its column.
  private func placeOutliers(
    _ outliers: Pointer, _ slots: Int, _ first: Expression, count: Expression, from start: Expression, size: Int,
    into local: Pointer, stride: Int, _ body: (Expression, Expression) -> Expression
  ) {
    k.loop("r", to: count) { r in
      let found = k.pointer("found", outliers, offset: (first + r) * .integer(2 * slots))
      for slot in 0..<slots {
        let place = k.define("place", found[.integer(slots + slot)].asIndex - start)
        k.condition(place >= 0) {
          k.condition(place < .integer(size)) {
            k.store(local, r * .integer(stride) + place, body(found[.integer(slot)], place))
          }
        }
      }
    }
  }

  /// Turns keys in local memory by the angles of their positions.
  func turn(_ keys: Pointer, _ angles: KeyAngles, from key: Expression, count: Expression) {
    let (turning, block) = (angles.turning, angles.block)
    let isEven =
      angles.interleaved
      ? k.define("even", (.laneNumbers & .broadcast(.integer(1))).isEqual(to: .broadcast(.integer(0)))) : nil
    k.loop("r", to: count) { r in
      let position = k.define("key_position", key + r)
      let early = k.pointer(
        "early", angles.pointer, offset: (position / .integer(block) + .integer(block)) * .integer(2 * turning))
      let late = k.pointer("late_angles", angles.pointer, offset: position % .integer(block) * .integer(2 * turning))
      let row = k.pointer("key_row", keys, offset: r * .integer(paddedHeadDim))
      func angle(_ d: Expression, _ tail: Expression?) -> (cosine: Expression, sine: Expression) {
        func load(_ pointer: Pointer, _ name: String) -> (Expression, Expression) {
          (
            k.define(name, pointer.load(d, count: tail)),
            k.define(name, pointer.load(.integer(turning) + d, count: tail))
          )
        }
        let ((a, b), (c, d)) = (load(early, "e"), load(late, "l"))
        return (k.define("cosine", a * c - b * d), k.define("sine", .multiplyAdd(b, c, a * d)))
      }
      guard let isEven else {
        let half = Expression.integer(turning / 2)
        k.vectorLoop("d", count: half) { d, tail in
          let (cosine, sine) = angle(d, tail)
          let x = k.define("x", row.load(d, count: tail))
          let y = k.define("y", row.load(half + d, count: tail))
          k.store(row, d, x * cosine - y * sine, count: tail)
          k.store(row, half + d, .multiplyAdd(y, cosine, x * sine), count: tail)
        }
        return
      }
      k.vectorLoop("d", count: .integer(turning)) { d, tail in
        let (cosine, sine) = angle(d, tail)
        let x = k.define("x", row.load(d))
        let other = k.define("y", .exchanged(x, distance: 1) * sine)
        k.store(row, d, .choose(isEven, x * cosine - other, .multiplyAdd(x, cosine, other)), count: tail)
      }
    }
  }
}
