import IR
import Tensors

/// Convolutions of bytes with channels last.
package enum QuantizedConvKernel: Kernel {
  package static let name = "quantized_conv2d"
  package static let summary =
    "convolutions of u8 with 8-bit weights, channels last: any window, stride, dilation, groups; depthwise"

  package static func choices(for query: KernelQuery, target: Target) throws -> [KernelChoice] {
    guard let op = query.operation.op as? QuantizedConv2D, op.layout == .last,
      query.operands.count == 2 + op.epilogue.inputCount
    else { return [] }
    let x = query.operands[0].type, w = query.operands[1]
    guard w.isConstant, w.dequantized == nil, w.type.encoding == .block(.w8c), let weight = w.type.shape.fixedSizes,
      weight.allSatisfy({ $0 > 0 }),
      query.operands.indices.allSatisfy({
        $0 == 1 || query.operands[$0].type.isDense && query.operands[$0].rowStride == nil
      }),
      query.operands.allSatisfy({ $0.dequantized == nil }), let height = x.shape[1].fixedValue,
      let channels = x.shape[3].fixedValue, height > 0
    else { return [] }
    var extents = ExtentTable()
    // Rows of a linear layer may come in any number: as images of one pixel.
    let width = x.shape[2].fixedValue
    let isRows = width == nil && op.kernel == [1, 1] && x.shape[0] == 1 && height == 1
    guard isRows || (width ?? 0) > 0 else { return [] }
    let batch = isRows ? x.shape[2] : x.shape[0]
    let geometry = ConvGeometry(
      batch: extents.extent(batch, "N"), height: height, width: isRows ? 1 : width ?? 1, channels: channels,
      kernel: op.kernel, strides: op.strides, padding: op.padding, dilations: op.dilations)
    let requantization = Requantization(op)
    let results = Double(geometry.outHeight * geometry.outWidth * weight[0])
    let images = Double(batch.maximum)
    var arguments = query.operands.indices.map { CallArgument.input($0) } + [.result(0)]
    if geometry.batch.fixedValue == nil { arguments.append(.size(batch)) }

    func choice(
      _ name: String, _ order: QuantizedConvOrder, operations: Double,
      _ function: @escaping @Sendable () -> KernelFunction
    ) -> KernelChoice {
      let layout = QuantizedConvLayout(order, op).packed
      var work = KernelWork()
      work.byteOperations = operations
      work.bytes =
        Double(layout.byteCount(rows: weight[0]))
        + images * (Double(geometry.height * geometry.width * channels) + results)
      var layouts = query.unpacked
      layouts[1] = layout
      let canReuse = op.epilogue.residualIndex.map { (op.other == nil) == (op.output == nil) ? [$0] : [] } ?? []
      return KernelChoice(
        name: name, cost: work.seconds(on: target), layouts: layouts, arguments: arguments, inPlace: Set(canReuse),
        function: function)
    }

    if op.groups > 1, op.groups == channels, op.groups == weight[0],
      op.kernel[0] * op.kernel[1] <= QuantizedDepthwiseConfig.mostTaps,
      op.input.zeroPoint == 0 || op.padding == [0, 0, 0, 0]
    {
      let config = QuantizedDepthwiseConfig(geometry: geometry, requantization: requantization, target: target)
      return [
        choice(
          config.name(target: target), config.order(target: target),
          operations: 8 * results * images * Double(op.kernel[0] * op.kernel[1])
        ) { config.build(target: target) }
      ]
    }
    guard QuantizedConvConfig.isPossible(geometry, groups: op.groups, zeroPoint: op.input.zeroPoint) else { return [] }
    let candidates = QuantizedConvConfig.candidates(
      geometry, outputs: weight[0], groups: op.groups, requantization: requantization, target: target)
    // With several levels only widths that all of them offer can be chosen.
    return candidates.prefix(target.joint == nil ? 2 : 4).map { config in
      let cycles = config.cycles(target: target) * (geometry.batch.fixedValue == nil ? images : 1)
      return choice(
        config.name(target: target), config.order(target: target), operations: cycles * Double(16 * target.lanes)
      ) { config.build(target: target) }
    }
  }

  package static func pack(
    _ rows: TensorView, as layout: PackedLayout, into bytes: UnsafeMutableRawBufferPointer
  ) throws -> Bool {
    guard let layout = QuantizedConvLayout(layout) else { return false }
    try layout.pack(rows, into: bytes)
    return true
  }
}
