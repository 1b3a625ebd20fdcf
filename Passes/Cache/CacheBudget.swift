import Base
import IR

/// The share of the attention that is retained by the share of keys that receive most of it, as a mean over heads.
struct RetentionCurve {
  /// Shares of keys that the curve is known at: `1 / points`, `2 / points`, ..., 1.
  private static let points = 1024
  private var sums = [Double](repeating: 0, count: points)
  private var count = 0

  /// Adds what the keys of a head received; a head that received nothing, or no numbers, says nothing.
  mutating func add(_ received: [Float]) {
    var total = 0.0
    for number in received { total += Double(number) }
    guard total > 0, total.isFinite else { return }
    count += 1
    // Retained by 0, 1, ... keys.
    var retained = [0.0]
    for number in received.sorted(by: >) { retained.append((retained.last ?? 0) + Double(number) / total) }
    for point in 0..<Self.points {
      let place = Double(point + 1) / Double(Self.points) * Double(received.count)
      let below = min(Int(place), received.count - 1)
      let part = place - Double(below)
      sums[point] += retained[below] + part * (retained[below + 1] - retained[below])
    }
  }

  /// The smallest share of keys that retains the share `level` of the attention.
  func share(retaining level: Double) -> Double {
    guard count > 0 else { return level }
    var before = 0.0
    for point in 0..<Self.points {
      let here = sums[point] / Double(count)
      if here >= level {
        let part = here > before ? (level - before) / (here - before) : 1
        return (Double(point) + min(max(part, 0), 1)) / Double(Self.points)
      }
      before = here
    }
    return 1
  }
}

/// Rows for caches within a budget.
struct CacheBudget {
  /// The rows that the caches have, and the fewest that each may keep.
  let rows: [Int]
  let least: Int

  /// The most rows that a cache may keep.
  private var most: [Int] { rows.map { min($0, BoundedAttention.mostRows) } }

  /// The same share of each cache.
  ///
  /// - Throws: `CompileError` of kind `.usage` if that is fewer rows than each must have.
  func counts(keeping keep: Double) throws -> [Int] {
    try fill(rows.map { Int((keep * Double($0)).rounded()) }, to: total(keep))
  }

  /// The rows with which all caches retain the same share of their attention.
  ///
  /// - Throws: `CompileError` of kind `.usage` if there are fewer rows than each must have.
  func counts(keeping keep: Double, curves: [RetentionCurve]) throws -> [Int] {
    let total = try total(keep)
    func counts(_ level: Double) -> [Int] {
      zip(rows, curves).map { Int((Double($0) * $1.share(retaining: level)).rounded()) }
    }
    func spent(_ level: Double) -> Int { bounded(counts(level)).reduce(0, +) }
    var (low, high) = (0.0, 1.0)
    for _ in 0..<50 {
      let middle = (low + high) / 2
      if spent(middle) > total { high = middle } else { low = middle }
    }
    return fill(counts(low), to: total)
  }

  private func total(_ keep: Double) throws -> Int {
    let all = rows.reduce(0, +)
    let total = Int((keep * Double(all)).rounded())
    guard total >= least * rows.count else {
      let smallest = (1000 * Double(least * rows.count) / Double(max(1, all))).rounded(.up) / 1000
      throw CompileError(
        .usage,
        "keeping \(keep) of \(all) rows leaves less than \(least) for each of \(rows.count) caches, those of the first and "
          + "the last tokens; keep at least \(smallest)")
    }
    return total
  }

  private func bounded(_ counts: [Int]) -> [Int] { zip(counts, most).map { max(least, min($0, $1)) } }

  /// The counts within their bounds, and one row more or less for one cache after the other until they add up.
  private func fill(_ wanted: [Int], to total: Int) -> [Int] {
    var counts = bounded(wanted)
    let most = most
    var missing = total - counts.reduce(0, +)
    var changed = true
    while missing != 0, changed {
      changed = false
      for index in counts.indices where missing != 0 {
        let next = counts[index] + missing.signum()
        guard next >= least, next <= most[index] else { continue }
        counts[index] = next
        missing -= missing.signum()
        changed = true
      }
    }
    return counts
  }
}
