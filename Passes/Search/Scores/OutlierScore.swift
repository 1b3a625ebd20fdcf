/// The relative change of a weight, `tr(D D^T) / tr(W W^T)`, over the share of its numbers that lie more than a
/// standard deviation above the mean: the fewer, the more they matter (R. G. Dumitru and others, "Layer-wise
/// quantization", 2024, where it is called ZD). Needs no samples.
struct OutlierScore: BitScore {
  func losses(_ layers: [LayerStatistics], measure: ([Int: Int]) throws -> Double) throws -> [[Double]] {
    layers.map { layer in
      // A weight of a single number has none.
      let share = max(layer.outliers, 1 / Double(max(1, layer.count)))
      return layer.roundings.map { layer.norm > 0 ? $0.squares / layer.norm / share : 0 }
    }
  }
}
