import Base
import IR
import Tensors
import Testing

/// The figures that certificates are made of, on numbers that can be reckoned by hand.
@Suite struct CertificateMeasureTests {
  @Test func differences() {
    let equal = TensorDifference([1, .nan, .infinity, -2], [1, .nan, .infinity, -2])
    #expect(equal.largest == 0 && equal.relativeRMS == 0 && equal.cosine == 1 && equal.magnitude == 2)
    let off = TensorDifference([3, 4.5], [3, 4])
    #expect(off.largest == 0.5 && off.relativeRMS == 0.1 && off.relative == 0.125)
    // (9 + 18) / (5 * sqrt(9 + 20.25))
    #expect(abs(off.cosine - 27 / (5 * 29.25.squareRoot())) < 1e-15)
    #expect(TensorDifference([1, 2], [1]).largest == .infinity)
    #expect(TensorDifference([.nan], [1]).relativeRMS == .infinity)
    #expect(TensorDifference([.infinity], [-.infinity]).largest == .infinity)
    #expect(TensorDifference([], []).relativeRMS == 0)
    #expect(TensorDifference([0, 1], [0, 0]).relativeRMS == .infinity)
    #expect(TensorDifference([1, 0], [0, 1]).cosine == 0)
  }

  @Test func divergences() {
    // p = (1/4, 3/4) from q = (1/2, 1/2): 1/4 log(1/2) + 3/4 log(3/2).
    let expected = 0.25 * -0.6931471805599453 + 0.75 * 0.4054651081081644
    let divergence = LogitDivergence([7, 7, 0, 5], [0, 1.0986122886681098, 0, 5], columns: 2)
    #expect(abs(divergence.largest - expected) < 1e-12)
    #expect(abs(divergence.mean - expected / 2) < 1e-12)
    #expect(divergence.changedTokens == 0 || divergence.changedTokens == 0.5)
    #expect(LogitDivergence([1000, 0], [1000, 0], columns: 2).mean == 0)
    #expect(LogitDivergence([0, 1], [1, 0], columns: 2).changedTokens == 1)
    // What was impossible does not count, what becomes impossible is infinitely far.
    #expect(LogitDivergence([0, 0], [0, -.infinity], columns: 2).mean > 0)
    #expect(LogitDivergence([0, -.infinity], [0, 0], columns: 2).mean == .infinity)
  }

  @Test func figures() {
    let cases: [(Double, String)] = [
      (0, "0"), (1, "1.00e+00"), (-0.00314159, "-3.14e-03"), (9.999, "1.00e+01"), (6.02e23, "6.02e+23"),
      (1e-300, "1.00e-300"), (.infinity, "inf"), (.nan, "nan"),
    ]
    for (value, text) in cases { #expect(value.figure == text) }
  }

  @Test func roundingsAreCounted() throws {
    let x = TensorType(.f32, [2, 64]), w = TensorType(.f32, [16, 64])
    #expect(RoundingCount(MatMul(transposeB: true), [x, w], [TensorType(.f32, [2, 16])]) == .sums(64))
    #expect(RoundingCount(Reshape([128]), [x], [TensorType(.f32, [128])]) == .none)
    #expect(RoundingCount(Add(), [x, x], [x]) == .each(1))
    #expect(RoundingCount(ReLU(), [x], [x]) == .none)
    #expect(RoundingCount(Softmax(), [x], [x]) == .each(66))
    #expect(RoundingCount(Reduce(.sum, axes: [1]), [x], [TensorType(.f32, [2])]) == .sums(65))
    let image = TensorType(.f32, [1, 3, 8, 8]), kernel = TensorType(.f32, [4, 3, 3, 3])
    #expect(RoundingCount(Conv2D(), [image, kernel], [TensorType(.f32, [1, 4, 6, 6])]) == .sums(27))
  }

  /// Made-up inputs fit what the function does with them.
  @Test func seededInputsAreInRange() throws {
    let model = try Parser.parse(
      """
      model @m {
        func @main <T in 1...16> (%tokens: i32[T], %position: i32[1], %mask: i32[T], %pixels: u8[4])
          state(%cache: f32[8, 4]) -> (y, m, p) {
          %table = constant random(seed = 1, deviation = 1.0) : f32[5, 4]
          %y = gather(%table, %tokens)
          %c = cache_update(%cache, %y, %position)
          update %cache = %c
          return %y, %mask, %pixels
        }
      }
      """)
    let graph = model.functions[0]
    for seed in UInt64(0)..<20 {
      let made = FunctionInputs.seeded(for: graph, seed: seed)
      #expect(made.symbols == ["T": 3])
      #expect(made.inputs[0].array(of: Int32.self).allSatisfy { (0..<5).contains($0) })
      #expect(made.inputs[1].array(of: Int32.self) == [2])
      #expect(made.inputs[2].array(of: Int32.self).allSatisfy { (0...1).contains($0) })
      _ = try Evaluator(model).run(made.inputs, states: made.states, symbols: made.symbols)
    }
    let ids = (UInt64(0)..<20).flatMap { FunctionInputs.seeded(for: graph, seed: $0).inputs[0].array(of: Int32.self) }
    #expect(Set(ids).count == 5)
  }

  /// In f64 a model gives the same up to f32, with less of its rounding.
  @Test func widenedModelsComputeTheSame() throws {
    let model = try Parser.parse(
      """
      model @m {
        func @main(%x: f32[3, 8], %i: i32[2]) -> (y, z) {
          %w = constant random(seed = 1, deviation = 0.3) : bf16[8, 8]
          %g = constant random(seed = 2, deviation = 0.3) : f32[8]
          %h = cast(%w) {type = f16}
          %c = cast(%h) {type = f32}
          %q = quantize(%c) {format = {bits = 8, group = 32, scale = f16}}
          %d = dequantize(%q) {type = f32}
          %n = rms_norm(%x, %g)
          %a = matmul(%n, %c) {transposeB = true}
          %b = matmul(%a, %d) {transposeB = true}
          %s = softmax(%b)
          %t = gather(%w, %i) {axis = 0, type = f32}
          %k = quantize_linear(%s) {code = {scale = 0.01, zeroPoint = 3}}
          %z = dequantize_linear(%k) {code = {scale = 0.01, zeroPoint = 3}}
          %u = elementwise(%s, %b) {expression = "add(tanh(%0), %1)"}
          %v = reduce(%t) {function = sum, axes = [0], keepDims = true}
          %y = multiply(%u, %v)
          return %y, %z
        }
      }
      """)
    let wide = try model.widened()
    try Verifier.verify(wide)
    #expect(wide.functions[0].outputs.allSatisfy { wide.functions[0].type(of: $0).element == .f64 })
    let made = FunctionInputs.seeded(for: model.functions[0], seed: 3)
    let narrow = try Evaluator(model).run(made.inputs).outputs
    let inputs = made.inputs.map { tensor -> Tensor in
      guard tensor.type.element == .f32 else { return tensor }
      return Tensor(.f64, tensor.view.sizes, tensor.array(of: Float.self).map { Double($0) })
    }
    let found = try Evaluator(wide).run(inputs).outputs
    let y = TensorDifference(narrow[0].array(of: Float.self).map { Double($0) }, found[0].array(of: Double.self))
    // Some ten roundings of f32, and the f16 cast that is none here (bf16 numbers in its range are numbers of f16).
    #expect(y.relative < 1e-5 && y.relative > 1e-12)
    #expect(narrow[1].array(of: Float.self).map { Double($0) } == found[1].array(of: Double.self))
  }
}
