import Base
import TestSupport
import Tensors
import Testing

@Suite struct BlockFormatTests {
  /// Four groups: many ties, small numbers, an alternating ramp, zeros but for one number.
  private var sample: [Float] {
    var x = (0..<128).map { (i: Int) -> Float in Float((i * i * 31 + i * 7) % 97 - 48) / 16 }
    for i in 32..<64 { x[i] *= 1e-3 }
    for i in 64..<96 { x[i] = (i % 2 == 0 ? 0.5 : -0.5) * Float(i - 63) }
    for i in 96..<128 { x[i] = 0 }
    x[100] = -7.25
    return x
  }

  private func hex(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  /// Bytes recorded from the `gguf` package of llama.cpp (0.17).
  @Test func equalsGGUF() {
    #expect(
      hex(quantize(.w8(32), sample))
        == "0c2681e6ed99e8db72ab890b30f86574287f7a185a40c8f5c63a520d6c6f155f4dde"
        + "8c0113eb67864ab1bb6abbb14a8667eb13de4d5f156f6c0d523ac6f5c8405a187a7f"
        + "083004f80cf014e81ce024d82cd034c83cc043b94bb153a95ba163996b9173897b81"
        + "4f2b0000000081000000000000000000000000000000000000000000000000000000")
    #expect(
      hex(quantize(.w4(32), sample))
        == "0036f0a6e7c257764fc3d199fbf89eefdb6f" + "258e3729711f137d3c41cc9dc34f2179070a"
        + "0040c848d937d937ea26ea26fb15fb15fc04" + "403b88888888808888888888888888888888")
  }

  /// Scales and codes recorded from the `gguf` package (0.17) for Q5_0, which orders its bits in another way.
  @Test func fiveBitsEqualGGUF() {
    let expected: [(scale: UInt16, codes: [UInt8])] = [
      (
        0x3200,
        [
          0, 13, 14, 3, 13, 11, 30, 5, 1, 17, 22, 15, 29, 31, 21, 31, 31, 19, 27, 24, 9, 15, 9, 23, 26, 18, 30, 30, 19,
          28, 26, 12,
        ]
      ),
      (
        0x8a25,
        [
          14, 19, 3, 31, 7, 26, 25, 3, 25, 26, 7, 31, 3, 19, 14, 20, 6, 4, 13, 2, 2, 14, 6, 9, 23, 17, 23, 8, 5, 13, 1,
          0,
        ]
      ),
      (
        0x3c00,
        [
          17, 15, 18, 14, 19, 13, 20, 12, 21, 11, 22, 10, 23, 9, 24, 8, 25, 7, 26, 6, 27, 5, 28, 4, 29, 3, 30, 2, 31, 1,
          31, 0,
        ]
      ),
      (0x3740, [16, 16, 16, 16, 0] + [UInt8](repeating: 16, count: 27)),
    ]
    let format = BlockFormat(bits: 5, group: 32, scale: .f16)
    let bytes = quantize(format, sample)
    #expect(bytes.count == 4 * 22)
    for (block, (scale, codes)) in expected.enumerated() {
      let start = block * 22
      #expect(UInt16(bytes[start]) | UInt16(bytes[start + 1]) << 8 == scale)
      var found = [UInt8](repeating: 0, count: 32)
      bytes.withUnsafeBytes { buffer in
        if let base = buffer.baseAddress { format.unpackPlanes(base + start + 2, 32, into: &found) }
      }
      #expect(found == codes)
    }
  }

  /// By hand: -1 ... 2 in 15 steps of 0.2, of which 5 lie below zero; numbers of one sign count from zero on.
  @Test func zeroPoints() {
    let format = BlockFormat(bits: 4, group: 8, scale: .f32, codes: .zeroPoint)
    let bytes = quantize(format, [-1, 2, 0, 0.2, -0.41, 1, 1.1, 0.09])
    #expect(bytes.count == 4 + 1 + 4)
    // Codes 0, 15, 5, 6, 3, 10, 10 (5.5 steps: 10.5, ties go to even or below by rounding), 5.
    #expect(bytes[4] == 5)
    #expect(bytes[5] == 0x30 && bytes[6] == 0xAF && bytes[8] == 0x56)
    let back = dequantize(format, bytes, 8)
    #expect(maxRelativeError(back, [-1, 2, 0, 0.2, -0.4, 1, 1, 0]) < 0.11)
    #expect(quantize(format, [1, 2, 3])[4] == 0)
    #expect(quantize(format, [-1, -2, -3])[4] == 15)
    #expect(dequantize(format, quantize(format, [-3, -3, -3]), 3).allSatisfy { abs($0 + 3) < 1e-6 })
  }

  /// By hand: the mean magnitude is 1; numbers beyond half of it are one step.
  @Test func ternaryCodes() {
    let format = BlockFormat(bits: 2, group: 8, scale: .f32, codes: .ternary)
    let back = dequantize(format, quantize(format, [2, -2, 0.4, -0.6, 0, 1.4, -1.1, 0.5]), 8)
    #expect(back == [1, -1, 0, -1, 0, 1, -1, 0])
  }

  /// Bits of a code in planes: of six bits, four in the first half of the bytes and two behind them.
  @Test func planes() {
    let format = BlockFormat(bits: 6, group: 4, scale: .f32)
    // Codes 0 (-32), 32 (0), 48 (16), 63 (31).
    #expect(quantize(format, [-32, 0, 16, 31])[4...] == [0x00, 0xF0, 0b11_11_10_00])
    for format in Self.formats {
      #expect(BlockFormat(name: format.name) == format)
    }
    for name in ["q7f16g32", "q3f16g4", "q2f16g2", "q8f16g32z", "q4f16g32t", "q4f16", "q4f16g", "q4f16g0", "q4i8g32"] {
      #expect(BlockFormat(name: name) == nil, "\(name)")
    }
  }

  static let formats: [BlockFormat] = [
    .w8c, .w8(32), .w8(64), .w8(128), .w4(32), .w4(64), .w4(128), .a8(32), .a8(128),
    BlockFormat(bits: 4, group: nil, scale: .f32), BlockFormat(bits: 4, group: 2, scale: .f16),
    BlockFormat(bits: 6, group: 32, scale: .f16), BlockFormat(bits: 5, group: 32, scale: .f16),
    BlockFormat(bits: 3, group: 64, scale: .f16), BlockFormat(bits: 2, group: 128, scale: .f16),
    BlockFormat(bits: 3, group: nil, scale: .f32),
  ]
  static let otherFormats: [BlockFormat] = [
    BlockFormat(bits: 4, group: 32, scale: .f16, codes: .zeroPoint),
    BlockFormat(bits: 6, group: 64, scale: .f16, codes: .zeroPoint),
    BlockFormat(bits: 3, group: nil, scale: .f32, codes: .zeroPoint),
    BlockFormat(bits: 2, group: 32, scale: .f16, codes: .ternary),
  ]

  /// With zero points the error is at most a step: half for the code, half for the zero point.
  @Test(arguments: otherFormats.dropLast(), [1, 32, 33, 100])
  func errorWithZeroPoints(_ format: BlockFormat, _ columns: Int) {
    var random = SplitMix64(seed: UInt64(columns))
    let values = random.floats(columns, in: -1...3)
    let back = dequantize(format, quantize(format, values), columns)
    let length = format.groupLength(columns: columns)
    for start in stride(from: 0, to: columns, by: length) {
      let group = start..<min(start + length, columns)
      let span = max(0, values[group].max() ?? 0) - min(0, values[group].min() ?? 0)
      let step = span / Float(format.largestCode)
      for i in group { #expect(abs(back[i] - values[i]) <= step * 1.001 + span * 0x1p-10) }
    }
  }

  /// The error of a number is at most half a step: `d / 2` of the largest magnitude over 127 or 8, plus the rounding of an
  /// f16 scale (2^-11 of the number). In four bits the end opposite to the largest number is cut at 7 steps.
  @Test(arguments: formats, [1, 2, 31, 32, 33, 64, 100, 257])
  func errorIsHalfAStep(_ format: BlockFormat, _ columns: Int) {
    var random = SplitMix64(seed: UInt64(columns))
    let values = random.floats(columns, in: -3...3)
    let back = dequantize(format, quantize(format, values), columns)
    let length = format.groupLength(columns: columns)
    for start in stride(from: 0, to: columns, by: length) {
      let group = start..<min(start + length, columns)
      let largest = values[group].map(\.magnitude).max() ?? 0
      let step = largest / (format.bits == 8 ? 127 : Float(1 << (format.bits - 1)))
      let bound = format.bits == 8 ? step / 2 : step
      for i in group { #expect(abs(back[i] - values[i]) <= bound * 1.001 + values[i].magnitude * 0x1p-11 + 1e-9) }
      guard let place = group.first(where: { values[$0].magnitude == largest }) else { continue }
      // The number that sets the scale comes back but for the rounding of the scale.
      #expect(abs(back[place] - values[place]) <= largest * 0x1p-10)
    }
  }

  /// Bytes that are held to fewer codes: none beyond the largest, which the largest number of a group has; errors of at most
  /// half a step; zeros stay zeros, and neither infinities nor NaN leave the range.
  @Test(arguments: [7, 15, 31, 63], [1, 31, 32, 70]) func fewerCodes(_ largest: Int, _ columns: Int) throws {
    let format = BlockFormat.a8(32)
    func codes(_ values: [Float]) throws -> (bytes: [UInt8], codes: [Int]) {
      var bytes = [UInt8](repeating: 0, count: format.rowBytes(columns: values.count))
      values.withUnsafeBufferPointer { source in
        bytes.withUnsafeMutableBytes {
          format.quantize(source, columns: values.count, into: $0, largestCode: largest)
        }
      }
      let blocks = stride(from: 0, to: bytes.count, by: 36)
      return (bytes, blocks.flatMap { bytes[$0 + 4..<$0 + 36].map { Int(Int8(bitPattern: $0)) } })
    }
    var random = SplitMix64(seed: UInt64(columns))
    let values = random.floats(columns, in: -3...3)
    let found = try codes(values)
    let back = dequantize(format, found.bytes, columns)
    for start in stride(from: 0, to: columns, by: 32) {
      let group = start..<min(start + 32, columns)
      let most = values[group].map(\.magnitude).max() ?? 0
      #expect(found.codes[start..<start + 32].map(\.magnitude).max() == UInt(largest))
      let bound = most / Float(largest) / 2 * 1.001
      for i in group { #expect(abs(back[i] - values[i]) <= bound) }
    }
    let zeros = [Float](repeating: 0, count: columns)
    #expect(dequantize(format, try codes(zeros).bytes, columns) == zeros)
    for special: Float in [.nan, .infinity, -.infinity, .leastNonzeroMagnitude, .greatestFiniteMagnitude] {
      var row = values
      row[0] = special
      #expect(try codes(row).codes.allSatisfy { abs($0) <= largest }, "\(special)")
    }
  }

  /// Codes of the padding have value 0, whatever the length.
  @Test func padding() {
    #expect(quantize(.w8(32), [1]).count == 34)
    #expect(quantize(.w8(32), [1])[3...].allSatisfy { $0 == 0 })
    #expect(quantize(.w4(32), [-8]) == [0x00, 0x3C, 0x80] + [UInt8](repeating: 0x88, count: 15))
    // Column 16 is the high half of the first byte.
    let wide = quantize(.w4(32), [Float](repeating: 0, count: 16) + [-8])
    #expect(wide == [0x00, 0x3C, 0x08] + [UInt8](repeating: 0x88, count: 15))
    #expect(quantize(BlockFormat(bits: 4, group: nil, scale: .f32), [-8, 0, 4]) == [0, 0, 0x80, 0x3F, 0xC0, 0x88])
    #expect(quantize(.w8(32), []) == [])
    #expect(quantize(.w8c, []) == [])
  }

  @Test func zerosAndTies() {
    for format in Self.formats + Self.otherFormats {
      let zeros = [Float](repeating: 0, count: 70)
      #expect(dequantize(format, quantize(format, zeros), 70) == zeros)
    }
    // The first of two numbers of equal magnitude decides the sign of a four-bit scale.
    #expect(quantize(.w4(2), [1, -1])[..<2] == quantize(.w4(2), [1, 0.5])[..<2])
    #expect(quantize(.w4(2), [1, -1])[2] == 0xF0)
    #expect(quantize(.w4(2), [-1, 1])[2] == 0xF0)
    // 127 is the largest, so the scale is 1 and halves are ties.
    let ties: [Float] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997]
    #expect(quantize(.a8(8), ties)[4...].map { Int8(bitPattern: $0) } == [127, 0, 2, 2, 0, -2, -2, 0])
    #expect(quantize(.w8(8), ties)[2...].map { Int8(bitPattern: $0) } == [127, 1, 2, 3, -1, -2, -3, 0])
  }

  /// Nothing traps on what cannot be represented.
  @Test func extremeNumbers() {
    for format in Self.formats + Self.otherFormats {
      for special: [Float] in [
        [.nan, 1], [.infinity, 1], [-.infinity, .infinity], [.leastNonzeroMagnitude, 0],
        [.leastNormalMagnitude, -.leastNormalMagnitude], [.greatestFiniteMagnitude, -.greatestFiniteMagnitude],
      ] {
        _ = dequantize(format, quantize(format, special), 2)
      }
    }
    let largest = dequantize(.w8c, quantize(.w8c, [1e38, 0]), 2)
    #expect(maxRelativeError(largest, [1e38, 0]) < 1e-6)
  }

  @Test func wholeMatrices() {
    var random = SplitMix64(seed: 4)
    let (rows, columns) = (37, 70)
    let values = random.floats(rows * columns)
    for format in Self.formats + Self.otherFormats {
      var bytes = [UInt8](repeating: 0, count: rows * format.rowBytes(columns: columns))
      values.withUnsafeBufferPointer { values in
        bytes.withUnsafeMutableBytes { format.quantize(values, columns: columns, into: $0) }
      }
      let expected = (0..<rows).map { quantize(format, Array(values[$0 * columns..<($0 + 1) * columns])) }
      #expect(bytes == expected.flatMap { $0 })
      var back = [Float](repeating: 0, count: values.count)
      bytes.withUnsafeBytes { bytes in
        back.withUnsafeMutableBufferPointer { format.dequantize(bytes, columns: columns, into: $0) }
      }
      #expect(back == expected.flatMap { dequantize(format, $0, columns) })
    }
  }
}
