#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Ranges that give up large numbers, where the others gain by finer steps.
extension Histogram {
  /// Both ends of a range are tried in so many equal parts.
  private static let parts = 64

  /// The range whose bytes (``AffineCode``) leave the least sum of squared errors; nil if there were no numbers.
  ///
  /// First both ends move towards zero together, then each alone. Zeros are codes and have no error, so that many of
  /// them do not move the range.
  package func rangeOfLeastError() -> ClosedRange<Float>? {
    guard let extremes else { return nil }
    let width = reach / Float(Self.half)
    var bins: [(middle: Float, count: Double)] = []
    for (bin, count) in counts.enumerated() where count > 0 {
      bins.append(((Float(bin - Self.half) + 0.5) * width, Double(count)))
    }
    func error(_ range: ClosedRange<Float>) -> Double {
      let code = AffineCode(covering: range)
      let (low, high) = (-Float(code.zeroPoint), Float(255 - code.zeroPoint))
      var sum = 0.0
      for bin in bins {
        let steps = (bin.middle / code.scale).rounded(.toNearestOrEven)
        let distance = Double(bin.middle - max(low, min(high, steps)) * code.scale)
        sum += bin.count * distance * distance
      }
      return sum
    }
    var best = (range: extremes, error: error(extremes))
    func search(_ range: (Float) -> ClosedRange<Float>) {
      for part in stride(from: Self.parts, to: 2, by: -1) {
        let candidate = range(Float(part) / Float(Self.parts))
        let found = error(candidate)
        if found < best.error { best = (candidate, found) }
      }
    }
    search { Self.range(extremes.lowerBound, $0, extremes.upperBound, $0) }
    let both = best.range
    search { Self.range(both.lowerBound, 1, both.upperBound, $0) }
    let one = best.range
    search { Self.range(one.lowerBound, $0, one.upperBound, 1) }
    return best.range
  }

  /// The range for which the distribution of the numbers in 256 equal steps has the least divergence from their own,
  /// with what lies outside moved to the ends (S. Migacz, 8-bit inference with TensorRT, 2017); nil if there were no
  /// numbers.
  package func rangeOfLeastDivergence() -> ClosedRange<Float>? {
    guard let extremes else { return nil }
    guard reach > 0 else { return extremes }
    let width = reach / Float(Self.half)
    var all = counts
    all[Self.half] += zeros
    var best = (range: extremes, divergence: Double.infinity)
    // Below a quarter steps get so short that hardly two bins share one.
    for part in stride(from: Self.parts, through: Self.parts / 4, by: -1) {
      let share = Float(part) / Float(Self.parts)
      let range = Self.range(extremes.lowerBound, share, extremes.upperBound, share)
      let low = max(0, Self.half + Int((min(range.lowerBound, 0) / width).rounded(.down)))
      let high = min(2 * Self.half, Self.half + Int((max(range.upperBound, 0) / width).rounded(.up)))
      guard high - low >= 512 else { break }
      let divergence = Self.divergence(all, low..<high)
      if divergence < best.divergence { best = (range, divergence) }
    }
    return best.range
  }

  private static func range(_ low: Float, _ lowShare: Float, _ high: Float, _ highShare: Float) -> ClosedRange<Float> {
    let (low, high) = (min(low, 0) * lowShare, max(high, 0) * highShare)
    return low...high
  }

  /// The divergence of the bins of a range in 256 steps from the bins with all others added at the ends.
  private static func divergence(_ counts: [Int], _ range: Range<Int>) -> Double {
    let total = counts.reduce(0, +), inside = counts[range].reduce(0, +)
    guard total > 0, inside > 0 else { return .infinity }
    var wanted = counts[range].map { Double($0) }
    let steps = 256, bins = wanted.count
    let kept = wanted
    wanted[0] += Double(counts[..<range.lowerBound].reduce(0, +))
    wanted[bins - 1] += Double(counts[range.upperBound...].reduce(0, +))
    var divergence = 0.0
    for step in 0..<steps {
      let part = (step * bins / steps)..<((step + 1) * bins / steps)
      var sum = 0.0, filled = 0
      for bin in part {
        sum += kept[bin]
        if wanted[bin] > 0 { filled += 1 }
      }
      guard filled > 0 else { continue }
      // Bins that the step leaves empty count as all but impossible.
      let q = max(sum / Double(filled) / Double(inside), 1e-9)
      for bin in part where wanted[bin] > 0 {
        let p = wanted[bin] / Double(total)
        divergence += p * log(p / q)
      }
    }
    return divergence
  }
}
