/// The largest difference relative to the largest magnitude of `expected`; infinite if lengths differ, if a number is NaN
/// on one side only, or if infinities differ. Two empty lists and equal lists of zeros give 0.
package func maxRelativeError(_ found: [Float], _ expected: [Float]) -> Double {
  guard found.count == expected.count else { return .infinity }
  var largest = 0.0, difference = 0.0
  for (a, b) in zip(found, expected) {
    if a == b || (a.isNaN && b.isNaN) {
      if b.isFinite { largest = max(largest, Double(b.magnitude)) }
      continue
    }
    guard a.isFinite, b.isFinite else { return .infinity }
    largest = max(largest, Double(b.magnitude))
    difference = max(difference, abs(Double(a) - Double(b)))
  }
  if difference == 0 { return 0 }
  return largest == 0 ? .infinity : difference / largest
}

/// As above, in double precision.
package func maxRelativeError(_ found: [Double], _ expected: [Double]) -> Double {
  guard found.count == expected.count else { return .infinity }
  var largest = 0.0, difference = 0.0
  for (a, b) in zip(found, expected) {
    if a == b || (a.isNaN && b.isNaN) {
      if b.isFinite { largest = max(largest, b.magnitude) }
      continue
    }
    guard a.isFinite, b.isFinite else { return .infinity }
    largest = max(largest, b.magnitude)
    difference = max(difference, abs(a - b))
  }
  if difference == 0 { return 0 }
  return largest == 0 ? .infinity : difference / largest
}
