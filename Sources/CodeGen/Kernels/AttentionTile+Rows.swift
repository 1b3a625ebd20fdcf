/// Rows of keys and values as tiles read them.
extension AttentionTile {
  /// Rows of keys or values of one head in memory.
  struct CacheRows {
    let pointer: Pointer
    let element: CacheElement
    let stride: Int
    /// Numbers of the head.
    let size: Int
    /// The table that codes are places in.
    var table: Expression?
    /// Whether rows lie in local memory, padded to whole vectors.
    var isLocal = false
  }

  /// Rows of f32, and the distance between them.
  struct Rows {
    let pointer: Pointer
    let stride: Int
    /// Whether rows are padded to whole vectors.
    let isPadded: Bool
  }

  /// The rows from `first` on as f32: where they lie, or widened into local memory, with a term that goes on from row
  /// to row.
  func widened(
    _ source: CacheRows, _ first: Expression, _ rows: Expression, _ local: Pointer?, _ term: RunningTerm? = nil
  ) -> Rows {
    let size = source.size
    guard let local, source.element != .f32 || term != nil else {
      if !source.isLocal { k.loop("r", to: rows) { prefetch(source, first + $0) } }
      return Rows(
        pointer: k.pointer("block", source.pointer, offset: first * .integer(source.stride)), stride: source.stride,
        isPadded: source.isLocal)
    }
    let padded = size.aligned(to: lanes)
    k.loop("r", to: rows) { r in
      prefetch(source, first + r)
      let row = CacheRow(
        k, source.pointer, source.element, at: (first + r) * .integer(source.stride), size: size,
        table: source.table)
      forEachVector(of: source.element, size) { d, tail, load in
        let number = term?.added(to: [load(row)], k, at: d, count: tail)[0] ?? load(row)
        k.store(local, r * .integer(padded) + d, number, count: tail)
      }
    }
    return Rows(pointer: local, stride: padded, isPadded: true)
  }

  /// Calls `body` for the vectors of a head: the first column, the number of columns if it is no full vector, and what
  /// loads them from a row.
  func forEachVector(
    of element: CacheElement, _ size: Int, _ body: (Expression, Expression?, (CacheRow) -> Expression) -> Void
  ) {
    guard element.isPacked else {
      k.vectorLoop("d", count: .integer(size)) { d, tail in body(d, tail) { $0.load(d, count: tail) } }
      return
    }
    for part in element.parts(size, lanes: lanes) {
      body(.integer(part.start), part.tail(lanes)) { $0.load(part, lanes: lanes) }
    }
  }

  /// Asks for the row a block behind `row`: rows of one head lie too far apart for the processor to foresee the next ones.
  func prefetch(_ source: CacheRows, _ row: Expression) {
    let next = k.define("next", (row + .integer(Self.block)) * .integer(source.stride))
    for line in Swift.stride(from: 0, to: source.element.headBytes(source.size), by: 64) {
      k.prefetch(source.pointer, next + .integer(line / source.element.scalar.byteCount))
    }
  }

  /// The keys from the row `first` on as f32 with the numbers of `copies` rows side by side; the last row stands for those
  /// behind it.
  func interleaved(
    _ source: CacheRows, _ first: Expression, _ rows: Expression, _ scratch: Scratch, _ term: RunningTerm? = nil
  ) -> Rows {
    guard let local = scratch.keys else { preconditionFailure("interleaved keys need local memory") }
    let isEven = [1, 2].filter { $0 < copies }.map { distance in
      k.define(
        "even", (.laneNumbers & .broadcast(.integer(distance))).isEqual(to: .broadcast(.integer(0))))
    }
    let padded = source.size.aligned(to: lanes)
    k.loop("r", to: rows, step: copies) { r in
      let sources = (0..<copies).map { copy in
        let row = k.define("row", first + .minimum(r + .integer(copy), rows - 1))
        if !source.isLocal { prefetch(source, row) }
        return CacheRow(
          k, source.pointer, source.element, at: row * .integer(source.stride), size: source.size, table: source.table)
      }
      forEachVector(of: source.element, source.size) { d, _, load in
        var vectors = sources.map { k.define("x", load($0)) }
        if let term { vectors = term.added(to: vectors, k, at: d, count: nil) }
        let mixed = KeyInterleaving.interleave(vectors) { a, b, distance in
          let even = isEven[distance - 1]
          return (
            k.define("y", .choose(even, a, .exchanged(b, distance: distance))),
            k.define("y", .choose(even, .exchanged(a, distance: distance), b))
          )
        }
        for (index, vector) in mixed.enumerated() {
          k.store(local, r * .integer(padded) + d * .integer(copies) + .integer(index * lanes), vector)
        }
      }
    }
    return Rows(pointer: local, stride: copies * padded, isPadded: true)
  }
}
