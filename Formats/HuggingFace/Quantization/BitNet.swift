import Base
import IR
import Tensors

/// BitNet checkpoints (Ma and others, The Era of 1-bit LLMs, 2024): `weight: u8[N / 4, K]` with the codes 0, 1 and 2 for -1, 0
/// and 1 of four rows in a byte, and one number `weight_scale`.
///
/// The layers of `autobitlinear` multiply by the scale, those of `bitlinear` divide by it. Both round activations to eight
/// bits with a scale per token at run time; here activations stay numbers.
struct BitNet: QuantizationMethod {
  static let names = ["bitnet"]

  private let multiplies: Bool

  init(_ config: JSONField) throws {
    let kind = try config["linear_class"].string(or: "bitlinear")
    guard kind == "bitlinear" || kind == "autobitlinear" else {
      throw config.failure("'linear_class' is '\(kind)', expected bitlinear or autobitlinear")
    }
    let mode = try config["quantization_mode"].string(or: "offline")
    guard mode == "offline" else {
      throw CompileError(
        .unsupported, "'quantization_mode' '\(mode)' is not supported, only offline", subject: .init(file: config.file))
    }
    multiplies = kind == "autobitlinear"
  }

  func join(_ tensors: inout QuantizedTensors) throws {
    for stem in tensors.stems(".weight_scale") {
      let scale = try tensors.part(stem + ".weight_scale"), codes = try tensors.part(stem + ".weight")
      let sizes = try codes.sizes(2, .u8)
      guard sizes[0] > 0, sizes[1] > 0, sizes[0] <= 1 << 40 else { throw codes.failure("found \(codes.type)") }
      _ = try scale.sizes(1, .f32, .bf16, .f16)
      var op = UnpackCodes()
      op.layout = .planes
      op.bits = 2
      op.zero = 1
      op.rows = sizes[0] * 4
      op.columns = sizes[1]
      op.group = op.columns
      let length = [128, 64, 32].first { op.columns % $0 == 0 }
      let fits = try multiplies && scale.fitsHalf()
      if let length {
        op.format = BlockFormat(bits: 2, group: length, scale: fits ? .f16 : .f32, codes: .ternary)
      }
      let divides = !multiplies
      try tensors.add(
        QuantizedWeight(
          stem + ".weight", [op.rows, op.columns], op, .init(codes), .init(scale),
          makeScales: { model, builder in
            var value = try scale.constant([1], into: &model, &builder)
            if builder.type(of: value).element != .f32 { value = try builder.emit(Cast(.f32), value) }
            return divides ? try builder.emit(Reciprocal(), value) : value
          }))
    }
    tensors.finish("BitNet")
    tensors.note("activations of BitNet layers are not rounded to 8 bits as their training assumed")
  }
}
