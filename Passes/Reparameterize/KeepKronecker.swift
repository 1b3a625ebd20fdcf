import IR
import Tensors

/// Multiplies by the factors of a Kronecker product one after the other, where that is less work than by the whole matrix.
///
///     %w = reshape(multiply(%a, %b)) {shape = [A C, B D]}       // %a: [A, 1, B, 1], %b: [1, C, 1, D]
///     %y = matmul(%x, %w) {transposeB = true}                   // %x: [T, B D]
///     // -> %h = matmul(reshape(%x) {shape = [T, B, D]}, %b) {transposeB = true}                  // [T, B, C]
///     //    %y = reshape(transpose(matmul(transpose(%h), %a) {transposeB = true}))                // [T, A C]
///
/// Row by row that is `B C (D + A)` products in place of `A B C D`; a sum of n such products (`reduce` over a leading axis) costs n
/// times as much. The matrix is kept whole, which is what happens without this pass, unless the factors save `saving` times
/// the work: small products use a CPU less well than one large product.
package struct KeepKronecker: RulePass {
  package static let name = "keep-kronecker"
  package static let summary = "multiplies by the factors of a Kronecker product in turn, where that is less work"
  package static let legality =
    "the weight is a Kronecker product, or a sum of such, that one product without activation reads"
  package static let source = "Mahabadi and others, 2021 (Compacter); Zhang and others, 2021 (hypercomplex layers)"

  /// How many times less work the factors must be.
  package var saving: Int = 4

  package init() {}

  package var fidelity: Fidelity { .exact }

  package var rules: [RewriteRule] { [multiplyByFactors(saving: saving)] }
}

/// A sum of Kronecker products of matrices `[A, B]` and `[C, D]`.
private struct KroneckerSum {
  /// `[n, A, 1, B, 1]` and `[n, 1, C, 1, D]`, or without the leading axis.
  var left: ValueID
  var right: ValueID
  var a, b, c, d: Int
  /// The number of products; nil for one without a leading axis.
  var terms: Int?
}

/// matmul(x, reshape(multiply(a, b))) -> the products by a and b
private func multiplyByFactors(saving: Int) -> RewriteRule {
  RewriteRule("multiply-by-factors", on: MatMul.self, .shared) { matmul, node, rewriter in
    guard matmul.transposeB, let layer = rewriter.layer(at: node), let sum = rewriter.kronecker(layer.weight) else {
      return nil
    }
    guard layer.hasPlainSums else { return rewriter.refuse("an activation or a residual follows") }
    let (a, b, c, d, terms) = (sum.a, sum.b, sum.c, sum.d, sum.terms ?? 1)
    let structured = terms * b * c * (d + a)
    guard saving * structured <= a * b * c * d else {
      return rewriter.refuse("the factors save less than \(saving) times the work")
    }
    let leading = Array(rewriter.type(of: layer.input).shape.dims.dropLast())
    let rank = leading.count + 2
    var swap = Array(0..<rank)
    swap.swapAt(rank - 2, rank - 1)
    let x = try rewriter.emit(Reshape(leading + [.fixed(b), .fixed(d)]), layer.input)
    var total: ValueID?
    for term in 0..<terms {
      let left = try rewriter.factor(sum.left, term: sum.terms.map { _ in term }, sizes: [a, b])
      let right = try rewriter.factor(sum.right, term: sum.terms.map { _ in term }, sizes: [c, d])
      let inner = try rewriter.emit(MatMul(transposeB: true), x, right)
      let outer = try rewriter.emit(MatMul(transposeB: true), rewriter.emit(Transpose(swap), inner), left)
      total = try total.map { try rewriter.emit(Add(), $0, outer) } ?? outer
    }
    guard let total else { return nil }
    let rows = try rewriter.emit(Transpose(swap), total)
    let result = try rewriter.emit(Reshape(rewriter.type(of: node).shape.dims), rows)
    return try layer.bias.map { try rewriter.emit(Add(), result, rewriter.widened($0)) } ?? result
  }
}

extension Rewriter {
  /// A weight `[A C, B D]` as a sum of Kronecker products.
  fileprivate func kronecker(_ weight: ValueID) -> KroneckerSum? {
    guard let reshape = match(weight, Reshape.self, .shared), type(of: weight).element == .f32 else { return nil }
    var value = reshape.inputs[0]
    var leading = 0
    if let sum = match(value, Reduce.self, .shared) {
      guard sum.op == Reduce(.sum, axes: [0]) else { return nil }
      value = sum.inputs[0]
      leading = 1
    }
    guard let product = match(value, Multiply.self, .shared), let sizes = type(of: value).shape.fixedSizes,
      sizes.count == 4 + leading, sizes.allSatisfy({ $0 > 0 })
    else { return nil }
    let (a, c, b, d) = (sizes[leading], sizes[leading + 1], sizes[leading + 2], sizes[leading + 3])
    let terms = leading == 0 ? [] : [sizes[0]]
    for (left, right) in orders(of: product.node)
    where type(of: left).shape == Shape(terms + [a, 1, b, 1]) && type(of: right).shape == Shape(terms + [1, c, 1, d]) {
      guard type(of: weight).shape == Shape([a * c, b * d]), isRecipe(left), isRecipe(right) else { return nil }
      return KroneckerSum(left: left, right: right, a: a, b: b, c: c, d: d, terms: terms.first)
    }
    return nil
  }

  /// One factor as a matrix.
  fileprivate mutating func factor(_ stack: ValueID, term: Int?, sizes: [Int]) throws -> ValueID {
    let part = try term.map { try emit(Slice(axis: 0, start: .fixed($0), size: 1), stack) } ?? stack
    return try emit(Reshape(sizes.map { .fixed($0) }), part)
  }
}
