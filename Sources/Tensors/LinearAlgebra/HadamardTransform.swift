/// Multiplies vectors by orthogonal matrices made of Hadamard matrices `H` of order `n`: `H D x / sqrt(n)`, where `D` is a
/// diagonal of signs, or the inverse, `D H^T x / sqrt(n)`.
///
/// Without a seed `D` is the identity. With one the sign of place `i` is bit 31 of a hash of seed and place
/// (``HadamardTransform/sign(seed:place:)``).
package struct HadamardTransform: Sendable {
  package let matrix: HadamardMatrix
  package let seed: Int?
  package let isInverse: Bool
  private let matrices: [PaleyMatrix]

  package init(_ matrix: HadamardMatrix, seed: Int? = nil, isInverse: Bool = false) {
    self.matrix = matrix
    self.seed = seed
    self.isInverse = isInverse
    matrices = matrix.matrices
  }

  /// What a place is multiplied by: -1 if the highest bit of the hash is set.
  ///
  /// With `h = (place + 1) * (2 seed + 1) * 0x9E3779B1`, in 32 bits: `h ^= h >> 15; h *= 0x85EBCA77; h ^= h >> 13;
  /// h *= 0xC2B2AE3D`.
  package static func sign(seed: Int, place: Int) -> Int {
    var hash = UInt32(truncatingIfNeeded: place + 1) &* multiplier(seed: seed)
    hash ^= hash >> 15
    hash = hash &* 0x85EB_CA77
    hash ^= hash >> 13
    return (hash &* 0xC2B2_AE3D) >> 31 == 0 ? 1 : -1
  }

  /// What places are multiplied by for the hash.
  package static func multiplier(seed: Int) -> UInt32 { UInt32(truncatingIfNeeded: 2 &* seed &+ 1) &* 0x9E37_79B1 }

  /// Numbers that an application needs beside the vectors, for each of them.
  package var scratchCount: Int { matrix.factors.max().map { $0 * (matrix.order / $0) } ?? 0 }

  /// Replaces `count` vectors, number `i` of vector `j` at `x[i * count + j]`; `scratch` has `scratchCount * count` numbers.
  @inlinable
  package func apply<R: BinaryFloatingPoint>(
    _ x: UnsafeMutablePointer<R>, count: Int, scratch: UnsafeMutablePointer<R>
  ) {
    let order = matrix.order
    if let seed, !isInverse { flip(x, count: count, seed: seed) }
    var stride = 1
    for _ in 0..<matrix.doublings {
      let run = stride * count
      for base in Swift.stride(from: 0, to: order * count, by: 2 * run) {
        let (low, high) = (x + base, x + base + run)
        for i in 0..<run {
          let (a, b) = (low[i], high[i])
          low[i] = a + b
          high[i] = a - b
        }
      }
      stride *= 2
    }
    for index in matrix.factors.indices.reversed() {
      multiply(x, by: index, run: stride * count, total: order * count, scratch: scratch)
      stride *= matrix.factors[index]
    }
    let scale = R(1 / Double(order).squareRoot())
    for i in 0..<order * count { x[i] *= scale }
    if let seed, isInverse { flip(x, count: count, seed: seed) }
  }

  /// Changes signs.
  @inlinable
  func flip<R: BinaryFloatingPoint>(_ x: UnsafeMutablePointer<R>, count: Int, seed: Int) {
    for place in 0..<matrix.order where Self.sign(seed: seed, place: place) < 0 {
      for i in place * count..<(place + 1) * count { x[i] = -x[i] }
    }
  }

  /// Multiplies by one Paley matrix along an axis whose steps are `run` numbers.
  @inlinable
  func multiply<R: BinaryFloatingPoint>(
    _ x: UnsafeMutablePointer<R>, by index: Int, run: Int, total: Int, scratch: UnsafeMutablePointer<R>
  ) {
    let size = matrix.factors[index]
    for base in stride(from: 0, to: total, by: size * run) {
      let source = x + base
      scratch.update(from: source, count: size * run)
      for row in 0..<size {
        let sum = source + row * run
        sum.update(repeating: 0, count: run)
        for column in 0..<size {
          let term = scratch + column * run
          if isPositive(index, row, column) {
            for i in 0..<run { sum[i] += term[i] }
          } else {
            for i in 0..<run { sum[i] -= term[i] }
          }
        }
      }
    }
  }

  /// Whether a number of a Paley matrix, or of its transpose for the inverse, is 1.
  @usableFromInline
  func isPositive(_ index: Int, _ row: Int, _ column: Int) -> Bool {
    let matrix = matrices[index]
    return matrix.signs[isInverse ? column * matrix.order + row : row * matrix.order + column] > 0
  }
}
