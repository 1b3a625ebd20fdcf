import IR
import Tensors

/// 3 x 3 convolutions of images with channels last by the minimal filtering algorithm, where it needs less time.
package enum WinogradKernel: Kernel {
  package static let name = "winograd"
  package static let summary = "f32 3 x 3 convolutions with channels last, strides 1, with fewer products"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Conv2D, op.groups == 1, let shape = ConvShape(op, query) else { return [] }
    let candidates = WinogradConfig.candidates(
      shape.geometry, outputs: shape.outputs, epilogue: op.epilogue, target: target)
    return candidates.map { config in
      shape.choice(
        name: config.name(target: target), query: query, cycles: config.cycles(target: target), target: target,
        layout: config.layout(target: target).packed
      ) { config.build(target: target) }
    }
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let layout = WinogradLayout(layout) else { return false }
    try layout.pack(rows, into: bytes)
    return true
  }
}
