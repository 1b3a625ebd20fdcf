// Blocks whose codes index a table: levels for single numbers, lattice points for several.

/// The levels of IQ4_XS, and twice the numbers of E2M1.
private let levels4 = CodeLevels.iq4nl.values.map { Float($0) }
private let doubledE2M1 = CodeLevels.e2m1.values.map { Float($0) }

/// One of 128 patterns of eight signs: seven bits, the eighth makes their number even.
@inline(__always)
private func evenSigns(_ bits: Int) -> Int { bits & 127 | ((bits & 127).nonzeroBitCount & 1) << 7 }

/// `scale * point`, with the sign of number `j` in bit `first + j` of `signs`.
@inline(__always)
private func put(
  _ lattice: [Int8], _ point: Int, width: Int, scale: Float, signs: Int, first: Int = 0, _ y: Numbers
) {
  for j in 0..<width {
    let value = scale * Float(lattice[point * width + j])
    y[j] = signs >> (first + j) & 1 == 1 ? -value : value
  }
}

/// Eight groups of 32 numbers with 6-bit scales.
func dequantizeIQ4_XS(_ b: BlockBytes, _ y: Numbers) {
  let (d, high) = (b.half(0), b.u16(2))
  for group in 0..<8 {
    let low = b[4 + group / 2] >> (group % 2 * 4) & 15
    let scale = d * Float((low | (high >> (2 * group) & 3) << 4) - 32)
    for j in 0..<16 {
      let byte = b[8 + group * 16 + j]
      y[group * 32 + j] = scale * levels4[byte & 15]
      y[group * 32 + j + 16] = scale * levels4[byte >> 4]
    }
  }
}

/// Per group of 32: four points, four patterns of signs, a 4-bit scale, in eight bytes.
func dequantizeIQ2_XXS(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(0)
  for group in 0..<8 {
    let at = 2 + group * 8
    let word = b.u32(at + 4)
    let scale = d * (0.5 + Float(word >> 28)) * 0.25
    for part in 0..<4 {
      put(
        GGMLLattice.iq2xxs, b[at + part], width: 8, scale: scale, signs: evenSigns(word >> (7 * part)),
        y + group * 32 + part * 8)
    }
  }
}

/// Per eight numbers a point of nine bits and seven bits of signs; a 4-bit scale per 16.
func dequantizeIQ2_XS(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(0)
  for part in 0..<32 {
    let word = b.u16(2 + part * 2)
    let nibble = b[66 + part / 4] >> (part / 2 % 2 * 4) & 15
    put(
      GGMLLattice.iq2xs, word & 511, width: 8, scale: d * (0.5 + Float(nibble)) * 0.25, signs: evenSigns(word >> 9),
      y + part * 8)
  }
}

/// Per eight numbers a point of ten bits and eight signs; a 4-bit scale per 16.
func dequantizeIQ2_S(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(0)
  for part in 0..<32 {
    let point = b[2 + part] | (b[66 + part / 4] >> (part % 4 * 2) & 3) << 8
    let nibble = b[74 + part / 4] >> (part / 2 % 2 * 4) & 15
    put(
      GGMLLattice.iq2s, point, width: 8, scale: d * (0.5 + Float(nibble)) * 0.25, signs: b[34 + part], y + part * 8)
  }
}

/// Per group of 32: eight points of four numbers, four patterns of signs, a 4-bit scale.
func dequantizeIQ3_XXS(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(0)
  for group in 0..<8 {
    let word = b.u32(66 + group * 4)
    let scale = d * (0.5 + Float(word >> 28)) * 0.5
    for part in 0..<8 {
      put(
        GGMLLattice.iq3xxs, b[2 + group * 8 + part], width: 4, scale: scale,
        signs: evenSigns(word >> (7 * (part / 2))), first: part % 2 * 4, y + group * 32 + part * 4)
    }
  }
}

/// Per four numbers a point of nine bits and four signs; an odd scale of four bits per 32.
func dequantizeIQ3_S(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(0)
  for part in 0..<64 {
    let point = b[2 + part] | (b[66 + part / 8] >> (part % 8) & 1) << 8
    let nibble = b[106 + part / 16] >> (part / 8 % 2 * 4) & 15
    put(
      GGMLLattice.iq3s, point, width: 4, scale: d * Float(1 + 2 * nibble), signs: b[74 + part / 2],
      first: part % 2 * 4, y + part * 4)
  }
}

/// `scale * (point + shift)` for eight numbers.
@inline(__always)
private func putShifted(_ point: Int, scale: Float, shift: Float, _ y: Numbers) {
  for j in 0..<8 { y[j] = scale * (Float(GGMLLattice.iq1s[point * 8 + j]) + shift) }
}

/// Per group of 32: four points of eleven bits, a scale of three bits, and an eighth up or down.
func dequantizeIQ1_S(_ b: BlockBytes, _ y: Numbers) {
  let d = b.half(0)
  for group in 0..<8 {
    let word = b.u16(34 + group * 2)
    let scale = d * Float(2 * (word >> 12 & 7) + 1)
    let shift: Float = word & 0x8000 == 0 ? 0.125 : -0.125
    for part in 0..<4 {
      let point = b[2 + group * 4 + part] | (word >> (3 * part) & 7) << 8
      putShifted(point, scale: scale, shift: shift, y + group * 32 + part * 8)
    }
  }
}

/// Per eight numbers a point of eleven bits and an eighth up or down, per 16 a scale of three bits; the f16 scale of the
/// block is spread over the upper bits of the four words of scales.
func dequantizeIQ1_M(_ b: BlockBytes, _ y: Numbers) {
  let words = (0..<4).map { b.u16(48 + $0 * 2) }
  let bits = words[0] >> 12 | words[1] >> 8 & 0xF0 | words[2] >> 4 & 0xF00 | words[3] & 0xF000
  let d = F16.value(UInt16(truncatingIfNeeded: bits))
  for part in 0..<32 {
    let high = b[32 + part / 2] >> (part % 2 * 4) & 15
    let scale = d * Float(2 * (words[part / 8] >> (part / 2 % 4 * 3) & 7) + 1)
    putShifted(b[part] | (high & 7) << 8, scale: scale, shift: high & 8 == 0 ? 0.125 : -0.125, y + part * 8)
  }
}

/// An unsigned E4M3 scale per 16 numbers of E2M1.
func dequantizeNVFP4(_ b: BlockBytes, _ y: Numbers) {
  for group in 0..<4 {
    // The code of NaN stands for 0.
    let code = UInt8(truncatingIfNeeded: b[group])
    let d = code & 0x7F == 0x7F ? 0 : F8.e4m3Value(code & 0x7F) * 0.5
    for j in 0..<8 {
      let byte = b[4 + group * 8 + j]
      y[group * 16 + j] = d * doubledE2M1[byte & 15]
      y[group * 16 + j + 8] = d * doubledE2M1[byte >> 4]
    }
  }
}
