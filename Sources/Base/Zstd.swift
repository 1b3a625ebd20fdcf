import CZstd

/// Zstandard frames (RFC 8878).
package enum Zstd {
  /// Compresses bytes into one frame that states its size and has a checksum.
  package static func compress(_ bytes: UnsafeRawBufferPointer, level: Int = 3) throws -> [UInt8] {
    guard let context = ZSTD_createCCtx() else { throw CompileError(.io, "out of memory") }
    defer { ZSTD_freeCCtx(context) }
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, Int32(clamping: level))
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
    return try [UInt8](unsafeUninitializedCapacity: ZSTD_compressBound(bytes.count)) { buffer, count in
      let size = ZSTD_compress2(context, buffer.baseAddress, buffer.count, bytes.baseAddress, bytes.count)
      guard ZSTD_isError(size) == 0 else {
        throw CompileError(.internal, "zstd: \(String(cString: ZSTD_getErrorName(size)))")
      }
      count = size
    }
  }

  /// Decompresses one frame of at most `limit` bytes.
  ///
  /// - Throws: `CompileError` of kind `.input` if the frame is damaged, incomplete, followed by other bytes or larger.
  package static func decompress(_ bytes: UnsafeRawBufferPointer, limit: Int, of what: String) throws -> [UInt8] {
    func failure(_ reason: String) -> CompileError {
      CompileError(.input, "damaged compressed data of \(what): \(reason)")
    }
    guard let context = ZSTD_createDCtx() else { throw CompileError(.io, "out of memory") }
    defer { ZSTD_freeDCtx(context) }
    var output: [UInt8] = []
    var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
    // A frame may claim any size: memory grows with what really comes out.
    var chunk = [UInt8](repeating: 0, count: 1 << 18)
    while true {
      let (status, produced) = chunk.withUnsafeMutableBytes { chunk in
        var part = ZSTD_outBuffer(dst: chunk.baseAddress, size: chunk.count, pos: 0)
        return (ZSTD_decompressStream(context, &part, &input), part.pos)
      }
      guard ZSTD_isError(status) == 0 else { throw failure(String(cString: ZSTD_getErrorName(status))) }
      guard output.count + produced <= limit else { throw failure("more than \(limit) bytes") }
      output.append(contentsOf: chunk[..<produced])
      if status == 0 { break }
      if produced == 0, input.pos == input.size { throw failure("it ends too early") }
    }
    guard input.pos == input.size else { throw failure("bytes after its end") }
    return output
  }
}
