import Base
import TestSupport
import Tensors
import Testing

@Suite struct LinearAlgebraTests {
  /// The product by its definition, in f64.
  private func reference(_ p: MatrixProduct, _ a: [Double], _ b: [Double], _ c: [Double]) -> [Double] {
    var out = c
    for i in 0..<p.rows {
      for j in 0..<p.columns {
        var sum = 0.0
        for k in 0..<p.depth {
          sum +=
            a[p.transposeA ? k * p.strideA + i : i * p.strideA + k]
            * b[p.transposeB ? j * p.strideB + k : k * p.strideB + j]
        }
        let old = p.beta == 0 ? 0 : p.beta * c[i * p.strideC + j]
        out[i * p.strideC + j] = p.alpha * sum + old
      }
    }
    return out
  }

  /// The last two are cut into blocks, one by columns and one by rows.
  @Test(arguments: [
    (1, 1, 1), (3, 5, 7), (1, 9, 64), (17, 1, 33), (64, 31, 5), (4, 4, 0), (0, 3, 2), (2, 0, 2), (131, 257, 130),
    (300, 130, 110),
  ])
  func products(_ m: Int, _ n: Int, _ k: Int) {
    var random = SplitMix64(seed: UInt64(m * 10_000 + n * 100 + k))
    for (transposeA, transposeB) in [(false, false), (false, true), (true, false), (true, true)] {
      for gap in [0, 3] {
        let p = MatrixProduct(
          rows: m, columns: n, depth: k, transposeA: transposeA, transposeB: transposeB,
          strideA: (transposeA ? m : k) + gap, strideB: (transposeB ? k : n) + gap, strideC: n + gap,
          alpha: gap == 0 ? 1 : -0.5, beta: gap == 0 ? 0 : 2)
        let a = random.floats((transposeA ? k : m) * p.strideA), b = random.floats((transposeB ? n : k) * p.strideB)
        // With beta 0 even NaN must be overwritten; elsewhere gaps must stay.
        let c = gap == 0 ? [Float](repeating: .nan, count: m * p.strideC) : random.floats(m * p.strideC)
        let expected = reference(p, a.map { Double($0) }, b.map { Double($0) }, c.map { Double($0) })
        var found = c
        p(a, b, into: &found)
        // A sum of k products of numbers below 1 is off by at most about k * k / 2 roundings of 2^-24.
        #expect(maxRelativeError(found, expected.map { Float($0) }) < 1e-5, "\(p)")
        var doubles = c.map { Double($0) }
        p(a.map { Double($0) }, b.map { Double($0) }, into: &doubles)
        #expect(maxRelativeError(doubles, expected) < 1e-13, "\(p)")
      }
    }
  }

  /// What other threads compute at the same time changes no bit of a product.
  @Test func productsDoNotDependOnThreads() {
    var random = SplitMix64(seed: 5)
    let (m, n, k) = (24, 1000, 300)
    let a = random.floats(m * k), b = random.floats(n * k)
    let product = MatrixProduct(rows: m, columns: n, depth: k, transposeB: true)
    func result() -> [Float] {
      var c = [Float](repeating: 0, count: m * n)
      product(a, b, into: &c)
      return c
    }
    let alone = result()
    let together = parallelMap(8, threads: 8) { _ in result() }
    for found in together { #expect(found == alone) }
  }

  @Test func gram() {
    var random = SplitMix64(seed: 3)
    let (rows, columns) = (11, 6)
    let x = random.floats(rows * columns)
    let start = [Float](repeating: 1, count: columns * columns)
    var found = start
    addGram(x, rows: rows, columns: columns, alpha: 2, beta: 0.5, into: &found)
    var doubles = start.map { Double($0) }
    addGram(x.map { Double($0) }, rows: rows, columns: columns, alpha: 2, beta: 0.5, into: &doubles)
    let p = MatrixProduct(rows: columns, columns: columns, depth: rows, transposeA: true, alpha: 2, beta: 0.5)
    let wide = x.map { Double($0) }
    let expected = reference(p, wide, wide, start.map { Double($0) })
    #expect(maxRelativeError(found, expected.map { Float($0) }) < 1e-6)
    #expect(maxRelativeError(doubles, expected) < 1e-14)
  }

  private func definite(_ n: Int) -> [Float] {
    var random = SplitMix64(seed: UInt64(n))
    let x = random.floats(2 * n * n)
    var a = [Float](repeating: 0, count: n * n)
    for i in 0..<n { a[i * n + i] = 0.1 }
    addGram(x, rows: 2 * n, columns: n, into: &a)
    return a
  }

  @Test(arguments: [1, 2, 5, 33]) func cholesky(_ n: Int) throws {
    let a = definite(n)
    for triangle in [Triangle.lower, .upper] {
      var factor = a
      try choleskyFactor(&factor, order: n, triangle)
      for row in 0..<n {
        for column in 0..<n where triangle == .lower ? column > row : column < row {
          #expect(factor[row * n + column] == 0)
        }
      }
      var product = [Float](repeating: 0, count: n * n)
      MatrixProduct(
        rows: n, columns: n, depth: n, transposeA: triangle == .upper, transposeB: triangle == .lower)(
          factor, factor, into: &product)
      #expect(maxRelativeError(product, a) < 1e-5)

      var inverse = factor
      try invertTriangle(&inverse, order: n, triangle)
      var identity = [Float](repeating: 0, count: n * n)
      MatrixProduct(rows: n, columns: n, depth: n)(factor, inverse, into: &identity)
      // The condition of these matrices is below a thousand.
      #expect(maxRelativeError(identity, (0..<n * n).map { $0 % (n + 1) == 0 ? 1 : 0 }) < 1e-3)

      var wide = a.map { Double($0) }
      try choleskyFactor(&wide, order: n, triangle)
      #expect(maxRelativeError(wide.map { Float($0) }, factor) < 1e-4)
      try invertTriangle(&wide, order: n, triangle)
      #expect(maxRelativeError(wide.map { Float($0) }, inverse) < 1e-3)
    }
  }

  @Test func refusedMatrices() {
    var indefinite: [Float] = [1, 2, 2, 1], wide: [Double] = [1, 2, 2, 1], singular: [Float] = [1, 0, 5, 0]
    var damaged: [Float] = [.nan, 0, 0, 1]
    #expect(throws: CompileError.self) { try choleskyFactor(&indefinite, order: 2) }
    #expect(throws: CompileError.self) { try choleskyFactor(&wide, order: 2) }
    #expect(throws: CompileError.self) { try choleskyFactor(&damaged, order: 2) }
    #expect(throws: CompileError.self) { try invertTriangle(&singular, order: 2, .lower) }
    #expect(throws: CompileError.self) { _ = try SingularValues([1, .infinity], rows: 1, columns: 2) }
    #expect(throws: CompileError.self) { _ = try SymmetricEigen([.nan], order: 1) }
  }

  @Test(arguments: [(1, 1), (6, 4), (4, 6), (1, 7), (7, 1), (20, 20), (0, 3)])
  func singularValues(_ rows: Int, _ columns: Int) throws {
    var random = SplitMix64(seed: 9)
    let a = random.floats(rows * columns)
    let svd = try SingularValues(a, rows: rows, columns: columns)
    let rank = min(rows, columns)
    #expect(svd.values == svd.values.sorted(by: >) && svd.values.allSatisfy { $0 >= 0 })
    let scaled = svd.u.enumerated().map { $1 * svd.values[$0 % rank] }
    var product = [Float](repeating: 0, count: rows * columns)
    MatrixProduct(rows: rows, columns: columns, depth: rank)(scaled, svd.vt, into: &product)
    #expect(maxRelativeError(product, a) < 1e-5)
    var gram = [Float](repeating: 0, count: rank * rank)
    MatrixProduct(rows: rank, columns: rank, depth: rows, transposeA: true)(svd.u, svd.u, into: &gram)
    #expect(maxRelativeError(gram, (0..<rank * rank).map { $0 % (rank + 1) == 0 ? 1 : 0 }) < 1e-5)
  }

  @Test func knownSingularValues() throws {
    let svd = try SingularValues([3, 0, 0, -2], rows: 2, columns: 2)
    #expect(maxRelativeError(svd.values, [3, 2]) < 1e-6)
  }

  @Test(arguments: [1, 2, 17]) func eigen(_ n: Int) throws {
    let a = definite(n)
    let eigen = try SymmetricEigen(a, order: n)
    #expect(eigen.values == eigen.values.sorted())
    for (index, value) in eigen.values.enumerated() {
      let vector = Array(eigen.vectors[index * n..<(index + 1) * n])
      var image = [Float](repeating: 0, count: n)
      MatrixProduct(rows: n, columns: 1, depth: n)(a, vector, into: &image)
      // Relative to the largest eigenvalue.
      for (x, v) in zip(image, vector) { #expect(abs(x - value * v) < 1e-5 * (eigen.values.last ?? 1)) }
      #expect(abs(vector.reduce(0) { $0 + $1 * $1 } - 1) < 1e-5)
    }
  }

  @Test func knownEigenvalues() throws {
    let eigen = try SymmetricEigen([2, 1, 1, 2], order: 2)
    #expect(maxRelativeError(eigen.values, [1, 3]) < 1e-6)
  }
}
