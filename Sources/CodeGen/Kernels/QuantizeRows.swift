/// Rows of f32 to int8 activations in `ActivationLayout`: per token and group scale = max|x| / 127 and codes rounded to
/// nearest even; groups beyond the last column are padded with zeros. A group of zeros has scale 0.
package struct QuantizeRowsConfig: Hashable, Codable, Sendable {
  package var depth: Int
  package var group: Int
  package var tokens: Extent
  /// Elements between rows of the input.
  package var inputStride: Int

  package init(depth: Int, group: Int, tokens: Extent, inputStride: Int? = nil) {
    self.depth = depth
    self.group = group
    self.tokens = tokens
    self.inputStride = inputStride ?? depth
  }

  package func name(target: Target) -> String {
    var parts = ["mcc_quantize_rows_g\(group)", "\(depth)"]
    if inputStride != depth { parts.append("stride\(inputStride)") }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: x, y, then the number of tokens if it is a run-time one. Threads share the groups of all tokens.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let layout = ActivationLayout(depth: depth, group: group)
    k.comment = [
      "Quantizes x: f32[\(tokens.text), \(depth)] to int8 with a scale per group of \(group).",
      "y: \(tokens.text) rows of \(layout.rowBytes) bytes: i8[\(layout.paddedDepth)], f32 scale[\(layout.groups)], "
        + "i32 -8*sum[\(layout.groups)]",
    ]
    let x = k.input("x", .f32)
    let y = k.output("y", .u8)
    let count = k.extent(tokens)
    let part = k.partition(count * .integer(layout.groups))
    k.loop("unit", from: part.begin, to: part.end) { unit in
      let token = k.define("token", unit / .integer(layout.groups))
      let index = k.define("g", unit % .integer(layout.groups))
      let row = k.pointer("row", y, offset: token * .integer(layout.rowBytes))
      let codes = k.pointer("codes", row, offset: index * .integer(group), as: .i8)
      let scales = k.pointer("scales", row, offset: .integer(layout.scaleOffset), as: .f32)
      let sums = k.pointer("sums", row, offset: .integer(layout.sumOffset), as: .i32)
      let base = k.define("base", token * .integer(inputStride) + index * .integer(group))
      let rest = depth % group
      if rest == 0 {
        quantize(k, x, base, columns: group, codes, scales, sums, index)
      } else {
        k.condition(
          index < .integer(layout.groups - 1),
          then: { quantize(k, x, base, columns: group, codes, scales, sums, index) },
          otherwise: { quantize(k, x, base, columns: rest, codes, scales, sums, index) })
      }
    }
    return k.finish()
  }

  private func quantize(
    _ k: KernelBuilder, _ x: Pointer, _ base: Expression, columns: Int, _ codes: Pointer, _ scales: Pointer,
    _ sums: Pointer, _ index: Expression
  ) {
    let starts = Array(stride(from: 0, to: group, by: k.lanes))
    let values = starts.map { start -> Expression? in
      guard start < columns else { return nil }
      let tail = columns - start < k.lanes ? Expression.integer(columns - start) : nil
      return k.define("x", x.load(base + .integer(start), count: tail))
    }
    let largest = values.compactMap { $0?.absolute }.reduce(nil) { (sum: Expression?, value) in
      sum.map { k.define("m", .maximum($0, value)) } ?? k.define("m", value)
    }
    let maximum = k.define("largest", .reduce(.maximum, largest ?? .broadcast(.real(0))))
    let scale = k.define("scale", maximum / 127)
    k.store(scales, index, scale)
    let divisor = k.define("divisor", .broadcast(.choose(scale > 0.0, scale, 1.0)))
    var sum: Expression?
    for (start, value) in zip(starts, values) {
      let code = k.define("code", value.map { $0.quotientCode(divisor) } ?? .broadcast(.integer(0)))
      let tail = group - start < k.lanes ? Expression.integer(group - start) : nil
      k.store(codes, .integer(start), code, count: tail)
      sum = sum.map { k.define("sum", $0 + code) } ?? code
    }
    k.store(sums, index, Expression.reduce(.sum, sum ?? .broadcast(.integer(0))) * -8)
  }
}

extension Expression {
  /// round(self / divisor) held within -127...127; a divisor that is a rounded denormal could lead out of it.
  func quotientCode(_ divisor: Expression) -> Expression {
    Expression.minimum(127.0, .maximum(-127.0, self / divisor)).asInt32
  }
}
