import Base
import IR

/// The function between the layers of a feed-forward part.
enum FeedForwardActivation: String, Hashable, Sendable {
  case identity, relu, reluSquared, relu6, leakyReLU, silu, gelu, geluTanh, quickGELU, clippedGELU, sigmoid, tanh,
    hardSwish, hardSigmoid, softplus, mish, laplace

  /// The functions by the names they have in Hugging Face configurations; several names may mean one function.
  static let names: [String: FeedForwardActivation] = [
    "linear": .identity, "relu": .relu, "relu2": .reluSquared, "relu6": .relu6, "leaky_relu": .leakyReLU,
    "silu": .silu, "swish": .silu, "gelu": .gelu, "gelu_python": .gelu, "gelu_new": .geluTanh,
    "gelu_pytorch_tanh": .geluTanh, "gelu_python_tanh": .geluTanh, "gelu_fast": .geluTanh,
    "gelu_accurate": .geluTanh, "gelu_10": .clippedGELU, "quick_gelu": .quickGELU, "sigmoid": .sigmoid,
    "tanh": .tanh, "hardswish": .hardSwish, "hardsigmoid": .hardSigmoid, "softplus": .softplus, "mish": .mish,
    "laplace": .laplace,
  ]
}

extension JSONField {
  /// The activation named here; an unknown one is refused with the list of those that are known.
  func activation(or fallback: String) throws -> FeedForwardActivation {
    let name = try string(or: fallback)
    if let activation = FeedForwardActivation.names[name] { return activation }
    throw CompileError(
      .unsupported, "'\(path)' '\(name)' is not supported", subject: .init(file: file),
      notes: ["known are \(listed(FeedForwardActivation.names.keys.sorted(), "and"))"])
  }
}

extension ModuleEmitter {
  /// The function applied to `x`.
  mutating func activate(_ x: ValueID, _ function: FeedForwardActivation) throws -> ValueID {
    switch function {
    case .identity: return x
    case .relu: return try builder.emit(ReLU(), x)
    case .reluSquared:
      let positive = try builder.emit(ReLU(), x)
      return try builder.emit(Multiply(), positive, positive)
    case .relu6: return try builder.emit(Clip(minimum: 0, maximum: 6), x)
    case .leakyReLU: return try builder.emit(LeakyReLU(slope: 0.01), x)
    case .silu: return try builder.emit(SiLU(), x)
    case .gelu: return try builder.emit(GELU(), x)
    case .geluTanh: return try builder.emit(GELUTanh(), x)
    case .quickGELU:
      let gate = try builder.emit(Sigmoid(), scaled(x, by: 1.702))
      return try builder.emit(Multiply(), x, gate)
    case .clippedGELU: return try builder.emit(Clip(minimum: -10, maximum: 10), builder.emit(GELU(), x))
    case .sigmoid: return try builder.emit(Sigmoid(), x)
    case .tanh: return try builder.emit(Tanh(), x)
    case .hardSwish: return try builder.emit(HardSwish(), x)
    case .hardSigmoid: return try builder.emit(HardSigmoid(), x)
    case .softplus: return try builder.emit(Softplus(), x)
    case .mish: return try builder.emit(Multiply(), x, builder.emit(Tanh(), builder.emit(Softplus(), x)))
    case .laplace:
      // (1 + erf((x - mu) / (sigma sqrt 2))) / 2 with mu = 0.707107, sigma = 0.282095.
      let shifted = try builder.emit(Subtract(), x, number(0.707107))
      let normal = try builder.emit(Erf(), scaled(shifted, by: Float(1 / (0.282095 * 2.0.squareRoot()))))
      return try scaled(builder.emit(Add(), normal, number(1)), by: 0.5)
    }
  }
}
