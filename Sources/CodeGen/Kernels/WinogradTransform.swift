/// The transforms of the minimal filtering algorithm F(m x m, 3 x 3): `m` x `m` places of a 3 x 3 convolution from
/// (m + 2)^2 products (Winograd, 1980; Lavin and Gray, 2016).
///
/// A tile of the result is `A^T ((G w G^T) * (B^T d B)) A`, where `d` is the (m + 2) x (m + 2) pixels that it sees and the
/// products go element by element. The matrices are those of Toom and Cook for the points 0, 1, -1 (m = 2) and
/// 0, 1, -1, 1/2, -2 (m = 4), the last of which lose fewer digits than 0, 1, -1, 2, -2 (Barabasz and others, 2020), and
/// infinity.
struct WinogradTransform {
  /// Places of a tile along an axis.
  let tile: Int
  /// Pixels that a tile sees along an axis.
  var size: Int { tile + 2 }
  /// `A^T[m][m + 2]`, `G[m + 2][3]` and `B^T[m + 2][m + 2]`.
  let output: [[Double]]
  let weight: [[Double]]
  let input: [[Double]]

  init(tile: Int) {
    precondition(tile == 2 || tile == 4, "no points for tiles of \(tile)")
    let points: [Double] = tile == 2 ? [0, 1, -1] : [0, 1, -1, 0.5, -2]
    self.tile = tile
    let size = tile + 2
    func power(_ x: Double, _ n: Int) -> Double { (0..<n).reduce(1) { product, _ in product * x } }
    /// The coefficients of the product of `x - p` over the points but one.
    func polynomial(without skipped: Int?) -> [Double] {
      var result: [Double] = [1]
      for (index, point) in points.enumerated() where index != skipped {
        let shifted = [0] + result, scaled = result.map { -point * $0 } + [0]
        result = zip(shifted, scaled).map { $0 + $1 }
      }
      return result + [Double](repeating: 0, count: size - result.count)
    }
    let scales = points.indices.map { i in
      points.indices.filter { $0 != i }.reduce(1.0) { $0 * (points[i] - points[$1]) }
    }
    output = (0..<tile).map { row in points.map { power($0, row) } + [row == tile - 1 ? 1 : 0] }
    weight = points.indices.map { i in (0..<3).map { power(points[i], $0) / scales[i] } } + [[0, 0, 1]]
    input = points.indices.map { polynomial(without: $0) } + [polynomial(without: nil)]
  }

  /// Emits `matrix x`, row by row, with fused multiply-adds.
  static func apply(_ matrix: [[Double]], to x: [Expression], in k: KernelBuilder) -> [Expression] {
    matrix.map { row in
      // A column of coefficient 1 is where the sum begins.
      let start = row.lastIndex(of: 1) ?? row.lastIndex { $0 != 0 } ?? 0
      var sum = row[start] == 1 ? x[start] : x[start] * .real(Float(row[start]))
      for (index, factor) in row.enumerated() where index != start && factor != 0 {
        sum =
          factor == 1
          ? sum + x[index]
          : factor == -1 ? sum - x[index] : .multiplyAdd(.broadcast(.real(Float(factor))), x[index], sum)
      }
      return k.define("r", sum)
    }
  }

  /// Emits `matrix x matrix^T` for a square of vectors in rows.
  static func applyTwice(_ matrix: [[Double]], to x: [[Expression]], in k: KernelBuilder) -> [[Expression]] {
    let columns = x[0].indices.map { column in apply(matrix, to: x.map { $0[column] }, in: k) }
    return matrix.indices.map { row in apply(matrix, to: columns.map { $0[row] }, in: k) }
  }
}
