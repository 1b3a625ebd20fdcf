/// Rounding to tables of levels and to floats of eight bits.
extension BlockFormat {
  /// The codes of a group, its scale as it is stored, and the code that pads it.
  ///
  /// Of the scales that are tried, the number of largest magnitude times `factors` (``scaleFactors(_:)``), the one with
  /// the smallest sum of squared errors, the first of equals; each number becomes the nearest level.
  func quantizeLevels(
    _ levels: CodeLevels, _ factors: [Float], _ source: UnsafePointer<Float>, _ count: Int,
    into output: UnsafeMutablePointer<UInt8>
  ) -> (scale: Float, zero: UInt8) {
    let zero = levels.zeroCode
    let largest = largestMagnitude(source, count)
    let base = hasSignedScales ? largest : largest.magnitude
    var best = rounded(scale: base / levels.ascending[levels.ascending.count - 1])
    var smallest = Float.infinity
    if largest != 0 {
      for factor in factors {
        let d = rounded(scale: base * factor)
        guard d != 0, d.magnitude < .infinity else { continue }
        let error = squaredError(levels, source, count, scale: d)
        if error < smallest { (smallest, best) = (error, d) }
      }
    }
    let inverse = best == 0 || largest == 0 ? 0 : 1 / best
    for i in 0..<count {
      output[i] = inverse == 0 ? zero : levels.code(of: levels.nearest(clamped(source[i] * inverse, 128)))
    }
    return (largest == 0 ? 0 : best, zero)
  }

  private func squaredError(
    _ levels: CodeLevels, _ source: UnsafePointer<Float>, _ count: Int, scale d: Float
  ) -> Float {
    let inverse = 1 / d
    var sums = Lanes.zero
    var start = 0
    while start + 16 <= count {
      let values = UnsafeRawPointer(source + start).loadUnaligned(as: Lanes.self)
      let error = values - levels.nearest(values * inverse) * d
      sums += error * error
      start += 16
    }
    var sum = sums.sum()
    for i in start..<count {
      let error = source[i] - levels.nearest(source[i] * inverse) * d
      sum += error * error
    }
    return sum
  }

  /// Quantizes a row to E4M3: `d = max |x| / 448`, codes the nearest numbers to `x / d`, ties to even.
  func quantizeFloats(_ source: UnsafePointer<Float>, columns: Int, into destination: UnsafeMutableRawPointer) {
    let length = groupLength(columns: columns), blockBytes = blockBytes(columns: columns)
    for block in 0..<blocks(columns: columns) {
      let start = block * length, count = min(length, columns - start)
      let output = destination + block * blockBytes
      let d = largestMagnitude(source + start, count).magnitude / 448
      store(scale: d, at: output)
      let codes = (output + headerBytes).assumingMemoryBound(to: UInt8.self)
      let divisor = d == 0 ? 1 : d
      for i in 0..<count { codes[i] = F8.e4m3Bits(clamped(source[start &+ i] / divisor, 448)) }
      if length > count { (codes + count).update(repeating: 0, count: length - count) }
    }
  }

  /// The numbers that a row of E4M3 stands for.
  func dequantizeFloats(_ source: UnsafeRawPointer, columns: Int, into output: UnsafeMutablePointer<Float>) {
    let length = groupLength(columns: columns), blockBytes = blockBytes(columns: columns)
    for block in 0..<blocks(columns: columns) {
      let start = block * length, count = min(length, columns - start)
      let input = source + block * blockBytes
      let d = scale(at: input)
      let codes = (input + headerBytes).assumingMemoryBound(to: UInt8.self)
      for i in 0..<count { output[start &+ i] = F8.e4m3Value(codes[i]) * d }
    }
  }
}
