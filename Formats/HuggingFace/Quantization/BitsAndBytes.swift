import Base
import IR
import Tensors

/// bitsandbytes checkpoints.
///
/// Four bits (QLoRA; Dettmers and others, 2023): `weight: u8[N * K / 2, 1]`, the even element in the high bits of a byte;
/// `weight.quant_map: f32[16]`; a scale per block of consecutive elements, `weight.absmax`, in f32, or with double
/// quantization in bytes that `weight.nested_quant_map: f32[256]` and `weight.nested_absmax` widen:
/// `map[byte] * nested + offset`. Sizes stand as JSON text in `weight.quant_state.bitsandbytes__nf4` (or `fp4`).
///
/// Eight bits (LLM.int8; 2022): `weight: i8[N, K]` and `SCB: f32[N]`; `W = q * SCB / 127`.
struct BitsAndBytes: QuantizationMethod {
  static let names = ["bitsandbytes"]

  init(_ config: JSONField) throws {}

  func join(_ tensors: inout QuantizedTensors) throws {
    for kind in ["nf4", "fp4"] {
      let suffix = ".quant_state.bitsandbytes__\(kind)"
      for name in tensors.stems(suffix) { try joinFourBits(name, suffix, &tensors) }
    }
    for stem in tensors.stems(".SCB") { try joinBytes(stem, &tensors) }
    tensors.finish("bitsandbytes")
  }

  private func joinBytes(_ stem: String, _ tensors: inout QuantizedTensors) throws {
    let scales = try tensors.part(stem + ".SCB"), codes = try tensors.part(stem + ".weight")
    _ = tensors.optionalPart(stem + ".weight_format")
    let sizes = try codes.sizes(2, .i8)
    guard scales.type == TensorType(.f32, [sizes[0]]), sizes[0] > 0, sizes[1] > 0 else {
      throw scales.failure("found \(scales.type) for a weight of shape \(codes.type.shape)")
    }
    var op = UnpackCodes()
    op.layout = .signedBytes
    op.bits = 8
    op.zero = 128
    (op.rows, op.columns, op.group) = (sizes[0], sizes[1], sizes[1])
    op.format = .w8c
    try tensors.add(
      QuantizedWeight(
        stem + ".weight", sizes, op, .init(codes), .init(scales),
        makeScales: { model, builder in
          let value = try scales.constant(into: &model, &builder)
          let by = builder.constant(.inline("bitsandbytes.1_127", .f32, [1], [Float(1) / 127]))
          return try builder.emit(Multiply(), value, by)
        }))
  }

  private func joinFourBits(_ name: String, _ suffix: String, _ tensors: inout QuantizedTensors) throws {
    let state = try tensors.part(name + suffix), codes = try tensors.part(name)
    let table = try tensors.part(name + ".quant_map"), scales = try tensors.part(name + ".absmax")
    guard state.range.count <= 65536 else { throw state.failure("the state has \(state.range.count) bytes") }
    let path = state.file.path
    let json = JSONField(try JSON.parse(try state.file.slice(state.range), file: path), file: path)
    let sizes = try json["shape"].ints(), block = try json["blocksize"].int(in: 1...1 << 20)
    let count = try Shape.checkedCount(sizes, of: "tensor '\(name)'")
    guard let columns = sizes.last, count > 0, count % block == 0, codes.type.element == .u8,
      codes.range.count == (count + 1) / 2, table.type == TensorType(.f32, [16])
    else { throw codes.failure("found \(codes.type) for a weight of shape \(Shape(sizes)) in blocks of \(block)") }
    var op = UnpackCodes()
    op.layout = .highFirst
    op.values = .table
    // Blocks run on over the ends of rows.
    op.columns = columns % block == 0 ? columns : block
    op.rows = count / op.columns
    op.group = block
    guard op.columns % 2 == 0 else { throw codes.failure("blocks of \(block) numbers do not fill whole bytes") }
    let shape = [op.rows, op.groupCount]
    let makeScales = try nested(name, json, scales, shape, &tensors)
    guard makeScales != nil || scales.type == TensorType(.f32, [count / block]) else {
      throw scales.failure("found \(scales.type), expected f32[\(count / block)]")
    }
    try tensors.add(
      QuantizedWeight(
        name, sizes, op, .init(codes, [op.rows, op.columns / 2]), .init(scales, shape), [.init(table)],
        makeScales: makeScales))
  }

  /// What makes the scales of double quantization; nil where they are plain numbers.
  private func nested(
    _ name: String, _ json: JSONField, _ scales: CheckpointTensor, _ shape: [Int], _ tensors: inout QuantizedTensors
  ) throws -> (@Sendable (inout Model, inout GraphBuilder) throws -> ValueID)? {
    guard json["nested_blocksize"].exists else { return nil }
    let block = try json["nested_blocksize"].int(in: 1...1 << 20)
    let offset = Float(try json["nested_offset"].double(or: 0))
    let outer = try tensors.part(name + ".nested_absmax"), map = try tensors.part(name + ".nested_quant_map")
    let count = shape[0] * shape[1]
    guard scales.type == TensorType(.u8, [count]), map.type == TensorType(.f32, [256]),
      outer.type == TensorType(.f32, [(count + block - 1) / block])
    else { throw scales.failure("found \(scales.type) with \(outer.type) and \(map.type)") }
    return { model, builder in
      // The map as a table of 256 codes: bytes are looked up, and the last block may be short.
      var op = UnpackCodes()
      op.layout = .rows
      op.values = .table
      op.bits = 8
      op.rows = 1
      op.columns = count
      op.group = min(block, count)
      let codes = try scales.constant([1, count], into: &model, &builder)
      let steps = try outer.constant([1, op.groupCount], into: &model, &builder)
      let table = try map.constant(into: &model, &builder)
      var value = try builder.emit(op, codes, steps, table)
      let term = builder.constant(.inline(name + ".nested_offset", .f32, [1, 1], [offset]))
      value = try builder.emit(Add(), value, term)
      return try builder.emit(Reshape(shape.map { .fixed($0) }), value)
    }
  }
}
