import Base
import Glibc

/// How the angles of rotary embedding grow with the position, beyond `theta ^ (-2j / width)`.
package enum RotaryScaling: Hashable, Sendable {
  case none
  /// Frequencies divided by a factor (Chen and others, 2023).
  case linear(factor: Double)
  /// Low frequencies divided by a factor, high ones kept, between them a blend (Llama 3.1).
  case llama3(factor: Double, lowFactor: Double, highFactor: Double, originalContext: Int)
  /// Each frequency divided by its own factor.
  case factors([Float])

  /// The inverse frequencies of the `width / 2` pairs of a head: radians per position.
  package func inverseFrequencies(theta: Double, width: Int) -> [Float] {
    (0..<width / 2).map { index in
      let frequency = pow(theta, -2 * Double(index) / Double(width))
      switch self {
      case .none: return Float(frequency)
      case .linear(let factor): return Float(frequency / factor)
      case .factors(let factors): return Float(frequency / Double(factors[index]))
      case .llama3(let factor, let low, let high, let original):
        let wavelength = 2 * Double.pi / frequency
        if wavelength < Double(original) / high { return Float(frequency) }
        if wavelength > Double(original) / low { return Float(frequency / factor) }
        let blend = (Double(original) / wavelength - low) / (high - low)
        return Float((1 - blend) * frequency / factor + blend * frequency)
      }
    }
  }
}

/// Base and scaling of rotary embedding as `config.json` states them.
struct RotaryConfig: Sendable {
  var theta: Double
  var scaling: RotaryScaling

  /// Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
  init(_ config: inout CheckpointConfig, context: Int) throws {
    let new = config.field("rope_parameters")
    let old = config.field("rope_scaling")
    let oldTheta = config.field("rope_theta")
    if new.exists, old.exists, new.value != old.value {
      throw new.failure("'rope_parameters' and 'rope_scaling' contradict each other")
    }
    let table = new.exists ? new : old
    let innerTheta = table.exists ? try table["rope_theta"].optionalDouble() : nil
    let outerTheta = try oldTheta.optionalDouble()
    if let innerTheta, let outerTheta, innerTheta != outerTheta {
      throw table.failure("'rope_theta' is \(outerTheta), but '\(table.path).rope_theta' is \(innerTheta)")
    }
    theta = innerTheta ?? outerTheta ?? 10000
    guard theta > 1, theta <= 1e15 else { throw table.failure("'rope_theta' is \(theta), expected 1 to 1e15") }
    scaling = table.exists ? try Self.scaling(table, context: context) : .none
  }

  private static func scaling(_ table: JSONField, context: Int) throws -> RotaryScaling {
    let kind = try table[anyOf: "rope_type", "type"].string(or: "default")
    var allowed: Set<String> = ["rope_type", "type", "rope_theta"]
    func positive(_ key: String) throws -> Double {
      allowed.insert(key)
      let value = try table[key].double()
      guard value > 0, value <= 1e9 else {
        throw table.failure("'\(table.path).\(key)' is \(value), expected a positive number")
      }
      return value
    }
    let scaling: RotaryScaling
    switch kind {
    case "default": scaling = .none
    case "linear": scaling = .linear(factor: try positive("factor"))
    case "llama3":
      allowed.insert("original_max_position_embeddings")
      let (low, high) = (try positive("low_freq_factor"), try positive("high_freq_factor"))
      guard low < high else {
        throw table.failure("'\(table.path).low_freq_factor' is \(low), expected less than the high one, \(high)")
      }
      let original = table["original_max_position_embeddings"]
      scaling = .llama3(
        factor: try positive("factor"), lowFactor: low, highFactor: high,
        originalContext: original.exists ? try original.int(in: 1...1 << 30) : context)
    default:
      throw CompileError(
        .unsupported, "rotary embedding of type '\(kind)' is not supported, only default, linear and llama3",
        subject: .init(file: table.file, object: "'\(table.path)'"))
    }
    for (key, field) in try table.members() where !allowed.contains(key) && field.exists {
      if key == "partial_rotary_factor", try field.double() == 1 { continue }
      throw CompileError(
        .unsupported, "'\(field.path)' is not supported for rotary embedding of type '\(kind)'",
        subject: .init(file: table.file))
    }
    return scaling
  }
}
