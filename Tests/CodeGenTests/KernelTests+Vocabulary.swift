import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Statistics of products with a vocabulary, by parts of 64 rows.
extension KernelTests {
  /// Sums of up to 100 products and of up to 64 exponentials in another order than the reference's, with exponentials
  /// of 2 ulp: 1e-5 of the largest number.
  func vocabularies() throws -> [KernelCase] {
    let capped = ScalarExpression.binary(.multiply, .unary(.tanh, .input(0)), .number(3))
    var cases: [KernelCase] = []
    for (number, (n, k)) in [(1, 3), (70, 40), (130, 100), (192, 64)].enumerated() {
      let dense = Tensor.random([n, k], seed: UInt64(number))
      let weights: [(String, Tensor)] = [
        ("f32", dense), ("bf16", try random(.bf16, [n, k], seed: 9)), ("w8", try dense.quantized(.w8c)),
        ("w4g32", try dense.quantized(.w4(32))),
      ]
      for tokens in [1, 11] {
        let x = Tensor.random([tokens, k], seed: 7)
        let ids = Tensor(.i32, [tokens], (0..<tokens).map { Int32($0 * 53 % n) })
        for (label, w) in weights {
          let isDense = w.type.isDense
          for rounds in isDense ? [false] : [false, true] {
            let input = rounds ? try x.quantized(.a8(32)) : x
            cases.append(
              KernelCase(
                "vocabulary \(label) \(tokens)x\(k)x\(n) \(rounds ? "a8" : "")",
                VocabularyStatistics(rows: 64, function: number == 1 ? capped : .input(0)), [input, w, ids],
                types: [symbolic(input.type), w.type, symbolic(ids.type)], constants: [1],
                dequantized: isDense ? [] : (rounds ? [0, 1] : [1]), symbols: ["T": tokens], tolerance: 1e-5))
          }
        }
        guard n == 192 else { continue }
        let bias = Tensor.random([n], seed: 8)
        cases.append(
          KernelCase(
            "vocabulary with bias \(tokens)x\(k)x\(n)", VocabularyStatistics(rows: 128), [x, dense, ids, bias],
            types: [symbolic(x.type), dense.type, symbolic(ids.type), bias.type], constants: [1],
            symbols: ["T": tokens], tolerance: 1e-5))
      }
    }
    return cases
  }

  @Test(arguments: targets) func vocabularyStatistics(_ target: String) throws {
    try check(try vocabularies(), on: target)
  }
}
