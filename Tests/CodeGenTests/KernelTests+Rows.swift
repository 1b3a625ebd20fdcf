import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Kernels over rows: norms, softmax, rounding to codes, reductions.
extension KernelTests {
  func rows() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for columns in [1, 7, 16, 33, 64, 100] {
      let x = Tensor.random([3, columns], seed: 11, in: -3...3)
      let weight = Tensor.random([columns], seed: 12), bias = Tensor.random([columns], seed: 13)
      cases.append(
        KernelCase("rms_norm \(columns)", RMSNorm(epsilon: 1e-5), [x, weight], constants: [1], tolerance: 1e-5))
      cases.append(
        KernelCase(
          "rms_norm T \(columns)", RMSNorm(epsilon: 1e-5), [x, weight], types: [symbolic(x.type), weight.type],
          symbols: ["T": 3], tolerance: 1e-5))
      cases.append(
        KernelCase("layer_norm \(columns)", LayerNorm(epsilon: 1e-3), [x, weight, bias], tolerance: 1e-5))
      cases.append(KernelCase("layer_norm \(columns) no bias", LayerNorm(epsilon: 1e-3), [x, weight], tolerance: 1e-5))
      cases.append(KernelCase("softmax \(columns)", Softmax(axis: -1), [x], tolerance: 1e-5))
      cases.append(KernelCase("log_softmax \(columns)", LogSoftmax(axis: -1), [x], tolerance: 1e-5))
      for group in [32, 64, 128] {
        cases.append(KernelCase("quantize \(columns) g\(group)", Quantize(.a8(group)), [x], tolerance: 0))
      }
      cases.append(
        KernelCase(
          "quantize T \(columns)", Quantize(.a8(32)), [x], types: [symbolic(x.type)], symbols: ["T": 3], tolerance: 0))
      for function in Reduce.Function.allCases {
        for (axes, keep) in [([1], true), ([0], false), ([], false)] {
          cases.append(
            KernelCase(
              "reduce \(function) \(columns) \(axes)", Reduce(function, axes: axes, keepDims: keep), [x],
              tolerance: 1e-5))
        }
      }
    }
    // Orders below a vector, of several passes, with Paley matrices with and without whole vectors behind, and with rests. The
    // matrices are written out: large ones take long to compile.
    for (columns, blocks) in [
      (1, [1]), (40, [8]), (30, [2]), (64, [64]), (1024, [1024]), (96, [32]), (48, [48]), (44, [20, 24]), (144, [144]),
      (384, [384]), (28, [28]), (44, [44]), (52, [52]), (120, [60]),
    ] {
      let x = Tensor.random([3, columns], seed: 18, in: -2...2)
      let forms: [(Int?, Bool)] =
        [32, 48, 20, 44, 52, 60].contains(blocks[0])
        ? [(nil, false), (5, false), (-3, true), (nil, true)] : [(nil, false)]
      for (seed, inverse) in forms {
        // Sums in another order: some units in the last place of the largest.
        cases.append(
          KernelCase(
            "hadamard \(columns) \(blocks) \(seed ?? 0) \(inverse)",
            Hadamard(blocks: blocks, seed: seed, inverse: inverse), [x], tolerance: 2e-6))
      }
    }
    cases.append(
      KernelCase(
        "hadamard T of columns", Hadamard(blocks: [16]), [Tensor.random([4, 48], seed: 19)],
        columns: [0: (start: 2, width: 61)], tolerance: 2e-6))
    let x48 = Tensor.random([5, 48], seed: 20)
    cases.append(
      KernelCase(
        "hadamard T", Hadamard(blocks: [48], seed: 1), [x48], types: [symbolic(x48.type)], symbols: ["T": 5],
        tolerance: 2e-6))
    let zeros = Tensor(.f32, [2, 40], [Float](repeating: 0, count: 80))
    cases.append(KernelCase("quantize zeros", Quantize(.a8(32)), [zeros], tolerance: 0))
    cases.append(KernelCase("quantize zeros a4", Quantize(.a8(32), codeBits: 4), [zeros], tolerance: 0))
    for bits in Quantize.narrowCodeBits {
      for (rows, columns) in [(1, 40), (3, 64)] {
        let x = Tensor.random([rows, columns], seed: UInt64(30 + bits), in: -3...3)
        cases.append(
          KernelCase("quantize \(columns) a\(bits)", Quantize(.a8(32), codeBits: bits), [x], tolerance: 0))
      }
    }
    // Denormal scales, and the largest numbers.
    let tiny = Tensor(.f32, [1, 32], (0..<32).map { Float($0) * 0x1p-149 })
    cases.append(KernelCase("quantize denormals", Quantize(.a8(32)), [tiny], tolerance: 0))
    cases.append(KernelCase("quantize denormals a4", Quantize(.a8(32), codeBits: 4), [tiny], tolerance: 0))
    let huge = Tensor(.f32, [1, 32], (0..<32).map { Float($0 - 16) / 16 * Float.greatestFiniteMagnitude })
    cases.append(KernelCase("quantize huge", Quantize(.a8(32)), [huge], tolerance: 0))
    cases.append(KernelCase("quantize huge a4", Quantize(.a8(32), codeBits: 4), [huge], tolerance: 0))
    let large = Tensor.random([2, 33], seed: 14, in: -1000...1000)
    cases.append(KernelCase("softmax large", Softmax(axis: -1), [large], tolerance: 1e-5))
    let x3 = Tensor.random([2, 5, 19], seed: 15)
    for axis in 0..<3 {
      cases.append(KernelCase("softmax axis \(axis)", Softmax(axis: axis), [x3], tolerance: 1e-5))
      cases.append(KernelCase("log_softmax axis \(axis)", LogSoftmax(axis: axis), [x3], tolerance: 1e-5))
      cases.append(KernelCase("mean axis \(axis)", Reduce(.mean, axes: [axis]), [x3], tolerance: 1e-5))
    }
    cases.append(KernelCase("mean of axes 1, 2", Reduce(.mean, axes: [1, 2], keepDims: true), [x3], tolerance: 1e-5))
    let infinite = Tensor(.f32, [1, 4], [.nan, 1, -.infinity, 3] as [Float])
    cases.append(KernelCase("max of nan", Reduce(.max, axes: [1]), [infinite], tolerance: 0))
    cases.append(
      KernelCase(
        "rms_norm of columns", RMSNorm(epsilon: 1e-6),
        [Tensor.random([4, 20], seed: 16), Tensor.random([20], seed: 17)],
        columns: [0: (start: 3, width: 31)], tolerance: 1e-5))
    cases.append(
      KernelCase(
        "rms_norm bf16", RMSNorm(epsilon: 1e-6),
        [Tensor.random([4, 20], seed: 16), try random(.bf16, [20], seed: 17)],
        tolerance: 1e-5))
    return cases
  }

  @Test(arguments: targets) func rowKernels(_ target: String) throws { try check(try rows(), on: target) }
}
