import Base
import IR
import Tensors

/// Eight-bit floats with a scale for each block of a weight, as DeepSeek-V3 introduced them: `weight: f8[N, K]` and
/// `weight_scale_inv: f32[N / 128, K / 128]`, by which the block is multiplied (despite the name).
///
/// No kernel reads them: weights become `f8 * scale` in f32. Activations are not rounded.
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
    var tensor = CheckpointTensor(name: name, type: TensorType(.f32, sizes), file: codes.file, range: codes.range)
    tensor.recipe = { model, builder in
      let numbers = try builder.emit(Cast(.f32), try codes.constant(into: &model, &builder))
      var steps = try scales.constant(rank, into: &model, &builder)
      if builder.type(of: steps).element != .f32 { steps = try builder.emit(Cast(.f32), steps) }
      if rank[0] > 1 && tall > 1 || rank[1] > 1 && wide > 1 {
        // Each scale for all numbers of its block, cut off where the last blocks reach over the end.
        let repeated = [rank[0], tall, rank[1], wide]
        steps = try builder.emit(Reshape([.fixed(rank[0]), 1, .fixed(rank[1]), 1]), steps)
        steps = try builder.emit(Expand(repeated.map { .fixed($0) }), steps)
        steps = try builder.emit(Reshape([.fixed(rank[0] * tall), .fixed(rank[1] * wide)]), steps)
        for axis in 0..<2 where repeated[2 * axis] * repeated[2 * axis + 1] > sizes[axis] {
          steps = try builder.emit(Slice(axis: axis, start: 0, size: .fixed(sizes[axis])), steps)
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
