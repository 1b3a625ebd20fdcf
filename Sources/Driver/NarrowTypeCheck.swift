import Base
import CodeGen
import Formats
import IR

/// Whether a narrow type of weights pays on a target: the time of the model's products, measured where it was and
/// estimated elsewhere, against that with wider types.
package struct NarrowTypeCheck {
  package let generator: CodeGenerator

  package init(_ generator: CodeGenerator) { self.generator = generator }

  /// A wider type must be faster by this factor to count: estimates are not better than that.
  static let margin = 1.05

  /// Seconds that the products of a model of the stage `transform` take on one core: of decoding a token, or of a run of
  /// the main function.
  package func seconds(_ model: Model) throws -> Double {
    let entries = try generator.survey(model).entries
    let isLanguageModel = entries.contains { $0.role == "decode" }
    return entries.reduce(0) { sum, entry in
      guard entry.operation is MatMul || entry.operation is Conv2D,
        !isLanguageModel || entry.role == "decode"
      else { return sum }
      return sum + entry.choices[entry.pick].cost * Double(entry.count)
    }
  }

  /// The types that `spec` is held against: wider weights with the same activations, and the checkpoint's own.
  static func widerTypes(_ spec: QuantizationSpec) -> [QuantizationSpec?] {
    switch spec.weights {
    case .f32, .bf16, .f16: []
    case .bits8: [nil]
    default:
      [
        QuantizationSpec(weights: .bits8, group: nil, activationBits: spec.activationBits, cacheBits: spec.cacheBits),
        nil,
      ]
    }
  }

  /// Refuses the quantization that the options ask for if a wider type is faster.
  ///
  /// - Parameters:
  ///   - model: the model of the stage `transform` that the options give.
  ///   - path: where it was read from.
  ///   - options: those that gave it.
  /// - Throws: `CompileError` of kind `.unsupported` with both times.
  package func check(_ model: Model, at path: String, _ options: FrontendOptions) throws {
    guard let spec = options.quantization, options.pipeline == nil, model.stage == .transform else { return }
    let wider = Self.widerTypes(spec)
    if wider.isEmpty { return }
    let own = try seconds(model)
    for type in wider {
      var options = options
      options.quantization = type
      options.tracesRewrites = false
      var frontend = Frontend(options)
      let other = try seconds(frontend.run(path, to: .transform))
      guard own > other * Self.margin else { continue }
      let name = type.map { "\($0)" } ?? "the checkpoint's own type"
      throw CompileError(
        .unsupported,
        "\(spec) is slower than \(name) on \(generator.targetName): \(Quantity.seconds(own)) against "
          + "\(Quantity.seconds(other)) for the products of a run on one core",
        notes: ["--force compiles it all the same"])
    }
  }
}
