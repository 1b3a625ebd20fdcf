/// The sums of products of one row of whole numbers with several, exact in i32 as long as they stay within it:
/// `sums[r] = sum over k of x[k] * rows[r * depth + k]`.
package func multiplyWhole(
  _ x: UnsafePointer<Int16>, by rows: UnsafePointer<Int16>, count: Int, depth: Int,
  into sums: UnsafeMutablePointer<Int32>
) {
  var row = 0
  // Four rows at a time read `x` once.
  while row + 4 <= count {
    let (a, b) = (rows + row * depth, rows + (row + 1) * depth)
    let (c, d) = (rows + (row + 2) * depth, rows + (row + 3) * depth)
    var (s, t, u, v): (Int32, Int32, Int32, Int32) = (0, 0, 0, 0)
    for k in 0..<depth {
      let value = Int32(x[k])
      s &+= value &* Int32(a[k])
      t &+= value &* Int32(b[k])
      u &+= value &* Int32(c[k])
      v &+= value &* Int32(d[k])
    }
    (sums[row], sums[row + 1], sums[row + 2], sums[row + 3]) = (s, t, u, v)
    row += 4
  }
  while row < count {
    let a = rows + row * depth
    var s: Int32 = 0
    for k in 0..<depth { s &+= Int32(x[k]) &* Int32(a[k]) }
    sums[row] = s
    row += 1
  }
}
