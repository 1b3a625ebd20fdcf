import Base
import CodeGen
import IR
import Passes

/// What a model may take where each layer gets a format of its own (``AllocateBits``).
package enum QuantizationBudget: Hashable, Sendable {
  /// Mean bits of the weights that are rounded, scales included.
  case bits(Double)
  /// Bytes of all weights with scales, and of the tokenizer.
  case bytes(Int)

  /// Bytes that a weight may be moved by to begin at a multiple.
  private static let alignment = 64

  /// Reads a size such as `300MB`, `1.5GiB` or `5000000`: kB, MB, GB are powers of 1000, KiB, MiB, GiB of 1024.
  ///
  /// - Throws: `CompileError` of kind `.usage`.
  package init(parsingSize text: String) throws {
    let units: [(String, Double)] = [
      ("KiB", 0x1p10), ("MiB", 0x1p20), ("GiB", 0x1p30), ("kB", 1e3), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("B", 1),
      ("", 1),
    ]
    for (suffix, factor) in units where text.hasSuffix(suffix) {
      guard let number = Double(text.dropLast(suffix.count)), number > 0, number * factor < 0x1p53 else { break }
      self = .bytes(Int(number * factor))
      return
    }
    throw CompileError(.usage, "the size is '\(text)', expected bytes or a number with kB, MB, GB, KiB, MiB or GiB")
  }

  /// The pass that keeps to the budget with samples of `text`.
  ///
  /// - Throws: `CompileError` if the tokenizer of the model cannot be written.
  func allocation(_ text: String, for model: Model) throws -> AllocateBits {
    var pass = AllocateBits()
    pass.text = text
    switch self {
    case .bits(let bits): pass.bits = bits
    case .bytes(let bytes):
      let tokenizer = try model.tokenizer.map { try TokenizerSection.encode($0).count } ?? 0
      let constants = model.functions.reduce(0) { sum, graph in
        sum + graph.valueIDs.count { graph.constant(of: $0) != nil }
      }
      pass.bytes = max(1, bytes - tokenizer - constants * Self.alignment)
    }
    return pass
  }
}
