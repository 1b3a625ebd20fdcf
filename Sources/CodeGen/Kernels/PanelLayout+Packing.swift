import Base
import Tensors

extension PanelLayout {
  /// Fills whole panels from consecutive canonical rows, the first of which begins a panel; rows beyond those given become
  /// zeros.
  func pack(_ view: TensorView, into bytes: UnsafeMutableRawBufferPointer) throws {
    guard view.sizes.count == 2, view.sizes[1] == depth, hasWeights(view.type) else {
      throw CompileError(.internal, "cannot pack \(view.type) into panels of \(weights.text) with \(depth) columns")
    }
    let count = view.sizes[0]
    let panels = (count + panelRows - 1) / panelRows
    guard bytes.count >= panels * panelBytes else {
      throw CompileError(.internal, "\(bytes.count) bytes for \(panels) panels of \(panelBytes) bytes")
    }
    if case .float8 = weights { try checkFloats(view) }
    for panel in 0..<panels {
      let target = UnsafeMutableRawBufferPointer(rebasing: bytes[(panel * panelBytes)..<((panel + 1) * panelBytes)])
      switch weights {
      case .f32: packElements(UInt32.self, view, panel, count, target)
      case .f16, .bf16: packElements(UInt16.self, view, panel, count, target)
      case .w8, .float8: packBytes(view, panel, count, target)
      case .narrow(let codes): packPlanes(codes, view, panel, count, target)
      }
    }
  }

  private func hasWeights(_ type: TensorType) -> Bool {
    switch (weights, type.encoding) {
    case (.f32, .dense): type.element == .f32
    case (.f16, .dense): type.element == .f16
    case (.bf16, .dense): type.element == .bf16
    case (.w8(nil), .block(let format)): format == .w8c
    case (.w8(let group?), .block(let format)): format == .w8(group)
    case (.narrow, .block(let format)), (.float8, .block(let format)): WeightType(format) == weights
    default: false
    }
  }

  private func packElements<Bits: FixedWidthInteger>(
    _: Bits.Type, _ view: TensorView, _ panel: Int, _ count: Int, _ bytes: UnsafeMutableRawBufferPointer
  ) {
    guard let source = view.bytes.baseAddress, let base = bytes.baseAddress else { return }
    let width = panelRows
    for vector in 0..<vectors {
      for lane in 0..<lanes {
        let row = self.row(panel: panel, vector: vector, lane: lane)
        let slot = vector * lanes + lane
        var target = base + slot * MemoryLayout<Bits>.size
        let step = width * MemoryLayout<Bits>.size
        guard row < count else {
          for _ in 0..<depth {
            target.storeBytes(of: 0, as: Bits.self)
            target += step
          }
          continue
        }
        var from = source + row * depth * MemoryLayout<Bits>.size
        for _ in 0..<depth {
          target.storeBytes(of: from.loadUnaligned(as: Bits.self), as: Bits.self)
          target += step
          from += MemoryLayout<Bits>.size
        }
      }
    }
  }

  private func packBytes(
    _ view: TensorView, _ panel: Int, _ count: Int, _ bytes: UnsafeMutableRawBufferPointer
  ) {
    guard let source = view.bytes.baseAddress, let base = bytes.baseAddress,
      case .block(let format) = view.type.encoding
    else { return }
    let rowBytes = format.rowBytes(columns: depth), blockBytes = format.blockBytes(columns: depth)
    let scaleSize = format.scale.byteCount
    let flip: UInt32 = offset ? 0x8080_8080 : 0
    let step = panelRows * 4
    for slot in 0..<panelRows {
      let row = self.row(panel: panel, vector: slot / lanes, lane: slot % lanes)
      for group in 0..<(paddedDepth / self.group) {
        let place = base + group * groupBytes
        var words = place + scaleBytes + slot * 4
        guard row < count, group < format.blocks(columns: depth) else {
          (place + slot * scaleSize).copyMemory(from: [0, 0, 0, 0] as [UInt8], byteCount: scaleSize)
          for _ in 0..<(self.group / 4) {
            words.storeBytes(of: flip, as: UInt32.self)
            words += step
          }
          continue
        }
        let block = source + row * rowBytes + group * blockBytes
        (place + slot * scaleSize).copyMemory(from: block, byteCount: scaleSize)
        let codes = block + scaleSize
        let available = blockBytes - scaleSize
        for word in 0..<(self.group / 4) {
          var value: UInt32 = 0
          if 4 * word + 4 <= available {
            value = (codes + 4 * word).loadUnaligned(as: UInt32.self)
          } else {
            for byte in 0..<max(0, available - 4 * word) {
              value |= UInt32(codes.load(fromByteOffset: 4 * word + byte, as: UInt8.self)) << (8 * UInt32(byte))
            }
          }
          words.storeBytes(of: value ^ flip, as: UInt32.self)
          words += step
        }
      }
    }
  }

  /// Kernels read the codes of NaN as numbers.
  private func checkFloats(_ view: TensorView) throws {
    guard let source = view.bytes.baseAddress, case .block(let format) = view.type.encoding else { return }
    let blockBytes = format.blockBytes(columns: depth)
    for block in 0..<view.sizes[0] * format.blocks(columns: depth) {
      let codes = UnsafeRawBufferPointer(start: source + block * blockBytes, count: blockBytes)[format.headerBytes...]
      guard codes.allSatisfy({ $0 & 0x7F != 0x7F }) else { throw CompileError(.input, "a weight is not finite") }
    }
  }

  /// The levels of a table, plus 128 if bytes are, and the factor of scales.
  private func packPreamble(_ format: BlockFormat, _ bytes: UnsafeMutableRawBufferPointer) {
    guard let levels = format.levels else { return }
    UnsafeMutableRawBufferPointer(rebasing: bytes.prefix(preambleBytes)).initializeMemory(as: UInt8.self, repeating: 0)
    for (code, level) in levels.values.enumerated() { bytes[code] = UInt8(bitPattern: level) ^ (offset ? 0x80 : 0) }
    bytes.storeBytes(of: 0.5 / format.divisor, toByteOffset: NarrowCodes.factorOffset, as: Float.self)
  }

  private func packPlanes(
    _ codes: NarrowCodes, _ view: TensorView, _ panel: Int, _ count: Int, _ bytes: UnsafeMutableRawBufferPointer
  ) {
    guard let source = view.bytes.baseAddress, let base = bytes.baseAddress,
      case .block(let format) = view.type.encoding
    else { return }
    let rowBytes = format.rowBytes(columns: depth), blockBytes = format.blockBytes(columns: depth)
    let blocks = format.blocks(columns: depth)
    let planes = codes.planes
    let scaleSize = codes.scale.byteCount
    packPreamble(format, bytes)
    let zeros = codes.hasZeroPoints ? scaleBytes : nil
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: group) { buffer in
      guard let unpacked = buffer.baseAddress else { return }
      for slot in 0..<panelRows {
        let row = self.row(panel: panel, vector: slot / lanes, lane: slot % lanes)
        for group in 0..<(paddedDepth / self.group) {
          let place = base + preambleBytes + group * groupBytes
          var zero = format.levels?.zeroCode ?? UInt8(codes.middle)
          if row < count, group < blocks {
            let block = source + row * rowBytes + group * blockBytes
            (place + slot * scaleSize).copyMemory(from: block, byteCount: scaleSize)
            zero = UInt8(truncatingIfNeeded: format.zeroPoint(at: block))
            format.unpackPlanes(block + format.headerBytes, self.group, into: unpacked)
          } else {
            (place + slot * scaleSize).copyMemory(from: [0, 0] as [UInt8], byteCount: scaleSize)
            unpacked.update(repeating: zero, count: self.group)
          }
          if let zeros { place.storeBytes(of: zero, toByteOffset: zeros + slot, as: UInt8.self) }
          let words = place + headerBytes + slot * 4
          for plane in planes {
            packCodes(
              unpacked, self.group, width: plane.width, shift: plane.shift, into: words + plane.word * panelRows * 4,
              step: panelRows * 4)
          }
        }
      }
    }
  }
}
