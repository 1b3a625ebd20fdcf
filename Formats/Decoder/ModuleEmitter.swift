import Base
import IR
import Tensors

/// A linear layer of a checkpoint: `x W^T`, perhaps plus a bias.
struct LinearModule: Hashable, Sendable {
  /// The name, to which `.weight` and `.bias` are added, inside the module that is being emitted.
  var module: String
  var hasBias = false
  /// Whether the weight is stored with one row per input instead of one per output (`Conv1D` of GPT-2).
  var isTransposed = false

  init(_ module: String, bias: Bool = false, isTransposed: Bool = false) {
    self.module = module
    hasBias = bias
    self.isTransposed = isTransposed
  }
}

/// A normalization of rows.
struct NormModule: Hashable, Sendable {
  enum Kind: Hashable, Sendable {
    /// Divides by the root mean square.
    case rms
    /// Subtracts the mean and divides by the standard deviation.
    case layer
  }

  var module: String
  var kind = Kind.rms
  @Exact var epsilon: Float
  /// Whether a bias is added; for layer norms.
  var hasBias = false
  /// Whether the factor is one more than the weight (Gemma).
  var addsOne = false
  /// Whether there are weight and bias at all.
  var isAffine = true

  init(_ module: String, _ kind: Kind = .rms, epsilon: Float, bias: Bool = false, addsOne: Bool = false) {
    self.module = module
    self.kind = kind
    self.epsilon = epsilon
    hasBias = bias
    self.addsOne = addsOne
  }

  /// The same norm under another name.
  func named(_ module: String) -> NormModule {
    var norm = self
    norm.module = module
    return norm
  }
}

/// Emits the recurring pieces of networks, taking their weights from a checkpoint.
struct ModuleEmitter {
  var builder: GraphBuilder
  var model: Model
  var tensors: CheckpointTensors
  /// Put before the names of modules: `model.layers.0.`, or empty.
  var prefix = ""

  /// Nodes emitted from now on come from that module.
  mutating func at(_ module: String) { builder.origin = Origin(prefix + module) }

  /// A weight as a dense value: quantized ones through `dequantize`.
  mutating func weight(_ name: String, _ sizes: [Int]) throws -> ValueID {
    try tensors.takeAdapted(prefix + name, sizes, into: &model, &builder)
  }

  /// The weight in f32.
  mutating func wideWeight(_ name: String, _ sizes: [Int]) throws -> ValueID {
    let value = try weight(name, sizes)
    return builder.type(of: value).element == .f32 ? value : try builder.emit(Cast(.f32), value)
  }

  /// Whether the checkpoint has that tensor of the current module.
  func contains(_ name: String) -> Bool { tensors[prefix + name] != nil }

  /// The normalised rows of `x[..., width]`.
  mutating func norm(_ x: ValueID, _ norm: NormModule, _ width: Int) throws -> ValueID {
    at(norm.module)
    let gain = norm.isAffine ? try weight(norm.module + ".weight", [width]) : ones(width)
    return try normalize(x, norm, gain: gain, width)
  }

  /// The same with a given weight.
  mutating func normalize(_ x: ValueID, _ norm: NormModule, gain: ValueID, _ width: Int) throws -> ValueID {
    var gain = gain
    if norm.addsOne {
      if builder.type(of: gain).element != .f32 { gain = try builder.emit(Cast(.f32), gain) }
      gain = try builder.emit(Add(), gain, number(1))
    }
    switch norm.kind {
    case .rms: return try builder.emit(RMSNorm(axis: -1, epsilon: norm.epsilon), x, gain)
    case .layer:
      let inputs = norm.hasBias && norm.isAffine ? [x, gain, try weight(norm.module + ".bias", [width])] : [x, gain]
      return try builder.emit(LayerNorm(axis: -1, epsilon: norm.epsilon), inputs)
    }
  }

  /// The weight of a linear layer, with one row per output.
  mutating func rows(_ linear: LinearModule, _ inputs: Int, _ outputs: Int) throws -> ValueID {
    guard linear.isTransposed else { return try weight(linear.module + ".weight", [outputs, inputs]) }
    return try builder.emit(Transpose([1, 0]), weight(linear.module + ".weight", [inputs, outputs]))
  }

  /// `x W^T`, plus a bias if the layer has one.
  mutating func linear(_ x: ValueID, _ linear: LinearModule, _ inputs: Int, _ outputs: Int) throws -> ValueID {
    at(linear.module)
    let weight = try rows(linear, inputs, outputs)
    let bias = linear.hasBias ? try wideWeight(linear.module + ".bias", [outputs]) : nil
    return try product(x, weight, bias: bias)
  }

  /// `x W^T`, plus a bias if there is one.
  mutating func product(_ x: ValueID, _ weight: ValueID, bias: ValueID?) throws -> ValueID {
    let product = try builder.emit(MatMul(transposeB: true), x, weight)
    guard let bias else { return product }
    return try builder.emit(Add(), product, bias)
  }

  /// A number of f32.
  mutating func number(_ value: Double) -> ValueID {
    builder.constant(Constant(name: "number", type: TensorType(.f32, []), source: .splat(value)))
  }

  /// A vector of ones.
  mutating func ones(_ count: Int) -> ValueID {
    builder.constant(Constant(name: "ones", type: TensorType(.f32, [count]), source: .splat(1.0)))
  }

  /// `factor * x`; `x` itself for 1.
  mutating func scaled(_ x: ValueID, by factor: Float) throws -> ValueID {
    factor == 1 ? x : try builder.emit(Multiply(), x, number(Double(factor)))
  }

  /// `cap * tanh(x / cap)`.
  mutating func softCapped(_ x: ValueID, _ cap: Float) throws -> ValueID {
    let small = try builder.emit(Divide(), x, number(Double(cap)))
    return try scaled(try builder.emit(Tanh(), small), by: cap)
  }

  /// A vector of f32, in pieces of which each may stand in the text.
  mutating func vector(_ name: String, _ values: [Float]) throws -> ValueID {
    let pieces = stride(from: 0, to: values.count, by: Constant.inlineLimit).map { start in
      let piece = Array(values[start..<min(start + Constant.inlineLimit, values.count)])
      return builder.constant(
        .inline(start == 0 ? name : "\(name).\(start)", .f32, [piece.count], piece))
    }
    return pieces.count == 1 ? pieces[0] : try builder.emit(Concat(axis: 0), pieces)
  }

  /// The numbers `0, 1, ..., count - 1` in f32, as a recipe; exact up to 2^24.
  mutating func ascending(_ count: Int) throws -> ValueID {
    let base = Constant.inlineLimit
    let digits = try vector("digits", (0..<min(base, count)).map { Float($0) })
    var numbers = digits
    var size = min(base, count)
    while size < count {
      // Row i holds i * size + 0 ... size - 1.
      let rows = min(base, (count + size - 1) / size)
      let first = try builder.emit(Slice(axis: 0, start: 0, size: .fixed(rows)), digits)
      let column = try builder.emit(Reshape([.fixed(rows), 1]), first)
      let table = try builder.emit(Add(), builder.emit(Multiply(), column, number(Double(size))), numbers)
      size *= rows
      numbers = try builder.emit(Reshape([.fixed(size)]), table)
    }
    return size == count ? numbers : try builder.emit(Slice(axis: 0, start: 0, size: .fixed(count)), numbers)
  }
}
