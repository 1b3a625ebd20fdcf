import Tensors

/// A tensor type of ggml: its name and how numbers are stored.
struct GGUFTensorType: Sendable {
  /// How numbers are stored.
  enum Storage: Sendable {
    /// In an element type and encoding of mcc.
    case native(DType, Encoding)
    /// In blocks that are widened to f32.
    case blocks(GGMLBlock)
  }

  let name: String
  /// Nil if mcc does not read the type.
  let storage: Storage?

  /// Numbers of a block; rows are whole blocks.
  var blockLength: Int {
    switch storage {
    case .native(_, .block(let format)): format.group ?? 1
    case .blocks(let block): block.length
    default: 1
    }
  }

  /// Names by number, from `ggml.h`; empty ones were removed from the format.
  static let names = [
    "F32", "F16", "Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "Q8_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64",
    "F64", "IQ1_M", "BF16", "", "", "", "TQ1_0", "TQ2_0", "", "", "", "MXFP4", "NVFP4",
  ]

  /// The names of the types that are read.
  static let supported = names.filter { !$0.isEmpty && storage(named: $0) != nil }

  /// The type with that number; nil if there is none.
  init?(number: UInt32) {
    guard number < UInt32(Self.names.count), !Self.names[Int(number)].isEmpty else { return nil }
    name = Self.names[Int(number)]
    storage = Self.storage(named: name)
  }

  private static func storage(named name: String) -> Storage? {
    switch name {
    case "F32": .native(.f32, .dense)
    case "F16": .native(.f16, .dense)
    case "BF16": .native(.bf16, .dense)
    case "F64": .native(.f64, .dense)
    case "I8": .native(.i8, .dense)
    case "I16": .native(.i16, .dense)
    case "I32": .native(.i32, .dense)
    case "I64": .native(.i64, .dense)
    case "Q8_0": .native(.f32, .block(.w8(32)))
    case "Q4_0": .native(.f32, .block(.w4(32)))
    case "IQ4_NL": .native(.f32, .block(.levels(.iq4nl, 32)))
    case "MXFP4": .native(.f32, .block(.mxfp4))
    default: GGMLBlock(rawValue: name.lowercased()).map { .blocks($0) }
    }
  }
}
