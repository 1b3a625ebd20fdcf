// Blocks of evenly spaced codes.

typealias Numbers = UnsafeMutablePointer<Float>

/// Scale, minimum, nibbles: `q d + m`.
func dequantizeQ4_1(_ b: BlockBytes, _ y: Numbers) {
  let (d, m) = (b.half(0), b.half(2))
  for j in 0..<16 {
    y[j] = Float(b[4 + j] & 15) * d + m
    y[j + 16] = Float(b[4 + j] >> 4) * d + m
  }
}

/// The code of number `j` of a block of 32: a nibble at `nibbles` and a fifth bit at `high`.
@inline(__always)
private func fiveBits(_ b: BlockBytes, _ high: Int, _ nibbles: Int, _ j: Int) -> Int {
  let nibble = j < 16 ? b[nibbles + j] & 15 : b[nibbles + j - 16] >> 4
  return nibble | (high >> j & 1) << 4
}

/// Scale, fifth bits, nibbles: `(q - 16) d`.
func dequantizeQ5_0(_ b: BlockBytes, _ y: Numbers) {
  let (d, high) = (b.half(0), b.u32(2))
  for j in 0..<32 { y[j] = Float(fiveBits(b, high, 6, j) - 16) * d }
}

/// Scale, minimum, fifth bits, nibbles: `q d + m`.
func dequantizeQ5_1(_ b: BlockBytes, _ y: Numbers) {
  let (d, m, high) = (b.half(0), b.half(2), b.u32(4))
  for j in 0..<32 { y[j] = Float(fiveBits(b, high, 8, j)) * d + m }
}

/// Sixteen groups of 16 numbers with 4-bit scales and minima, codes of two bits: `d s q - dmin m`.
func dequantizeQ2_K(_ b: BlockBytes, _ y: Numbers) {
  let (d, minimum) = (b.half(80), b.half(82))
  for group in 0..<16 {
    let scale = d * Float(b[group] & 15)
    let offset = minimum * Float(b[group] >> 4)
    let codes = 16 + group / 8 * 32 + group % 2 * 16
    let shift = group / 2 % 4 * 2
    for j in 0..<16 { y[group * 16 + j] = scale * Float(b[codes + j] >> shift & 3) - offset }
  }
}

/// Sixteen groups of 16 numbers with 6-bit scales, codes of two bits and a third one apart: `d (s - 32) (q - 4)`.
func dequantizeQ3_K(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(108)
  for group in 0..<16 {
    let low = group < 8 ? b[96 + group] & 15 : b[96 + group - 8] >> 4
    let high = b[104 + group % 4] >> (group / 4 * 2) & 3
    let scale = d * Float((low | high << 4) - 32)
    let codes = 32 + group / 8 * 32 + group % 2 * 16
    let shift = group / 2 % 4 * 2
    for j in 0..<16 {
      let third = b[group % 2 * 16 + j] >> (group / 2) & 1
      y[group * 16 + j] = scale * Float((b[codes + j] >> shift & 3) - (third == 1 ? 0 : 4))
    }
  }
}

/// The 6-bit scale and minimum of group `j` of eight, packed into twelve bytes at `offset`.
private func scaleAndMinimum(_ b: BlockBytes, _ offset: Int, _ j: Int) -> (Float, Float) {
  if j < 4 { return (Float(b[offset + j] & 63), Float(b[offset + j + 4] & 63)) }
  let low = b[offset + j + 4]
  return (Float(low & 15 | (b[offset + j - 4] >> 6) << 4), Float(low >> 4 | (b[offset + j] >> 6) << 4))
}

/// Eight groups of 32 numbers with 6-bit scales and minima, nibbles: `d s q - dmin m`.
func dequantizeQ4_K(_ b: BlockBytes, _ y: Numbers) {
  let (d, minimum) = (b.half(0), b.half(2))
  for group in 0..<8 {
    let (s, m) = scaleAndMinimum(b, 4, group)
    let (scale, offset) = (d * s, minimum * m)
    let codes = 16 + group / 2 * 32
    let shift = group % 2 * 4
    for j in 0..<32 { y[group * 32 + j] = scale * Float(b[codes + j] >> shift & 15) - offset }
  }
}

/// As Q4_K with a fifth bit of each code apart.
func dequantizeQ5_K(_ b: BlockBytes, _ y: Numbers) {
  let (d, minimum) = (b.half(0), b.half(2))
  for group in 0..<8 {
    let (s, m) = scaleAndMinimum(b, 4, group)
    let (scale, offset) = (d * s, minimum * m)
    let codes = 48 + group / 2 * 32
    let shift = group % 2 * 4
    for j in 0..<32 {
      let fifth = b[16 + j] >> group & 1
      y[group * 32 + j] = scale * Float(b[codes + j] >> shift & 15 | fifth << 4) - offset
    }
  }
}

/// Sixteen groups of 16 numbers with 8-bit scales, codes of four and two bits: `d s (q - 32)`.
func dequantizeQ6_K(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(208)
  for number in 0..<256 {
    let (part, rest) = (number / 128, number % 128)
    let (quarter, j) = (rest / 32, rest % 32)
    let low = b[part * 64 + quarter % 2 * 32 + j] >> (quarter / 2 * 4) & 15
    let high = b[128 + part * 32 + j] >> (quarter * 2) & 3
    y[number] = d * Float(b.i8(192 + number / 16)) * Float((low | high << 4) - 32)
  }
}

/// Three levels, five to a byte as a fraction of 256 in base three: `d (q - 1)`.
func dequantizeTQ1_0(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(52)
  let powers = [1, 3, 9, 27, 81]
  func put(_ byte: Int, _ digit: Int, _ number: Int) {
    let shifted = b[byte] * powers[digit] & 255
    y[number] = Float(((shifted * 3) >> 8) - 1) * d
  }
  for digit in 0..<5 { for j in 0..<32 { put(j, digit, digit * 32 + j) } }
  for digit in 0..<5 { for j in 0..<16 { put(32 + j, digit, 160 + digit * 16 + j) } }
  for digit in 0..<4 { for j in 0..<4 { put(48 + j, digit, 240 + digit * 4 + j) } }
}

/// Codes of two bits: `d (q - 1)`.
func dequantizeTQ2_0(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(64)
  for number in 0..<256 {
    let (part, rest) = (number / 128, number % 128)
    y[number] = Float((b[part * 32 + rest % 32] >> (rest / 32 * 2) & 3) - 1) * d
  }
}
