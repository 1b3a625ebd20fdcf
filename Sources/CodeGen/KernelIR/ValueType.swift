/// Element types as they lie in memory; f16 and bf16 exist only there and are computed with as f32.
package enum ScalarType: String, Hashable, Codable, Sendable, CaseIterable {
  case f32, f64, f16, bf16, i8, u8, i16, i32, i64

  /// Bytes of one element in memory.
  package var byteCount: Int {
    switch self {
    case .i8, .u8: 1
    case .f16, .bf16, .i16: 2
    case .f32, .i32: 4
    case .f64, .i64: 8
    }
  }

  /// The type an element has once it is loaded: f32 for f16 and bf16, otherwise itself.
  package var loaded: ScalarType { self == .f16 || self == .bf16 ? .f32 : self }

  /// True for the types that hold real numbers.
  package var isFloat: Bool { self == .f32 || self == .f64 || self == .f16 || self == .bf16 }
}

/// Lane types of vector registers. An `i32` lane may also hold four bytes (see `ByteDot`).
package enum LaneType: String, Hashable, Codable, Sendable {
  case f32, i32
}

/// The type of an expression of KernelIR. The number of lanes is the target's vector width divided by 4 bytes, so kernels
/// are written once for all widths.
package enum ValueType: Hashable, Sendable {
  case scalar(ScalarType)
  case vector(LaneType)
  /// One truth value per lane.
  case mask
  /// A scalar truth value.
  case condition

  package static let f32 = ValueType.scalar(.f32)
  package static let index = ValueType.scalar(.i64)

  /// True for vectors and masks.
  package var isVector: Bool {
    switch self {
    case .vector, .mask: true
    case .scalar, .condition: false
    }
  }

  /// The lane type or the corresponding scalar type of computed values.
  package var lane: LaneType? {
    switch self {
    case .vector(let lane): lane
    case .scalar(.f32): .f32
    case .scalar(.i32): .i32
    default: nil
    }
  }
}
