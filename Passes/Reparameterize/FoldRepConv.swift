import IR
import Tensors

/// Folds sums of convolutions and means of one image, and of the image itself, into one convolution, and a convolution of one
/// tap into the one beside it.
///
///     %a = conv2d(%x, %v, %b) {padding = [1, 1, 1, 1], epilogue = {bias = true}}     (3 x 3)
///     %c = conv2d(%x, %w, %d) {epilogue = {bias = true}}                             (1 x 1)
///     %p = average_pool2d(%x) {kernel = [3, 3], padding = [1, 1, 1, 1], countIncludePad = true}
///     %e = batch_norm(%x, ...)
///     %y = add(add(add(%a, %c), %p), %e)
///     // -> %y = conv2d(%x, %v + pad(%w + diagonal(%s)) + diagonal(1) / 9, %b + (%d + %t)) {padding = [1, 1, 1, 1], ...}
///
/// where `%s` and `%t` are scale and shift of the normalization. These are the blocks that RepVGG, MobileOne, RepConv of GELAN,
/// diverse branch blocks and RepHMS are trained with. Branches may differ in window and padding as long as the largest window
/// holds the others; groups, strides and, but for one tap, dilations must agree. Everything but the layer is a recipe on
/// constants.
package struct FoldRepConv: RulePass {
  package static let name = "fold-repconv"
  package static let summary = "folds sums and chains of convolutions of one image into one convolution"
  package static let legality =
    "branches read one image, have no activation and no other user, agree in groups and strides, and one window holds the others"
  package static let source =
    "X. Ding and others (RepVGG), 2021, arXiv:2101.03697, (Diverse Branch Block), 2021, arXiv:2103.13425; P. Vasu and "
    + "others (MobileOne), 2023, arXiv:2206.04040; C.-Y. Wang and others (GELAN), 2024, arXiv:2402.13616; "
    + "Z. Yang and others (RepHMS), 2024, arXiv:2407.04381"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] { [foldSumOfBranches, foldPointBeforeConvolution, foldPointAfterConvolution] }
}

/// One summand that is linear in an image.
private struct Branch {
  enum Kind {
    case convolution(AffineLayer, Conv2D)
    /// The image times a scale, plus a shift, per channel.
    case image(ChannelAffine?)
    /// Means of windows, times a scale, plus a shift.
    case pool(AveragePool2D, ChannelAffine?)
  }

  var kind: Kind
  var image: ValueID
}

/// add(conv2d(x, v, b), conv2d(x, w, d)) -> conv2d(x, v + pad(w), b + d), and with batch_norm(x), x itself and average_pool2d(x) as
/// further summands of sums of any length
let foldSumOfBranches = RewriteRule("fold-sum-of-branches", on: Add.self, .shared) { _, node, rewriter in
  let type = rewriter.type(of: node)
  guard type.rank == 4, type.element == .f32, !rewriter.isSummand(rewriter[node].results[0]) else { return nil }
  let summands = rewriter.summands(of: node)
  var places: [ValueID: [Int]] = [:]
  for (index, summand) in summands.enumerated() {
    for image in rewriter.images(of: summand) { places[image, default: []].append(index) }
  }
  // The largest windows come first, so that they take up the others.
  let pivots = summands.indices.compactMap { index -> (index: Int, image: ValueID, taps: Int)? in
    guard let layer = rewriter.convolution(summands[index])?.layer, places[layer.input].map({ $0.count > 1 }) == true
    else { return nil }
    return (index, layer.input, layer.sizes[2] * layer.sizes[3])
  }.sorted { ($1.taps, $0.index) < ($0.taps, $1.index) }
  for pivot in pivots.prefix(16) {
    guard var merged = rewriter.convolution(summands[pivot.index]) else { continue }
    var taken: Set<Int> = []
    for index in places[pivot.image] ?? [] where index != pivot.index {
      guard rewriter.type(of: summands[index]) == rewriter.type(of: summands[pivot.index]),
        let branch = try rewriter.branch(summands[index], of: pivot.image),
        let layer = try rewriter.adding(branch, to: merged.layer, merged.op)
      else { continue }
      merged.layer = layer
      taken.insert(index)
    }
    guard !taken.isEmpty else { continue }
    var sum = try rewriter.emit(merged.layer)
    for index in summands.indices.reversed() where index != pivot.index && !taken.contains(index) {
      sum = try rewriter.emit(Add(), summands[index], sum)
    }
    return sum
  }
  return nil
}

extension Rewriter {
  /// Whether a sum of that type uses the value, and nothing else.
  fileprivate func isSummand(_ value: ValueID) -> Bool {
    guard useCount(of: value) == 1, let user = users(of: value).first else { return false }
    return self[user].op is Add && type(of: user) == type(of: value)
  }

  /// The summands of a sum, through sums of the same type that nothing else uses.
  fileprivate func summands(of node: NodeID) -> [ValueID] {
    var result: [ValueID] = []
    var waiting = Array(inputs(of: node).reversed())
    while let value = waiting.popLast() {
      if type(of: value) == type(of: node), let sum = match(value, Add.self) {
        waiting.append(contentsOf: sum.inputs.reversed())
      } else {
        result.append(value)
      }
    }
    return result
  }

  /// A convolution with channels first whose weights and bias are recipes and whose result only the sum uses.
  fileprivate func convolution(_ value: ValueID) -> (layer: AffineLayer, op: Conv2D)? {
    guard let layer = layer(value), case .convolution(let op) = layer.operation, op.layout == .first,
      layer.hasPlainSums
    else { return nil }
    return (layer, op)
  }

  /// The values that a summand may be a branch of.
  fileprivate func images(of value: ValueID) -> Set<ValueID> {
    var images: Set<ValueID> = [value]
    var inner = value
    if let norm = match(inner, BatchNorm.self) {
      inner = norm.inputs[0]
      images.insert(inner)
    }
    if let pool = match(inner, AveragePool2D.self) { images.insert(pool.inputs[0]) }
    if let conv = convolution(value) { images.insert(conv.layer.input) }
    return images
  }

  /// A summand as a branch of `image`.
  fileprivate mutating func branch(_ value: ValueID, of image: ValueID) throws -> Branch? {
    if value == image { return Branch(kind: .image(nil), image: image) }
    if let conv = convolution(value) {
      return conv.layer.input == image ? Branch(kind: .convolution(conv.layer, conv.op), image: image) : nil
    }
    if let pool = match(value, AveragePool2D.self) {
      return pool.inputs[0] == image ? Branch(kind: .pool(pool.op, nil), image: image) : nil
    }
    guard let norm = match(value, BatchNorm.self), case let inner = norm.inputs[0] else { return nil }
    let pool = match(inner, AveragePool2D.self)
    guard inner == image || pool?.inputs[0] == image, let affine = try affine(of: norm.op, norm.inputs) else {
      return nil
    }
    if inner == image { return Branch(kind: .image(affine), image: image) }
    return pool.map { Branch(kind: .pool($0.op, affine), image: image) }
  }

  /// The convolution with a branch added; nil, having said why, if they do not go together.
  fileprivate mutating func adding(_ branch: Branch, to layer: AffineLayer, _ op: Conv2D) throws -> AffineLayer? {
    switch branch.kind {
    case .convolution(let inner, let conv):
      guard conv.groups == op.groups, conv.strides == op.strides, inner.sizes[0] == layer.sizes[0] else {
        return refuse("branches differ in groups or strides")
      }
      return try adding(inner.weight, inner.bias, of: conv, kernel: Array(inner.sizes[2...]), to: layer, op)
    case .image(let affine):
      guard op.strides == [1, 1], layer.outputs == layer.channels else {
        return refuse("the image itself goes with strides of 1 and as many outputs alone")
      }
      let scale = affine?.scale ?? constant(1, TensorType(.f32, [layer.channels]))
      let weight = try point(scale, layer, op)
      return try adding(weight, affine?.shift, of: Conv2D(groups: op.groups), kernel: [1, 1], to: layer, op)
    case .pool(let pool, let affine):
      guard pool.layout == .first, pool.strides == op.strides, layer.outputs == layer.channels,
        pool.countIncludePad || pool.padding.allSatisfy({ $0 == 0 })
      else { return refuse("means of a number of pixels that varies, or of other windows, are no convolution") }
      let (height, width) = (pool.kernel[0], pool.kernel[1])
      let scale = affine?.scale ?? constant(1, TensorType(.f32, [layer.channels]))
      let taps = constant(1 / Double(height * width), TensorType(.f32, [1, 1, height, width]))
      let weight = try emit(Multiply(), point(scale, layer, op), taps)
      let conv = Conv2D(strides: pool.strides, padding: pool.padding, groups: op.groups)
      return try adding(weight, affine?.shift, of: conv, kernel: pool.kernel, to: layer, op)
    }
  }

  /// The convolution with other weights, in zeros up to its window, and another bias added.
  private mutating func adding(
    _ weight: ValueID, _ shift: ValueID?, of conv: Conv2D, kernel: [Int], to layer: AffineLayer, _ op: Conv2D
  ) throws -> AffineLayer? {
    let outer = Array(layer.sizes[2...])
    var before = [0, 0, 0, 0], after = [0, 0, 0, 0]
    for axis in 0..<2 {
      // A single tap has no dilation of its own.
      guard kernel[axis] == 1 || conv.dilations[axis] == op.dilations[axis] else {
        return refuse("branches differ in dilations")
      }
      let shift = op.padding[axis] - conv.padding[axis]
      guard shift >= 0, shift % op.dilations[axis] == 0 else { return refuse("no window holds the other") }
      before[axis + 2] = shift / op.dilations[axis]
      after[axis + 2] = outer[axis] - kernel[axis] - before[axis + 2]
      guard after[axis + 2] >= 0 else { return refuse("no window holds the other") }
    }
    let wide = try widened(weight)
    let padded = kernel == outer ? wide : try emit(Pad(before: before, after: after), wide)
    var result = layer
    result.weight = try emit(Add(), widened(layer.weight), padded)
    if let shift { result.bias = try bias(layer.bias, plus: shift) }
    return result
  }

  /// The weights of a convolution of one tap that gives the image with each channel times `scale`.
  private mutating func point(_ scale: ValueID, _ layer: AffineLayer, _ op: Conv2D) throws -> ValueID {
    let matrix = try diagonal(scale, channels: layer.channels, groups: op.groups)
    return try emit(Reshape([.fixed(layer.channels), .fixed(layer.sizes[1]), 1, 1]), matrix)
  }
}
