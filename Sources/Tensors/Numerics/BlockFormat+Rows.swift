extension BlockFormat {
  /// Quantizes a row of `columns` numbers into `rowBytes(columns:)` bytes.
  ///
  /// Per group, with `m` the number of largest magnitude, the first of equals:
  /// - eight bits, f32 scale (`w8c`, activations): `d = |m| / 127`, codes `x / d` rounded half to even;
  /// - eight bits, f16 scale (GGUF Q8_0): `d = |m| / 127`, codes `x * (1 / d)` rounded half away from zero;
  /// - four bits: `d = m / -8`, codes `trunc(x * (1 / d) + 8.5)`, at most 15 (GGUF Q4_0);
  /// - other widths, zero points and ternary codes: `quantizeCodes`;
  /// - tables of levels: `quantizeLevels`, whose codes come from the scale as it is stored; E4M3: `quantizeFloats`.
  ///
  /// All in f32; the codes come from the unrounded `d`, the stored scale is `d` in the scale type. Codes of eight bits
  /// lie in `-127...127`. A group of zeros has
  /// scale 0 and codes of value 0. NaN and infinities give arbitrary codes: check with `isAllFinite`.
  ///
  /// With eight bits and an f32 scale codes may be held to `-largestCode...largestCode`, `d = |m| / largestCode`. Without
  /// `triesScales` the number `m` becomes the largest level of a table, as caches are written while a program runs.
  package func quantizeRow(
    _ source: UnsafePointer<Float>, columns: Int, into destination: UnsafeMutableRawPointer, largestCode: Int = 127,
    triesScales: Bool = true
  ) {
    precondition(largestCode == 127 || takesFewerCodes && (1..<127).contains(largestCode), "codes of \(name)")
    if codes == .float8 { return quantizeFloats(source, columns: columns, into: destination) }
    guard bits == 8 || bits == 4 && codes == .signed else {
      return quantizePlanes(source, columns: columns, into: destination, triesScales: triesScales)
    }
    let length = groupLength(columns: columns)
    let blockBytes = blockBytes(columns: columns)
    for block in 0..<blocks(columns: columns) {
      let start = block * length
      let count = min(length, columns - start)
      let output = destination + block * blockBytes
      let codes = output + scale.byteCount
      let largest = largestMagnitude(source + start, count)
      let d = bits == 8 ? largest.magnitude / Float(largestCode) : largest / -8
      let inverse = d == 0 ? 0 : 1 / d
      store(scale: d, at: output)
      if bits == 4 {
        quantizeNibbles(source + start, count, length, inverse, codes.assumingMemoryBound(to: UInt8.self))
      } else if scale == .f16 {
        quantizeBytesAway(source + start, count, length, inverse, codes.assumingMemoryBound(to: Int8.self))
      } else {
        quantizeBytesEven(
          source + start, count, length, d == 0 ? 1 : d, Float(largestCode), codes.assumingMemoryBound(to: Int8.self))
      }
    }
  }

  /// The numbers that a row of `rowBytes(columns:)` bytes stands for: `code * scale` in f32.
  package func dequantizeRow(_ source: UnsafeRawPointer, columns: Int, into output: UnsafeMutablePointer<Float>) {
    if codes == .float8 { return dequantizeFloats(source, columns: columns, into: output) }
    guard bits == 8 || bits == 4 && codes == .signed else {
      return dequantizePlanes(source, columns: columns, into: output)
    }
    let length = groupLength(columns: columns)
    let blockBytes = blockBytes(columns: columns)
    for block in 0..<blocks(columns: columns) {
      let start = block * length
      let count = min(length, columns - start)
      let input = source + block * blockBytes
      let d = scale(at: input)
      let values = output + start
      if bits == 8 {
        let codes = (input + scale.byteCount).assumingMemoryBound(to: Int8.self)
        for i in 0..<count { values[i] = Float(codes[i]) * d }
      } else {
        let codes = (input + scale.byteCount).assumingMemoryBound(to: UInt8.self)
        let half = length / 2
        for i in 0..<min(half, count) { values[i] = Float(Int32(codes[i] & 15) &- 8) * d }
        if count > half {
          for i in half..<count { values[i] = Float(Int32(codes[i &- half] &>> 4) &- 8) * d }
        }
      }
    }
  }

  /// Quantizes rows of numbers lying one after the other, on all threads.
  package func quantize(
    _ source: UnsafeBufferPointer<Float>, columns: Int, into destination: UnsafeMutableRawBufferPointer,
    largestCode: Int = 127, triesScales: Bool = true
  ) {
    guard columns > 0, let input = source.baseAddress, let output = destination.baseAddress else { return }
    let rows = source.count / columns
    let rowBytes = rowBytes(columns: columns)
    precondition(destination.count >= rows * rowBytes, "quantized rows need \(rows * rowBytes) bytes")
    parallelFor(rows, grain: max(1, 65536 / columns)) { range in
      for row in range {
        quantizeRow(
          input + row * columns, columns: columns, into: output + row * rowBytes, largestCode: largestCode,
          triesScales: triesScales)
      }
    }
  }

  /// Dequantizes rows lying one after the other, on all threads.
  package func dequantize(
    _ source: UnsafeRawBufferPointer, columns: Int, into destination: UnsafeMutableBufferPointer<Float>
  ) {
    guard columns > 0, let input = source.baseAddress, let output = destination.baseAddress else { return }
    let rows = destination.count / columns
    let rowBytes = rowBytes(columns: columns)
    precondition(source.count >= rows * rowBytes, "\(rows) quantized rows have \(rows * rowBytes) bytes")
    parallelFor(rows, grain: max(1, 65536 / columns)) { range in
      for row in range { dequantizeRow(input + row * rowBytes, columns: columns, into: output + row * columns) }
    }
  }
}

/// Adding and subtracting 1.5 * 2^23 rounds a number below 2^22 to the nearest integer, ties to even, without an
/// instruction that old processors lack.
@inline(__always)
func roundedToEven(_ value: Float) -> Float { (value + 0x1.8p23) - 0x1.8p23 }

/// The integer in a number in -256...256 that `roundedToEven` would give.
@inline(__always)
func roundedCode(_ value: Float) -> Int32 { Int32(bitPattern: (value + 0x1.8p23).bitPattern & 0x3FF) }

/// `value` within `-limit...limit`; NaN gives `-limit`.
@inline(__always)
func clamped(_ value: Float, _ limit: Float) -> Float {
  let low = value > -limit ? value : -limit
  return low < limit ? low : limit
}

private func quantizeBytesEven(
  _ source: UnsafePointer<Float>, _ count: Int, _ length: Int, _ divisor: Float, _ limit: Float,
  _ codes: UnsafeMutablePointer<Int8>
) {
  for i in 0..<count {
    codes[i] = Int8(truncatingIfNeeded: roundedCode(clamped(source[i] / divisor, limit)))
  }
  if length > count { (codes + count).update(repeating: 0, count: length - count) }
}

private func quantizeBytesAway(
  _ source: UnsafePointer<Float>, _ count: Int, _ length: Int, _ inverse: Float, _ codes: UnsafeMutablePointer<Int8>
) {
  for i in 0..<count {
    let value = clamped(source[i] * inverse, 127)
    let magnitude = value.magnitude
    let even = roundedToEven(magnitude)
    // The difference is exact; half means a tie that went down.
    let away = even + (magnitude - even == 0.5 ? 1 : 0)
    let code = roundedCode(away)
    codes[i] = Int8(truncatingIfNeeded: value < 0 ? 0 &- code : code)
  }
  if length > count { (codes + count).update(repeating: 0, count: length - count) }
}

private func quantizeNibbles(
  _ source: UnsafePointer<Float>, _ count: Int, _ length: Int, _ inverse: Float, _ codes: UnsafeMutablePointer<UInt8>
) {
  @inline(__always) func code(_ value: Float) -> UInt8 {
    let shifted = clamped(value * inverse, 8) + 8.5
    let nearest = roundedToEven(shifted)
    let whole = nearest > shifted ? nearest - 1 : nearest
    return UInt8(truncatingIfNeeded: roundedCode(whole < 15 ? whole : 15))
  }
  let half = length / 2
  if count == length {
    for i in 0..<half { codes[i] = code(source[i]) | code(source[i &+ half]) &<< 4 }
    return
  }
  for i in 0..<half {
    let low = i < count ? code(source[i]) : 8
    let high = i &+ half < count ? code(source[i &+ half]) : 8
    codes[i] = low | high &<< 4
  }
}
