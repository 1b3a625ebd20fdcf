import Base
import IR
import Tensors

/// Microscaling weights as in gpt-oss (OCP Microscaling Formats, version 1.0): `NAME_blocks: u8[..., N, K / 32, 16]`,
/// two E2M1 numbers in a byte, the even column in its low bits, and `NAME_scales: u8[..., N, K / 32]`, exponents of two
/// plus 127.
///
/// They become `NAME`, `[..., N, K]`, as blocks of the same codes and exponents.
struct MXFP4: QuantizationMethod {
  static let names = ["mxfp4"]

  init(_ config: JSONField) throws {}

  func join(_ tensors: inout QuantizedTensors) throws {
    for stem in tensors.stems("_blocks") {
      let codes = try tensors.part(stem + "_blocks"), scales = try tensors.part(stem + "_scales")
      guard let sizes = codes.type.shape.fixedSizes, sizes.count >= 3, sizes.last == 16, codes.type.element == .u8,
        scales.type == TensorType(.u8, Array(sizes.dropLast()))
      else { throw codes.failure("found \(codes.type) with scales \(scales.type)") }
      let groups = sizes[sizes.count - 2]
      let leading = Array(sizes.dropLast(2))
      let rows = try Shape.checkedCount(leading, of: "tensor '\(codes.name)'")
      guard groups > 0, rows > 0, groups <= 1 << 26 else { throw codes.failure("found \(codes.type)") }
      let weight = try Self.weight(stem, leading + [groups * 32], rows, groups, codes, scales)
      try tensors.add(weight)
    }
    tensors.finish("MXFP4")
  }

  /// A weight of E2M1 numbers in groups of 32 with exponents as scales.
  static func weight(
    _ name: String, _ sizes: [Int], _ rows: Int, _ groups: Int, _ codes: CheckpointTensor, _ scales: CheckpointTensor
  ) throws -> QuantizedWeight {
    var op = UnpackCodes()
    op.values = .e2m1
    op.rows = rows
    op.columns = groups * 32
    op.format = .mxfp4
    return QuantizedWeight(
      name, sizes, op, .init(codes, [rows, groups * 16]), .init(scales, [rows, groups]))
  }
}
