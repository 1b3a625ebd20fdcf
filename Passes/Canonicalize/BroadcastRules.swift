import IR
import Tensors

/// Rules that leave broadcasting to elementwise operators.
let broadcastRules: [RewriteRule] = [
  withoutExpand(Add.self), withoutExpand(Subtract.self), withoutExpand(Multiply.self), withoutExpand(Divide.self),
  withoutExpand(Minimum.self), withoutExpand(Maximum.self), withoutExpand(Power.self), withoutExpand(Less.self),
  withoutExpand(LessOrEqual.self), withoutExpand(Greater.self), withoutExpand(GreaterOrEqual.self),
  withoutExpand(Equal.self), withoutExpand(NotEqual.self), withoutExpand(And.self), withoutExpand(Or.self),
  withoutExpand(Select.self),
]

/// add(x, expand(y)) -> add(x, y), where the result keeps its shape; likewise for the other operators with operands
func withoutExpand<Op: Elementwise>(_ type: Op.Type) -> RewriteRule {
  RewriteRule("\(Op.name)-without-expand", on: type, .shared) { op, node, rewriter in
    var inputs = rewriter.inputs(of: node)
    let result = rewriter.type(of: node)
    for index in inputs.indices {
      guard let expand = rewriter.match(inputs[index], Expand.self, .shared) else { continue }
      var smaller = inputs
      smaller[index] = expand.inputs[0]
      var shape: Shape? = []
      for input in smaller { shape = shape.flatMap { Shape.broadcast($0, rewriter.type(of: input).shape) } }
      if shape == result.shape { inputs = smaller }
    }
    return inputs == rewriter.inputs(of: node) ? nil : try rewriter.emit(op, inputs)
  }
}
