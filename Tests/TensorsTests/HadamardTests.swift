import Base
import Tensors
import Testing

@Suite struct HadamardTests {
  /// Hidden and feed-forward widths of published networks, and others that a block is left over from.
  static let widths = [
    1536, 2560, 3584, 4864, 5120, 5632, 6912, 8960, 9728, 10240, 10944, 11008, 13824, 14336, 17408, 18944, 25600, 27648,
    28672, 29568, 53248,
  ]

  /// `H H^T = n I` in whole numbers.
  private static func isHadamard(_ order: Int, _ sign: (Int, Int) -> Int) -> Bool {
    let rows = (0..<order).map { row in (0..<order).map { sign(row, $0) } }
    guard rows.allSatisfy({ $0.allSatisfy { $0.magnitude == 1 } }) else { return false }
    for a in 0..<order {
      for b in 0...a {
        var sum = 0
        for i in 0..<order { sum += rows[a][i] * rows[b][i] }
        guard sum == (a == b ? order : 0) else { return false }
      }
    }
    return true
  }

  @Test(arguments: [3, 4, 5, 7, 8, 9, 25, 27, 49, 81, 121, 125, 169, 343]) func fieldsAreFields(_ order: Int) throws {
    let field = try #require(FiniteField(order: order))
    #expect(field.order == order && field.product(0, order - 1) == 0)
    for a in 1..<order {
      #expect(field.product(a, 1) == a && field.difference(a, a) == 0 && field.difference(a, 0) == a)
      // Without divisors of zero every number has an inverse.
      #expect(Set((0..<order).map { field.product(a, $0) }).count == order)
    }
    var generator = SplitMix64(seed: 1)
    for _ in 0..<100 {
      let (a, b, c) = (generator.int(below: order), generator.int(below: order), generator.int(below: order))
      #expect(field.product(a, field.difference(b, c)) == field.difference(field.product(a, b), field.product(a, c)))
      #expect(field.product(a, field.product(b, c)) == field.product(field.product(a, b), c))
    }
    if order % 2 == 1 {
      let character = field.quadraticCharacter
      #expect(character.reduce(0) { $0 + Int($1) } == 0 && character[0] == 0)
    }
  }

  @Test func otherOrdersHaveNoField() {
    for order in [0, 1, 6, 12, 15, 100, 1 << 20] { #expect(FiniteField(order: order) == nil) }
  }

  /// The factors of all widths are Hadamard matrices; a Kronecker product of such is one.
  @Test func factorsAreHadamardMatrices() throws {
    var factors: Set<Int> = [4, 8, 36, 140, 344]
    for width in Self.widths {
      let matrix = try #require(HadamardMatrix(order: width), "\(width)")
      #expect(matrix.factors.reduce(1 << matrix.doublings, *) == width)
      factors.formUnion(matrix.factors)
    }
    #expect(factors.contains(28) && factors.contains(52))
    for factor in factors {
      let matrix = try #require(PaleyMatrix(order: factor), "\(factor)")
      #expect(Self.isHadamard(factor) { Int(matrix.signs[$0 * factor + $1]) }, "\(factor)")
    }
  }

  @Test(arguments: [1, 2, 4, 12, 20, 24, 28, 48, 144, 240]) func smallOnesAreHadamardMatrices(_ order: Int) throws {
    let matrix = try #require(HadamardMatrix(order: order))
    let factors = matrix.matrices
    #expect(Self.isHadamard(order) { matrix.sign($0, $1, factors) })
  }

  /// The fast transform of unit vectors gives columns of the matrix, and the one back `n` times what was there.
  @Test(arguments: widths) func transformsAreExact(_ width: Int) throws {
    let matrix = try #require(HadamardMatrix(order: width))
    let factors = matrix.matrices
    var generator = SplitMix64(seed: 2)
    for seed in [nil, 5] {
      let forward = HadamardTransform(matrix, seed: seed), back = HadamardTransform(matrix, seed: seed, isInverse: true)
      var scratch = [Double](repeating: 0, count: forward.scratchCount)
      let place = generator.int(below: width)
      var x = [Double](repeating: 0, count: width)
      x[place] = 1
      forward.apply(&x, count: 1, scratch: &scratch)
      let sign = seed.map { HadamardTransform.sign(seed: $0, place: place) } ?? 1
      let scale = 1 / Double(width).squareRoot()
      #expect(x.indices.allSatisfy { x[$0] == Double(matrix.sign($0, place, factors) * sign) * scale })
      // Sums of whole numbers are exact.
      var numbers = (0..<width).map { _ in Double(generator.int(below: 201) - 100) }
      let before = numbers
      forward.apply(&numbers, count: 1, scratch: &scratch)
      back.apply(&numbers, count: 1, scratch: &scratch)
      // Two roundings by the scale, relative to the norm of the vector.
      #expect(zip(numbers, before).allSatisfy { abs($0 - $1) < 1e-9 })
      #expect(numbers.map { $0.rounded() } == before)
    }
  }

  @Test func vectorsSideBySideAreTransformedAlike() throws {
    let matrix = try #require(HadamardMatrix(order: 24))
    let transform = HadamardTransform(matrix, seed: 3)
    var generator = SplitMix64(seed: 4)
    let vectors = (0..<5).map { _ in generator.floats(24) }
    var together = (0..<24).flatMap { i in vectors.map { $0[i] } }
    var scratch = [Float](repeating: 0, count: 5 * transform.scratchCount)
    transform.apply(&together, count: 5, scratch: &scratch)
    for (j, vector) in vectors.enumerated() {
      var alone = vector
      transform.apply(&alone, count: 1, scratch: &scratch)
      #expect(alone == (0..<24).map { together[5 * $0 + j] })
    }
  }

  /// 13696 = 2^7 * 107 has no product of this form.
  @Test func otherWidthsHaveBlocks() throws {
    #expect(HadamardMatrix(order: 13696) == nil && HadamardMatrix(order: 6) == nil && HadamardMatrix(order: 0) == nil)
    #expect(HadamardMatrix.blocks(of: 13696) == [128])
    #expect(HadamardMatrix.blocks(of: 172) == [88, 84])
    #expect(HadamardMatrix.blocks(of: 11008, largestFactor: 64) == [256])
    #expect(HadamardMatrix.blocks(of: 1) == [1] && HadamardMatrix.blocks(of: 768) == [768])
    for width in 1...300 {
      let blocks = HadamardMatrix.blocks(of: width)
      let rest = width - blocks.dropLast().reduce(0, +)
      #expect(blocks.last.map { rest > 0 && rest % $0 == 0 } == true, "\(width): \(blocks)")
      #expect(blocks.allSatisfy { HadamardMatrix(order: $0) != nil })
    }
  }

  /// About half of the signs are negative, and seeds differ.
  @Test func signsAreMixed() {
    for seed in [0, 1, 2, -7, 1 << 40] {
      let signs = (0..<4096).map { HadamardTransform.sign(seed: seed, place: $0) }
      #expect(abs(signs.reduce(0, +)) < 256, "\(seed)")
      let others = (0..<4096).map { HadamardTransform.sign(seed: seed + 1, place: $0) }
      let equal = zip(signs, others).count { $0 == $1 }
      #expect(abs(equal - 2048) < 256, "\(seed)")
    }
  }
}
