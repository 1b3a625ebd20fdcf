import Base
import Tensors

extension NumPyArray {
  private static let names: [DType: String] = [
    .f64: "<f8", .f32: "<f4", .f16: "<f2", .i64: "<i8", .i32: "<i4", .i16: "<i2", .i8: "|i1", .u8: "|u1", .bool: "|b1",
  ]

  /// Whether NumPy has an element type; it lacks bf16 and the eight-bit floats.
  static func holds(_ type: DType) -> Bool { names[type] != nil }

  /// The header of a .npy file of such an array, to which the data, aligned to 64 bytes, follow.
  static func header(_ type: DType, _ shape: [Int]) -> [UInt8] {
    precondition(holds(type), "NumPy has no type \(type)")
    let sizes = shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? "," : "")
    var header = "{'descr': '\(names[type] ?? "")', 'fortran_order': False, 'shape': (\(sizes)), }"
    // Version 1 counts the header in 16 bits; 32 axes of 19 digits stay far below.
    let padding = (64 - (10 + header.utf8.count + 1) % 64) % 64
    header += String(repeating: " ", count: padding) + "\n"
    let length = UInt16(header.utf8.count)
    return magic + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)] + header.utf8
  }

  /// The header of a .npy file.
  var npyHeader: [UInt8] { Self.header(type, shape) }

  /// The bytes of a .npy file, with the data aligned to 64 bytes. Types that NumPy lacks (bf16, the eight-bit floats)
  /// become f32.
  package var npyBytes: [UInt8] {
    Self.holds(type) ? npyHeader + bytes : converted(to: .f32).npyBytes
  }

  /// Writes a .npy file.
  package func write(to path: String) throws { try AtomicFile.write(npyBytes, to: path) }
}
