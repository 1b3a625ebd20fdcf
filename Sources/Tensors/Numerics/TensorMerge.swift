import Base
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Formulas that make one tensor of several of one shape: weighted sums, sums of differences from a base, and
/// interpolation on the sphere.
///
/// Numbers of any floating-point types are computed in f64 and rounded once, to the nearest number of the type of the
/// result, ties to even. Results depend neither on the number of threads nor on how the work is divided.
package enum TensorMerge {
  /// Elements that are widened at a time.
  private static let piece = 4096

  /// Calls `body` with the numbers `range` of the tensors piece by piece: the elements of the piece, and where the numbers
  /// of the first tensor begin; those of the next ones follow ``piece`` numbers apart.
  private static func forEachPiece(
    of range: Range<Int>, _ inputs: [TensorView], _ body: (Range<Int>, UnsafeMutablePointer<Double>) -> Void
  ) {
    withUnsafeTemporaryAllocation(of: Double.self, capacity: max(1, inputs.count) * piece) { buffer in
      guard let numbers = buffer.baseAddress else { return }
      for first in stride(from: range.lowerBound, to: range.upperBound, by: piece) {
        let part = first..<min(first + piece, range.upperBound)
        for (index, input) in inputs.enumerated() {
          let size = input.type.element.byteCount
          convertRow(
            UnsafeRawBufferPointer(rebasing: input.bytes[part.lowerBound * size..<part.upperBound * size]),
            input.type.element,
            into: UnsafeMutableRawBufferPointer(
              UnsafeMutableBufferPointer(start: numbers + index * piece, count: part.count)), .f64)
        }
        body(part, numbers)
      }
    }
  }

  /// Rounds numbers to the elements `part` of `output`.
  private static func store(_ numbers: UnsafePointer<Double>, _ part: Range<Int>, of output: MutableTensorView) {
    let size = output.type.element.byteCount
    convertRow(
      UnsafeRawBufferPointer(UnsafeBufferPointer(start: numbers, count: part.count)), .f64,
      into: UnsafeMutableRawBufferPointer(
        rebasing: output.bytes[part.lowerBound * size..<part.upperBound * size]), output.type.element)
  }

  private static func check(_ inputs: [TensorView], _ output: MutableTensorView) {
    precondition(!inputs.isEmpty && output.type.isDense, "a merge has inputs and a dense result")
    for input in inputs {
      precondition(input.type.isDense && input.count == output.count, "a merge has tensors of one shape")
    }
  }

  /// `sum_i factors[i] * inputs[i]`; an input whose factor is 0 is not looked at.
  package static func weightedSum(_ inputs: [TensorView], _ factors: [Double], into output: MutableTensorView) {
    check(inputs, output)
    precondition(inputs.count == factors.count, "one factor per input")
    let used = zip(inputs, factors).filter { $0.1 != 0 }
    let (views, weights) = (used.map(\.0), used.map(\.1))
    parallelFor(output.count, grain: 1 << 16) { range in
      forEachPiece(of: range, views) { part, numbers in
        sum(numbers, weights, part.count)
        store(numbers, part, of: output)
      }
    }
  }

  /// Replaces the first numbers by the sum of all with factors.
  private static func sum(_ numbers: UnsafeMutablePointer<Double>, _ factors: [Double], _ count: Int) {
    guard let first = factors.first else {
      for i in 0..<count { numbers[i] = 0 }
      return
    }
    if first != 1 { for i in 0..<count { numbers[i] *= first } }
    for index in 1..<max(factors.count, 1) {
      let (other, factor) = (numbers + index * piece, factors[index])
      for i in 0..<count { numbers[i] += factor * other[i] }
    }
  }

  /// `base + sum_i (weights[i] / density) * m_i (inputs[i] - base)` with masks `m_i` of zeros and ones that keep each number
  /// with the probability `density`: DARE (Yu and others, 2024); with `density` 1 task arithmetic (Ilharco and others,
  /// 2023).
  ///
  /// Element `e` of input `i` is kept if the number `e` of the sequence of ``SplitMix64`` from the `i`-th number of the
  /// sequence from `seed`, as a fraction, lies below `density`.
  package static func taskVectors(
    base: TensorView, _ inputs: [TensorView], _ weights: [Double], density: Double = 1, seed: UInt64 = 0,
    into output: MutableTensorView
  ) {
    check([base] + inputs, output)
    precondition(inputs.count == weights.count, "one weight per input")
    if density >= 1 {
      // The share of the base is one number, so that an input alone with the weight 1 stays what it is.
      return weightedSum([base] + inputs, [1 - weights.reduce(0, +)] + weights, into: output)
    }
    var generator = SplitMix64(seed: seed)
    let seeds = inputs.map { _ in generator.next() }
    parallelFor(output.count, grain: 1 << 16) { range in
      forEachPiece(of: range, [base] + inputs) { part, numbers in
        for (index, seed) in seeds.enumerated() {
          let (other, factor) = (numbers + (index + 1) * piece, weights[index] / density)
          for i in 0..<part.count {
            let isKept = fraction(seed, part.lowerBound + i) < density
            other[i] = isKept ? factor * (other[i] - numbers[i]) : 0
          }
        }
        for index in inputs.indices {
          let other = numbers + (index + 1) * piece
          for i in 0..<part.count { numbers[i] += other[i] }
        }
        store(numbers, part, of: output)
      }
    }
  }

  /// The number at `index` of the sequence of ``SplitMix64`` from `seed`, in `0 ..< 1`.
  @inline(__always)
  private static func fraction(_ seed: UInt64, _ index: Int) -> Double {
    var generator = SplitMix64(seed: seed &+ UInt64(truncatingIfNeeded: index) &* 0x9E37_79B9_7F4A_7C15)
    return generator.uniform()
  }

  /// `base + scale * mean of the differences that agree`: TIES (Yadav and others, 2023).
  ///
  /// Of each difference `inputs[i] - base` the `ceil(density * count)` numbers of largest magnitude are kept, those equal
  /// to the smallest of them included, the others count as 0. The sign of the sum of the kept differences with their
  /// weights is elected for each element; the mean, with the weights, is over the differences other than 0 of that sign.
  /// Where the sum is 0 no sign is elected and the base stays.
  package static func electedTaskVectors(
    base: TensorView, _ inputs: [TensorView], _ weights: [Double], density: Double, scale: Double,
    into output: MutableTensorView
  ) {
    check([base] + inputs, output)
    precondition(inputs.count == weights.count && density > 0, "one weight per input and a density")
    let kept = min(output.count, Int((density * Double(output.count)).rounded(.up)))
    let thresholds = inputs.map { kept < output.count ? magnitude(ofRank: kept, in: $0, less: base) : 0 }
    parallelFor(output.count, grain: 1 << 16) { range in
      forEachPiece(of: range, [base] + inputs) { part, numbers in
        for i in 0..<part.count {
          let start = numbers[i]
          var total = 0.0
          for (index, weight) in weights.enumerated() {
            let difference = numbers[(index + 1) * piece + i] - start
            // What is no number is not below the threshold.
            if !(difference.magnitude < thresholds[index]) { total += weight * difference }
          }
          guard total != 0 else { continue }
          guard !total.isNaN else {
            numbers[i] = .nan
            continue
          }
          var (sum, share) = (0.0, 0.0)
          for (index, weight) in weights.enumerated() {
            let value = numbers[(index + 1) * piece + i]
            let difference = value - start
            guard difference.magnitude >= thresholds[index], total > 0 ? difference > 0 : difference < 0 else {
              continue
            }
            sum += weight * value
            share += weight
          }
          numbers[i] = scale == 1 ? sum / share : (1 - scale) * start + scale * (sum / share)
        }
        store(numbers, part, of: output)
      }
    }
  }

  /// The `rank`-th largest magnitude of `input - base`, counted from 1; NaN counts as the largest.
  ///
  /// Magnitudes order like their bits, which are found 16 at a time by counting.
  private static func magnitude(ofRank rank: Int, in input: TensorView, less base: TensorView) -> Double {
    var prefix: UInt64 = 0
    var rest = rank
    for shift in [UInt64(48), 32, 16, 0] {
      let total = Mutex([Int](repeating: 0, count: 1 << 16))
      parallelFor(input.count, grain: 1 << 22) { range in
        var counts = [Int](repeating: 0, count: 1 << 16)
        counts.withUnsafeMutableBufferPointer { counts in
          forEachPiece(of: range, [base, input]) { part, numbers in
            for i in 0..<part.count {
              let bits = (numbers[piece + i] - numbers[i]).magnitude.bitPattern
              if shift == 48 || bits >> (shift + 16) == prefix { counts[Int(bits >> shift & 0xFFFF)] += 1 }
            }
          }
        }
        total.withLock { total in for digit in counts.indices { total[digit] += counts[digit] } }
      }
      let counts = total.withLock { $0 }
      var digit = (1 << 16) - 1
      while digit > 0, counts[digit] < rest {
        rest -= counts[digit]
        digit -= 1
      }
      prefix = prefix << 16 | UInt64(digit)
    }
    return Double(bitPattern: prefix)
  }

  /// The point at `t`, between 0 and 1, on the arc between two tensors as vectors (Shoemake, 1985):
  /// `sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b` with `w` the angle between them.
  ///
  /// On the straight line between them, `(1 - t) a + t b`, where there is no arc: if a tensor is zero, or the sine of the
  /// angle is below `smallestSine`.
  package static func sphericalInterpolation(
    _ a: TensorView, _ b: TensorView, at t: Double, into output: MutableTensorView
  ) {
    check([a, b], output)
    let grain = 1 << 16
    let parts: [SIMD4<Double>] = parallelMap((output.count + grain - 1) / grain) { index in
      var sums = SIMD4<Double>.zero
      forEachPiece(of: index * grain..<min((index + 1) * grain, output.count), [a, b]) { part, numbers in
        for i in 0..<part.count {
          let (x, y) = (numbers[i], numbers[piece + i])
          sums += SIMD4(x * x, y * y, x * y, 0)
        }
      }
      return sums
    }
    var sums = SIMD4<Double>.zero
    for part in parts { sums += part }
    let ratio: Double = sums.z / (sums.x * sums.y).squareRoot()
    let cosine: Double = min(max(ratio, -1), 1)
    let sine: Double = (1 - cosine * cosine).squareRoot()
    guard sums.x > 0, sums.y > 0, sine >= smallestSine else {
      return weightedSum([a, b], [1 - t, t], into: output)
    }
    let angle = acos(cosine)
    weightedSum([a, b], [sin((1 - t) * angle) / sine, sin(t * angle) / sine], into: output)
  }

  /// The sine of the angle below which vectors count as parallel or opposite.
  package static let smallestSine = 1e-6
}
