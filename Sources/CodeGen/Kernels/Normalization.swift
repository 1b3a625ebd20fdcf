/// Rows normalised by their root mean square or by mean and variance:
/// y = x / sqrt(mean(x^2) + epsilon) * weight, or (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias.
package struct NormalizationConfig: Hashable, Codable, Sendable {
  /// Whether the mean is subtracted (layer norm).
  package var isCentered: Bool
  package var rows: Extent
  /// Elements of a row.
  package var columns: Int
  package var epsilon: Float
  package var input: ScalarType
  package var weight: ScalarType
  /// The type of the bias if there is one.
  package var bias: ScalarType?
  /// Elements between rows of the input.
  package var inputStride: Int

  package init(
    isCentered: Bool, rows: Extent, columns: Int, epsilon: Float, input: ScalarType = .f32, weight: ScalarType = .f32,
    bias: ScalarType? = nil, inputStride: Int? = nil
  ) {
    self.isCentered = isCentered
    self.rows = rows
    self.columns = columns
    self.epsilon = epsilon
    self.input = input
    self.weight = weight
    self.bias = bias
    self.inputStride = inputStride ?? columns
  }

  package func name(target: Target) -> String {
    var parts = [isCentered ? "mcc_layer_norm" : "mcc_rms_norm", "\(columns)"]
    if inputStride != columns { parts.append("stride\(inputStride)") }
    if bias != nil { parts.append("bias") }
    parts += [input, weight].filter { $0 != .f32 }.map(\.rawValue)
    if let fixed = rows.fixedValue { parts.append("rows\(fixed)") }
    parts.append("eps\(epsilon)".map { $0.isLetter || $0.isNumber ? String($0) : "_" }.joined())
    return (parts + [target.suffix]).joined(separator: "_")
  }

  /// Parameters: x, weight, bias if there is one, y, then the number of rows if it is a run-time one. Threads share rows.
  package func build(name: String? = nil, target: Target) -> KernelFunction {
    let k = KernelBuilder(name ?? self.name(target: target), target: target)
    k.comment = [
      isCentered
        ? "Layer norm of the rows of x[\(rows.text), \(columns)]."
        : "Root mean square norm of the rows of x[\(rows.text), \(columns)]."
    ]
    let x = k.input("x", input)
    let w = k.input("weight", weight)
    let b = bias.map { k.input("bias", $0) }
    let y = k.output("y", input)
    let part = k.partition(k.extent(rows))
    k.loop("row", from: part.begin, to: part.end) { row in
      let base = k.define("base", row * .integer(inputStride))
      let out = k.define("out", row * .integer(columns))
      let norm = NormInput(isCentered: isCentered, epsilon: epsilon, weight: weight, bias: bias)
      let normalized = norm.statistics(k, x, base, columns: columns, weight: w, bias: b)
      k.vectorLoop("i", count: .integer(columns)) { i, tail in k.store(y, out + i, normalized(i, tail), count: tail) }
    }
    return k.finish()
  }
}

/// A norm of rows, as part of a kernel.
package struct NormInput: Hashable, Codable, Sendable {
  /// Whether the mean is subtracted (layer norm).
  package var isCentered: Bool
  package var epsilon: Float
  package var weight: ScalarType
  /// The type of the bias if there is one.
  package var bias: ScalarType?

  package init(isCentered: Bool, epsilon: Float, weight: ScalarType, bias: ScalarType? = nil) {
    self.isCentered = isCentered
    self.epsilon = epsilon
    self.weight = weight
    self.bias = bias
  }

  /// The part of kernel names: `rms1e_05_bf16`.
  var name: String {
    let epsilon = "\(epsilon)".map { $0.isLetter || $0.isNumber ? String($0) : "_" }.joined()
    let types = [weight, bias].compactMap { $0 }.map { $0 == .f32 ? "" : "_\($0.rawValue)" }.joined()
    return (isCentered ? "layer" : "rms") + epsilon + (bias == nil ? "" : "_bias") + types
  }

  /// Computes mean and spread of the row of `x` that begins at `base`; the result gives the normalised numbers from a column
  /// on, zeros behind the tail.
  func statistics(
    _ k: KernelBuilder, _ x: Pointer, _ base: Expression, columns: Int, weight: Pointer, bias: Pointer?
  ) -> (Expression, Expression?) -> Expression {
    var mean: Expression?
    if isCentered {
      let sum = k.sum(columns) { x.load(base + $0, count: $1) }
      mean = k.define("mean", .broadcast(sum / Expression.real(Float(columns))))
    }
    let squares = k.sum(columns) { i, tail in
      guard let mean else {
        let value = k.define("v", x.load(base + i, count: tail))
        return value * value
      }
      var value = k.define("v", x.load(base + i, count: tail) - mean)
      if let tail { value = k.define("v", .choose(.laneNumbers < .broadcast(tail), value, 0.0)) }
      return value * value
    }
    let spread = k.define("spread", squares / Expression.real(Float(columns)) + .real(epsilon))
    let scale = k.define("scale", .broadcast(1 / spread.squareRoot))
    return { i, tail in
      var value = x.load(base + i, count: tail)
      if let mean { value = value - mean }
      value = value * scale * weight.load(i, count: tail)
      if let bias { value = value + bias.load(i, count: tail) }
      return value
    }
  }
}

extension KernelBuilder {
  /// The sum of `count` values given by vectors; two vectors of sums keep the additions in flight.
  func sum(_ count: Int, _ value: (Expression, Expression?) -> Expression) -> Expression {
    let sums = [variable("sum", .broadcast(.real(0))), variable("sum", .broadcast(.real(0)))]
    let pair = count / (2 * lanes) * (2 * lanes)
    loop("i", to: .integer(pair), step: 2 * lanes) { i in
      for way in 0..<2 { assign(sums[way], sums[way] + value(i + .integer(way * lanes), nil)) }
    }
    var start = pair
    while start < count {
      let rest = count - start
      assign(sums[0], sums[0] + value(.integer(start), rest < lanes ? .integer(rest) : nil))
      start += lanes
    }
    return define("total", .reduce(.sum, sums[0] + sums[1]))
  }
}
