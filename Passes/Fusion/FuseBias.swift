import IR
import Tensors

/// add(matmul(x, w), b) -> matmul(x, w, b) {epilogue = {bias = true}}, for a recipe b with one number per column; a
/// bias that is there already is added to
let fuseBiasIntoMatMul = RewriteRule("fuse-bias-into-matmul", on: Add.self, .shared) { _, node, rewriter in
  for (sums, bias) in rewriter.orders(of: node) {
    guard rewriter.isRecipe(bias), !rewriter.isRecipe(sums), let matmul = rewriter.matchAlone(sums, MatMul.self),
      rewriter.takesBias(matmul.op.epilogue, sums, of: node),
      let vector = try rewriter.vector(bias, axis: rewriter.type(of: sums).rank - 1, of: sums),
      let inputs = try rewriter.inputs(matmul.inputs, adding: vector, matmul.op.epilogue)
    else { continue }
    var op = matmul.op
    op.epilogue.bias = true
    return try rewriter.emit(op, inputs)
  }
  return nil
}

/// add(conv2d(x, w), b) -> conv2d(x, w, b) {epilogue = {bias = true}}, for a recipe b with one number per channel
let fuseBiasIntoConvolution = RewriteRule("fuse-bias-into-conv2d", on: Add.self, .shared) { _, node, rewriter in
  for (sums, bias) in rewriter.orders(of: node) {
    guard rewriter.isRecipe(bias), let conv = rewriter.matchAlone(sums, Conv2D.self),
      rewriter.takesBias(conv.op.epilogue, sums, of: node),
      let vector = try rewriter.vector(bias, axis: conv.op.layout == .first ? 1 : 3, of: sums),
      let inputs = try rewriter.inputs(conv.inputs, adding: vector, conv.op.epilogue)
    else { continue }
    var op = conv.op
    op.epilogue.bias = true
    return try rewriter.emit(op, inputs)
  }
  return nil
}

extension Rewriter {
  /// Whether a bias may be added to the sums of a layer where `node` adds it behind.
  fileprivate mutating func takesBias(_ epilogue: Epilogue, _ sums: ValueID, of node: NodeID) -> Bool {
    let name = self.name(of: sums)
    if epilogue.activation != .none || epilogue.gated {
      return refuse("'%\(name)' has an activation before the bias") ?? false
    }
    if type(of: sums) != type(of: node) {
      return refuse("the bias has more axes than '%\(name)'") ?? false
    }
    return true
  }

  /// A recipe that is broadcast along all axes of `value` but one, as a vector along that axis; one number is repeated.
  fileprivate mutating func vector(_ recipe: ValueID, axis: Int, of value: ValueID) throws -> ValueID? {
    let shape = type(of: value).shape
    let given = type(of: recipe)
    guard let count = shape[axis].fixedValue, given.rank <= shape.rank else { return nil }
    let offset = shape.rank - given.rank
    for (index, dim) in given.shape.dims.enumerated() where dim != 1 {
      guard offset + index == axis, dim == shape[axis] else {
        let name = self.name(of: recipe)
        return refuse("'%\(name)' is not one number per column")
      }
    }
    if given.shape.dims.allSatisfy({ $0 == 1 }), count != 1 {
      return number(recipe).map { constant($0, TensorType(given.element, [count])) }
    }
    return given.rank == 1 ? recipe : try emit(Reshape([.fixed(count)]), recipe)
  }

  /// The inputs of a layer with a bias more.
  fileprivate mutating func inputs(
    _ inputs: [ValueID], adding bias: ValueID, _ epilogue: Epilogue
  ) throws -> [ValueID]? {
    var inputs = inputs
    if let index = epilogue.biasIndex {
      guard isRecipe(inputs[index]), type(of: inputs[index]).element == type(of: bias).element else { return nil }
      inputs[index] = try emit(Add(), inputs[index], bias)
    } else {
      inputs.insert(bias, at: 2)
    }
    return inputs
  }
}
