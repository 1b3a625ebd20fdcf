/// `M X M^T` for consecutive squares `X[side][side]`, in f64, with `matrix` the rows of M: element number `p` of the result for
/// square `i` goes to `target[(p * count + i) * spacing]`.
package func transformSquares(
  _ source: UnsafePointer<Float>, count: Int, side: Int, by matrix: [Double],
  into target: UnsafeMutablePointer<Float>, spacing: Int
) {
  precondition(side > 0 && matrix.count % side == 0, "the matrix has rows of \(side)")
  let size = matrix.count / side
  var half = [Double](repeating: 0, count: size * side)
  for square in 0..<count {
    let x = source + square * side * side
    for i in 0..<size {
      for v in 0..<side {
        var sum = 0.0
        for u in 0..<side { sum += matrix[i * side + u] * Double(x[u * side + v]) }
        half[i * side + v] = sum
      }
    }
    for i in 0..<size {
      for j in 0..<size {
        var sum = 0.0
        for v in 0..<side { sum += half[i * side + v] * matrix[j * side + v] }
        target[((i * size + j) * count + square) * spacing] = Float(sum)
      }
    }
  }
}
