import Tensors

/// A tensor that is computed row by row from the bytes of another one.
struct RowCoding: Sendable {
  /// The type of what comes out.
  let type: TensorType
  /// Bytes of a row that goes in.
  let sourceBytes: Int
  /// Bytes of a row that comes out.
  let rowBytes: Int
  /// Writes one row.
  let encode: @Sendable (UnsafeRawPointer, UnsafeMutableRawPointer) -> Void

  /// Calls `sink` with the rows that come out for some rows that go in, and their offset.
  func map(
    _ bytes: UnsafeRawBufferPointer, at offset: Int, to sink: (Int, UnsafeRawBufferPointer) throws -> Void
  ) throws {
    guard let source = bytes.baseAddress, sourceBytes > 0 else { return }
    let rows = bytes.count / sourceBytes
    try withUnsafeTemporaryAllocation(byteCount: rows * rowBytes, alignment: 8) { buffer in
      guard let target = buffer.baseAddress else { return }
      for row in 0..<rows { encode(source + row * sourceBytes, target + row * rowBytes) }
      try sink(offset / sourceBytes * rowBytes, UnsafeRawBufferPointer(buffer))
    }
  }
}
