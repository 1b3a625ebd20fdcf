import IR

/// The way from exact sums to results of a convolution on bytes, as ``QuantizedConv2D`` says it.
struct Requantization: Hashable, Codable, Sendable {
  var epilogue: Epilogue
  var input: AffineCode
  var output: AffineCode?
  var other: AffineCode?

  init(_ op: QuantizedConv2D) {
    epilogue = op.epilogue
    input = op.input
    output = op.output
    other = op.other
  }

  private var op: QuantizedConv2D {
    var op = QuantizedConv2D()
    op.epilogue = epilogue
    op.input = input
    op.output = output
    op.other = other
    return op
  }

  /// Element types of residual and result.
  var residualType: ScalarType { other == nil ? .f32 : .u8 }
  var resultType: ScalarType { output == nil ? .f32 : .u8 }

  /// The words of a kernel's name.
  var words: [String] { epilogue.words + [output == nil ? "f32" : "u8"] }

  /// What all pixels of one vector of channels share: factors of the sums, and the bias.
  struct Channels {
    let factor: Expression
    let bias: Expression?
  }

  /// Prepares a vector of channels from the scales of their weights and their biases.
  func channels(_ scale: Expression, bias: Expression?, in k: KernelBuilder) -> Channels {
    let plan = op.requantization
    let factor = k.define("factor", scale * .real(plan?.sum ?? input.scale))
    guard let bias else { return Channels(factor: factor, bias: nil) }
    return Channels(factor: factor, bias: k.define("b", plan.map { bias * .real($0.bias) } ?? bias))
  }

  /// The result of one vector of sums: i32 codes in 0...255, or f32 numbers. `residual` is as it was loaded.
  func result(_ sum: Expression, _ channels: Channels, residual: Expression?, in k: KernelBuilder) -> Expression {
    var value = k.define(
      "v",
      channels.bias.map { Expression.multiplyAdd(sum.asFloat, channels.factor, $0) } ?? sum.asFloat * channels.factor)
    func steps(_ residual: Expression) -> Expression {
      guard let other else { return residual }
      return (other.zeroPoint == 0 ? residual : residual - .integer(other.zeroPoint)).asFloat
    }
    if let plan = op.requantization, let output {
      if let residual { value = k.define("r", .multiplyAdd(steps(residual), .real(plan.residual), value)) }
      return code(value, low: plan.low, high: plan.high, zeroPoint: output.zeroPoint)
    }
    func added() -> Expression {
      guard let residual else { return value }
      guard let other else { return k.define("r", value + residual) }
      return k.define("r", .multiplyAdd(steps(residual), .real(other.scale), value))
    }
    if epilogue.residual == .beforeActivation { value = added() }
    value = k.define("a", epilogue.activation.function.render([value], in: k))
    if epilogue.residual == .afterActivation { value = added() }
    guard let output else { return value }
    let zero = Float(output.zeroPoint)
    return code(value * .real(1 / output.scale), low: -zero, high: 255 - zero, zeroPoint: output.zeroPoint)
  }

  private func code(_ value: Expression, low: Float, high: Float, zeroPoint: Int) -> Expression {
    let steps = Expression.minimum(.maximum(value, .real(low)), .real(high)).asInt32
    return zeroPoint == 0 ? steps : steps + .integer(zeroPoint)
  }
}
