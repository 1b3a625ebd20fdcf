import Base
import Tensors

extension NumPyArray {
  /// The bytes of a .npy file, with the data aligned to 64 bytes. Types that NumPy lacks (bf16, the eight-bit floats)
  /// become f32.
  package var npyBytes: [UInt8] {
    let names: [DType: String] = [
      .f64: "<f8", .f32: "<f4", .f16: "<f2", .i64: "<i8", .i32: "<i4", .i16: "<i2", .i8: "|i1", .u8: "|u1",
      .bool: "|b1",
    ]
    guard let name = names[type] else { return converted(to: .f32).npyBytes }
    let sizes = shape.map(String.init).joined(separator: ", ") + (shape.count == 1 ? "," : "")
    var header = "{'descr': '\(name)', 'fortran_order': False, 'shape': (\(sizes)), }"
    // Version 1 counts the header in 16 bits; 32 axes of 19 digits stay far below.
    let padding = (64 - (10 + header.utf8.count + 1) % 64) % 64
    header += String(repeating: " ", count: padding) + "\n"
    let length = UInt16(header.utf8.count)
    var output: [UInt8] = [0x93] + "NUMPY".utf8 + [1, 0, UInt8(length & 0xFF), UInt8(length >> 8)]
    output += header.utf8
    output += bytes
    return output
  }

  /// Writes a .npy file.
  package func write(to path: String) throws { try AtomicFile.write(npyBytes, to: path) }
}
