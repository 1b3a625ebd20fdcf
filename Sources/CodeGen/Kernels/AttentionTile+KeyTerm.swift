/// Keys that are stored without a term that follows from their position.
extension AttentionTile {
  /// Where means and angles lie, see `KeyTerm` of the IR.
  struct KeyTerm {
    let means, angles: Pointer
    /// The positions of a block of angles.
    let block: Int
  }

  /// The term of the next row in local memory, behind it its partner; rows that are read together have theirs turned by
  /// so many positions, and the pair turns on behind the last of them.
  struct RunningTerm {
    let local: Pointer
    /// Cosines and sines of the angles of the first positions.
    let steps: Pointer
    let headDim, paddedHeadDim: Int

    /// The numbers of some rows from a column on, each with the term of its row.
    func added(to rows: [Expression], _ k: KernelBuilder, at d: Expression, count: Expression?) -> [Expression] {
      func angle(_ position: Int) -> (cosine: Expression, sine: Expression) {
        let row = 2 * position * headDim
        return (
          k.define("cosine", steps.load(.integer(row) + d, count: count)),
          k.define("sine", steps.load(.integer(row + headDim) + d, count: count))
        )
      }
      let term = k.define("term", local.load(d, count: count))
      let partner = k.define("partner", local.load(.integer(paddedHeadDim) + d, count: count))
      let sums = rows.enumerated().map { index, row in
        guard index > 0 else { return k.define("x", row + term) }
        let (cosine, sine) = angle(index)
        return k.define("x", .multiplyAdd(term, cosine, .multiplyAdd(partner, sine, row)))
      }
      let next = RunningTerm.turned(k, (term, partner), angle(rows.count))
      k.store(local, d, next.0, count: count)
      k.store(local, .integer(paddedHeadDim) + d, next.1, count: count)
      return sums
    }

    /// A pair turned by angles: `(x c + y s, y c - x s)`.
    static func turned(
      _ k: KernelBuilder, _ pair: (Expression, Expression), _ angle: (cosine: Expression, sine: Expression)
    ) -> (Expression, Expression) {
      let (x, y) = pair
      return (
        k.define("x", .multiplyAdd(x, angle.cosine, y * angle.sine)),
        k.define("y", y * angle.cosine - x * angle.sine)
      )
    }
  }

  /// The term of the key `first` of a head in local memory; nil without one.
  func runningTerm(_ first: Expression, head: Expression, _ local: Pointer?) -> RunningTerm? {
    guard let term, let local else { return nil }
    let row = 2 * headDim
    let means = k.pointer("means", term.means, offset: head * .integer(headDim))
    let early = k.pointer(
      "early", term.angles, offset: (first / .integer(term.block) + .integer(term.block)) * .integer(row))
    let late = k.pointer("late_angles", term.angles, offset: first % .integer(term.block) * .integer(row))
    k.vectorLoop("d", count: .integer(headDim)) { d, tail in
      func angle(_ pointer: Pointer) -> (cosine: Expression, sine: Expression) {
        (
          k.define("cosine", pointer.load(d, count: tail)),
          k.define("sine", pointer.load(.integer(headDim) + d, count: tail))
        )
      }
      let mean = k.define("mean", means.load(d, count: tail))
      let partner = k.define("partner", means.load(.integer(config.kvHeads * headDim) + d, count: tail))
      let turned = RunningTerm.turned(k, RunningTerm.turned(k, (mean, partner), angle(early)), angle(late))
      k.store(local, d, turned.0, count: tail)
      k.store(local, .integer(paddedHeadDim) + d, turned.1, count: tail)
    }
    return RunningTerm(local: local, steps: term.angles, headDim: headDim, paddedHeadDim: paddedHeadDim)
  }
}
