import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// The kernels of recurrent and sparse networks on every target, against the reference meaning of the operators.
@Suite struct SequenceKernelTests {
  private func ids(_ sizes: [Int], below limit: Int, seed: UInt64) -> Tensor {
    var generator = SplitMix64(seed: seed)
    return Tensor(.i32, sizes, (0..<sizes.reduce(1, *)).map { _ in Int32(generator.int(below: limit)) })
  }

  private func position(_ value: Int32) -> Tensor { Tensor(.i32, [1], [value]) }

  private static let length = Symbol("T", in: 1...64)

  /// The types of a query whose named operands have T rows.
  private func symbolic(_ inputs: [Tensor], _ operands: [Int]) -> [TensorType] {
    inputs.enumerated().map { index, tensor in
      var type = tensor.type
      if operands.contains(index) { type.shape[0] = .symbol(Self.length) }
      return type
    }
  }

  /// Copies: exact.
  func biases() -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, width, before, rows, columns, start) in [
      (2, 13, 6, 4, 7, nil), (3, 9, 4, 1, 12, 5), (1, 70, 66, 3, 67, 60), (2, 1, 0, 2, 5, 1),
    ] as [(Int, Int, Int, Int, Int, Int32?)] {
      let inputs = [Tensor.random([heads, width], seed: 1)] + (start.map { [position($0)] } ?? [])
      cases.append(
        KernelCase(
          "bias \(heads)x\(width)", RelativeBias(rows: .fixed(rows), columns: .fixed(columns), before: before), inputs,
          tolerance: 0))
      let op = RelativeBias(rows: .symbol(Self.length), columns: .fixed(columns), before: before)
      cases.append(
        KernelCase("bias \(heads)x\(width) T", op, inputs, symbols: ["T": rows], tolerance: 0))
    }
    return cases
  }

  /// A few products per result, an exponential approximated to 1e-7 in the recurrence: 1e-5 of the largest.
  func scans() -> [KernelCase] {
    var cases: [KernelCase] = []
    for (taps, width, tokens, start, biased) in [
      (4, 5, 7, 3, true), (4, 37, 2, 0, false), (2, 1, 1, 9, true), (3, 64, 1, 0, true), (5, 17, 3, 1, false),
    ] as [(Int, Int, Int, Int32, Bool)] {
      let inputs =
        [
          Tensor.random([taps - 1, width], seed: 1), Tensor.random([tokens, width], seed: 2),
          Tensor.random([taps, width], seed: 3),
          position(start),
        ] + (biased ? [Tensor.random([width], seed: 4)] : [])
      let op = CausalConv(activation: biased ? .silu : .none)
      for result in 0...1 {
        for types in [nil, symbolic(inputs, [1])] {
          var one = KernelCase(
            "conv \(taps)x\(width)x\(tokens) \(result)", op, inputs, types: types, symbols: ["T": tokens],
            tolerance: 1e-5)
          one.result = result
          cases.append(one)
        }
      }
    }
    for (width, size, tokens, start) in [(3, 16, 5, 4), (5, 3, 4, 0), (1, 1, 1, 2), (7, 150, 3, 1)]
      as [(Int, Int, Int, Int32)]
    {
      let inputs = [
        Tensor.random([width, size], seed: 1), Tensor.random([tokens, width], seed: 2),
        Tensor.random([tokens, width], seed: 3, in: 0...1),
        Tensor.random([width, size], seed: 4, in: -4...0), Tensor.random([tokens, size], seed: 5),
        Tensor.random([tokens, size], seed: 6),
        Tensor.random([width], seed: 7), position(start),
      ]
      for result in 0...1 {
        for types in [nil, symbolic(inputs, [1, 2, 4, 5])] {
          var one = KernelCase(
            "scan \(width)x\(size)x\(tokens) \(result)", SelectiveScan(), inputs, types: types,
            symbols: ["T": tokens], tolerance: 1e-5)
          one.result = result
          if types == nil { one.columns = [1: (2, width + 5), 4: (1, 2 * size + 3)] }
          cases.append(one)
        }
      }
    }
    return cases
  }

  /// Ids are exact; weights come from exponentials approximated to 1e-7.
  func routes() -> [KernelCase] {
    var cases: [KernelCase] = []
    let operators = [
      (8, Route(count: 2, normalizes: true), false), (5, Route(count: 3, normalizes: false, scale: 2.5), false),
      (12, Route(count: 3, normalizes: false, groups: 4, chosenGroups: 2), true),
      (
        36,
        Route(
          count: 5, scoring: .sigmoid, normalizes: true, scale: 2.5, groups: 4, chosenGroups: 2, groupScore: .twoBest),
        true
      ),
      (1, Route(count: 1, normalizes: true), false),
    ]
    for (experts, op, biased) in operators {
      for tokens in [1, 6] {
        let inputs =
          [Tensor.random([tokens, experts], seed: UInt64(experts), in: -3...3)]
          + (biased ? [Tensor.random([experts], seed: 8)] : [])
        for result in 0...1 {
          var one = KernelCase(
            "route \(op.count) of \(experts) for \(tokens), \(result)", op, inputs,
            types: tokens == 1 ? nil : symbolic(inputs, [0]), symbols: ["T": tokens],
            tolerance: result == 0 ? 0 : 1e-6)
          one.result = result
          cases.append(one)
        }
      }
    }
    return cases
  }

  /// As for matmul: sums of up to 100 products in another order, 1e-5 of the largest result.
  func experts() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (tokens, slots, count, n, k) in [(1, 2, 4, 17, 40), (9, 3, 5, 34, 33), (11, 1, 2, 70, 100), (1, 1, 1, 2, 1)] {
      for (gated, summed) in [(false, false), (true, false), (false, true)] where !gated || n % 2 == 0 {
        for element in [DType.f32, .bf16, .f16] {
          let dense = Tensor.random([count, n, k], seed: 2)
          let w = Tensor(TensorType(element, [count, n, k]))
          try Cast(element).evaluate([dense.view], into: [w.mutableView])
          cases.append(expert(w, tokens, slots, k, gated, summed, "\(element)"))
        }
        for format in [BlockFormat.w8c, .w8(32), .w4(32)] where k > 1 {
          let op = Quantize(format)
          let dense = Tensor.random([count, n, k], seed: 3)
          let w = Tensor(try op.inferTypes([dense.type])[0])
          try op.evaluate([dense.view], into: [w.mutableView])
          cases.append(expert(w, tokens, slots, k, gated, summed, format.name))
          let x = Tensor.random(summed ? [tokens, slots, k] : [tokens, k], seed: 5)
          let rounding = Quantize(.a8(32))
          let a = Tensor(try rounding.inferTypes([x.type])[0])
          try rounding.evaluate([x.view], into: [a.mutableView])
          cases.append(expert(w, tokens, slots, k, gated, summed, "\(format.name) a8", rounded: a))
        }
      }
    }
    return cases
  }

  private func expert(
    _ w: Tensor, _ tokens: Int, _ slots: Int, _ k: Int, _ gated: Bool, _ summed: Bool, _ label: String,
    rounded: Tensor? = nil
  ) -> KernelCase {
    let x = rounded ?? Tensor.random(summed ? [tokens, slots, k] : [tokens, k], seed: 4)
    let chosen = ids([tokens, slots], below: w.view.sizes[0], seed: UInt64(tokens * 7 + slots))
    let inputs = [x, w, chosen] + (summed ? [Tensor.random([tokens, slots], seed: 6, in: 0...1)] : [])
    return KernelCase(
      "experts \(label) \(tokens)x\(slots) \(gated ? "gated" : "")\(summed ? "summed" : "")",
      ExpertMatMul(activation: gated ? .silu : .none, gated: gated), inputs,
      types: tokens == 1 ? nil : symbolic(inputs, [0, 2, 3]), constants: [1],
      dequantized: w.type.isDense ? [] : (rounded == nil ? [1] : [0, 1]), symbols: ["T": tokens], tolerance: 1e-5)
  }

  @Test(arguments: KernelTests.targets) func relativeBiases(_ target: String) throws {
    try KernelHarness.check(biases(), on: target)
  }

  @Test(arguments: KernelTests.targets) func statefulKernels(_ target: String) throws {
    try KernelHarness.check(scans(), on: target)
  }

  @Test(arguments: KernelTests.targets) func routingKernels(_ target: String) throws {
    try KernelHarness.check(routes(), on: target)
  }

  @Test(arguments: KernelTests.targets) func expertKernels(_ target: String) throws {
    try KernelHarness.check(try experts(), on: target)
  }
}
