import COpenBLAS

/// The sizes and places of a product `C = alpha * op(A) * op(B) + beta * C` of row-major matrices, with `op(A)` of
/// `rows` x `depth`, `op(B)` of `depth` x `columns`, and `op` the identity or the transposition.
package struct MatrixProduct: Hashable, Sendable {
  package var rows: Int
  package var columns: Int
  package var depth: Int
  package var transposeA: Bool
  package var transposeB: Bool
  /// Elements between the starts of two rows of the matrix as it is stored.
  package var strideA: Int
  package var strideB: Int
  package var strideC: Int
  package var alpha: Double = 1
  package var beta: Double = 0

  /// A product of matrices whose rows lie `strideA`, `strideB` and `strideC` elements apart, by default without gaps.
  package init(
    rows: Int, columns: Int, depth: Int, transposeA: Bool = false, transposeB: Bool = false, strideA: Int? = nil,
    strideB: Int? = nil, strideC: Int? = nil, alpha: Double = 1, beta: Double = 0
  ) {
    self.rows = rows
    self.columns = columns
    self.depth = depth
    self.transposeA = transposeA
    self.transposeB = transposeB
    self.strideA = strideA ?? (transposeA ? rows : depth)
    self.strideB = strideB ?? (transposeB ? depth : columns)
    self.strideC = strideC ?? columns
    self.alpha = alpha
    self.beta = beta
    precondition(rows >= 0 && columns >= 0 && depth >= 0, "sizes are not negative")
    precondition(self.strideA >= (transposeA ? rows : depth), "rows of A overlap")
    precondition(self.strideB >= (transposeB ? depth : columns), "rows of B overlap")
    precondition(self.strideC >= columns, "rows of C overlap")
  }

  /// Computes the product in f32. With `beta` 0 the old content of `c` is not read.
  ///
  /// Large products are cut into blocks by their sizes alone, each of which one thread computes: the result does not
  /// depend on the number of threads.
  package func callAsFunction(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, into c: UnsafeMutablePointer<Float>
  ) {
    cut(a, b, c) { part, a, b, c in
      cblas_sgemm(
        CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans, Int32(part.rows),
        Int32(part.columns), Int32(depth), Float(alpha), a, Int32(max(strideA, 1)), b, Int32(max(strideB, 1)),
        Float(beta), c, Int32(strideC))
    }
  }

  /// Computes the product in f64. With `beta` 0 the old content of `c` is not read.
  package func callAsFunction(
    _ a: UnsafePointer<Double>, _ b: UnsafePointer<Double>, into c: UnsafeMutablePointer<Double>
  ) {
    cut(a, b, c) { part, a, b, c in
      cblas_dgemm(
        CblasRowMajor, transposeA ? CblasTrans : CblasNoTrans, transposeB ? CblasTrans : CblasNoTrans, Int32(part.rows),
        Int32(part.columns), Int32(depth), alpha, a, Int32(max(strideA, 1)), b, Int32(max(strideB, 1)), beta, c,
        Int32(strideC))
    }
  }

  /// Calls `multiply` with the sizes of each block of the result and where its matrices start.
  private func cut<S: BinaryFloatingPoint>(
    _ a: UnsafePointer<S>, _ b: UnsafePointer<S>, _ c: UnsafeMutablePointer<S>,
    _ multiply: ((rows: Int, columns: Int), UnsafePointer<S>, UnsafePointer<S>, UnsafeMutablePointer<S>) -> Void
  ) {
    guard rows > 0, columns > 0 else { return }
    guard depth > 0 else {
      for row in 0..<rows {
        for column in 0..<columns {
          let place = row * strideC + column
          c[place] = beta == 0 ? 0 : c[place] * S(beta)
        }
      }
      return
    }
    useOneThreadPerCall
    guard Double(rows) * Double(columns) * Double(depth) >= Self.smallestCut else {
      return multiply((rows, columns), a, b, c)
    }
    let (isWide, count) = (columns >= rows, max(rows, columns))
    let step = max(128, (count + 255) / 256 * 16)
    nonisolated(unsafe) let (a, b, c, multiply) = (a, b, c, multiply)
    parallelFor(count, grain: step) { range in
      let first = range.lowerBound
      if isWide {
        multiply((rows, range.count), a, b + first * (transposeB ? strideB : 1), c + first)
      } else {
        multiply((range.count, columns), a + first * (transposeA ? 1 : strideA), b, c + first * strideC)
      }
    }
  }

  /// Multiplications of the smallest product that is worth a second thread.
  private static let smallestCut = 4e6
}

/// Loops of mcc's own give work to threads; what BLAS and LAPACK compute would depend on how many threads they take.
let useOneThreadPerCall: Void = openblas_set_num_threads(1)

/// Adds `alpha * X^T * X` to `beta` times the symmetric row-major matrix `c` of order `columns`, for `rows` samples `x` of
/// `columns` numbers each: the update of a Hessian of least squares. Both triangles of `c` are written.
package func addGram(
  _ x: UnsafePointer<Float>, rows: Int, columns: Int, alpha: Float = 1, beta: Float = 1,
  into c: UnsafeMutablePointer<Float>
) {
  let product = MatrixProduct(
    rows: columns, columns: columns, depth: rows, transposeA: true, alpha: Double(alpha), beta: Double(beta))
  product(x, x, into: c)
  for row in 0..<columns {
    for column in 0..<row { c[column * columns + row] = c[row * columns + column] }
  }
}

/// As above, in f64.
package func addGram(
  _ x: UnsafePointer<Double>, rows: Int, columns: Int, alpha: Double = 1, beta: Double = 1,
  into c: UnsafeMutablePointer<Double>
) {
  let product = MatrixProduct(
    rows: columns, columns: columns, depth: rows, transposeA: true, alpha: alpha, beta: beta)
  product(x, x, into: c)
  for row in 0..<columns {
    for column in 0..<row { c[column * columns + row] = c[row * columns + column] }
  }
}
