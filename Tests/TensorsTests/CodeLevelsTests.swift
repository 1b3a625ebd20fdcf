import Base
import TestSupport
import Tensors
import Testing

/// Formats whose codes are places in a table.
@Suite struct CodeLevelsTests {
  private static let tables: [CodeLevels] = [.nf4, .iq4nl, .twinLog, .twinLog3, .nf3, .e2m1]
  private static let formats: [BlockFormat] =
    tables.map { .levels($0, 32) } + [.levels(.nf4, 128), .mxfp4, .nvfp4(divisor: 2000)]

  /// FNV-1a over the bits of numbers, all NaN alike and without the sign of 0.
  private func digest(_ values: [Float]) -> UInt64 {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for value in values {
      let bits = value.isNaN ? 0x7FC0_0000 : value == 0 ? 0 : value.bitPattern
      for byte in 0..<4 {
        hash ^= UInt64(bits >> UInt32(8 * byte) & 255)
        hash = hash &* 0x100_0000_01b3
      }
    }
    return hash
  }

  /// The 16 codes in each block, behind a scale of one byte.
  private func allCodes(_ format: BlockFormat, scales: ClosedRange<UInt8>) -> [Float] {
    let length = format.group ?? 0
    return scales.flatMap { scale -> [Float] in
      // Code 0 in the low and 8 in the high half of the first byte for groups of 16; 0 and 0, 1 and 1, ... for 32.
      let bytes: [UInt8] = (0..<length / 2).map { (j: Int) -> UInt8 in
        let high: Int = length == 16 ? j + 8 : j
        return UInt8(j | high << 4)
      }
      return Array(dequantize(format, [scale] + bytes, length)[0..<16])
    }
  }

  /// All codes with all scales: digests of the same numbers computed with the package ml_dtypes (0.6), from its types
  /// float4_e2m1fn, float8_e8m0fnu and float8_e4m3fn, in f64 and rounded once (in f32 for the scale over the divisor).
  @Test func decodesAsDefined() {
    #expect(digest(allCodes(.mxfp4, scales: 0...255)) == 0x3d50_e038_9179_af25)
    let divisor = Float(bitPattern: 1_172_506_347)
    #expect(digest(allCodes(.nvfp4(divisor: divisor), scales: 0...127)) == 0x7081_1e1a_7423_0ed5)
    let scale = Float(bitPattern: 1_011_451_376)
    var row = [UInt8](repeating: 0, count: 4)
    row.withUnsafeMutableBytes { $0.storeBytes(of: scale, as: Float.self) }
    row += [UInt8](0...255)
    #expect(digest(dequantize(.float8(), row, 256)) == 0xc679_5e01_fbf3_935)
  }

  @Test func namesAndTables() throws {
    for format in Self.formats + [.float8(), .float8(128)] {
      #expect(BlockFormat(name: format.name) == format, "\(format.name)")
    }
    #expect(BlockFormat.mxfp4.name == "q4e8m0g32_e2m1")
    #expect(BlockFormat.levels(.nf4, 64).name == "q4f16g64_nf4")
    #expect(BlockFormat.float8().name == "q8f32row_e4m3")
    let own = try #require(CodeLevels([-9, -5, -3, 0, 1, 2, 7, 100]))
    #expect(own.name == "xf7fbfd0001020764" && CodeLevels(name: own.name) == own && own.bits == 3)
    #expect(CodeLevels([Int8](repeating: 3, count: 16)) == nil && CodeLevels([1, 2, 3]) == nil)
    #expect(CodeLevels([-128, 0, 1, 2, 3, 4, 5, 6]) == nil)
    for name in [
      "q4e8m0g32", "q4f16g32_nf5", "q4f16g32_nf3", "q4e8m0g32_nf4", "q4f16g32_xf7", "q4f16g32_e2m1_45800000",
      "q4e4m3g16_e2m1_0", "q4e4m3g16_e2m1_7f800000", "q8f16g32_e4m3", "q4e4m3row_e2m1", "q4f16g32__", "q4f16g32_nf4_",
      "q4f16g32_x81" + String(repeating: "00", count: 14) + "8", "q5f16g32_nf4",
    ] {
      #expect(BlockFormat(name: name) == nil, "\(name)")
    }
  }

  /// Every number becomes the nearest level, zeros stay zeros, and what is no number does no harm.
  @Test(arguments: formats, [1, 16, 31, 32, 33, 100])
  func roundsToTheNearestLevel(_ format: BlockFormat, _ columns: Int) throws {
    var random = SplitMix64(seed: UInt64(columns) + UInt64(format.bits))
    let values = random.floats(columns, in: -0.4...0.5)
    let levels = try #require(format.levels)
    let bytes = quantize(format, values)
    let found = dequantize(format, bytes, columns)
    let length = format.groupLength(columns: columns), blockBytes = format.blockBytes(columns: columns)
    for block in 0..<format.blocks(columns: columns) {
      let d = try bytes.withUnsafeBytes { format.scale(at: try #require($0.baseAddress) + block * blockBytes) }
      #expect(d != 0 && d.isFinite)
      for i in block * length..<min(columns, (block + 1) * length) {
        let errors: [Float] = levels.values.map { (level: Int8) -> Float in (Float(level) * d - values[i]).magnitude }
        let nearest: Float = errors.min() ?? 0
        // The quotient by the scale may round a tie to the other side.
        #expect((found[i] - values[i]).magnitude <= nearest * 1.0001 + 1e-9)
      }
    }
    // Zeros stay zeros, in a whole row and in one group.
    let zeros = dequantize(format, quantize(format, [Float](repeating: 0, count: columns)), columns)
    #expect(zeros.allSatisfy { $0 == 0 })
    var half = values
    for i in 0..<min(length, columns) { half[i] = 0 }
    #expect(dequantize(format, quantize(format, half), columns).prefix(length).allSatisfy { $0 == 0 })
    // No number gives what a crash or a hang would.
    for bad in [Float.nan, .infinity, -.infinity, .greatestFiniteMagnitude, .leastNonzeroMagnitude] {
      var row = values
      row[columns / 2] = bad
      _ = quantize(format, row)
    }
    #expect(quantize(.float8(), values).count == 4 + columns)
  }

  /// Numbers that are levels already come back to the last bit.
  @Test func levelsAreExact() {
    for table in Self.tables {
      func factor(_ index: Int) -> Float { index < 32 ? 0.125 : -0.5 }
      let values: [Float] = (0..<64).map { (index: Int) -> Float in
        Float(table.values[(index * 7 + 3) % table.values.count]) * factor(index)
      }
      let format = BlockFormat.levels(table, 32)
      // The largest level of the other sign may be smaller: the scale of the first group has both signs to choose from.
      let largest = Float(table.values.max() ?? 0)
      let whole: [Float] = values.indices.map { (index: Int) -> Float in
        index % 32 == 0 ? largest * factor(index) : values[index]
      }
      #expect(dequantize(format, quantize(format, whole), 64) == whole, "\(table.name)")
    }
    let powers: [Float] = (0..<64).map { (index: Int) -> Float in
      let power: Float = index < 32 ? 0x1p-9 : 0x1p4
      return Float(CodeLevels.e2m1.values[index % 16]) * power
    }
    #expect(dequantize(.mxfp4, quantize(.mxfp4, powers), 64) == powers)
  }

  /// E4M3: half a unit in the last of four places, or of the smallest numbers.
  @Test func floatsOfEightBits() {
    var random = SplitMix64(seed: 5)
    let values = random.floats(129, in: -3...3)
    let found = dequantize(.float8(), quantize(.float8(), values), 129)
    let d = (values.map(\.magnitude).max() ?? 0) / 448
    for (x, y) in zip(values, found) {
      #expect((x - y).magnitude <= max(x.magnitude / 16 * 1.0001, d * 0x1p-10 * 1.0001))
    }
    #expect(dequantize(.float8(), quantize(.float8(), [0, 0, 0]), 3) == [0, 0, 0])
  }

  /// Planted levels are found, and numbers from a normal distribution lose less than with the table to begin with.
  @Test func fitsLevels() throws {
    let planted: [Int8] = [-127, -101, -80, -60, -41, -33, -20, -9, 0, 7, 18, 30, 47, 66, 90, 110]
    var random = SplitMix64(seed: 17)
    var numbers: [Float] = []
    for group in 0..<256 {
      let scale = Float(1 << (group % 5)) / 64
      for place in 0..<32 { numbers.append(Float(planted[place == 0 ? 0 : random.int(below: 16)]) * scale) }
    }
    let start = BlockFormat.levels(.nf4, 32)
    let found = try numbers.withUnsafeBufferPointer { try start.fitted(to: $0, columns: 64) }
    // Scales and levels in turn come close to the planted ones, to a hundredth of the error; not every group gets its own sign.
    #expect(error(found, numbers, 64) < 0.01 * error(start, numbers, 64), "\(found.name)")

    let normal = (0..<8192).map { (_: Int) -> Float in random.floats(12, in: 0...1).reduce(-6, +) }
    for table in [CodeLevels.nf4, .nf3] {
      let format = BlockFormat.levels(table, 32)
      let fitted = try normal.withUnsafeBufferPointer { try format.fitted(to: $0, columns: 256) }
      #expect(fitted.levels != table && fitted.group == 32 && fitted.bits == table.bits)
      #expect(error(fitted, normal, 256) < error(format, normal, 256))
      let uniform = BlockFormat(bits: table.bits, group: 32, scale: .f16)
      #expect(error(fitted, normal, 256) < error(uniform, normal, 256))
    }
    // The largest number gets the largest scale.
    let divided = try normal.withUnsafeBufferPointer { try BlockFormat.nvfp4(divisor: 1).fitted(to: $0, columns: 64) }
    let largest = normal.map(\.magnitude).max() ?? 0
    #expect(divided.divisor == 6 * 448 / largest)
    let zeros = [Float](repeating: 0, count: 64)
    for format in [start, .nvfp4(divisor: 1), .w4(32)] {
      let same = try zeros.withUnsafeBufferPointer { try format.fitted(to: $0, columns: 32) }
      #expect(same == format)
    }
    #expect(throws: CompileError.self) {
      try ([1, .nan] as [Float]).withUnsafeBufferPointer { try start.fitted(to: $0, columns: 2) }
    }
  }

  private func error(_ format: BlockFormat, _ numbers: [Float], _ columns: Int) -> Double {
    var sum = 0.0
    for first in stride(from: 0, to: numbers.count, by: columns) {
      let row = Array(numbers[first..<first + columns])
      for (x, y) in zip(row, dequantize(format, quantize(format, row), columns)) {
        let difference = Double(x - y)
        sum += difference * difference
      }
    }
    return sum
  }
}
