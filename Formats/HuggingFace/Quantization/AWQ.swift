import Base
import IR
import Tensors

/// AWQ checkpoints (Lin and others, 2023) in the order of its GEMM kernels: `qweight: i32[K, N / 8]`, `qzeros: i32[G, N / 8]`,
/// both with eight rows of the weight in the order 0, 2, 4, 6, 1, 3, 5, 7 in a word, `scales: f16[G, N]`.
///
/// `W[n, k] = (q - z) * s`.
struct AWQ: QuantizationMethod {
  static let names = ["awq"]

  private let group: Int?

  init(_ config: JSONField) throws {
    let bits = try config["bits"].int(or: 4)
    let version = try config["version"].string(or: "gemm").lowercased()
    guard bits == 4, version == "gemm" else {
      throw CompileError(
        .unsupported, "AWQ with \(bits) bits in the version '\(version)' is not supported, only 4 bits and gemm",
        subject: .init(file: config.file))
    }
    let length = try config["group_size"].int(or: 128)
    guard length == -1 || length > 0 else {
      throw config.failure("'group_size' is \(length), expected -1 or more than 0")
    }
    group = length == -1 ? nil : length
  }

  func join(_ tensors: inout QuantizedTensors) throws {
    for stem in tensors.stems(".qweight") {
      let codes = try tensors.part(stem + ".qweight"), scales = try tensors.part(stem + ".scales")
      let zeros = try tensors.part(stem + ".qzeros")
      let words = try codes.sizes(2, .i32)
      guard words[0] > 0, words[1] > 0, words[1] <= 1 << 40 else { throw codes.failure("found \(codes.type)") }
      var op = UnpackCodes()
      op.layout = .awq
      op.rows = words[1] * 8
      op.columns = words[0]
      op.group = min(group ?? op.columns, op.columns)
      op.zeroPoints = .awq
      op.format = QuantizedWeight.format(
        bits: 4, group: op.group, columns: op.columns, hasZeroPoints: true, scalesFitHalf: try scales.fitsHalf())
      try tensors.add(
        QuantizedWeight(stem + ".weight", [op.rows, op.columns], op, .init(codes), .init(scales), [.init(zeros)]))
    }
    tensors.finish("AWQ")
  }
}
