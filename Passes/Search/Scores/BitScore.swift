import Base

/// Weighs what rounding does to the layers of a model against each other. Losses of layers are taken to add up; their
/// unit does not matter.
protocol BitScore: Sendable {
  /// The losses of each layer in each format. `measure` gives the distance of the model from the original when the
  /// given layers are rounded to formats by their index, and all others stay as they are.
  func losses(_ layers: [LayerStatistics], measure: ([Int: Int]) throws -> Double) throws -> [[Double]]
}

/// A score that gives each layer a weight, by which its error counts.
protocol LayerWeight: BitScore {
  /// How much a layer counts.
  func weight(of layer: LayerStatistics, in layers: [LayerStatistics]) throws -> Double
}

extension LayerWeight {
  func losses(_ layers: [LayerStatistics], measure: ([Int: Int]) throws -> Double) throws -> [[Double]] {
    try layers.map { layer in
      let weight = try weight(of: layer, in: layers)
      return layer.roundings.map { weight * layer.relative($0.error) }
    }
  }
}

extension LayerStatistics {
  /// An error `tr(D H D^T)` over what the layer gives; 0 for a layer that gives nothing.
  func relative(_ error: Double) -> Double { energy > 0 ? error / energy : 0 }
}

extension AllocateBits {
  /// How the losses of layers are weighed against each other; each case has a file.
  package enum Score: Hashable, Sendable {
    /// By the divergence that rounding the layer alone gives (``MeasuredScore``).
    case divergence
    /// By the relative error of the layer's results (``ErrorScore``).
    case error
    /// By how far the block of the layer turns its input (``TurnScore``).
    case lim
    /// By how few numbers of the weight are far above the others (``OutlierScore``).
    case zd
    /// By the entropy of the layer's inputs (``EntropyScore``).
    case entropy
    /// By a formula over ``LayerStatistics`` (``ScoreExpression``).
    case proxy(ScoreExpression)

    /// The scores with names.
    package static let named: [(name: String, score: Score)] = [
      ("divergence", .divergence), ("error", .error), ("lim", .lim), ("zd", .zd), ("entropy", .entropy),
    ]

    /// Whether the score follows from the weights alone.
    package var needsNoSamples: Bool {
      switch self {
      case .zd: true
      case .proxy(let expression): expression.needsNoSamples
      default: false
      }
    }

    /// What computes it.
    var method: any BitScore {
      switch self {
      case .divergence: MeasuredScore()
      case .error: ErrorScore()
      case .lim: TurnScore()
      case .zd: OutlierScore()
      case .entropy: EntropyScore()
      case .proxy(let expression): expression
      }
    }
  }
}

extension AllocateBits.Score: Codable, CustomStringConvertible {
  package var description: String {
    if case .proxy(let expression) = self { return expression.text }
    return Self.named.first { $0.score == self }?.name ?? ""
  }

  /// Reads the name of a score, or a formula.
  package init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    if let known = Self.named.first(where: { $0.name == text }) {
      self = known.score
    } else {
      self = .proxy(try ScoreExpression(parsing: text))
    }
  }

  package func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
