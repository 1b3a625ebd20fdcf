import Base
import COpenBLAS

// LAPACK stores columns one after the other: what is row-major here it sees transposed, so a lower triangle here is an
// upper one there.

/// Which triangle of a square matrix is meant.
package enum Triangle: Sendable {
  case lower, upper

  fileprivate var transposed: CChar { CChar(UInt8(ascii: self == .lower ? "U" : "L")) }
}

private func checkSquare(_ count: Int, _ order: Int) -> Int32 {
  useOneThreadPerCall
  precondition(order >= 0 && count == order * order && order <= Int32.max, "\(count) elements for order \(order)")
  return Int32(order)
}

private func notDefinite(_ info: Int32) -> CompileError {
  CompileError(.input, "the matrix is not positive definite (minor \(info))")
}

private func singular(_ info: Int32) -> CompileError {
  CompileError(.input, "the triangular matrix is singular (diagonal element \(info))")
}

private func noConvergence(_ what: String, _ info: Int32) -> CompileError {
  CompileError(.internal, "the \(what) did not converge (LAPACK info \(info))")
}

/// Replaces the symmetric row-major matrix `a` by its Cholesky factor: `a = L * L^T` for `.lower`, `a = U^T * U` for
/// `.upper`. Only that triangle is read; the other is set to zero.
///
/// - Throws: `CompileError` of kind `.input` if the matrix is not positive definite.
package func choleskyFactor(_ a: inout [Float], order: Int, _ triangle: Triangle = .lower) throws {
  var n = checkSquare(a.count, order)
  guard n > 0 else { return }
  var uplo = triangle.transposed, info: Int32 = 0
  spotrf_(&uplo, &n, &a, &n, &info)
  guard info == 0, a.allSatisfy(\.isFinite) else { throw notDefinite(info) }
  clearOther(&a, order, triangle)
}

/// As above, in f64.
package func choleskyFactor(_ a: inout [Double], order: Int, _ triangle: Triangle = .lower) throws {
  var n = checkSquare(a.count, order)
  guard n > 0 else { return }
  var uplo = triangle.transposed, info: Int32 = 0
  dpotrf_(&uplo, &n, &a, &n, &info)
  guard info == 0, a.allSatisfy(\.isFinite) else { throw notDefinite(info) }
  clearOther(&a, order, triangle)
}

/// Replaces the triangular row-major matrix `a` by its inverse, a triangle of the same kind. The other triangle is left
/// as it is.
///
/// - Throws: `CompileError` of kind `.input` if a diagonal element is zero.
package func invertTriangle(_ a: inout [Float], order: Int, _ triangle: Triangle) throws {
  var n = checkSquare(a.count, order)
  guard n > 0 else { return }
  var uplo = triangle.transposed, diagonal = CChar(UInt8(ascii: "N")), info: Int32 = 0
  strtri_(&uplo, &diagonal, &n, &a, &n, &info)
  guard info == 0 else { throw singular(info) }
}

/// As above, in f64.
package func invertTriangle(_ a: inout [Double], order: Int, _ triangle: Triangle) throws {
  var n = checkSquare(a.count, order)
  guard n > 0 else { return }
  var uplo = triangle.transposed, diagonal = CChar(UInt8(ascii: "N")), info: Int32 = 0
  dtrtri_(&uplo, &diagonal, &n, &a, &n, &info)
  guard info == 0 else { throw singular(info) }
}

private func clearOther<Scalar: ExpressibleByIntegerLiteral>(_ a: inout [Scalar], _ order: Int, _ triangle: Triangle) {
  for row in 0..<order {
    for column in triangle == .lower ? row + 1..<order : 0..<row { a[row * order + column] = 0 }
  }
}

/// A thin singular value decomposition `A = U * diag(values) * V^T`, all row-major, with `rank` the smaller size of `A`.
package struct SingularValues: Sendable {
  /// `rows` x `rank`, orthonormal columns.
  package var u: [Float]
  /// In falling order.
  package var values: [Float]
  /// `rank` x `columns`, orthonormal rows.
  package var vt: [Float]

  /// Decomposes the row-major matrix `a`.
  ///
  /// - Throws: `CompileError` if a number is not finite or the iteration does not converge.
  package init(_ a: [Float], rows: Int, columns: Int) throws {
    useOneThreadPerCall
    precondition(a.count == rows * columns && rows <= Int32.max && columns <= Int32.max, "\(a.count) elements")
    let rank = min(rows, columns)
    u = [Float](repeating: 0, count: rows * rank)
    values = [Float](repeating: 0, count: rank)
    vt = [Float](repeating: 0, count: rank * columns)
    guard rank > 0 else { return }
    guard a.withUnsafeBufferPointer({ isAllFinite($0) }) else {
      throw CompileError(.input, "the matrix has numbers that are not finite")
    }
    var a = a
    // The transposed matrix has the factors exchanged, which LAPACK returns transposed: U there is V^T here.
    var job = CChar(UInt8(ascii: "S")), m = Int32(columns), n = Int32(rows), r = Int32(rank), info: Int32 = 0
    var integers = [Int32](repeating: 0, count: 8 * rank)
    var size: Float = 0, query: Int32 = -1
    sgesdd_(&job, &m, &n, &a, &m, &values, &vt, &m, &u, &r, &size, &query, &integers, &info)
    // Large sizes come back rounded to f32, perhaps down.
    var length = Int32(clamping: Int(size.nextUp) + 1)
    var work = [Float](repeating: 0, count: Int(length))
    sgesdd_(&job, &m, &n, &a, &m, &values, &vt, &m, &u, &r, &work, &length, &integers, &info)
    guard info == 0 else { throw noConvergence("singular value decomposition", info) }
  }
}

/// The eigenvalues and eigenvectors of a symmetric matrix.
package struct SymmetricEigen: Sendable {
  /// In rising order.
  package var values: [Float]
  /// Row-major; row `i` is the unit eigenvector of `values[i]`.
  package var vectors: [Float]

  /// Decomposes the row-major matrix `a`, of which the lower triangle is read.
  ///
  /// - Throws: `CompileError` if a number is not finite or the iteration does not converge.
  package init(_ a: [Float], order: Int) throws {
    var n = checkSquare(a.count, order)
    values = [Float](repeating: 0, count: order)
    vectors = a
    guard n > 0 else { return }
    guard a.withUnsafeBufferPointer({ isAllFinite($0) }) else {
      throw CompileError(.input, "the matrix has numbers that are not finite")
    }
    var job = CChar(UInt8(ascii: "V")), uplo = Triangle.lower.transposed, info: Int32 = 0
    var size: Float = 0, integerSize: Int32 = 0, query: Int32 = -1, integerQuery: Int32 = -1
    ssyevd_(&job, &uplo, &n, &vectors, &n, &values, &size, &query, &integerSize, &integerQuery, &info)
    var length = Int32(clamping: Int(size.nextUp) + 1), integerLength = integerSize
    var work = [Float](repeating: 0, count: Int(length))
    var integers = [Int32](repeating: 0, count: Int(integerLength))
    ssyevd_(&job, &uplo, &n, &vectors, &n, &values, &work, &length, &integers, &integerLength, &info)
    guard info == 0 else { throw noConvergence("eigenvalue decomposition", info) }
  }
}
