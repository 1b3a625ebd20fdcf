import CZlib

/// The formats of zlib that mcc reads.
package enum Zlib {
  /// Decompresses a raw deflate stream (RFC 1951) of known size.
  ///
  /// - Throws: `CompileError` of kind `.input` if the stream is damaged or gives another number of bytes.
  package static func inflate(_ bytes: UnsafeRawBufferPointer, expectedSize: Int, of what: String) throws -> [UInt8] {
    func failure(_ reason: String) -> CompileError {
      CompileError(.input, "damaged compressed data of \(what): \(reason)")
    }
    // Deflate shrinks at most 1032 times: refuse before memory is taken.
    guard expectedSize >= 0, expectedSize / 1032 <= bytes.count else {
      throw failure("\(bytes.count) bytes cannot hold \(expectedSize)")
    }
    var stream = z_stream()
    guard inflateInit2_(&stream, -MAX_WBITS, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
      throw CompileError(.io, "out of memory")
    }
    defer { inflateEnd(&stream) }
    var status = Z_OK
    let output = try [UInt8](unsafeUninitializedCapacity: expectedSize) { buffer, count in
      var input = bytes.bindMemory(to: UInt8.self)[...]
      while status == Z_OK {
        // The counters of zlib have 32 bits.
        let given = min(input.count, 1 << 30), room = min(expectedSize - count, 1 << 30)
        // One byte more than expected must be seen to be refused.
        var spare: UInt8 = 0
        status = withUnsafeMutablePointer(to: &spare) { spare in
          let given = UnsafeBufferPointer(rebasing: input.prefix(given))
          stream.next_in = UnsafeMutablePointer(mutating: given.baseAddress)
          stream.avail_in = UInt32(given.count)
          stream.next_out = room > 0 ? buffer.baseAddress.map { $0 + count } : spare
          stream.avail_out = room > 0 ? UInt32(room) : 1
          return CZlib.inflate(&stream, Z_NO_FLUSH)
        }
        input = input.dropFirst(given - Int(stream.avail_in))
        if room > 0 {
          count += room - Int(stream.avail_out)
        } else if stream.avail_out == 0 {
          throw failure("more than \(expectedSize) bytes")
        }
      }
      if status == Z_STREAM_END, count != expectedSize {
        throw failure("\(count) bytes, expected \(expectedSize)")
      }
    }
    guard status == Z_STREAM_END else {
      throw failure(status == Z_BUF_ERROR ? "it ends too early" : "invalid deflate stream")
    }
    return output
  }

  /// The CRC-32 of two pieces of data one after the other, of which the second has `byteCount` bytes.
  package static func crc32(_ first: UInt32, followedBy second: UInt32, byteCount: Int) -> UInt32 {
    UInt32(truncatingIfNeeded: crc32_combine(UInt(first), UInt(second), byteCount))
  }

  /// The CRC-32 of zip, gzip and PNG.
  package static func crc32(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var value = CZlib.crc32(0, nil, 0)
    var rest = bytes.bindMemory(to: UInt8.self)[...]
    while !rest.isEmpty {
      let part = UnsafeBufferPointer(rebasing: rest.prefix(1 << 30))
      value = CZlib.crc32(value, part.baseAddress, UInt32(part.count))
      rest = rest.dropFirst(part.count)
    }
    return UInt32(truncatingIfNeeded: value)
  }
}
