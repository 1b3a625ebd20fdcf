import IR
import Tensors

/// How many bits the weights of linear layers and convolutions take, scales included.
package struct BitsPerWeight: Hashable, Sendable {
  package private(set) var weights = 0
  package private(set) var bits = 0

  /// Bits per weight; nil for a model without such layers.
  package var average: Double? { weights == 0 ? nil : Double(bits) / Double(weights) }

  /// Counts each constant operand of a `matmul` or `conv2d` once.
  package init(_ model: Model) {
    for function in model.functions {
      var seen: Set<ValueID> = []
      for id in function.nodeIDs where function[id].op is MatMul || function[id].op is Conv2D {
        var value = function[id].inputs[1]
        guard seen.insert(value).inserted, ConstantEvaluator.isRecipe(value, in: function) else { continue }
        let count = function.type(of: value).maximumCount
        if let node = function.definingNode(of: value), function[node].op is Dequantize {
          value = function[node].inputs[0]
        }
        weights += count
        bits += 8 * function.type(of: value).maximumByteCount
      }
    }
  }
}
