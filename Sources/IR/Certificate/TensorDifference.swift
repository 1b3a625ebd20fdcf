import Base
import Tensors

/// How far numbers are from a reference.
package struct TensorDifference: Hashable, Sendable {
  /// The largest distance; infinite where one side is no finite number and the other is another one.
  package private(set) var largest = 0.0
  /// The root of the mean square of the distances, divided by that of the reference; 0 if there is no distance.
  package private(set) var relativeRMS = 0.0
  /// The cosine of the angle between the two, 1 for equal ones.
  package private(set) var cosine = 1.0
  /// The largest finite magnitude of the reference.
  package private(set) var magnitude = 0.0

  package init(_ found: [Double], _ reference: [Double]) {
    guard found.count == reference.count else {
      (largest, relativeRMS, cosine) = (.infinity, .infinity, 0)
      return
    }
    var (squares, own, other, product) = (0.0, 0.0, 0.0, 0.0)
    for (x, y) in zip(found, reference) {
      if y.isFinite { magnitude = max(magnitude, y.magnitude) }
      if x == y || (x.isNaN && y.isNaN) {
        if y.isFinite {
          own += y * y
          other += y * y
          product += y * y
        }
        continue
      }
      guard x.isFinite, y.isFinite else {
        largest = .infinity
        continue
      }
      let distance = (x - y).magnitude
      largest = max(largest, distance)
      squares += distance * distance
      own += x * x
      other += y * y
      product += x * y
    }
    if largest == .infinity {
      (relativeRMS, cosine) = (.infinity, 0)
    } else if largest > 0 {
      relativeRMS = other > 0 ? (squares / other).squareRoot() : .infinity
      cosine = own > 0 && other > 0 ? max(-1, min(1, product / (own * other).squareRoot())) : 0
    }
  }

  /// The largest distance relative to the largest magnitude of the reference.
  package var relative: Double { largest == 0 ? 0 : largest / max(magnitude, 1e-300) }
}

extension TensorView {
  /// The numbers as doubles, those that codes stand for where they are quantized.
  package var doubles: [Double] {
    [Double](unsafeUninitializedCapacity: max(1, count)) { buffer, written in
      if count > 0, let start = buffer.baseAddress { loadNumbers(self, 0..<count, into: start) }
      written = count
    }
  }
}

extension Double {
  /// The number with two digits behind the point and an exponent, `3.14e-07`.
  package var figure: String {
    guard isFinite, self != 0 else { return self == 0 ? "0" : "\(self)" }
    var exponent = 0
    var digits = magnitude
    // Powers of ten that are exact come first, so that few steps are left for rounding errors to add up in.
    while digits >= 1e16 { (digits, exponent) = (digits / 1e16, exponent + 16) }
    while digits >= 10 { (digits, exponent) = (digits / 10, exponent + 1) }
    while digits < 1e-15 { (digits, exponent) = (digits * 1e16, exponent - 16) }
    while digits < 1 { (digits, exponent) = (digits * 10, exponent - 1) }
    var hundredths = Int((digits * 100).rounded())
    if hundredths >= 1000 { (hundredths, exponent) = (hundredths / 10, exponent + 1) }
    let fraction = hundredths % 100
    let tens = exponent.magnitude
    return (self < 0 ? "-" : "") + "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)e"
      + (exponent < 0 ? "-" : "+") + (tens < 10 ? "0" : "") + "\(tens)"
  }
}
