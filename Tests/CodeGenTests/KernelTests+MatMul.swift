import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Products with constant weights in panels, and of two computed factors.
extension KernelTests {
  private static let shapes = [(1, 1), (17, 40), (70, 100)]

  /// f32 sums of up to 100 products in another order than the reference's: 1e-5 of the largest result.
  func floatMatMuls() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (number, (n, k)) in Self.shapes.enumerated() {
      for element in [DType.f32, .f16, .bf16] {
        let w = try random(element, [n, k], seed: UInt64(number))
        let row = Tensor.random([1, k], seed: 101)
        cases.append(
          KernelCase("\(element) 1x\(k)x\(n)", MatMul(transposeB: true), [row, w], constants: [1], tolerance: 1e-5))
        let x = Tensor.random([7, k], seed: 3)
        cases.append(
          KernelCase(
            "\(element) Tx\(k)x\(n)", MatMul(transposeB: true), [x, w], types: [symbolic(x.type), w.type],
            constants: [1], symbols: ["T": 7], tolerance: 1e-5))
      }
    }
    return cases
  }

  /// Codes are exact; dequantized values differ from the reference's by the order of sums and of scaling: 1e-5.
  func quantizedMatMuls() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let formats = [BlockFormat.w8c, .w8(32), .w8(64), .w4(32), .w4(64), .w4(128)]
    for (number, (n, k)) in Self.shapes.enumerated() {
      for format in formats {
        let w = try Tensor.random([n, k], seed: UInt64(number)).quantized(format)
        for t in [1, 9] {
          let x = Tensor.random([t, k], seed: UInt64(50 + t))
          let a = try x.quantized(.a8(format.group ?? 32))
          for (label, input, dequantized) in [("a32", x, Set([1])), ("a8", a, [0, 1])] {
            cases.append(
              KernelCase(
                "\(format.name) \(t)x\(k)x\(n) \(label)", MatMul(transposeB: true), [input, w],
                types: t == 1 ? nil : [symbolic(input.type), w.type], constants: [1], dequantized: dequantized,
                symbols: ["T": t], tolerance: 1e-5))
          }
        }
      }
    }
    return cases
  }

  /// Largest codes on both sides: sums of products that would saturate in 16 bits.
  func extremeMatMuls() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let (n, k) = (35, 128)
    for format in [BlockFormat.w8c, .w8(32), .w4(32), .w4(128)] {
      for (label, high, low) in [("+", Float(1), Float(1)), ("-", 1, -1), ("mixed", -1, 1)] {
        // Rows of the largest magnitude give codes -8 (0) and, beside a larger number of other sign, +7 (15).
        let weights = (0..<(n * k)).map { index -> Float in index % 8 == 0 ? -8 * high : 7 * high }
        let w = try Tensor(.f32, [n, k], weights).quantized(format)
        let x = Tensor(.f32, [3, k], (0..<(3 * k)).map { $0 % 3 == 0 ? low : 1 } as [Float])
        let a = try x.quantized(.a8(format.group ?? 32))
        cases.append(
          KernelCase(
            "extreme \(format.name) \(label)", MatMul(transposeB: true), [a, w], constants: [1], dequantized: [0, 1],
            tolerance: 1e-5))
      }
    }
    // Code -128 does not come from quantization to nearest but may come from a file.
    let w = try Tensor.random([20, 64], seed: 9).quantized(.w8(32))
    for row in 0..<20 {
      for block in 0..<2 {
        for code in 0..<32 { w.mutableView.bytes[(row * 2 + block) * 34 + 2 + code] = code % 2 == 0 ? 0x80 : 0x7f }
      }
    }
    let a = try Tensor(.f32, [2, 64], (0..<128).map { $0 % 5 == 0 ? -1 : 1 } as [Float]).quantized(.a8(32))
    cases.append(
      KernelCase(
        "code -128", MatMul(transposeB: true), [a, w], constants: [1], dequantized: [0, 1], tolerance: 1e-5))
    return cases
  }

  /// exp and its kind differ by some ulp from the reference: 2e-5.
  func epilogues() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (n, k, t) in [(34, 24, 5), (64, 64, 1), (6, 8, 3)] {
      let x = Tensor.random([t, k], seed: 1)
      let bias = Tensor.random([n], seed: 2)
      for format in [nil, BlockFormat.w4(32), .w8c] {
        let dense = Tensor.random([n, k], seed: 3)
        let w = try format.map { try dense.quantized($0) } ?? dense
        let dequantized: Set<Int> = format == nil ? [] : [1]
        for activation in format == nil && n == 34 ? Activation.allCases : [.none, .silu] {
          cases.append(
            KernelCase(
              "bias \(activation) \(n)x\(k)",
              MatMul(transposeB: true, epilogue: Epilogue(bias: true, activation: activation)),
              [x, w, bias], constants: [1, 2], dequantized: dequantized, tolerance: 2e-5))
        }
        for residual in [Epilogue.Residual.beforeActivation, .afterActivation] {
          let r = Tensor.random([t, n], seed: 4)
          let epilogue = Epilogue(bias: true, activation: .relu, residual: residual)
          cases.append(
            KernelCase(
              "\(residual) \(n)x\(k)", MatMul(transposeB: true, epilogue: epilogue), [x, w, bias, r],
              constants: [1, 2],
              dequantized: dequantized, tolerance: 2e-5))
        }
        for hasBias in [false, true] {
          let r = Tensor.random([t, n / 2], seed: 5)
          let epilogue = Epilogue(bias: hasBias, activation: .silu, residual: .afterActivation, gated: true)
          cases.append(
            KernelCase(
              "gated \(n)x\(k) \(hasBias)", MatMul(transposeB: true, epilogue: epilogue),
              hasBias ? [x, w, bias, r] : [x, w, r], constants: hasBias ? [1, 2] : [1], dequantized: dequantized,
              tolerance: 2e-5))
        }
      }
    }
    let x = Tensor.random([4, 24], seed: 6), w = Tensor.random([20, 24], seed: 7)
    cases.append(
      KernelCase(
        "columns of a wider buffer", MatMul(transposeB: true), [x, w], constants: [1],
        columns: [0: (start: 5, width: 40)], tolerance: 1e-5))
    for (a, b, transposed) in [([3, 5], [5, 20], false), ([3, 5], [20, 5], true), ([2, 3, 7], [2, 7, 9], false)] {
      cases.append(
        KernelCase(
          "dense \(a) \(b)", MatMul(transposeB: transposed), [Tensor.random(a, seed: 8), Tensor.random(b, seed: 9)],
          tolerance: 1e-5))
    }
    for transposed in [false, true] {
      let residual: Epilogue.Residual = transposed ? .afterActivation : .beforeActivation
      let epilogue = Epilogue(bias: true, activation: .gelu, residual: residual)
      let factor = Tensor.random(transposed ? [20, 5] : [5, 20], seed: 9)
      cases.append(
        KernelCase(
          "dense with epilogue", MatMul(transposeB: transposed, epilogue: epilogue),
          [Tensor.random([3, 5], seed: 8), factor, Tensor.random([20], seed: 10), Tensor.random([3, 20], seed: 11)],
          tolerance: 2e-5))
    }
    return cases
  }

  @Test(arguments: targets) func floatWeights(_ target: String) throws { try check(try floatMatMuls(), on: target) }

  @Test(arguments: targets) func quantizedWeights(_ target: String) throws {
    try check(try quantizedMatMuls(), on: target)
  }

  @Test(arguments: targets) func extremeCodes(_ target: String) throws { try check(try extremeMatMuls(), on: target) }

  @Test(arguments: targets) func matMulEpilogues(_ target: String) throws { try check(try epilogues(), on: target) }
}
