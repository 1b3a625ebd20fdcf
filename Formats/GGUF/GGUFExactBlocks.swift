import Tensors

/// The block type of ggml that holds the codes of a ``BlockFormat`` as they are, with the same scales.
///
/// Groups of a multiple of 32 numbers become several blocks with one scale; codes counted from a zero point become
/// differences: `Q4_0` for differences of -8 to 7, `Q5_0` for -16 to 15, `Q8_0` for -128 to 127 and for the levels of a
/// table. The table of `IQ4_NL` is that of ``CodeLevels/iq4nl``, and `MXFP4` is ``BlockFormat/mxfp4``.
struct GGUFExactBlocks: Sendable {
  private enum Kind: String { case q4_0, q5_0, q8_0, iq4_nl, mxfp4 }

  private let format: BlockFormat
  private let kind: Kind

  /// Numbers of a block.
  static let length = 32

  /// The type for rows of `columns` numbers; nil if none holds them exactly: scales of more than 16 bits, rows or groups
  /// that are not whole blocks.
  init?(_ format: BlockFormat, columns: Int) {
    if format == .mxfp4, columns % Self.length == 0 {
      (self.format, kind) = (format, .mxfp4)
      return
    }
    guard format.scale == .f16, let group = format.group, group % Self.length == 0, columns % Self.length == 0 else {
      return nil
    }
    self.format = format
    if let levels = format.levels {
      kind = levels == .iq4nl ? .iq4_nl : .q8_0
      return
    }
    switch format.codes == .zeroPoint ? format.bits + 1 : format.bits {
    case ...4: kind = .q4_0
    case 5: kind = .q5_0
    default: kind = .q8_0
    }
  }

  /// The name of the type in ggml.
  var typeName: String { kind.rawValue.uppercased() }

  /// Bytes of a block.
  private var blockBytes: Int {
    switch kind {
    case .q4_0, .iq4_nl: 18
    case .mxfp4: 17
    case .q5_0: 22
    case .q8_0: 34
    }
  }

  /// Bytes of a row of `columns` numbers.
  func rowBytes(columns: Int) -> Int { columns / Self.length * blockBytes }

  /// One row of the format as a row of blocks.
  func row(_ source: UnsafeRawPointer, columns: Int, into target: UnsafeMutableRawPointer) {
    if kind == .mxfp4 {
      target.copyMemory(from: source, byteCount: rowBytes(columns: columns))
      return
    }
    let perGroup = format.groupLength(columns: columns) / Self.length
    format.forEachGroup(ofRow: source, columns: columns) { group, scale, codes in
      for part in 0..<codes.count / Self.length {
        let out = target + (group * perGroup + part) * blockBytes
        out.storeBytes(of: Float16(scale), as: Float16.self)
        store(UnsafeBufferPointer(rebasing: codes[part * Self.length..<(part + 1) * Self.length]), out + 2)
      }
    }
  }

  /// Stores 32 codes as the block does behind its scale (`ggml-common.h`).
  private func store(_ codes: UnsafeBufferPointer<Int8>, _ out: UnsafeMutableRawPointer) {
    func nibbles(_ offset: Int8, at place: Int) {
      for j in 0..<16 {
        let (low, high) = (UInt8(bitPattern: codes[j] &+ offset), UInt8(bitPattern: codes[j + 16] &+ offset))
        out.storeBytes(of: low & 15 | high << 4, toByteOffset: place + j, as: UInt8.self)
      }
    }
    switch kind {
    case .mxfp4: preconditionFailure("rows of MXFP4 are copied whole")
    case .iq4_nl:
      for j in 0..<16 {
        let low = CodeLevels.iq4nl.code(of: Float(codes[j])), high = CodeLevels.iq4nl.code(of: Float(codes[j + 16]))
        out.storeBytes(of: low | high << 4, toByteOffset: j, as: UInt8.self)
      }
    case .q4_0: nibbles(8, at: 0)
    case .q5_0:
      var high: UInt32 = 0
      for j in 0..<Self.length where codes[j] >= 0 { high |= 1 << UInt32(j) }
      out.storeBytes(of: high.littleEndian, as: UInt32.self)
      nibbles(16, at: 4)
    case .q8_0:
      if let base = codes.baseAddress { out.copyMemory(from: base, byteCount: Self.length) }
    }
  }
}
