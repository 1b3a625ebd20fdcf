import IR
import Tensors

/// What graphs and rewriters can both be asked.
protocol ValueLookup {
  subscript(node: NodeID) -> Node { get }
  func type(of value: ValueID) -> TensorType
  func useCount(of value: ValueID) -> Int
  func definingNode(of value: ValueID) -> NodeID?
}

extension Graph: ValueLookup {
  func useCount(of value: ValueID) -> Int { self[value].uses.count }
}

extension Rewriter: ValueLookup {}

extension ValueLookup {
  /// How the rows of a weight are stored: the block format where it is dequantized codes, else dense.
  func storedEncoding(of weight: ValueID) -> Encoding {
    guard let node = definingNode(of: weight), self[node].op is Dequantize else { return type(of: weight).encoding }
    return type(of: self[node].inputs[0]).encoding
  }

  /// The codes that `weights` are dequantized from, and the operator that does it, if it is the same for all.
  ///
  /// Rows of codes can be stacked as they are: `concat(dequantize(a), dequantize(b))` is `dequantize(concat(a, b))`.
  func commonCodes(of weights: [ValueID]) -> (codes: [ValueID], op: Dequantize)? {
    var codes: [ValueID] = []
    var common: Dequantize?
    for weight in weights {
      guard let node = definingNode(of: weight), let op = self[node].op as? Dequantize, op == common ?? op else {
        return nil
      }
      common = op
      codes.append(self[node].inputs[0])
    }
    guard let common, Set(codes.map { type(of: $0).encoding }).count == 1 else { return nil }
    return (codes, common)
  }

  /// Whether everything of the size of `weight` that it is computed from, itself included, has one use: what is done to
  /// it then makes no second copy of a large constant.
  func isUsedOnce(_ weight: ValueID) -> Bool {
    let count = type(of: weight).maximumCount
    var stack = [weight]
    while let id = stack.popLast() {
      guard type(of: id).maximumCount >= count else { continue }
      guard useCount(of: id) == 1 else { return false }
      if let node = definingNode(of: id) { stack.append(contentsOf: self[node].inputs) }
    }
    return true
  }
}
