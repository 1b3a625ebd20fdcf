import Base
import IR
import Synchronization
import Tensors

extension Checkpoint {
  /// Writes a .npz archive: the tensors under their names, and `config.json` as its text in bytes.
  ///
  /// Types that NumPy lacks (bf16, the eight-bit floats) are widened to f32.
  package func write(npz path: String) throws {
    var writer = try NumPyArchiveWriter(path: path)
    for name in names {
      guard let type = type(of: name), let sizes = type.shape.fixedSizes else { continue }
      guard type.isDense else {
        throw CompileError(.unsupported, "the quantized tensor '\(name)' is not written as .npz")
      }
      var source = self
      if !NumPyArray.holds(type.element) {
        try source.rename(name, to: name) { builder, value in try builder.cast(value, to: .f32) }
      }
      let element = NumPyArray.holds(type.element) ? type.element : .f32
      let bytes = sizes.reduce(element.byteCount, *)
      try writer.add(name, header: NumPyArray.header(element, sizes), dataBytes: bytes) { file in
        // Blocks come in any order, their checksums are joined in that of the file.
        let parts = Mutex<[(offset: Int, count: Int, crc: UInt32)]>([])
        let start = try file.reserve(bytes)
        try source.stream(name) { offset, bytes in
          try file.write(bytes, at: start + offset)
          let crc = Zlib.crc32(bytes)
          parts.withLock { $0.append((offset, bytes.count, crc)) }
        }
        return parts.withLock { $0.sorted { $0.offset < $1.offset } }.reduce(0) {
          Zlib.crc32($0, followedBy: $1.crc, byteCount: $1.count)
        }
      }
    }
    let text = JSON.object(config).bytes(pretty: true)
    try writer.add("config.json", header: NumPyArray.header(.u8, [text.count]), dataBytes: text.count) { file in
      try file.append(text)
      return text.withUnsafeBytes { Zlib.crc32($0) }
    }
    try writer.commit()
  }
}
