import IR
import Tensors

/// Rules that leave broadcasting to elementwise operators.
let broadcastRules: [RewriteRule] = [operandWithoutExpand]

/// add(x, expand(y)) -> add(x, y), where the result keeps its shape; likewise for all elementwise operators
let operandWithoutExpand = RewriteRule(onAny: "operand-without-expand", .shared) { op, node, rewriter in
  var inputs = rewriter.inputs(of: node)
  guard inputs.count > 1, op is any Elementwise else { return nil }
  let result = rewriter.type(of: node)
  for index in inputs.indices {
    guard let expand = rewriter.match(inputs[index], Expand.self, .shared) else { continue }
    var smaller = inputs
    smaller[index] = expand.inputs[0]
    var shape: Shape? = []
    for input in smaller { shape = shape.flatMap { Shape.broadcast($0, rewriter.type(of: input).shape) } }
    if shape == result.shape { inputs = smaller }
  }
  return inputs == rewriter.inputs(of: node) ? nil : [try rewriter.emit(op, inputs)]
}
