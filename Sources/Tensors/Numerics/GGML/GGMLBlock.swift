/// The block types of ggml (`ggml-common.h`) that have no kernels here: how a block of bytes stands for numbers.
///
/// A row is whole blocks. Q8_0, Q4_0, IQ4_NL and MXFP4 are ``BlockFormat``s instead.
package enum GGMLBlock: String, CaseIterable, Codable, Sendable {
  case q4_1, q5_0, q5_1
  case q2_k, q3_k, q4_k, q5_k, q6_k
  case iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m, iq4_xs
  case tq1_0, tq2_0
  case nvfp4

  /// Numbers of a block.
  package var length: Int {
    switch self {
    case .q4_1, .q5_0, .q5_1: 32
    case .nvfp4: 64
    default: 256
    }
  }

  /// Bytes of a block.
  package var byteCount: Int {
    switch self {
    case .q4_1: 20
    case .q5_0: 22
    case .q5_1: 24
    case .q2_k: 84
    case .q3_k, .iq3_s: 110
    case .q4_k: 144
    case .q5_k: 176
    case .q6_k: 210
    case .iq2_xxs, .tq2_0: 66
    case .iq2_xs: 74
    case .iq2_s: 82
    case .iq3_xxs: 98
    case .iq1_s: 50
    case .iq1_m: 56
    case .iq4_xs: 136
    case .tq1_0: 54
    case .nvfp4: 36
    }
  }

  /// The numbers of `blocks` blocks, `blocks * length` of them, in f32 as ggml computes them.
  package func dequantize(_ source: UnsafeRawPointer, blocks: Int, into output: UnsafeMutablePointer<Float>) {
    for block in 0..<blocks {
      let bytes = BlockBytes(base: source + block * byteCount)
      let values = output + block * length
      switch self {
      case .q4_1: dequantizeQ4_1(bytes, values)
      case .q5_0: dequantizeQ5_0(bytes, values)
      case .q5_1: dequantizeQ5_1(bytes, values)
      case .q2_k: dequantizeQ2_K(bytes, values)
      case .q3_k: dequantizeQ3_K(bytes, values)
      case .q4_k: dequantizeQ4_K(bytes, values)
      case .q5_k: dequantizeQ5_K(bytes, values)
      case .q6_k: dequantizeQ6_K(bytes, values)
      case .iq2_xxs: dequantizeIQ2_XXS(bytes, values)
      case .iq2_xs: dequantizeIQ2_XS(bytes, values)
      case .iq2_s: dequantizeIQ2_S(bytes, values)
      case .iq3_xxs: dequantizeIQ3_XXS(bytes, values)
      case .iq3_s: dequantizeIQ3_S(bytes, values)
      case .iq1_s: dequantizeIQ1_S(bytes, values)
      case .iq1_m: dequantizeIQ1_M(bytes, values)
      case .iq4_xs: dequantizeIQ4_XS(bytes, values)
      case .tq1_0: dequantizeTQ1_0(bytes, values)
      case .tq2_0: dequantizeTQ2_0(bytes, values)
      case .nvfp4: dequantizeNVFP4(bytes, values)
      }
    }
  }
}

/// The bytes of one block.
struct BlockBytes {
  var base: UnsafeRawPointer

  @inline(__always)
  subscript(_ index: Int) -> Int { Int(base.load(fromByteOffset: index, as: UInt8.self)) }

  @inline(__always)
  func i8(_ offset: Int) -> Int { Int(base.load(fromByteOffset: offset, as: Int8.self)) }

  @inline(__always)
  func u16(_ offset: Int) -> Int { Int(base.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) }

  @inline(__always)
  func u32(_ offset: Int) -> Int { Int(base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }

  /// The f16 number at `offset`.
  @inline(__always)
  func half(_ offset: Int) -> Float { F16.value(UInt16(truncatingIfNeeded: u16(offset))) }
}
