import Base
import Tensors

/// Writes a safetensors file: the length of a JSON header, the header, then the tensors without gaps.
package enum SafetensorsWriter {
  /// The name of an element type in the format.
  private static func name(_ type: DType) -> String {
    switch type {
    case .f8e4m3: "F8_E4M3"
    case .f8e5m2: "F8_E5M2"
    default: type.rawValue.uppercased()
    }
  }

  /// Writes all tensors of `checkpoint` to `path`. Wider element types come first, so that all are aligned.
  ///
  /// - Throws: ``CompileError`` if a tensor is quantized or the file cannot be written.
  package static func write(
    _ checkpoint: Checkpoint, to path: String, metadata: [(String, String)] = [("format", "pt")]
  ) throws {
    let types = try checkpoint.names.map { name -> (name: String, type: TensorType) in
      guard let type = checkpoint.type(of: name), type.isDense, type.shape.isFixed else {
        throw CompileError(.unsupported, "the quantized tensor '\(name)' is not written as safetensors")
      }
      return (name, type)
    }
    let order = types.enumerated().sorted { a, b in
      (-a.element.type.element.byteCount, a.offset) < (-b.element.type.element.byteCount, b.offset)
    }.map(\.element)
    var header = JSONObject()
    header["__metadata__"] = .object(JSONObject(metadata.map { ($0.0, .string($0.1)) }))
    var offset = 0
    for (name, type) in order {
      let end = offset + (type.byteCount ?? 0)
      header[name] = [
        "dtype": .string(self.name(type.element)),
        "shape": .array((type.shape.fixedSizes ?? []).map { .int($0) }),
        "data_offsets": [.int(offset), .int(end)],
      ]
      offset = end
    }
    var text = JSON.object(header).bytes()
    text += [UInt8](repeating: UInt8(ascii: " "), count: (8 - text.count % 8) % 8)
    let file = try AtomicFile(path: path)
    try file.append(withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) })
    try file.append(text)
    for (name, _) in order { try checkpoint.write(name, to: file) }
    try file.commit()
  }
}
