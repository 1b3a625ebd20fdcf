/// y[batch, M, N] = a[batch, M, K] b[batch, K, N] (or b[batch, N, K]) with both factors as they lie in memory: for products of
/// activations. Weights go through `MatMulConfig`.
package struct DenseMatMulConfig: Hashable, Codable, Sendable {
  package var batch: Extent
  /// Whether all items of the batch share b.
  package var sharesRight: Bool
  package var rows: Extent
  package var depth: Extent
  package var columns: Extent
  package var transposesRight: Bool

  package init(
    batch: Extent, sharesRight: Bool, rows: Extent, depth: Extent, columns: Extent, transposesRight: Bool
  ) {
    self.batch = batch
    self.sharesRight = sharesRight
    self.rows = rows
    self.depth = depth
    self.columns = columns
    self.transposesRight = transposesRight
  }

  package func name(target: Target) -> String {
    let sizes = [batch, rows, depth, columns].map(\.text).joined(separator: "x")
    return
      "mcc_matmul_dense\(transposesRight ? "_transposed" : "")_\(sizes)\(sharesRight ? "_shared" : "")_\(target.suffix)"
  }

  /// Parameters: a, b, y, then the run-time ones of batch, rows, depth and columns. Threads share the rows of all items.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "y[\(batch.text), \(rows.text), \(columns.text)] = a[..., \(depth.text)] b"
        + (transposesRight ? "[..., \(columns.text), \(depth.text)]^T." : "[..., \(depth.text), \(columns.text)].")
    ]
    let a = k.input("a", .f32)
    let b = k.input("b", .f32)
    let y = k.output("y", .f32)
    let (items, m, depth, n) = (k.extent(batch), k.extent(rows), k.extent(depth), k.extent(columns))
    let part = k.partition(items * m)
    k.loop("row", from: part.begin, to: part.end) { row in
      let left = k.pointer("left", a, offset: row * depth)
      let item: Expression = sharesRight ? 0 : row / m
      let right = k.pointer("right", b, offset: item * depth * n)
      let out = k.define("out", row * n)
      if transposesRight {
        k.loop("j", to: n) { j in
          let base = k.define("base", j * depth)
          let sum = k.variable("sum", .broadcast(.real(0)))
          k.vectorLoop("p", count: depth) { p, tail in
            k.assign(sum, .multiplyAdd(left.load(p, count: tail), right.load(base + p, count: tail), sum))
          }
          k.store(y, out + j, .reduce(.sum, sum))
        }
      } else {
        k.vectorLoop("j", count: n) { j, tail in
          let sum = k.variable("sum", .broadcast(.real(0)))
          k.loop("p", to: depth) { p in
            k.assign(sum, .multiplyAdd(.broadcast(left[p]), right.load(p * n + j, count: tail), sum))
          }
          k.store(y, out + j, sum, count: tail)
        }
      }
    }
    return k.finish()
  }
}
