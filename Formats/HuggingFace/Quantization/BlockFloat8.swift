import Base
import IR
import Tensors

/// Eight-bit floats with a scale for each block of a weight, as DeepSeek-V3 introduced them: `weight: f8[N, K]` and
/// `weight_scale_inv: f32[N / 128, K / 128]`, by which the block is multiplied (despite the name).
///
/// E4M3 with scales for rows or for groups of them becomes blocks; other weights `f8 * scale` in f32. Activations are
/// not rounded.
struct BlockFloat8: QuantizationMethod {
  static let names = ["fp8", "fbgemm_fp8"]

  private let block: [Int]?

  init(_ config: JSONField) throws {
    let sizes = config["weight_block_size"].exists ? try config["weight_block_size"].ints() : nil
    if let sizes, sizes.count != 2 || sizes.contains(where: { $0 < 1 || $0 > 65536 }) {
      throw config.failure("'weight_block_size' is \(sizes), expected two sizes")
    }
    block = sizes
  }

  func join(_ tensors: inout QuantizedTensors) throws {
    for suffix in [".weight_scale_inv", ".weight_scale"] {
      for stem in tensors.stems(suffix) {
        let scales = try tensors.part(stem + suffix), codes = try tensors.part(stem + ".weight")
        for name in ["input_scale", "activation_scale", "input_scale_ub"] {
          _ = tensors.optionalPart("\(stem).\(name)")
        }
        try tensors.add(Self.weight(stem + ".weight", codes, scales, block: block))
      }
    }
    tensors.finish("fp8")
    tensors.note("activations are not rounded to 8 bits")
  }

  /// `codes * scales`, with one scale for the tensor, for a row, or for a block.
  ///
  /// Without the rows and columns of a `block` they follow from the shapes.
  static func weight(
    _ name: String, _ codes: CheckpointTensor, _ scales: CheckpointTensor, block: [Int]?
  ) throws -> QuantizedWeight {
    let sizes = try codes.sizes(2, .f8e4m3, .f8e5m2)
    let given = scales.type.shape.fixedSizes ?? []
    let rank = given.count == 1 && given[0] == sizes[0] ? [given[0], 1] : given.count < 2 ? [1, 1] : given
    guard scales.type.element.isFloat, rank.count == 2, rank[0] > 0, rank[1] > 0, sizes[0] > 0, sizes[1] > 0 else {
      throw scales.failure("found \(scales.type) for \(codes.type)")
    }
    func length(_ axis: Int) throws -> Int {
      if rank[axis] == 1 { return sizes[axis] }
      if rank[axis] == sizes[axis] { return 1 }
      // Without a stated size, blocks of 128 as everybody has them, or what divides.
      let length = block?[axis] ?? (sizes[axis] % rank[axis] == 0 ? sizes[axis] / rank[axis] : 128)
      guard (sizes[axis] + length - 1) / length == rank[axis] else {
        throw scales.failure("found \(scales.type) for \(codes.type)")
      }
      return length
    }
    let (tall, wide) = (try length(0), try length(1))
    /// The scales in f32, each for the rows of its block.
    let makeScales: @Sendable (inout Model, inout GraphBuilder) throws -> ValueID = { model, builder in
      var steps = try scales.constant(rank, into: &model, &builder)
      if builder.type(of: steps).element != .f32 { steps = try builder.emit(Cast(.f32), steps) }
      guard tall > 1 else { return steps }
      steps = try builder.emit(Reshape([.fixed(rank[0]), 1, .fixed(rank[1])]), steps)
      steps = try builder.emit(Expand([.fixed(rank[0]), .fixed(tall), .fixed(rank[1])]), steps)
      steps = try builder.emit(Reshape([.fixed(rank[0] * tall), .fixed(rank[1])]), steps)
      guard rank[0] * tall > sizes[0] else { return steps }
      return try builder.emit(Slice(axis: 0, start: 0, size: .fixed(sizes[0])), steps)
    }
    if codes.type.element == .f8e4m3, rank[1] == 1 || wide % 8 == 0 {
      var op = UnpackCodes()
      (op.values, op.bits) = (.e4m3, 8)
      (op.rows, op.columns, op.group) = (sizes[0], sizes[1], wide)
      op.format = .float8(rank[1] == 1 ? nil : wide)
      return QuantizedWeight(name, sizes, op, .init(codes), .init(scales), makeScales: makeScales)
    }
    var tensor = CheckpointTensor(name: name, type: TensorType(.f32, sizes), file: codes.file, range: codes.range)
    tensor.recipe = { model, builder in
      let numbers = try builder.emit(Cast(.f32), try codes.constant(into: &model, &builder))
      var steps = try makeScales(&model, &builder)
      if rank[1] > 1 && wide > 1 {
        // Each scale for all columns of its block, cut off where the last blocks reach over the end.
        steps = try builder.emit(Reshape([.fixed(sizes[0]), .fixed(rank[1]), 1]), steps)
        steps = try builder.emit(Expand([.fixed(sizes[0]), .fixed(rank[1]), .fixed(wide)]), steps)
        steps = try builder.emit(Reshape([.fixed(sizes[0]), .fixed(rank[1] * wide)]), steps)
        if rank[1] * wide > sizes[1] {
          steps = try builder.emit(Slice(axis: 1, start: 0, size: .fixed(sizes[1])), steps)
        }
      }
      return try builder.emit(Multiply(), numbers, steps, name: name)
    }
    return QuantizedWeight(tensor)
  }
}

extension QuantizedWeight {
  /// A weight that no kernel reads as codes.
  init(_ tensor: CheckpointTensor) {
    self.tensor = tensor
    isKept = false
  }
}
