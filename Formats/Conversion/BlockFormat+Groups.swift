import Tensors

extension BlockFormat {
  /// Calls `body` with the number of each group of a row, its scale, and the whole numbers that times the scale are the
  /// values of the group: codes less the zero point, or levels. Not for floats of eight bits.
  func forEachGroup(
    ofRow source: UnsafeRawPointer, columns: Int, _ body: (Int, Float, UnsafeBufferPointer<Int8>) -> Void
  ) {
    let length = groupLength(columns: columns), bytes = blockBytes(columns: columns)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(length, 1)) { buffer in
      guard let codes = buffer.baseAddress else { return }
      for group in 0..<blocks(columns: columns) {
        let block = source + group * bytes
        let step = self.scale(at: block)
        if bits == 8 {
          UnsafeMutableRawPointer(codes).copyMemory(from: block + headerBytes, byteCount: length)
        } else {
          unpackPlanes(block + headerBytes, length, into: codes)
          if let levels {
            for index in 0..<length { codes[index] = UInt8(bitPattern: levels.values[Int(codes[index])]) }
          } else {
            let zero = UInt8(truncatingIfNeeded: zeroPoint(at: block))
            for index in 0..<length { codes[index] &-= zero }
          }
        }
        codes.withMemoryRebound(to: Int8.self, capacity: length) {
          body(group, step, UnsafeBufferPointer(start: $0, count: min(length, columns - group * length)))
        }
      }
    }
  }
}
