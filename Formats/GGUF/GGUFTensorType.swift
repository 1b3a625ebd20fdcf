import Tensors

/// A tensor type of ggml: its name and how numbers are stored.
struct GGUFTensorType: Sendable {
  let name: String
  /// Element type and encoding; nil if mcc does not read the type.
  let storage: (element: DType, encoding: Encoding)?
  /// Numbers of a block; rows are whole blocks.
  let blockLength: Int

  /// Names by number, from `ggml.h`; empty ones were removed from the format.
  private static let names = [
    "F32", "F16", "Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64",
    "F64", "IQ1_M", "BF16", "", "", "", "TQ1_0", "TQ2_0", "", "", "", "MXFP4", "NVFP4",
  ]

  /// The names of the types that are read.
  static let supported = ["F32", "F16", "BF16", "Q8_0", "Q4_0"]

  /// The type with that number; nil if there is none.
  init?(number: UInt32) {
    guard number < UInt32(Self.names.count), !Self.names[Int(number)].isEmpty else { return nil }
    name = Self.names[Int(number)]
    switch name {
    case "F32": (storage, blockLength) = ((.f32, .dense), 1)
    case "F16": (storage, blockLength) = ((.f16, .dense), 1)
    case "BF16": (storage, blockLength) = ((.bf16, .dense), 1)
    case "Q8_0": (storage, blockLength) = ((.f32, .block(.w8(32))), 32)
    case "Q4_0": (storage, blockLength) = ((.f32, .block(.w4(32))), 32)
    default: (storage, blockLength) = (nil, 1)
    }
  }
}
