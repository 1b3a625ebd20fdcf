/// `c tr(D H D^T)`, where `c` is the distance of the model from the original with this layer alone rounded to the
/// format of largest error, over that error: a second-order model whose curvature is measured.
struct MeasuredScore: BitScore {
  func losses(_ layers: [LayerStatistics], measure: ([Int: Int]) throws -> Double) throws -> [[Double]] {
    try layers.enumerated().map { index, layer in
      guard let probe = Self.probe(layer), layer.roundings[probe].error > 0 else { return layer.roundings.map(\.error) }
      let factor = try measure([index: probe]) / layer.roundings[probe].error
      return layer.roundings.map { factor * $0.error }
    }
  }

  /// The format with which a layer is measured: that of the largest error.
  static func probe(_ layer: LayerStatistics) -> Int? {
    layer.roundings.indices.max { layer.roundings[$0].error < layer.roundings[$1].error }
  }
}
