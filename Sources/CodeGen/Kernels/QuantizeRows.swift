import IR

/// Rows of f32 to int8 activations in `ActivationLayout`: per token and group scale = max|x| / 127, or over the largest code
/// of fewer bits, and codes rounded to nearest even; groups beyond the last column are padded with zeros. A group of zeros has
/// scale 0. Rows may be normalised and rotated before.
package struct QuantizeRowsConfig: Hashable, Codable, Sendable {
  package var depth: Int
  package var group: Int
  /// Bits of the codes, 4 to 8.
  package var codeBits: Int
  package var tokens: Extent
  /// Elements between rows of the input.
  package var inputStride: Int
  /// The norm of the rows, if there is one.
  package var norm: NormInput?
  /// The rotation of the rows, behind the norm if there is one.
  package var rotation: RotationInput?

  package init(
    depth: Int, group: Int, codeBits: Int = 8, tokens: Extent, inputStride: Int? = nil, norm: NormInput? = nil,
    rotation: RotationInput? = nil
  ) {
    self.depth = depth
    self.group = group
    self.codeBits = codeBits
    self.tokens = tokens
    self.inputStride = inputStride ?? depth
    self.norm = norm
    self.rotation = rotation
  }

  package func name(target: Target) -> String {
    var parts = ["mcc_quantize_rows_\(codeBits == 8 ? "" : "a\(codeBits)")g\(group)", "\(depth)"]
    if let norm { parts.append(norm.name) }
    if let rotation { parts.append(rotation.name) }
    if inputStride != depth { parts.append("stride\(inputStride)") }
    if let fixed = tokens.fixedValue { parts.append("tokens\(fixed)") }
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: x, weight and bias of the norm if there is one, y, then the number of tokens if it is a run-time one.
  /// Threads share the groups of all tokens, or, with a norm or a rotation and more than one token, the tokens.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    let layout = ActivationLayout(depth: depth, group: group)
    k.comment = [
      "Quantizes x: f32[\(tokens.text), \(depth)]\(norm == nil ? "" : ", normalised,")"
        + "\(rotation == nil ? "" : ", rotated,") to int8\(codeBits == 8 ? "" : " of \(codeBits) bits") "
        + "with a scale per group of \(group).",
      "y: \(tokens.text) rows of \(layout.rowBytes) bytes: i8[\(layout.paddedDepth)], f32 scale[\(layout.groups)], "
        + "i32 -8*sum[\(layout.groups)]",
    ]
    let x = k.input("x", .f32)
    let weight = norm.map { k.input("weight", $0.weight) }
    let bias = norm?.bias.map { k.input("bias", $0) }
    let y = k.output("y", .u8)
    let count = k.extent(tokens)
    let rotated = rotation.map { _ in k.array("rotated", .f32, count: depth) }
    func row(_ token: Expression) -> Pointer { k.pointer("row", y, offset: token * .integer(layout.rowBytes)) }
    func values(_ token: Expression) -> (Expression, Expression?) -> Expression {
      let base = k.define("base", token * .integer(inputStride))
      var values: (Expression, Expression?) -> Expression = { x.load(base + $0, count: $1) }
      if let norm, let weight { values = norm.statistics(k, x, base, columns: depth, weight: weight, bias: bias) }
      guard let rotation, let rotated else { return values }
      rotation.rotate(k, values, into: rotated)
      return { rotated.load($0, count: $1) }
    }
    if norm == nil, rotation == nil {
      let part = k.partition(count * .integer(layout.groups))
      k.loop("unit", from: part.begin, to: part.end) { unit in
        let token = k.define("token", unit / .integer(layout.groups))
        let index = k.define("g", unit % .integer(layout.groups))
        layout.quantizeGroup(k, index, codeBits: codeBits, into: row(token), values(token))
      }
    } else if tokens.fixedValue == 1 {
      let part = k.partition(.integer(layout.groups))
      let normalized = values(0)
      k.loop("g", from: part.begin, to: part.end) {
        layout.quantizeGroup(k, $0, codeBits: codeBits, into: row(0), normalized)
      }
    } else {
      let part = k.partition(count)
      k.loop("token", from: part.begin, to: part.end) { token in
        let normalized = values(token)
        k.loop("g", to: .integer(layout.groups)) {
          layout.quantizeGroup(k, $0, codeBits: codeBits, into: row(token), normalized)
        }
      }
    }
    return k.finish()
  }
}

extension ActivationLayout {
  /// Quantizes one group of a token's row to codes of `codeBits` bits: `values` gives the numbers from a column on, `row` is
  /// where the token lies.
  func quantizeGroup(
    _ k: KernelBuilder, _ index: Expression, codeBits: Int, into row: Pointer,
    _ values: @escaping (Expression, Expression?) -> Expression
  ) {
    let rest = depth % group
    let limit = Float(Quantize.largestCode(bits: codeBits))
    if rest == 0 || index.constant.map({ $0 < groups - 1 }) ?? false {
      quantizeGroup(k, index, columns: group, limit, into: row, values)
    } else if index.constant != nil {
      quantizeGroup(k, index, columns: rest, limit, into: row, values)
    } else {
      k.condition(
        index < .integer(groups - 1),
        then: { quantizeGroup(k, index, columns: group, limit, into: row, values) },
        otherwise: { quantizeGroup(k, index, columns: rest, limit, into: row, values) })
    }
  }

  private func quantizeGroup(
    _ k: KernelBuilder, _ index: Expression, columns: Int, _ limit: Float, into row: Pointer,
    _ value: (Expression, Expression?) -> Expression
  ) {
    let codes = k.pointer("codes", row, offset: index * .integer(group), as: .i8)
    let scales = k.pointer("scales", row, offset: .integer(scaleOffset), as: .f32)
    let sums = k.pointer("sums", row, offset: .integer(sumOffset), as: .i32)
    let first = k.define("first", index * .integer(group))
    let starts = Array(stride(from: 0, to: group, by: k.lanes))
    let values = starts.map { start -> Expression? in
      guard start < columns else { return nil }
      let tail = columns - start < k.lanes ? Expression.integer(columns - start) : nil
      return k.define("x", value(first + .integer(start), tail))
    }
    let largest = values.compactMap { $0?.absolute }.reduce(nil) { (sum: Expression?, value) in
      sum.map { k.define("m", .maximum($0, value)) } ?? k.define("m", value)
    }
    let maximum = k.define("largest", .reduce(.maximum, largest ?? .broadcast(.real(0))))
    let scale = k.define("scale", maximum / .real(limit))
    k.store(scales, index, scale)
    let divisor = k.define("divisor", .broadcast(.choose(scale > 0.0, scale, 1.0)))
    var sum: Expression?
    for (start, value) in zip(starts, values) {
      let code = k.define("code", value.map { $0.quotientCode(divisor, limit) } ?? .broadcast(.integer(0)))
      let tail = group - start < k.lanes ? Expression.integer(group - start) : nil
      k.store(codes, .integer(start), code, count: tail)
      sum = sum.map { k.define("sum", $0 + code) } ?? code
    }
    k.store(sums, index, Expression.reduce(.sum, sum ?? .broadcast(.integer(0))) * -8)
  }
}

extension Expression {
  /// round(self / divisor) held within -limit...limit; a divisor that is a rounded denormal could lead out of it.
  func quotientCode(_ divisor: Expression, _ limit: Float = 127) -> Expression {
    Expression.minimum(.real(limit), .maximum(.real(-limit), self / divisor)).asInt32
  }
}
