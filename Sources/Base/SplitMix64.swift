/// A small random number generator with a seed (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
/// 2014): the same numbers on every machine.
package struct SplitMix64: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z &>> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z &>> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z &>> 31
  }

  /// A number in `0 ..< 1`.
  package mutating func uniform() -> Double { Double(next() >> 11) * 0x1p-53 }

  /// A number in `range`.
  package mutating func float(in range: ClosedRange<Float> = -1...1) -> Float {
    range.lowerBound + Float(uniform()) * (range.upperBound - range.lowerBound)
  }

  /// Numbers in `range`.
  package mutating func floats(_ count: Int, in range: ClosedRange<Float> = -1...1) -> [Float] {
    (0..<count).map { _ in float(in: range) }
  }

  /// An integer in `0 ..< bound`.
  package mutating func int(below bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
