import Base

/// What the check of one pass found: how far each tensor that leaves a function is from what it was.
package struct PassCertificate: Sendable {
  /// One output or updated state of one function, over all inputs that it was run on.
  package struct Output: Sendable {
    package var function: String
    package var name: String
    package var isState: Bool
    /// Before against after the pass, in f32: the worst of all runs.
    package var difference: TensorDifference
    /// What roundings in f32 account for, in the units of the tensor; nil for a pass that is not exact.
    package var bound: Double?
    /// The largest distance in f64 and what roundings account for there; nil where f64 was not computed.
    package var wideDifference: Double?
    package var wideBound: Double?
    /// The model as it was read against the model after the pass, in f32.
    package var total: TensorDifference
    /// The same for the distributions of next tokens; nil for what are no logits of a language model.
    package var divergence: LogitDivergence?
  }

  package var fidelity: Fidelity
  /// Runs of functions on each side.
  package var runs: Int
  package var outputs: [Output]

  /// A line for a person.
  package var line: String {
    guard let worst = outputs.max(by: { $0.difference.relative < $1.difference.relative }) else {
      return "check: nothing to compare"
    }
    var text = "check: \(runs) runs, "
    if fidelity == .exact {
      func share(_ difference: Double?, _ bound: Double?) -> Double {
        difference.map { $0 / max(bound ?? 0, 1e-300) } ?? 0
      }
      let closest =
        outputs.max {
          max(share($0.difference.largest, $0.bound), share($0.wideDifference, $0.wideBound))
            < max(share($1.difference.largest, $1.bound), share($1.wideDifference, $1.wideBound))
        } ?? worst
      text +=
        "'\(closest.name)' differs by \(closest.difference.largest.figure) of at most \((closest.bound ?? 0).figure)"
      if let wide = closest.wideDifference {
        text += ", in f64 by \(wide.figure) of \((closest.wideBound ?? 0).figure)"
      }
    } else {
      text += "'\(worst.name)' has the relative error \(worst.difference.relativeRMS.figure), "
      text += "largest \(worst.difference.largest.figure), cosine \(worst.difference.cosine)"
    }
    if let divergence = outputs.compactMap(\.divergence).max(by: { $0.mean < $1.mean }), fidelity != .exact {
      text += "; KL divergence \(divergence.mean.figure) of the whole so far"
    }
    return text
  }

  /// The facts for a script and for the manifest of a program.
  package var json: JSON {
    [
      "runs": .int(runs),
      "outputs": .array(
        outputs.map { output in
          var object = JSONObject()
          object["function"] = .string(output.function)
          object[output.isState ? "state" : "output"] = .string(output.name)
          object["largest"] = Self.number(output.difference.largest)
          object["relative_rms"] = Self.number(output.difference.relativeRMS)
          object["cosine"] = Self.number(output.difference.cosine)
          if let bound = output.bound { object["bound"] = Self.number(bound) }
          if let wide = output.wideDifference { object["f64_largest"] = Self.number(wide) }
          if let bound = output.wideBound { object["f64_bound"] = Self.number(bound) }
          object["total_relative_rms"] = Self.number(output.total.relativeRMS)
          if let divergence = output.divergence {
            object["total_kl"] = Self.number(divergence.mean)
            object["total_kl_largest"] = Self.number(divergence.largest)
            object["changed_tokens"] = Self.number(divergence.changedTokens)
          }
          return .object(object)
        }),
    ]
  }

  /// A number, or its name where JSON has none for it.
  private static func number(_ value: Double) -> JSON { value.isFinite ? .number(value) : .string("\(value)") }
}
