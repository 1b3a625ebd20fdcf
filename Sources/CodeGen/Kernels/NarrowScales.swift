import Tensors

extension KernelBuilder {
  /// A table of levels, again and again in the bytes of a vector.
  func table(_ levels: CodeLevels) -> Expression {
    let words = array("levels", .i32, count: 4)
    let bytes = levels.values.map { UInt32(UInt8(bitPattern: $0)) } + [UInt32](repeating: 0, count: 16)
    for word in 0..<4 {
      let bits = (0..<4).reduce(UInt32(0)) { $0 | bytes[4 * word + $1] << UInt32(8 * $1) }
      store(words, .integer(word), .convert(.integer(Int(Int32(bitPattern: bits))), .i32))
    }
    let numbers = pointer("numbers", words, offset: 0, as: .f32)
    return define("table", .reinterpret(.repeated(numbers, 0, count: 4), .i32))
  }

  /// The E4M3 number in the highest byte of each lane, as f32; that of NaN is taken for 480.
  func float8(_ lanes: Expression) -> Expression {
    // Sign, and exponents of four bits in those of eight.
    let bits = lanes.shiftedRightArithmetically(by: 4) & -0x7810_0000
    return .reinterpret(bits, .f32) * .broadcast(.real(0x1p120))
  }

  /// Scales of one byte, given as whole numbers in i32 lanes, as f32 lanes; `factor` is that of E4M3.
  func scales(_ type: NarrowCodes.ScaleType, _ codes: Expression, factor: Expression?) -> Expression {
    switch type {
    case .f16: preconditionFailure("scales of two bytes are loaded as they are")
    case .e8m0:
      // The exponent 0 stands for 2^-127, below the normal numbers, and 255 for NaN.
      let power = Expression.maximum(codes << 23, .broadcast(.integer(0x40_0000)))
      let bits = power | (((codes + 1) >> 8) << 22)
      return .reinterpret(bits, .f32) * 0.5
    case .e4m3:
      // Exponents of four bits in those of eight; all bits set are NaN.
      let bits = (codes << 20) | ((0 - ((codes + 1) >> 7)) & 0x7800_0000)
      let value = Expression.reinterpret(bits, .f32) * .broadcast(.real(0x1p120))
      return factor.map { value * $0 } ?? value
    }
  }
}
