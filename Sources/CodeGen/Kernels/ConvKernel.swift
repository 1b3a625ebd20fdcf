import IR
import Tensors

/// Convolutions of images with channels last.
package enum ConvKernel: Kernel {
  package static let name = "conv2d"
  package static let summary =
    "f32 convolutions with channels last and packed weights: any window, stride, dilation, groups"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? Conv2D, let shape = ConvShape(op, query) else { return [] }
    if shape.isDepthwise { return [] }
    let candidates = ConvConfig.candidates(
      shape.geometry, outputs: shape.outputs, groups: op.groups, epilogue: op.epilogue, target: target)
    // With several levels only widths that all of them offer can be chosen.
    return candidates.prefix(target.joint == nil ? 2 : 8).map { config in
      shape.choice(
        name: config.name(target: target), query: query, cycles: config.cycles(target: target), target: target,
        layout: config.layout(target: target).packed
      ) { config.build(target: target) }
    }
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let layout = ConvLayout(layout) else { return false }
    try layout.pack(rows, into: bytes)
    return true
  }
}

/// What a query says about a convolution with channels last, of f32 with constant weights.
struct ConvShape {
  var geometry: ConvGeometry
  var outputs: Int
  var groups: Int
  var epilogue: Epilogue
  private var batch: Dim
  private var extents = ExtentTable()

  /// Nil if the query is of another kind.
  init?(_ op: Conv2D, _ query: KernelQuery) {
    guard op.layout == .last, query.operands.count == 2 + op.epilogue.inputCount, query.isPlain() else { return nil }
    let x = query.operands[0].type, w = query.operands[1]
    guard w.isConstant, [.f32, .f16, .bf16].contains(w.type.element), x.element == .f32,
      query.operands.dropFirst(2).allSatisfy({ $0.type.element == .f32 }), let weight = w.type.shape.fixedSizes,
      let height = x.shape[1].fixedValue, let width = x.shape[2].fixedValue, let channels = x.shape[3].fixedValue,
      weight.allSatisfy({ $0 > 0 }), height > 0, width > 0
    else { return nil }
    batch = x.shape[0]
    outputs = weight[0]
    groups = op.groups
    epilogue = op.epilogue
    geometry = ConvGeometry(
      batch: extents.extent(batch, "N"), height: height, width: width, channels: channels,
      kernel: [weight[2], weight[3]], strides: op.strides, padding: op.padding, dilations: op.dilations)
  }

  /// Whether every channel is a group of its own.
  var isDepthwise: Bool { groups > 1 && groups == geometry.channels && groups == outputs }

  /// The most images.
  private var batchCount: Double { Double(batch.maximum) }

  /// Bytes of image, result and residual.
  private var activationBytes: Double {
    let results = geometry.outHeight * geometry.outWidth * outputs * (epilogue.residual == .none ? 1 : 2)
    return 4 * batchCount * Double(geometry.height * geometry.width * geometry.channels + results)
  }

  /// Seconds on one core for cycles of arithmetic (on one image, for a batch of run time). Weights come from memory, of which
  /// two cores take what one could, and are never waited for less than a part of the time that they take.
  private func seconds(cycles: Double, weightBytes: Int, on target: Target) -> Double {
    var work = KernelWork()
    work.floatOperations = cycles * (geometry.batch.fixedValue == nil ? batchCount : 1) * Double(4 * target.lanes)
    work.bytes = Double(weightBytes) + activationBytes
    let arithmetic = work.seconds(on: target)
    let reading = Double(weightBytes) / (target.throughput.bytes * 0.5)
    return max(arithmetic, reading) + 0.25 * min(arithmetic, reading)
  }

  /// The choice of a kernel whose parameters are the inputs, the result and a batch of run time, from the cycles that its
  /// arithmetic takes on one image, or on all if their number is fixed.
  func choice(
    name: String, query: KernelQuery, cycles: Double, target: Target, layout: PackedLayout,
    function: @escaping @Sendable () -> KernelFunction
  ) -> KernelChoice {
    var arguments = query.operands.indices.map { CallArgument.input($0) } + [.result(0)]
    if geometry.batch.fixedValue == nil { arguments.append(.size(batch)) }
    var layouts = query.unpacked
    layouts[1] = layout
    return KernelChoice(
      name: name, cost: seconds(cycles: cycles, weightBytes: layout.byteCount(rows: outputs), on: target),
      layouts: layouts, arguments: arguments, inPlace: epilogue.residualIndex.map { [$0] } ?? [], function: function)
  }
}
