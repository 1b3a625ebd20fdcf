import IR
import Tensors

/// What batch normalization does to a channel: `x * scale + shift`.
struct ChannelAffine {
  var scale: ValueID
  var shift: ValueID
}

extension Rewriter {
  /// The scale and the shift per channel of a normalization whose statistics are recipes.
  mutating func affine(of norm: BatchNorm, _ inputs: [ValueID]) throws -> ChannelAffine? {
    guard inputs.dropFirst().allSatisfy({ isRecipe($0) }) else { return nil }
    let (scale, bias, mean, variance) = (
      try widened(inputs[1]), try widened(inputs[2]), try widened(inputs[3]), try widened(inputs[4])
    )
    let epsilon = constant(Double(norm.epsilon), TensorType(.f32, [1]))
    let factor = try emit(Multiply(), scale, try emit(Rsqrt(), try emit(Add(), variance, epsilon)))
    return ChannelAffine(
      scale: factor, shift: try emit(Add(), try emit(Multiply(), try emit(Negate(), mean), factor), bias))
  }

  /// A recipe in f32.
  mutating func widened(_ value: ValueID) throws -> ValueID {
    guard type(of: value).isDense else { return try emit(Dequantize(.f32), value) }
    return type(of: value).element == .f32 ? value : try emit(Cast(.f32), value)
  }

  /// The matrices with `vector[channels]` on their diagonals, one for each group, one below the other:
  /// `[channels, channels / groups]`.
  mutating func diagonal(_ vector: ValueID, channels: Int, groups: Int) throws -> ValueID {
    // In rows of one element more than the matrix has, the diagonal is a column.
    let size = channels / groups
    let column = try emit(Reshape([.fixed(groups), .fixed(size), 1]), vector)
    let rows = try emit(Pad(before: [0, 0, 0], after: [0, 0, size]), column)
    let flat = try emit(Reshape([.fixed(groups), .fixed(size * (size + 1))]), rows)
    let matrix = try emit(Slice(axis: 1, start: 0, size: .fixed(size * size)), flat)
    return try emit(Reshape([.fixed(channels), .fixed(size)]), matrix)
  }

  /// The bias of a layer to whose sums `shift` is added.
  mutating func bias(_ old: ValueID?, plus shift: ValueID) throws -> ValueID {
    guard let old else { return shift }
    return try emit(Add(), widened(old), shift)
  }
}

extension Epilogue {
  /// Whether the sums are stored as they are, but for a bias.
  var isAffine: Bool { activation == .none && residual == .none && !gated }
}
