/// The number of largest magnitude with its sign, the first of equals; 0 for no numbers. NaN counts as the largest.
package func largestMagnitude(_ values: UnsafePointer<Float>, _ count: Int) -> Float {
  // Magnitudes order like their bits; integer maxima vectorise without assumptions about NaN.
  var largest: Int32 = 0
  for i in 0..<count { largest = max(largest, Int32(bitPattern: values[i].bitPattern & 0x7FFF_FFFF)) }
  if largest == 0 { return 0 }
  for i in 0..<count where values[i].bitPattern & 0x7FFF_FFFF == UInt32(bitPattern: largest) { return values[i] }
  return 0
}

/// Whether no number is NaN or infinite.
package func isAllFinite(_ values: UnsafeBufferPointer<Float>) -> Bool {
  var largest: Int32 = 0
  for i in 0..<values.count { largest = max(largest, Int32(bitPattern: values[i].bitPattern & 0x7FFF_FFFF)) }
  return largest < 0x7F80_0000
}

/// The smallest and the largest number; nil for no numbers. NaN is passed over unless there is nothing else.
package func extremes(_ values: UnsafeBufferPointer<Float>) -> (smallest: Float, largest: Float)? {
  guard let first = values.first(where: { !$0.isNaN }) ?? values.first else { return nil }
  var smallest = first, largest = first
  for i in 0..<values.count {
    smallest = values[i] < smallest ? values[i] : smallest
    largest = values[i] > largest ? values[i] : largest
  }
  return (smallest, largest)
}

/// The position of the largest number, the first of equals; NaN is never chosen unless all are NaN. Nil for no numbers.
package func indexOfLargest(_ values: UnsafeBufferPointer<Float>) -> Int? {
  guard let extremes = extremes(values) else { return nil }
  return values.firstIndex { $0 == extremes.largest } ?? 0
}

/// The sum in f64, in eight partial sums of every eighth number: the same on every machine.
package func sum(_ values: UnsafeBufferPointer<Float>) -> Double {
  accumulate(values.count) { Double(values[$0]) }
}

/// The sum of squares in f64.
package func sumOfSquares(_ values: UnsafeBufferPointer<Float>) -> Double {
  accumulate(values.count) { Double(values[$0]) * Double(values[$0]) }
}

/// The sum of products in f64.
package func dot(_ a: UnsafeBufferPointer<Float>, _ b: UnsafeBufferPointer<Float>) -> Double {
  precondition(a.count == b.count, "a dot product of \(a.count) and \(b.count) numbers")
  return accumulate(a.count) { Double(a[$0]) * Double(b[$0]) }
}

/// Mean and variance (of the numbers, not an estimate from a sample) in f64, in two passes; zeros for no numbers.
package func meanAndVariance(_ values: UnsafeBufferPointer<Float>) -> (mean: Double, variance: Double) {
  guard !values.isEmpty else { return (0, 0) }
  let mean = sum(values) / Double(values.count)
  let squares = accumulate(values.count) { i in
    let difference = Double(values[i]) - mean
    return difference * difference
  }
  return (mean, squares / Double(values.count))
}

@inline(__always)
private func accumulate(_ count: Int, _ term: (Int) -> Double) -> Double {
  var lanes = SIMD8<Double>.zero
  let whole = count / 8 * 8
  var i = 0
  while i < whole {
    lanes += SIMD8(
      term(i), term(i + 1), term(i + 2), term(i + 3), term(i + 4), term(i + 5), term(i + 6), term(i + 7))
    i += 8
  }
  var total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
  while i < count {
    total += term(i)
    i += 1
  }
  return total
}
