import IR
import Tensors

/// multiply(multiply(x, rsqrt(add(reduce(multiply(x, x)) {function = mean}, epsilon))), w) -> rms_norm(x, w), with the
/// factors in any order
let fuseRMSNorm = RewriteRule("fuse-rms-norm", on: Multiply.self, .shared) { _, node, rewriter in
  for (normalized, weight) in rewriter.orders(of: node) {
    guard rewriter.isRecipe(weight), let product = rewriter.match(normalized, Multiply.self),
      let (x, root) = rewriter.rootFactor(of: product.inputs),
      rewriter.type(of: x) == rewriter.type(of: node),
      let mean = rewriter.meanOfSquares(root.inputs[0], of: x),
      let vector = try rewriter.normWeight(weight, axis: mean.axis, of: x)
    else { continue }
    return try rewriter.emit(RMSNorm(axis: mean.axis - rewriter.type(of: x).rank, epsilon: mean.epsilon), x, vector)
  }
  return nil
}

/// multiply(multiply(d, rsqrt(add(reduce(multiply(d, d)) {function = mean}, epsilon))), w) with
/// d = subtract(x, reduce(x) {function = mean}) -> layer_norm(x, w), with the factors in any order
let fuseLayerNorm = RewriteRule("fuse-layer-norm", on: Multiply.self, .shared) { _, node, rewriter in
  for (normalized, weight) in rewriter.orders(of: node) {
    guard rewriter.isRecipe(weight), let product = rewriter.match(normalized, Multiply.self),
      let (d, root) = rewriter.rootFactor(of: product.inputs),
      let difference = rewriter.match(d, Subtract.self, .shared),
      case let x = difference.inputs[0], rewriter.type(of: x) == rewriter.type(of: node),
      let center = rewriter.match(difference.inputs[1], Reduce.self, .shared), center.inputs[0] == x,
      let axis = rewriter.meanAxis(center.op, of: x),
      let mean = rewriter.meanOfSquares(root.inputs[0], of: d), mean.axis == axis,
      let vector = try rewriter.normWeight(weight, axis: axis, of: x)
    else { continue }
    return try rewriter.emit(LayerNorm(axis: axis - rewriter.type(of: x).rank, epsilon: mean.epsilon), x, vector)
  }
  return nil
}

/// multiply(d, rsqrt(add(reduce(multiply(d, d)) {function = mean}, epsilon))) with
/// d = subtract(x, reduce(x) {function = mean}) -> layer_norm(x, 1), where no weight follows
let fuseLayerNormWithoutWeight = RewriteRule("fuse-layer-norm-without-weight", on: Multiply.self, .shared) {
  _, node, rewriter in
  guard let (d, root) = rewriter.rootFactor(of: rewriter.inputs(of: node)), !rewriter.isWeighted(node),
    let difference = rewriter.match(d, Subtract.self, .shared),
    case let x = difference.inputs[0], rewriter.type(of: x) == rewriter.type(of: node),
    let center = rewriter.match(difference.inputs[1], Reduce.self, .shared), center.inputs[0] == x,
    let axis = rewriter.meanAxis(center.op, of: x),
    let mean = rewriter.meanOfSquares(root.inputs[0], of: d), mean.axis == axis,
    let ones = rewriter.ones(from: axis, of: x)
  else { return nil }
  return try rewriter.emit(LayerNorm(axis: axis - rewriter.type(of: x).rank, epsilon: mean.epsilon), x, ones)
}

/// multiply(x, rsqrt(add(reduce(multiply(x, x)) {function = mean}, epsilon))) -> rms_norm(x, 1), where no weight follows
let fuseRMSNormWithoutWeight = RewriteRule("fuse-rms-norm-without-weight", on: Multiply.self, .shared) {
  _, node, rewriter in
  guard let (x, root) = rewriter.rootFactor(of: rewriter.inputs(of: node)), !rewriter.isWeighted(node),
    rewriter.type(of: x) == rewriter.type(of: node), let mean = rewriter.meanOfSquares(root.inputs[0], of: x),
    let ones = rewriter.ones(from: mean.axis, of: x)
  else { return nil }
  return try rewriter.emit(RMSNorm(axis: mean.axis - rewriter.type(of: x).rank, epsilon: mean.epsilon), x, ones)
}

/// add(layer_norm(x, w), b) -> layer_norm(x, w, b)
let fuseLayerNormBias = RewriteRule("fuse-layer-norm-bias", on: Add.self, .shared) { _, node, rewriter in
  for (value, bias) in rewriter.orders(of: node) {
    guard rewriter.isRecipe(bias), let norm = rewriter.match(value, LayerNorm.self), norm.inputs.count == 2,
      let axis = rewriter.type(of: value).shape.normalizedAxis(norm.op.axis),
      let vector = try rewriter.normWeight(bias, axis: axis, of: value)
    else { continue }
    return try rewriter.emit(norm.op, norm.inputs + [vector])
  }
  return nil
}

extension Rewriter {
  /// Of two factors, the one that is no reciprocal root, and the root.
  fileprivate func rootFactor(of factors: [ValueID]) -> (other: ValueID, root: Match<Rsqrt>)? {
    for index in 0..<2 {
      if let root = match(factors[index], Rsqrt.self, .shared) { return (factors[1 - index], root) }
    }
    return nil
  }

  /// The first of the axes up to the last that a mean with kept sizes is taken over.
  fileprivate func meanAxis(_ reduce: Reduce, of x: ValueID) -> Int? {
    guard reduce.function == .mean, reduce.keepDims, let reduced = try? reduce.reducedAxes(of: type(of: x).shape),
      let first = reduced.firstIndex(of: true), reduced[first...].allSatisfy({ $0 })
    else { return nil }
    return first
  }

  /// For `mean(x^2) + epsilon`: the axis and the number.
  fileprivate func meanOfSquares(_ value: ValueID, of x: ValueID) -> (axis: Int, epsilon: Float)? {
    guard let sum = match(value, Add.self, .shared), let epsilon = number(sum.inputs[1]), epsilon >= 0,
      let mean = match(sum.inputs[0], Reduce.self, .shared), let axis = meanAxis(mean.op, of: x)
    else { return nil }
    if let square = match(mean.inputs[0], Multiply.self, .shared) {
      guard square.inputs == [x, x] else { return nil }
    } else {
      guard let square = match(mean.inputs[0], Power.self, .shared), square.inputs[0] == x,
        number(square.inputs[1]) == 2
      else { return nil }
    }
    return (axis, Float(epsilon))
  }

  /// Whether something multiplies the result of a node by a recipe, as the weight of a norm.
  fileprivate func isWeighted(_ node: NodeID) -> Bool {
    users(of: self[node].results[0]).contains { user in
      self[user].op is Multiply && inputs(of: user).contains { isRecipe($0) }
    }
  }

  /// Ones in the shape of the axes from `axis` on, if their sizes are numbers.
  fileprivate mutating func ones(from axis: Int, of x: ValueID) -> ValueID? {
    let shape = Shape(Array(type(of: x).shape.dims[axis...]))
    guard shape.isFixed, type(of: x).element == .f32 else { return nil }
    return constant(1, TensorType(.f32, shape))
  }

  /// A recipe that is broadcast along the axes before `axis`, in the shape of the others.
  fileprivate mutating func normWeight(_ weight: ValueID, axis: Int, of x: ValueID) throws -> ValueID? {
    let wanted = Shape(Array(type(of: x).shape.dims[axis...]))
    let shape = type(of: weight).shape
    if shape == wanted { return weight }
    let extra = shape.rank - wanted.rank
    guard wanted.isFixed, extra > 0, shape.dims[..<extra].allSatisfy({ $0 == 1 }),
      Array(shape.dims[extra...]) == wanted.dims
    else {
      let name = self.name(of: weight)
      return refuse("'%\(name)' of shape \(shape) does not have the shape \(wanted) of the normalized axes")
    }
    return try emit(Reshape(wanted.dims), weight)
  }
}
