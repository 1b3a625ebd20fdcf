import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Formats of fewer than eight bits beside four without zero points.
let narrowFormats: [BlockFormat] = [
  BlockFormat(bits: 6, group: 32, scale: .f16), BlockFormat(bits: 5, group: 64, scale: .f16),
  BlockFormat(bits: 3, group: 32, scale: .f16), BlockFormat(bits: 2, group: 128, scale: .f16),
  BlockFormat(bits: 2, group: 32, scale: .f16, codes: .ternary),
  BlockFormat(bits: 4, group: 32, scale: .f16, codes: .zeroPoint),
  BlockFormat(bits: 4, group: 128, scale: .f16, codes: .zeroPoint),
  BlockFormat(bits: 3, group: 32, scale: .f16, codes: .zeroPoint),
  .levels(.nf4, 32), .levels(.iq4nl, 128), .levels(.nf3, 64), .mxfp4, .nvfp4(divisor: 3000),
  .float8(), .float8(64),
]

/// Products with weights in planes of bits, on every target, against the evaluator.
@Suite struct NarrowMatMulTests {
  /// One token, and a number of them that leaves every size of remainder; columns that end within a group and a word.
  ///
  /// Codes are exact; sums differ from the reference's by their order: 1e-5.
  private func products() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (n, k) in [(35, 172), (32, 256)] {
      for format in narrowFormats {
        let w = try Tensor.random([n, k], seed: UInt64(n)).quantized(format)
        for t in k == 256 ? [1] : [1, 7, 15] {
          let x = Tensor.random([t, k], seed: UInt64(50 + t))
          let a = try x.quantized(.a8(format.group ?? 32))
          for (label, input, dequantized) in [("a32", x, Set([1])), ("a8", a, [0, 1])]
          where label == "a32" || format.codes != .float8 {
            var type = input.type
            type.shape.dims[0] = .symbol(Symbol("T", in: 1...64))
            cases.append(
              KernelCase(
                "\(format.name) \(t)x\(k)x\(n) \(label)", MatMul(transposeB: true), [input, w],
                types: t == 1 ? nil : [type, w.type], constants: [1], dequantized: dequantized,
                symbols: ["T": t], tolerance: 1e-5))
          }
        }
      }
    }
    return cases
  }

  /// The largest codes of both sides in all places, where 16-bit sums of too many products would saturate.
  private func extremes() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let (n, k) = (35, 256)
    for format in narrowFormats + [.w4(32)] where format.codes != .float8 {
      for (label, high, low) in [("+", Float(1), Float(1)), ("-", 1, -1), ("mixed", -1, 1)] {
        // One number of the other sign makes the rest the largest code above the middle.
        let weights = (0..<(n * k)).map { index -> Float in index % 32 == 0 ? -1.125 * high : high }
        let w = try Tensor(.f32, [n, k], weights).quantized(format)
        let x = Tensor(.f32, [3, k], (0..<(3 * k)).map { $0 % 3 == 0 ? low : 1 } as [Float])
        let a = try x.quantized(.a8(format.group ?? 32))
        cases.append(
          KernelCase(
            "extreme \(format.name) \(label)", MatMul(transposeB: true), [a, w], constants: [1], dequantized: [0, 1],
            tolerance: 1e-5))
      }
    }
    return cases
  }

  @Test(arguments: KernelTests.targets) func narrowProducts(_ name: String) throws {
    let target = try TargetRegistry.target(named: name)
    let runs = try (products() + extremes()).flatMap { try $0.runs(on: target) }
    for failure in try KernelHarness(target: target).failures(runs) { Issue.record("\(name): \(failure)") }
  }
}
