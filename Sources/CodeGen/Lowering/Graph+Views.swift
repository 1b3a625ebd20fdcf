import IR
import Tensors

extension Graph {
  /// Whether a node's result is a contiguous part of its first input's memory: a reshape, a transposition that moves
  /// axes of size 1 alone, or a slice along the first axis that is not 1.
  package func isView(_ node: Node) -> Bool { viewOffset(node) != nil }

  /// For a view: the number of elements from the start of the input to that of the result; else nil.
  package func viewOffset(_ node: Node) -> Dim? {
    guard node.results.count == 1, let input = node.inputs.first, type(of: input).isDense else { return nil }
    let type = type(of: input)
    switch node.op {
    case is Reshape: return 0
    case let op as Transpose:
      let moved = op.permutation.filter { type.shape[$0] != 1 }
      return moved == moved.sorted() ? 0 : nil
    case let op as Slice:
      guard op.step == 1, let axis = type.shape.normalizedAxis(op.axis),
        type.shape.dims[..<axis].allSatisfy({ $0 == 1 })
      else { return nil }
      var stride: Dim = 1
      for dim in type.shape.dims[(axis + 1)...] {
        guard let product = Dim.product(stride, dim) else { return nil }
        stride = product
      }
      return Dim.product(op.start, stride)
    default: return nil
    }
  }

  /// The value whose memory a chain of views shows.
  package func viewRoot(of value: ValueID) -> ValueID {
    var value = value
    while let id = definingNode(of: value), isView(self[id]) { value = self[id].inputs[0] }
    return value
  }
}
