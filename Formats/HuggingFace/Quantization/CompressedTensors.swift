import Base
import IR
import Tensors

/// Checkpoints of compressed-tensors (llm-compressor). How a weight is kept shows in its tensors:
///
/// - `weight_packed: i32[N, ...]` with `weight_shape` (pack-quantized): codes of 2 to 8 bits in turn, counted from
///   `2^(bits - 1)`; `weight_scale: [N, G]`; zero points, if any, `weight_zero_point: i32[N * bits / 32, G]`; with
///   act-order the group of each column, `weight_g_idx`;
/// - `weight: i8[N, K]` (int-quantized) with `weight_scale` and perhaps `weight_zero_point: i8`;
/// - `weight: f8[N, K]` (float-quantized) with `weight_scale` for the tensor, a row or a block;
/// - `weight_packed: u8[N, K / 2]`, E2M1 (nvfp4-pack-quantized with `weight_scale: f8[N, K / 16]`, divided by
///   `weight_global_scale`; mxfp4-pack-quantized with exponents).
///
/// Activations are not rounded, whatever the configuration says.
struct CompressedTensors: QuantizationMethod {
  static let names = ["compressed-tensors"]

  private let roundsActivations: Bool

  init(_ config: JSONField) throws {
    func refuse(_ what: String) -> CompileError {
      CompileError(.unsupported, "\(what) is not supported", subject: .init(file: config.file))
    }
    if config["kv_cache_scheme"].exists { throw refuse("'kv_cache_scheme', a quantized cache,") }
    let sparsity = try config["sparsity_config"]["format"].optionalString() ?? "dense"
    guard sparsity == "dense" else { throw refuse("'sparsity_config' '\(sparsity)'") }
    if try config["transform_config"].exists && !config["transform_config"].members().isEmpty {
      throw refuse("'transform_config'")
    }
    let status = try config["quantization_status"].string(or: "compressed")
    guard status == "compressed" else { throw refuse("'quantization_status' '\(status)'") }
    var rounds = false
    if config["config_groups"].exists {
      for (_, group) in try config["config_groups"].members() {
        if group["input_activations"].exists { rounds = true }
        if group["output_activations"].exists { throw refuse("'output_activations'") }
      }
    }
    roundsActivations = rounds
  }

  func join(_ tensors: inout QuantizedTensors) throws {
    for stem in tensors.stems(".weight_packed") {
      let codes = try tensors.part(stem + ".weight_packed")
      if codes.type.element == .u8 {
        try joinFloats(stem, codes, &tensors)
      } else {
        try joinPacked(stem, codes, &tensors)
      }
      dropActivationScales(stem, &tensors)
    }
    for stem in tensors.stems(".weight_scale") {
      let scales = try tensors.part(stem + ".weight_scale"), codes = try tensors.part(stem + ".weight")
      if codes.type.element == .i8 {
        try joinBytes(stem, codes, scales, &tensors)
      } else {
        try tensors.add(BlockFloat8.weight(stem + ".weight", codes, scales, block: nil))
      }
      dropActivationScales(stem, &tensors)
    }
    tensors.finish("compressed-tensors")
    if roundsActivations { tensors.note("activations are not rounded as 'input_activations' says") }
  }

  /// Scales of activations say nothing where these are not rounded.
  private func dropActivationScales(_ stem: String, _ tensors: inout QuantizedTensors) {
    for name in ["input_scale", "input_zero_point", "input_global_scale"] {
      _ = tensors.optionalPart("\(stem).\(name)")
    }
  }

  private func joinPacked(_ stem: String, _ codes: CheckpointTensor, _ tensors: inout QuantizedTensors) throws {
    let scales = try tensors.part(stem + ".weight_scale"), shape = try tensors.part(stem + ".weight_shape")
    let zeros = tensors.optionalPart(stem + ".weight_zero_point"), order = tensors.optionalPart(stem + ".weight_g_idx")
    let words = try codes.sizes(2, .i32)
    let sizes = try Self.numbers(shape)
    guard sizes.count == 2, sizes[0] == words[0], sizes[0] > 0, sizes[1] > 0, sizes[1] <= 1 << 31 else {
      throw codes.failure("found \(codes.type) for a weight of shape \(Shape(sizes))")
    }
    // Rows are padded to whole words: one width of codes gives this many.
    let widths = [2, 3, 4, 5, 6, 7, 8].filter { (sizes[1] * $0 + 31) / 32 == words[1] }
    guard let bits = widths.first, widths.count == 1 else {
      throw codes.failure("found \(codes.type) for a weight of shape \(Shape(sizes))")
    }
    var op = UnpackCodes()
    op.bits = bits
    (op.rows, op.columns) = (sizes[0], sizes[1])
    op.zero = 1 << (bits - 1)
    try Self.setGroup(&op, scales)
    var others: [QuantizedWeight.Part] = []
    if let zeros {
      (op.zeroPoints, op.zero) = zeros.type.element == .i8 ? (.numbers, 1 << (bits - 1)) : (.rows, 0)
      others.append(.init(zeros))
    }
    if let order, try order.integers() != (0..<op.columns).map({ Int32($0 / op.group) }) {
      op.hasGroups = true
      others.append(.init(order))
    }
    if !op.hasGroups {
      op.format = QuantizedWeight.format(
        bits: bits, group: op.group, columns: op.columns, hasZeroPoints: zeros != nil,
        scalesFitHalf: try scales.fitsHalf())
    }
    try tensors.add(QuantizedWeight(stem + ".weight", sizes, op, .init(codes), .init(scales), others))
  }

  private func joinBytes(
    _ stem: String, _ codes: CheckpointTensor, _ scales: CheckpointTensor, _ tensors: inout QuantizedTensors
  ) throws {
    let sizes = try codes.sizes(2, .i8)
    guard sizes[0] > 0, sizes[1] > 0 else { throw codes.failure("found \(codes.type)") }
    var op = UnpackCodes()
    op.layout = .signedBytes
    op.bits = 8
    op.zero = 128
    (op.rows, op.columns) = (sizes[0], sizes[1])
    try Self.setGroup(&op, scales)
    var others: [QuantizedWeight.Part] = []
    if let zeros = tensors.optionalPart(stem + ".weight_zero_point"), try !Self.isZero(zeros) {
      op.zeroPoints = .numbers
      others.append(.init(zeros))
    } else {
      op.format = QuantizedWeight.format(
        bits: 8, group: op.group, columns: op.columns, scalesFitHalf: try scales.fitsHalf())
    }
    try tensors.add(QuantizedWeight(stem + ".weight", sizes, op, .init(codes), .init(scales), others))
  }

  private func joinFloats(_ stem: String, _ codes: CheckpointTensor, _ tensors: inout QuantizedTensors) throws {
    let scales = try tensors.part(stem + ".weight_scale")
    let bytes = try codes.sizes(2, .u8)
    guard bytes[0] > 0, bytes[1] > 0, bytes[1] <= 1 << 30 else { throw codes.failure("found \(codes.type)") }
    let columns = bytes[1] * 2
    if scales.type.element == .u8 || scales.foreignType == "F8_E8M0" {
      let exponents = CheckpointTensor(
        name: scales.name, type: TensorType(.u8, [bytes[0], columns / 32]), file: scales.file, range: scales.range)
      guard columns % 32 == 0, scales.range.count == bytes[0] * columns / 32 else {
        throw scales.failure("found \(scales.type) for \(codes.type)")
      }
      try tensors.add(
        MXFP4.weight(stem + ".weight", [bytes[0], columns], bytes[0], columns / 32, codes, exponents))
      return
    }
    let global = try tensors.part(stem + ".weight_global_scale")
    guard columns % 16 == 0, scales.type == TensorType(.f8e4m3, [bytes[0], columns / 16]),
      global.type.element == .f32, global.range.count == 4
    else { throw scales.failure("found \(scales.type) and \(global.type) for \(codes.type)") }
    var op = UnpackCodes()
    op.values = .e2m1
    (op.rows, op.columns, op.group) = (bytes[0], columns, 16)
    let divisor = try global.numbers()[0]
    // Scales with a sign are no scales of blocks.
    if try divisor.isNormal && divisor > 0 && scales.file.slice(scales.range).allSatisfy({ $0 < 0x80 }) {
      op.format = .nvfp4(divisor: divisor)
    }
    try tensors.add(
      QuantizedWeight(
        stem + ".weight", [bytes[0], columns], op, .init(codes), .init(scales),
        makeScales: { model, builder in
          let value = try builder.emit(Cast(.f32), try scales.constant(into: &model, &builder))
          return try builder.emit(Divide(), value, try global.constant([1], into: &model, &builder))
        }))
  }

  /// The length of a group from the shape of the scales.
  private static func setGroup(_ op: inout UnpackCodes, _ scales: CheckpointTensor) throws {
    let sizes = scales.type.shape.fixedSizes ?? []
    let groups = sizes.count == 2 && sizes[0] == op.rows ? sizes[1] : 1
    guard groups > 0, groups <= op.columns, op.columns % groups == 0 || groups == 1 else {
      throw scales.failure("found \(scales.type) for \(op.rows) x \(op.columns) codes")
    }
    op.group = op.columns / groups
  }

  private static func numbers(_ tensor: CheckpointTensor) throws -> [Int] {
    guard tensor.type.element == .i64 || tensor.type.element == .i32, tensor.type.maximumCount <= 8 else {
      throw tensor.failure("found \(tensor.type), expected two integers")
    }
    var reader = ByteReader(
      try tensor.file.slice(tensor.range), file: tensor.file.path, base: tensor.range.lowerBound)
    return try (0..<tensor.type.maximumCount).map { _ in
      Int(tensor.type.element == .i64 ? try reader.i64() : Int64(try reader.i32()))
    }
  }

  private static func isZero(_ tensor: CheckpointTensor) throws -> Bool {
    try tensor.file.slice(tensor.range).allSatisfy { $0 == 0 }
  }
}
