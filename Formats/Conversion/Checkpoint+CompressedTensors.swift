import Base
import IR
import Tensors

extension Checkpoint {
  /// A checkpoint with its quantized matrices in the form of compressed-tensors: `pack-quantized` for codes of up to six bits
  /// in words of 32 (low bits first, counted from `2^(bits - 1)`), `int-quantized` for bytes; scales in `weight_scale`.
  ///
  /// - Throws: ``CompileError`` of kind `.unsupported` for formats that it does not have, or several at a time.
  func compressed() throws -> Checkpoint {
    var copy = self
    try copy.quantize(quantization)
    var formats: Set<BlockFormat> = []
    var dense: [String] = []
    for name in copy.names {
      guard let type = copy.type(of: name), type.rank == 2, let sizes = type.shape.fixedSizes else { continue }
      let module = name.hasSuffix(".weight") ? String(name.dropLast(7)) : name
      guard case .block(let format) = type.encoding else {
        dense.append(module)
        continue
      }
      formats.insert(format)
      try copy.compress(name, module, format, sizes)
    }
    guard let format = formats.first, formats.count == 1 else {
      throw CompileError(
        .unsupported, "compressed-tensors is written for one format of weights, found \(formats.count)")
    }
    // The output layer is linear even where it shares the table of the embedding.
    if !copy.contains("lm_head.weight_packed"), !dense.contains("lm_head") { dense.append("lm_head") }
    copy.config["quantization_config"] = Self.description(of: format, dense: dense)
    return copy
  }

  private mutating func compress(_ name: String, _ module: String, _ format: BlockFormat, _ sizes: [Int]) throws {
    let (rows, columns) = (sizes[0], sizes[1])
    let groups = format.blocks(columns: columns), bits = format.bits
    guard format.codes == .signed, columns * bits % 32 == 0, 32 % bits == 0,
      format.group.map({ columns % $0 == 0 }) ?? true
    else {
      throw CompileError(
        .unsupported, "compressed-tensors does not hold '\(name)' in the format \(format.name) exactly")
    }
    let sourceBytes = format.rowBytes(columns: columns)
    func part(
      _ suffix: String, _ type: TensorType,
      _ encode: @escaping @Sendable (UnsafeRawPointer, UnsafeMutableRawPointer) -> Void
    ) throws {
      try derive(
        module + suffix, from: name,
        RowCoding(type: type, sourceBytes: sourceBytes, rowBytes: (type.byteCount ?? 0) / max(rows, 1), encode: encode))
    }
    try part(".weight_scale", TensorType(format.scale, [rows, groups])) { source, target in
      format.forEachGroup(ofRow: source, columns: columns) { group, scale, _ in
        if format.scale == .f16 {
          target.storeBytes(of: Float16(scale), toByteOffset: 2 * group, as: Float16.self)
        } else {
          target.storeBytes(of: scale, toByteOffset: 4 * group, as: Float.self)
        }
      }
    }
    let length = format.groupLength(columns: columns)
    if bits == 8 {
      try part(".weight", TensorType(.i8, [rows, columns])) { source, target in
        format.forEachGroup(ofRow: source, columns: columns) { group, _, codes in
          if let base = codes.baseAddress { (target + group * length).copyMemory(from: base, byteCount: codes.count) }
        }
      }
    } else {
      try part(".weight_packed", TensorType(.i32, [rows, columns * bits / 32])) { source, target in
        target.initializeMemory(as: UInt32.self, repeating: 0, count: columns * bits / 32)
        let words = target.assumingMemoryBound(to: UInt32.self)
        let middle = Int8(1 << (bits - 1))
        format.forEachGroup(ofRow: source, columns: columns) { group, _, codes in
          for (index, code) in codes.enumerated() {
            let bit = (group * length + index) * bits
            words[bit / 32] |= UInt32(UInt8(bitPattern: code &+ middle)) << UInt32(bit % 32)
          }
        }
      }
      try add(integers: sizes, as: module + ".weight_shape")
    }
    if bits != 8 { remove(name) }
  }

  private static func description(of format: BlockFormat, dense: [String]) -> JSON {
    let weights: JSON = [
      "num_bits": .int(format.bits), "type": "int", "symmetric": true,
      "strategy": .string(format.group == nil ? "channel" : "group"),
      "group_size": format.group.map { .int($0) } ?? nil, "dynamic": false, "observer": "minmax", "actorder": nil,
    ]
    let kind: JSON = .string(format.bits == 8 ? "int-quantized" : "pack-quantized")
    return [
      "quant_method": "compressed-tensors", "format": kind, "quantization_status": "compressed",
      "config_groups": [
        "group_0": ["targets": ["Linear"], "weights": weights, "input_activations": nil, "output_activations": nil]
      ],
      "ignore": .array(dense.map { .string($0) }), "kv_cache_scheme": nil,
    ]
  }
}
