/// The relative error of a layer's results, `tr(D H D^T) / tr(W H W^T)`: all layers count alike.
struct ErrorScore: LayerWeight {
  func weight(of layer: LayerStatistics, in layers: [LayerStatistics]) -> Double { 1 }
}
