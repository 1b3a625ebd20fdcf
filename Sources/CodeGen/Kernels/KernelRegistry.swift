import Base
import IR
import Tensors

/// All kernel families, as lowering sees them for one target.
package struct KernelRegistry: KernelLibrary {
  /// The families, asked in this order.
  package static let families: [any Kernel.Type] = [
    MatMulKernel.self, DenseMatMulKernel.self, QuantizeRowsKernel.self, ConvKernel.self, WinogradKernel.self,
    DepthwiseKernel.self, QuantizedConvKernel.self, PoolKernel.self, ResizeKernel.self, ConvScalarKernel.self,
    PoolScalarKernel.self,
    NormalizationKernel.self, HadamardKernel.self, SoftmaxKernel.self, ReduceKernel.self, RecurrenceKernel.self,
    CumulativeSumKernel.self, TopPlacesKernel.self, ScatterKernel.self,
    RotaryKernel.self, RotaryTableKernel.self, CacheUpdateKernel.self, SplitOutliersKernel.self, AttentionKernel.self,
    BoundedAttentionKernel.self, RelativeBiasKernel.self, SelectiveScanKernel.self, RouteKernel.self,
    ExpertMatMulKernel.self,
    VocabularyStatisticsKernel.self,
    GatherKernel.self, ElementwiseKernel.self, MovementKernel.self, SizesKernel.self,
  ]

  package let target: Target

  package init(target: Target) { self.target = target }

  /// The kernels of a target, with costs from what was measured on the machine, as far as it was.
  static func library(_ target: Target, _ record: MachineRecord?) -> any KernelLibrary {
    guard let record else { return KernelRegistry(target: target) }
    var target = target
    if let machine = record.machine { target.throughput = machine.throughput }
    let registry = KernelRegistry(target: target)
    return record.kernels.isEmpty
      ? registry : TunedLibrary(base: registry, record: record, threads: max(availableThreads, 1))
  }

  package func choices(for query: KernelQuery) throws -> [KernelChoice] {
    try Self.families.flatMap { try $0.choices(for: query, target: target) }
  }

  package func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws { try Self.pack(rows, as: layout, into: bytes) }

  /// Fills the bytes of whole panels of a layout, which names the family that knows it.
  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws {
    for family in families where try family.pack(rows, as: layout, into: bytes) { return }
    throw CompileError(.input, "unknown packed layout '\(layout.name)'")
  }
}
