extension BlockFormat {
  /// Stores a block whose scale and codes are known: `length` codes as ``BlockFormat`` describes them, of eight bits in
  /// two's complement, narrower ones from 0 on. `zeroPoint` counts where blocks have one.
  package func assemble(
    scale: Float, zeroPoint: UInt8, codes: UnsafePointer<UInt8>, length: Int, into block: UnsafeMutableRawPointer
  ) {
    store(scale: scale, at: block)
    if self.codes == .zeroPoint { block.storeBytes(of: zeroPoint, toByteOffset: self.scale.byteCount, as: UInt8.self) }
    if bits == 8 {
      (block + headerBytes).copyMemory(from: codes, byteCount: length)
    } else {
      packPlanes(codes, length, into: block + headerBytes)
    }
  }
}
