import IR

/// Brings a graph into the forms that other passes look for: constants on the right, no operators that change nothing,
/// one spelling of what can be said in several ways.
///
///     %a = multiply(%half, %x)                  // %half is a constant
///     %b = divide(%a, %two)
///     %c = reshape(%b) {shape = [1, 64]}        // %b has that shape
///     // -> %a = multiply(%x, %half), %b = multiply(%a, %half), no %c
///
/// It is best effort: no pass relies on it for being right.
package struct Canonicalize: RulePass {
  package static let name = "canonicalize"
  package static let summary = "brings equal computations into one form and drops operators that change nothing"
  package static let legality =
    "where an operator changes nothing, or the same function has another spelling with equal results; "
    + "constants are compared by their numbers, divisions become products only by powers of two"
  package static let source = "mcc"

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] {
    arithmeticRules + activationRules + shapeRules + concatRules + layoutRules + broadcastRules + matMulRules
      + convolutionRules
  }
}
