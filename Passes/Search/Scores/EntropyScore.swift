/// The relative error times the entropy of the layer's inputs: inputs that say little need little (LUQ, 2025).
struct EntropyScore: LayerWeight {
  func weight(of layer: LayerStatistics, in layers: [LayerStatistics]) -> Double { layer.entropy }
}
