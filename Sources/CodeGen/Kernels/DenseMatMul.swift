import IR

/// y[batch, M, N] = epilogue(a[batch, M, K] b[batch, K, N]) (or b[batch, N, K]) with both factors as they lie in memory: for
/// products of activations. Weights go through `MatMulConfig`.
package struct DenseMatMulConfig: Hashable, Codable, Sendable {
  package var batch: Extent
  /// Whether all items of the batch share b.
  package var sharesRight: Bool
  /// The items of b where those of a go through them again and again; nil where b has as many, or one.
  package var period: Int?
  package var rows: Extent
  package var depth: Extent
  package var columns: Extent
  package var transposesRight: Bool
  /// Not gated.
  package var epilogue: Epilogue

  package init(
    batch: Extent, sharesRight: Bool, period: Int? = nil, rows: Extent, depth: Extent, columns: Extent,
    transposesRight: Bool, epilogue: Epilogue = .identity
  ) {
    self.batch = batch
    self.sharesRight = sharesRight
    self.period = period
    self.rows = rows
    self.depth = depth
    self.columns = columns
    self.transposesRight = transposesRight
    self.epilogue = epilogue
  }

  package func name(target: Target) -> String {
    let sizes = [batch, rows, depth, columns].map(\.text).joined(separator: "x")
    var parts = ["mcc_matmul_dense" + (transposesRight ? "_transposed" : ""), sizes]
    if sharesRight { parts.append("shared") }
    if let period { parts.append("every\(period)") }
    if epilogue.bias { parts.append("bias") }
    if epilogue.residual == .beforeActivation { parts.append("residual") }
    if epilogue.activation != .none { parts.append(epilogue.activation.rawValue) }
    if epilogue.residual == .afterActivation { parts.append("residual") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: a, b, bias and residual if there are any, y, then the run-time ones of batch, rows, depth and columns.
  /// Threads share the rows of all items.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      "y[\(batch.text), \(rows.text), \(columns.text)] = a[..., \(depth.text)] b"
        + (transposesRight ? "[..., \(columns.text), \(depth.text)]^T." : "[..., \(depth.text), \(columns.text)].")
    ]
    let a = k.input("a", .f32)
    let b = k.input("b", .f32)
    let bias = epilogue.bias ? k.input("bias", .f32) : nil
    let residual = epilogue.residual != .none ? k.input("residual", .f32) : nil
    let y = k.output("y", .f32)
    /// The sum at column j of the row that begins at `out`, after the epilogue; a vector of lanes or one number.
    func finish(_ sum: Expression, _ out: Expression, _ j: Expression, _ tail: Expression?) -> Expression {
      func read(_ pointer: Pointer, _ place: Expression) -> Expression {
        sum.type.isVector ? pointer.load(place, count: tail) : pointer[place]
      }
      var value = bias.map { sum + read($0, j) } ?? sum
      if let residual, epilogue.residual == .beforeActivation { value = value + read(residual, out + j) }
      value = epilogue.activation.function.render([k.define("s", value)], in: k)
      if let residual, epilogue.residual == .afterActivation { value = value + read(residual, out + j) }
      return value
    }
    let (items, m, depth, n) = (k.extent(batch), k.extent(rows), k.extent(depth), k.extent(columns))
    let part = k.partition(items * m)
    k.loop("row", from: part.begin, to: part.end) { row in
      let left = k.pointer("left", a, offset: row * depth)
      let item: Expression = sharesRight ? 0 : period.map { row / m % .integer($0) } ?? row / m
      let right = k.pointer("right", b, offset: item * depth * n)
      let out = k.define("out", row * n)
      if transposesRight {
        k.loop("j", to: n) { j in
          let base = k.define("base", j * depth)
          let sum = k.variable("sum", .broadcast(.real(0)))
          k.vectorLoop("p", count: depth) { p, tail in
            k.assign(sum, .multiplyAdd(left.load(p, count: tail), right.load(base + p, count: tail), sum))
          }
          k.store(y, out + j, finish(.reduce(.sum, sum), out, j, nil))
        }
      } else {
        k.vectorLoop("j", count: n) { j, tail in
          let sum = k.variable("sum", .broadcast(.real(0)))
          k.loop("p", to: depth) { p in
            k.assign(sum, .multiplyAdd(.broadcast(left[p]), right.load(p * n + j, count: tail), sum))
          }
          k.store(y, out + j, finish(sum, out, j, tail), count: tail)
        }
      }
    }
    return k.finish()
  }
}
