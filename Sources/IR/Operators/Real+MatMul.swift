extension Real {
  static func multiply(
    m: Int, n: Int, k: Int, alpha: Self, _ a: UnsafePointer<Self>, stride lda: Int, _ b: UnsafePointer<Self>,
    stride ldb: Int, transposeB: Bool, beta: Self, into c: UnsafeMutablePointer<Self>, stride ldc: Int
  ) {
    for i in 0..<m {
      for j in 0..<n { c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j] }
      if transposeB {
        for j in 0..<n {
          var sum: Self = 0
          for l in 0..<k { sum += a[i * lda + l] * b[j * ldb + l] }
          c[i * ldc + j] += alpha * sum
        }
      } else {
        for l in 0..<k {
          let factor = alpha * a[i * lda + l]
          for j in 0..<n { c[i * ldc + j] += factor * b[l * ldb + j] }
        }
      }
    }
  }
}
