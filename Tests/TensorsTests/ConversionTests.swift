import Base
import Tensors
import TestSupport
import Testing

@Suite struct ConversionTests {
  private func convert<From, To>(_ values: [From], _ from: DType, _ to: DType, as: To.Type) -> [To] {
    values.withUnsafeBytes { source in
      [To](unsafeUninitializedCapacity: values.count) { buffer, count in
        convertRow(source, from, into: UnsafeMutableRawBufferPointer(buffer), to)
        count = values.count
      }
    }
  }

  @Test func floatToInteger() {
    let values: [Float] = [0, -0.9, 0.9, 1.5, -1.5, 127.9, 128, -128.9, -129, 1e10, -1e10, .infinity, -.infinity, .nan]
    #expect(
      convert(values, .f32, .i8, as: Int8.self) == [0, 0, 0, 1, -1, 127, 127, -128, -128, 127, -128, 127, -128, 0])
    #expect(convert(values, .f32, .u8, as: UInt8.self) == [0, 0, 0, 1, 0, 127, 128, 0, 0, 255, 0, 255, 0, 0])
    #expect(
      convert([1e10, -1e10, 2147483647, -2147483648, .nan] as [Double], .f64, .i32, as: Int32.self) == [
        .max, .min, .max, .min, 0,
      ])
    #expect(
      convert(
        [1e30, -1e30, 0x1p63, -0x1p63, 0x1.fffffffffffffp62, .infinity, .nan] as [Double], .f64, .i64, as: Int64.self)
        == [.max, .min, .max, .min, .max - 1023, .max, 0])
    #expect(convert(values, .f32, .bool, as: UInt8.self) == [0] + [UInt8](repeating: 1, count: 13))
    #expect(convert([-0.0, 1e-300] as [Double], .f64, .bool, as: UInt8.self) == [0, 1])
  }

  @Test func integers() {
    let values: [Int64] = [0, -1, 255, 256, 1 << 31, .max, .min]
    #expect(convert(values, .i64, .i32, as: Int32.self) == [0, -1, 255, 256, .min, -1, 0])
    #expect(convert(values, .i64, .u8, as: UInt8.self) == [0, 255, 255, 0, 0, 255, 0])
    #expect(convert(values, .i64, .bool, as: UInt8.self) == [0, 1, 1, 1, 1, 1, 1])
    #expect(convert([0, 1, 2, 255] as [UInt8], .bool, .i64, as: Int64.self) == [0, 1, 1, 1])
    #expect(convert([0, 2] as [UInt8], .bool, .f32, as: Float.self) == [0, 1])
    #expect(convert([-1, 127] as [Int8], .i8, .i64, as: Int64.self) == [-1, 127])
    #expect(convert(values, .i64, .f64, as: Double.self) == values.map { Double($0) })
    #expect(convert(values, .i64, .f32, as: Float.self) == values.map { Float($0) })
    #expect(convert([16777217, -16777219] as [Int32], .i32, .f32, as: Float.self) == [16777216, -16777220])
    #expect(convert([65519, 65520, -70000] as [Int32], .i32, .f16, as: UInt16.self) == [0x7BFF, 0x7C00, 0xFC00])
  }

  /// Every pair of types gives what going through f64 (or i64) one number at a time gives, at lengths around the block.
  @Test(arguments: [0, 1, 7, 511, 512, 513, 1500]) func allPairs(_ count: Int) {
    var random = SplitMix64(seed: UInt64(count))
    let integers = (0..<count).map { _ in Int64(random.next() % 200) - 100 }
    for from in DType.allCases {
      // Numbers that every type holds exactly, so that only the plumbing is judged: multiples of 32 up to 96.
      let values = integers.map { from == .bool ? $0 & 1 : (from == .u8 ? abs($0) : $0) / 32 * 32 }
      let source = convert(values, .i64, from, as: [UInt8].self, size: from.byteCount)
      for to in DType.allCases {
        let out = convert(bytes: source, from, to)
        let back = convert(bytes: out, to, .i64).withUnsafeBytes { Array($0.bindMemory(to: Int64.self)) }
        let expected = values.map { value -> Int64 in
          if to == .bool { return value == 0 ? 0 : 1 }
          return to == .u8 ? (from.isFloat ? max(value, 0) : value & 255) : value
        }
        #expect(back == expected, "\(from) to \(to)")
      }
    }
  }

  private func convert(bytes: [UInt8], _ from: DType, _ to: DType) -> [UInt8] {
    let count = bytes.count / from.byteCount
    var output = [UInt8](repeating: 0xAA, count: count * to.byteCount)
    bytes.withUnsafeBytes { source in output.withUnsafeMutableBytes { convertRow(source, from, into: $0, to) } }
    return output
  }

  private func convert(_ values: [Int64], _ from: DType, _ to: DType, as: [UInt8].Type, size: Int) -> [UInt8] {
    convert(bytes: values.withUnsafeBytes { Array($0) }, from, to)
  }

  @Test func unalignedRows() {
    let values: [Float] = (0..<100).map { Float($0) - 50 }
    let odd = [0] + values.withUnsafeBytes { Array($0) }
    var output = [UInt8](repeating: 0, count: 201)
    odd.withUnsafeBytes { source in
      output.withUnsafeMutableBytes { target in
        convertRow(
          UnsafeRawBufferPointer(rebasing: source[1...]), .f32,
          into: UnsafeMutableRawBufferPointer(rebasing: target[1...]),
          .f16)
      }
    }
    let halves = output.dropFirst().withUnsafeBytes { bytes in
      (0..<100).map { bytes.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self) }
    }
    #expect(halves.map { F16.value($0) } == values)
  }

  @Test func specialValuesSurvive() {
    let values: [Float] = [.nan, .infinity, -.infinity, -0.0, .leastNonzeroMagnitude]
    for type in [DType.f64, .bf16, .f16] {
      let there = convert(bytes: values.withUnsafeBytes { Array($0) }, .f32, type)
      let back = there.withUnsafeBytes { floats($0, type) }
      #expect(back[0].isNaN && back[1] == .infinity && back[2] == -.infinity && back[3].sign == .minus && back[3] == 0)
      #expect(back[4] == (type == .f64 ? .leastNonzeroMagnitude : 0))
    }
  }

  @Test func reductions() {
    let values: [Float] = [1, -5, 5, 2, 0, -0.5, 3, 4, 1, -2.5, 1e-3]
    #expect(largestMagnitude(values, values.count) == -5)
    #expect(largestMagnitude(values, 0) == 0)
    #expect(largestMagnitude([3, .nan, 5], 3).isNaN)
    values.withUnsafeBufferPointer { values in
      #expect(isAllFinite(values))
      #expect(extremes(values).map { $0 == (-5, 5) } == true && indexOfLargest(values) == 2)
      #expect(abs(sum(values) - (8 + Double(Float(1e-3)))) < 1e-12)
      #expect(abs(sumOfSquares(values) - dot(values, values)) < 1e-12)
    }
    for bad: Float in [.nan, .infinity, -.infinity] {
      [1, 2, bad, 3].withUnsafeBufferPointer { #expect(!isAllFinite($0)) }
    }
    [Float.nan, 1, .nan, 3, 3].withUnsafeBufferPointer { values in
      #expect(extremes(values).map { $0 == (1, 3) } == true && indexOfLargest(values) == 3)
    }
    let wave: [Float] = (0..<1003).map { Float($0 % 17) - 8 }
    wave.withUnsafeBufferPointer { wave in
      let (mean, variance) = meanAndVariance(wave)
      let exactMean = wave.reduce(0.0) { $0 + Double($1) } / 1003
      #expect(abs(mean - exactMean) < 1e-12)
      #expect(
        abs(variance - wave.reduce(0.0) { $0 + (Double($1) - exactMean) * (Double($1) - exactMean) } / 1003) < 1e-10)
    }
    [Float]().withUnsafeBufferPointer { none in
      #expect(extremes(none) == nil && indexOfLargest(none) == nil && sum(none) == 0 && isAllFinite(none))
    }
  }
}
