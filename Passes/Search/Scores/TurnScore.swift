import Base

/// The relative error times how far a block turns what it adds to: one less the mean cosine of the residual before and
/// after. A block that leaves it nearly as it is matters less (R. G. Dumitru and others, "Layer-wise quantization",
/// 2024, where it is called LIM).
///
/// A layer belongs to the block that ends with the next sum with a residual; layers outside of blocks, and tables,
/// count as the one that counts most.
struct TurnScore: LayerWeight {
  func weight(of layer: LayerStatistics, in layers: [LayerStatistics]) throws -> Double {
    guard let most = layers.compactMap(\.turn).max() else {
      throw CompileError(
        .unsupported,
        "there is no block with a residual whose sum before and after could be compared for the score 'lim'")
    }
    return layer.turn ?? most
  }
}
