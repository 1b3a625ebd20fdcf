import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

extension KernelTests {
  /// States in the middle of a text: numbers, what rows received, and where they were.
  private func boundedStates(
    _ heads: Int, _ rows: Int, _ depth: Int, _ valueDepth: Int, position: Int, _ element: DType
  ) throws -> [Tensor] {
    var generator = SplitMix64(seed: UInt64(rows + position))
    let received = (0..<heads * 2 * rows).map { index -> Float in
      let isPosition = index / rows % 2 == 1
      return isPosition ? Float(generator.int(below: max(1, position))) : Float(generator.uniform() * 3)
    }
    return [
      try random(element, [heads, rows, depth], seed: 21), try random(element, [heads, rows, valueDepth], seed: 22),
      Tensor(.f32, [heads, 2, rows], received),
    ]
  }

  /// Sums of up to 130 products in another order, an exponential approximated to 1e-7: 1e-5 of the largest. Rows that are
  /// kept are copies, rounded as a conversion does.
  func boundedAttention() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (heads, kvHeads, depth, valueDepth, rows, sinks, recent, tokens, position, element, cap) in [
      (4, 2, 32, 32, 64, 4, 8, 1, 200, .f32, nil), (4, 2, 32, 32, 64, 4, 8, 40, 0, .f16, nil),
      (6, 2, 20, 12, 37, 4, 8, 50, 0, .f32, nil), (3, 1, 5, 7, 9, 0, 1, 30, 3, .f32, 2),
      (1, 1, 130, 130, 40, 2, 32, 9, 1000, .f32, nil), (2, 2, 8, 8, 36, 4, 32, 5, 34, .f16, nil),
      (8, 8, 64, 64, 100, 4, 32, 3, 99, .bf16, nil), (2, 1, 16, 16, 1, 0, 1, 3, 0, .f32, nil),
      (2, 2, 1, 1, 70, 3, 5, 33, 60, .f32, 5),
    ] as [(Int, Int, Int, Int, Int, Int, Int, Int, Int, DType, Float?)] {
      let inputs =
        try boundedStates(kvHeads, rows, depth, valueDepth, position: position, element)
        + [
          Tensor.random([tokens, heads * depth], seed: 1), Tensor.random([tokens, kvHeads * depth], seed: 2),
          Tensor.random([tokens, kvHeads * valueDepth], seed: 3), Tensor(.i32, [1], [Int32(position)]),
        ]
      let op = BoundedAttention(heads: heads, scale: 1.5, softcap: cap, sinks: sinks, recent: recent)
      for result in 0...3 {
        for isSymbolic in [false, true] where result == 3 || isSymbolic {
          var one = KernelCase(
            "bounded \(heads)x\(depth) \(kvHeads) of \(rows), \(tokens) at \(position), \(element), result \(result)",
            op,
            inputs, symbols: ["T": tokens], tolerance: result < 2 ? 0 : 1e-5)
          one.result = result
          if isSymbolic { for index in 3...5 { one.types[index] = symbolic(inputs[index].type) } }
          if !isSymbolic { one.columns = [3: (2, heads * depth + 5), 5: (1, kvHeads * valueDepth + 3)] }
          cases.append(one)
        }
      }
    }
    return cases
  }

  @Test(arguments: targets) func boundedAttentionKernels(_ target: String) throws {
    try check(try boundedAttention(), on: target)
  }

  /// Numbers that are none reach the results that they belong to, and nothing else happens.
  @Test func boundedAttentionTakesAnyNumbers() throws {
    let op = BoundedAttention(heads: 2, scale: 1, sinks: 1, recent: 2)
    var q = Tensor.random([30, 40], seed: 1).array(of: Float.self)
    (q[40 * 3], q[40 * 9 + 25]) = (.nan, .infinity)
    let inputs =
      try boundedStates(1, 7, 20, 20, position: 0, .f32)
      + [
        Tensor(.f32, [30, 40], q), Tensor.random([30, 20], seed: 2), Tensor.random([30, 20], seed: 3),
        Tensor(.i32, [1], [Int32(0)]),
      ]
    var cases: [KernelCase] = []
    for result in 0...3 {
      var one = KernelCase("bounded, no numbers \(result)", op, inputs, tolerance: 1e-5)
      one.result = result
      cases.append(one)
    }
    try check(cases, on: TargetRegistry.native(features: HostCPU.features()).name)
  }
}
