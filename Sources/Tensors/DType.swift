/// The type of one number of a tensor.
package enum DType: String, Hashable, Codable, Sendable, CaseIterable {
  case f64, f32, f16, bf16
  /// Eight-bit floats of the OCP "FP8" proposal: `f8e4m3` is the finite-only E4M3FN form, `f8e5m2` has infinities.
  case f8e4m3, f8e5m2
  case i64, i32, i16, i8, u8
  /// One byte, 0 or 1.
  case bool

  /// Bytes of one number.
  package var byteCount: Int {
    switch self {
    case .f64, .i64: 8
    case .f32, .i32: 4
    case .f16, .bf16, .i16: 2
    case .f8e4m3, .f8e5m2, .i8, .u8, .bool: 1
    }
  }

  /// Whether numbers of this type are floating-point.
  package var isFloat: Bool {
    switch self {
    case .f64, .f32, .f16, .bf16, .f8e4m3, .f8e5m2: true
    default: false
    }
  }

  /// Whether numbers of this type are whole numbers; `bool` is neither.
  package var isInteger: Bool { !isFloat && self != .bool }
}
