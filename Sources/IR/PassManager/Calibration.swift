import Base
import Tensors

/// The ranges of the values of a model on sample inputs, by the names of the values, which rewriting preserves.
package struct Calibration: Sendable {
  /// What was seen of one value.
  package struct Statistics: Sendable, Hashable {
    /// The range that a code should cover.
    package var range: ClosedRange<Float>
    /// The numbers it was measured on.
    package var count: Int

    package init(range: ClosedRange<Float>, count: Int) {
      self.range = range
      self.count = count
    }
  }

  /// The function and its values.
  package private(set) var functions: [String: [String: Statistics]] = [:]

  /// The channels of values, by function and value.
  package var channels: [String: [String: ChannelStatistics]] = [:]

  package init() {}

  /// The statistics of a value of a function; nil if it was not seen, or was never a finite number.
  package subscript(function: String, value: String) -> Statistics? {
    get { functions[function]?[value] }
    set { functions[function, default: [:]][value] = newValue }
  }
}

/// Counts of numbers in equal bins around zero; the width of the bins doubles when larger numbers come.
package struct Histogram: Sendable {
  /// Bins on each side of zero.
  static let half = 4096

  private(set) var counts = [Int](repeating: 0, count: 2 * half)
  /// The numbers that the bins reach to; 0 before the first number other than 0.
  private(set) var reach: Float = 0
  /// Numbers that are 0; they are in no bin.
  private(set) var zeros = 0
  /// Finite numbers seen.
  package private(set) var count = 0
  /// Whether something that is no number was seen.
  package private(set) var hasNaN = false
  private var smallest = Float.infinity
  private var largest = -Float.infinity

  package init() {}

  /// Adds numbers; those that are not finite are passed over.
  package mutating func add(_ values: UnsafeBufferPointer<Float>) {
    var low = smallest, high = largest
    for value in values {
      if value.isFinite {
        low = min(low, value)
        high = max(high, value)
      } else if value.isNaN {
        hasNaN = true
      }
    }
    guard low <= high else { return }
    (smallest, largest) = (low, high)
    let most = max(-low, high)
    if reach == 0, most > 0 { reach = most }
    while reach < most {
      widen()
      reach = min(reach * 2, .greatestFiniteMagnitude)
    }
    let scale = reach > 0 ? Float(Self.half) / reach : 0
    for value in values where value.isFinite {
      count += 1
      if value == 0 || !scale.isFinite {
        zeros += 1
      } else {
        let bin = Int((value * scale).rounded(.down)) + Self.half
        counts[min(max(bin, 0), 2 * Self.half - 1)] += 1
      }
    }
  }

  /// Joins neighbouring bins.
  private mutating func widen() {
    var wider = [Int](repeating: 0, count: 2 * Self.half)
    for (bin, count) in counts.enumerated() where count > 0 {
      let distance = bin - Self.half
      wider[(distance >> 1) + Self.half] += count
    }
    counts = wider
  }

  /// The smallest and the largest number; nil if there was none.
  package var extremes: ClosedRange<Float>? { count > 0 ? smallest...largest : nil }

  /// The range without `100 - percent` percent of the numbers on each side, to the width of a bin; nil if there was
  /// none. Without `countingZeros` only numbers other than 0 are counted.
  package func range(percent: Double, countingZeros: Bool = true) -> ClosedRange<Float>? {
    guard let extremes else { return nil }
    let zeros = countingZeros ? self.zeros : 0
    let total = countingZeros ? count : count - self.zeros
    let skipped = Int(Double(total) * max(0, 1 - percent / 100))
    let width = reach / Float(Self.half)
    /// The outer edge of the bin in which the number after `skipped` ones lies.
    func edge(_ bins: [Int]) -> Int? {
      var left = skipped
      for bin in bins {
        left -= counts[bin] + (bin == Self.half ? zeros : 0)
        if left < 0 { return bin }
      }
      return nil
    }
    let low = edge(Array(counts.indices)).map { Float($0 - Self.half) * width } ?? extremes.lowerBound
    let high = edge(counts.indices.reversed()).map { Float($0 + 1 - Self.half) * width } ?? extremes.upperBound
    let bounded = (max(low, extremes.lowerBound), min(high, extremes.upperBound))
    return bounded.0 <= bounded.1 ? bounded.0...bounded.1 : extremes
  }
}
