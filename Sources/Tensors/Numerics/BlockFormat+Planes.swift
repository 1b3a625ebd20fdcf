/// Codes of fewer than eight bits in planes.
extension BlockFormat {
  /// The largest stored code.
  package var largestCode: Int { 1 << bits - 1 }

  /// The stored code of value 0 where blocks have no zero point.
  package var middleCode: Int { 1 << (bits - 1) }

  /// Quantizes a row to narrow codes of any kind, see `quantizeRow` for `triesScales`.
  func quantizePlanes(
    _ source: UnsafePointer<Float>, columns: Int, into destination: UnsafeMutableRawPointer, triesScales: Bool = true
  ) {
    let length = groupLength(columns: columns), blockBytes = blockBytes(columns: columns)
    let factors = levels.map { scaleFactors($0, triesScales: triesScales) } ?? []
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(length, 1)) { buffer in
      guard let unpacked = buffer.baseAddress else { return }
      for block in 0..<blocks(columns: columns) {
        let start = block * length
        let count = min(length, columns - start)
        let output = destination + block * blockBytes
        let (d, zero) =
          levels.map { quantizeLevels($0, factors, source + start, count, into: unpacked) }
          ?? quantizeCodes(source + start, count, into: unpacked)
        (unpacked + count).update(repeating: zero, count: length - count)
        store(scale: d, at: output)
        if codes == .zeroPoint { output.storeBytes(of: zero, toByteOffset: scale.byteCount, as: UInt8.self) }
        packPlanes(unpacked, length, into: output + headerBytes)
      }
    }
  }

  /// The codes of a group, its scale and its zero point.
  ///
  /// - signed: `d = m / -2^(bits - 1)` with `m` the number of largest magnitude, codes `trunc(x / d + 2^(bits - 1) + 0.5)`;
  /// - zero points: the range from `min(0, min x)` to `max(0, max x)` in `2^bits - 1` steps `d`, `zero = round(-low / d)`,
  ///   codes `round(x / d + zero)`, halves to even;
  /// - ternary: `d = mean |x|`, codes `round(x / d)` within `-1...1` (Ma et al., The Era of 1-bit LLMs, 2024).
  ///
  /// All codes are held within `0 ... 2^bits - 1`.
  private func quantizeCodes(
    _ source: UnsafePointer<Float>, _ count: Int, into output: UnsafeMutablePointer<UInt8>
  ) -> (scale: Float, zero: UInt8) {
    let top = Float(largestCode), middle = Float(middleCode)
    let d: Float, zero: Float, low: Float, high: Float
    switch codes {
    case .signed:
      d = largestMagnitude(source, count) / -middle
      (zero, low, high) = (middle, 0, top)
    case .zeroPoint:
      var least: Float = 0, greatest: Float = 0
      for i in 0..<count {
        least = source[i] < least ? source[i] : least
        greatest = source[i] > greatest ? source[i] : greatest
      }
      // Not the difference first: it may overflow.
      d = greatest / top - least / top
      zero = d == 0 ? 0 : roundedToEven(clamped(-least / d, top))
      (low, high) = (0, top)
    case .ternary:
      var sum: Float = 0
      for i in 0..<count { sum += source[i].magnitude / Float(count) }
      d = sum
      (zero, low, high) = (middle, middle - 1, middle + 1)
    case .levels, .float8: preconditionFailure("codes that are not counted")
    }
    let inverse = d == 0 ? 0 : 1 / d
    for i in 0..<count {
      let shifted = clamped(source[i] * inverse, 2 * top) + zero
      let code: Float
      if codes == .signed {
        let nearest = roundedToEven(shifted + 0.5)
        code = nearest > shifted + 0.5 ? nearest - 1 : nearest
      } else {
        code = roundedToEven(shifted)
      }
      let bounded = code < low ? low : code < high ? code : high
      output[i] = UInt8(truncatingIfNeeded: roundedCode(bounded))
    }
    return (d, UInt8(truncatingIfNeeded: roundedCode(zero)))
  }

  /// The numbers that a row of narrow codes stands for.
  func dequantizePlanes(_ source: UnsafeRawPointer, columns: Int, into output: UnsafeMutablePointer<Float>) {
    let length = groupLength(columns: columns), blockBytes = blockBytes(columns: columns)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(length, 1)) { buffer in
      guard let unpacked = buffer.baseAddress else { return }
      for block in 0..<blocks(columns: columns) {
        let start = block * length
        let count = min(length, columns - start)
        let input = source + block * blockBytes
        let d = scale(at: input), zero = Int32(zeroPoint(at: input))
        unpackPlanes(input + headerBytes, length, into: unpacked)
        if let levels {
          for i in 0..<count { output[start &+ i] = Float(levels.values[Int(unpacked[i])]) * d }
          continue
        }
        for i in 0..<count { output[start &+ i] = Float(Int32(unpacked[i]) &- zero) * d }
      }
    }
  }

  /// The code of value 0 in a block; of the level next to 0 where codes are places in a table.
  package func zeroPoint(at block: UnsafeRawPointer) -> Int {
    switch codes {
    case .zeroPoint: Int(block.load(fromByteOffset: scale.byteCount, as: UInt8.self))
    case .levels(let levels): Int(levels.zeroCode)
    default: middleCode
    }
  }

  /// Stores the codes of a group as planes.
  func packPlanes(_ codes: UnsafePointer<UInt8>, _ length: Int, into output: UnsafeMutableRawPointer) {
    var plane = output.assumingMemoryBound(to: UInt8.self)
    var shift: UInt8 = 0
    for width in planes {
      let bytes = length * width / 8
      let mask = UInt8(truncatingIfNeeded: 1 << width - 1)
      plane.update(repeating: 0, count: bytes)
      for part in 0..<(8 / width) {
        let source = codes + part * bytes
        let place = UInt8(part * width)
        for j in 0..<bytes { plane[j] |= ((source[j] &>> shift) & mask) &<< place }
      }
      plane += bytes
      shift += UInt8(width)
    }
  }

  /// The stored codes of the group whose planes begin at `input`, one per byte.
  package func unpackPlanes(_ input: UnsafeRawPointer, _ length: Int, into codes: UnsafeMutablePointer<UInt8>) {
    var plane = input.assumingMemoryBound(to: UInt8.self)
    var shift: UInt8 = 0
    codes.update(repeating: 0, count: length)
    for width in planes {
      let bytes = length * width / 8
      let mask = UInt8(truncatingIfNeeded: 1 << width - 1)
      for part in 0..<(8 / width) {
        let output = codes + part * bytes
        let place = UInt8(part * width)
        for j in 0..<bytes { output[j] |= ((plane[j] &>> place) & mask) &<< shift }
      }
      plane += bytes
      shift += UInt8(width)
    }
  }
}

/// Gathers the bits `shift ..< shift + width` of codes into words of 32 bits, `step` bytes apart: byte `b` of a word holds,
/// from bit `width * s` on, the bits of its code `4 * s + b`.
package func packCodes(
  _ codes: UnsafePointer<UInt8>, _ count: Int, width: Int, shift: Int, into words: UnsafeMutableRawPointer, step: Int
) {
  let source = UnsafeRawPointer(codes)
  let mask = UInt32(truncatingIfNeeded: (1 << width - 1) * 0x0101_0101)
  let parts = 8 / width
  var output = words
  for word in 0..<(count / (4 * parts)) {
    var value: UInt32 = 0
    for part in 0..<parts {
      let four = (source + 4 * (word * parts + part)).loadUnaligned(as: UInt32.self)
      value |= ((four &>> UInt32(shift)) & mask) &<< UInt32(part * width)
    }
    output.storeBytes(of: value, as: UInt32.self)
    output += step
  }
}
