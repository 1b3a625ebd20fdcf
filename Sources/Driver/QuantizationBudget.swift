import Base
import IR
import Passes
import Tensors

/// What a model may take where each layer gets a format of its own (``AllocateBits``).
package enum QuantizationBudget: Hashable, Sendable {
  /// Mean bits of the weights that are rounded, scales included.
  case bits(Double)
  /// Bytes of all weights with scales, and of the tokenizer.
  case bytes(Int)

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
  func allocation(_ text: String) -> AllocateBits {
    var pass = AllocateBits()
    pass.text = text
    switch self {
    case .bits(let bits): pass.bits = bits
    case .bytes(let bytes): pass.size = bytes
    }
    return pass
  }

  /// The passes that keep to the budget for a model that takes what its samples hold.
  ///
  /// Layers get formats of their own (``AllocateBits``), with codes as `method` says. The layers of a network with
  /// convolutions are int8, whose size is what it is: bytes are a bound then, which ``check(_:takes:)`` holds it to.
  ///
  /// - Throws: `CompileError` of kind `.unsupported` if a network with convolutions is to have so many bits.
  func pipeline(_ calibration: Calibrate, method: QuantizationMethod, for model: Model) throws -> Pipeline {
    guard Self.isRoundedToBytes(model) else {
      return try Presets.allocate(
        allocation(calibration.samples), method: method, embeds: model.embedsTexts)
    }
    guard case .bytes = self else {
      throw CompileError(
        .unsupported,
        "bits are given to layers of models of linear layers; those of a network with convolutions are int8, with --quantize w8"
      )
    }
    return try Presets.quantize(
      QuantizationSpec(weights: .bits8, group: nil, activationBits: 8), calibration: calibration, method: method)
  }

  /// Whether a network has convolutions, so that its layers compute in int8.
  private static func isRoundedToBytes(_ model: Model) -> Bool {
    !model.functions.contains { CalibrationSamples.takesTokens($0) }
      && model.functions.contains { graph in
        graph.nodeIDs.contains { graph[$0].op is Conv2D || graph[$0].op is ConvTranspose2D }
      }
  }

  /// Checks that a model, which takes so many bytes, keeps to the budget.
  ///
  /// - Throws: `CompileError` of kind `.usage` with the bytes that it takes.
  func check(_ model: Model, takes bytes: @autoclosure () throws -> Int) throws {
    guard case .bytes(let most) = self, case let found = try bytes(), found > most else { return }
    throw CompileError(
      .usage, "the budget of \(most) bytes cannot be met",
      notes: ["the least that the formats for '\(model.name)' give is \(found) bytes"])
  }
}
