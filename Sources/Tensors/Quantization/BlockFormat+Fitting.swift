import Base

/// What a format takes from the numbers of one tensor.
extension BlockFormat {
  /// Numbers that levels are fitted to, at most.
  private static let sampleCount = 1 << 22
  /// Bins of a histogram of levels, half a level each.
  private static let bins = 512
  private static let rounds = 4

  /// The format for rows of `columns` numbers: with the divisor that makes the largest scale of E4M3 the largest number
  /// of the type (as NVFP4 is usually made), or with levels instead of its own that make the sum of squared errors
  /// small; itself for formats that take nothing.
  ///
  /// Levels are those of exact k-means in one dimension (dynamic programming over a histogram) of the numbers over
  /// their groups' scales, each weighted by the square of the scale and by `weights[column]` if given; scales and
  /// levels are improved in turn, and the best table of all rounds is taken, which may be the one to begin with.
  ///
  /// Without `triesScales` scales are those of `quantizeRow` without them.
  ///
  /// - Throws: `CompileError` of kind `.input` if a number is not finite.
  package func fitted(
    to numbers: UnsafeBufferPointer<Float>, columns: Int, weights: [Float]? = nil, triesScales: Bool = true
  ) throws -> BlockFormat {
    guard scale == .f8e4m3 || levels != nil, columns > 0, let start = numbers.baseAddress else { return self }
    guard isAllFinite(numbers) else { throw CompileError(.input, "a weight is not finite") }
    if scale == .f8e4m3 {
      var copy = self
      let largest = largestMagnitude(start, numbers.count).magnitude
      let divisor = 6 * 448 / largest
      copy.divisor = divisor.isNormal ? divisor : 1
      return copy
    }
    guard hasSignedScales else { return self }
    let rows = numbers.count / columns
    let count = max(1, min(rows, Self.sampleCount / columns))
    var best = (format: self, error: Double.infinity)
    var next = self
    for round in 0...Self.rounds {
      guard let levels = next.levels else { break }
      var histogram = LevelHistogram(bins: Self.bins)
      var error = 0.0
      for index in 0..<count {
        error += next.count(
          start + index * rows / count * columns, columns: columns, levels, weights, triesScales, into: &histogram)
      }
      if error < best.error { best = (next, error) }
      guard round < Self.rounds, let found = histogram.levels(levels.values.count) else { break }
      next.codes = .levels(found)
    }
    return best.format
  }

  /// Adds the numbers of a row over their scales to a histogram; the sum of squared errors.
  private func count(
    _ row: UnsafePointer<Float>, columns: Int, _ levels: CodeLevels, _ weights: [Float]?, _ triesScales: Bool,
    into histogram: inout LevelHistogram
  ) -> Double {
    let length = groupLength(columns: columns)
    let factors = scaleFactors(levels, triesScales: triesScales)
    var error = 0.0
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: length) { codes in
      guard let codes = codes.baseAddress else { return }
      for block in 0..<blocks(columns: columns) {
        let start = block * length, count = min(length, columns - start)
        let d = quantizeLevels(levels, factors, row + start, count, into: codes).scale
        guard d != 0, d.magnitude < .infinity else { continue }
        for i in 0..<count {
          let weight = weights.map { Double($0[start + i]) } ?? 1
          let place = row[start + i] / d
          let difference = Double(place - Float(levels.values[Int(codes[i])])) * Double(d)
          error += weight * difference * difference
          histogram.add(place, weight: weight * Double(d) * Double(d))
        }
      }
    }
    return error
  }
}

/// Weights and weighted sums of numbers of -128 to 128 in bins.
private struct LevelHistogram {
  private var weights: [Double]
  private var sums: [Double]

  init(bins: Int) {
    weights = [Double](repeating: 0, count: bins)
    sums = weights
  }

  mutating func add(_ number: Float, weight: Double) {
    let bounded = min(max(number, -127.9), 127.9)
    let bin = min(Int((bounded + 128) * Float(weights.count) / 256), weights.count - 1)
    weights[bin] += weight
    sums[bin] += weight * Double(bounded)
  }

  /// The table of `count` levels with the least sum of weighted squared distances, rounded to whole numbers; nil if
  /// there is none, as for numbers that are all alike.
  func levels(_ count: Int) -> CodeLevels? {
    let n = weights.count
    // Sums of all bins before each; squares of numbers do not depend on the levels.
    var mass = [0.0], moment = [0.0]
    for bin in 0..<n {
      mass.append(mass[bin] + weights[bin])
      moment.append(moment[bin] + sums[bin])
    }
    /// What one level for some bins takes off the sum of squares.
    func gain(_ first: Int, _ end: Int) -> Double {
      let weight = mass[end] - mass[first], sum = moment[end] - moment[first]
      return weight > 0 ? sum * sum / weight : 0
    }
    var best = (0...n).map { gain(0, $0) }
    var cuts: [[Int]] = []
    for _ in 1..<count {
      // No number for the last level, to begin with.
      var next = best
      var from = Array(0...n)
      for end in 0...n {
        for cut in 0..<end {
          let total = best[cut] + gain(cut, end)
          if total > next[end] {
            next[end] = total
            from[end] = cut
          }
        }
      }
      cuts.append(from)
      best = next
    }
    var values: [Int8] = []
    var end = n
    for from in cuts.reversed() {
      append(mass, moment, from[end], end, to: &values)
      end = from[end]
    }
    append(mass, moment, 0, end, to: &values)
    values.sort()
    while values.count < count, let last = values.last { values.append(last) }
    return CodeLevels(values)
  }

  private func append(
    _ mass: [Double], _ moment: [Double], _ first: Int, _ end: Int, to values: inout [Int8]
  ) {
    let weight = mass[end] - mass[first]
    guard weight > 0 else { return }
    let mean = (moment[end] - moment[first]) / weight
    values.append(Int8(min(max(mean.rounded(), -127), 127)))
  }
}
