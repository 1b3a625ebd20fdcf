import Base
import IR
import Tensors

extension CodeChoice {
  /// The windows of each sample that a convolution's codes are chosen for.
  private static let windowLimit = 1024

  /// The weights of a convolution, group by group: rows for what its windows see.
  func chooseWindows(
    _ conv: Conv2D, _ node: NodeID, _ format: BlockFormat, _ weights: Tensor, into blocks: Tensor
  ) throws -> GPTQ.Report {
    let (rows, columns) = (weights.view.sizes[0] / conv.groups, weights.view.sizes[1])
    let bytes = rows * format.rowBytes(columns: columns)
    var total = GPTQ.Report()
    let (source, target) = try Self.addresses(weights, blocks)
    for group in 0..<conv.groups {
      let inputs = try windows(of: walk, conv, node, group, columns)
      let metric = try method.metric(ProductSums.gram(inputs, columns: columns), columns: columns, format)
      var correction: GPTQ.Correction?
      if let original {
        let wanted = try windows(of: original, conv, node, group, columns)
        let shift = ProductSums.cross(wanted, minus: inputs, columns: columns, inputs, columns: columns)
        correction = GPTQ.Correction(shift: shift.map { Float($0) })
      }
      total.add(
        try method.quantize(
          source + group * rows * columns, rows: rows, metric, format, correction: correction,
          into: target + group * bytes))
    }
    withExtendedLifetime((weights, blocks)) {}
    return total
  }

  /// What the windows of a group see on all samples.
  private func windows(
    of walk: SampleWalk, _ conv: Conv2D, _ node: NodeID, _ group: Int, _ columns: Int
  ) throws -> [SampleRows] {
    let value = walk.graph[node].inputs[0]
    let first = conv.layout == .first
    let taps = walk.graph.type(of: walk.graph[node].inputs[1]).shape.fixedSizes ?? [1, 1, 1, 1]
    return try parallelMap(walk.count) { sample in
      let image = try walk.tensor(value, of: sample).floats()
      let sizes = image.view.sizes
      let types = try conv.windowTypes(image.type, weight: taps)
      let result = types.shape.fixedSizes ?? [0, 0, 0, 0]
      let window = WindowRows(
        channels: sizes[first ? 1 : 3], height: sizes[first ? 2 : 1], width: sizes[first ? 3 : 2],
        channelsFirst: first, kernel: (taps[2], taps[3]),
        results: (result[first ? 2 : 1], result[first ? 3 : 2]), strides: (conv.strides[0], conv.strides[1]),
        padding: (conv.padding[0], conv.padding[1]), dilations: (conv.dilations[0], conv.dilations[1]))
      let places = window.places(images: sizes[0], limit: Self.windowLimit)
      let numbers = image.view.elements(as: Float.self)
      guard isAllFinite(numbers), let source = numbers.baseAddress else {
        throw CompileError(
          .input, "the value '%\(walk.graph[value].name)' has numbers that are not finite in sample \(sample)")
      }
      let width = window.channels / conv.groups
      return withExtendedLifetime(image) {
        made(places.count, columns) { rows in
          window.gather(source, places: places, channels: group * width..<(group + 1) * width, into: rows)
        }
      }
    }
  }
}

extension Conv2D {
  /// The type of the sums of the convolution of an image with a weight of some sizes.
  fileprivate func windowTypes(_ image: TensorType, weight: [Int]) throws -> TensorType {
    var plain = self
    plain.epilogue = .identity
    return try plain.inferTypes([image, TensorType(.f32, weight)])[0]
  }
}
