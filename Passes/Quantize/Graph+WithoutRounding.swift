import IR

extension Graph {
  /// The function with the numbers themselves wherever they are rounded to codes and back, with the same nodes and
  /// values. Bytes that are read with another scale than they were written with stay multiplied by its ratio.
  func withoutRounding() throws -> Graph {
    var copy = self
    for id in topologicalOrder() {
      switch self[id].op {
      case is Quantize:
        let source = copy[id].inputs[0], codes = self[id].results[0]
        for user in copy.users(of: codes) {
          if copy[user].op is Dequantize {
            copy.replaceUses(of: copy[user].results[0], with: source)
          } else if copy[user].op is Gather, copy[user].inputs[0] == codes {
            copy.setInput(0, of: user, to: source)
          }
        }
      case let rounding as QuantizeLinear:
        let source = copy[id].inputs[0]
        for user in copy.users(of: self[id].results[0]) {
          guard let back = copy[user].op as? DequantizeLinear, back.code.zeroPoint == rounding.code.zeroPoint else {
            continue
          }
          if back.code == rounding.code {
            copy.replaceUses(of: copy[user].results[0], with: source)
          } else {
            let ratio = back.code.scale / rounding.code.scale
            copy.setInput(0, of: user, to: source)
            copy.setOperator(FusedElementwise(.binary(.multiply, .input(0), .number(ratio))), of: user)
          }
        }
      default: break
      }
    }
    _ = copy.eraseDeadCode()
    return copy
  }
}
