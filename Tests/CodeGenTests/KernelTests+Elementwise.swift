import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Chains of functions of single elements, and casts.
extension KernelTests {
  func elementwise() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let special: [Float] = [
      0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, -3, 10, -10, 88, -88, 100, -100, 1e-10, -1e-10, 1e10, -1e10,
      .infinity,
      -.infinity, .nan, 1e-40, 0.62, 0.63, 0.93, 0.94, 3.9, 4,
    ]
    var generator = SplitMix64(seed: 41)
    let x = Tensor(.f32, [1031], special + generator.floats(1000, in: -6...6))
    let positive = Tensor(.f32, [1031], (special + generator.floats(1000, in: 0...6)).map(abs))
    for function in UnaryFunction.allCases where function != .not {
      let op = FusedElementwise(.unary(function, .input(0)))
      let isRoot = [.sqrt, .rsqrt, .log].contains(function)
      cases.append(KernelCase("\(function)", op, [isRoot ? positive : x], tolerance: 4e-7))
    }
    let y = Tensor(.f32, [1031], special.reversed() + generator.floats(1000, in: -2...2))
    for function in BinaryFunction.allCases where function != .and && function != .or && function != .power {
      cases.append(
        KernelCase("\(function)", FusedElementwise(.binary(function, .input(0), .input(1))), [x, y], tolerance: 1e-6))
    }
    cases.append(
      KernelCase(
        "power", FusedElementwise(.binary(.power, .input(0), .input(1))),
        [
          Tensor.random([50], seed: 42, in: 0...4), Tensor.random([50], seed: 43, in: -2...2),
        ], tolerance: 1e-6))
    let (a, b, c) = (
      Tensor.random([3, 5, 37], seed: 44), Tensor.random([5, 1], seed: 45), Tensor.random([37], seed: 46)
    )
    cases.append(
      KernelCase(
        "broadcast",
        FusedElementwise(.binary(.add, .unary(.silu, .input(0)), .binary(.multiply, .input(1), .input(2)))), [a, b, c],
        tolerance: 1e-6))
    cases.append(
      KernelCase(
        "broadcast T", Add(), [a, b],
        types: [symbolic(a.type), b.type], symbols: ["T": 3], tolerance: 1e-6))
    cases.append(KernelCase("scalar", Multiply(), [a, Tensor(.f32, [], [2.5] as [Float])], tolerance: 0))
    cases.append(KernelCase("clip", Clip(minimum: -1, maximum: 2), [x], tolerance: 0))
    cases.append(KernelCase("leaky_relu", LeakyReLU(slope: 0.1), [x], tolerance: 1e-7))
    let truth = Tensor(.bool, [1031], (0..<1031).map { UInt8($0 % 3 == 0 ? 1 : 0) })
    cases.append(KernelCase("select", Select(), [truth, x, y], tolerance: 0))
    cases.append(KernelCase("not", Not(), [truth], tolerance: 0))
    cases.append(
      KernelCase("and", And(), [truth, Tensor(.bool, [1031], (0..<1031).map { UInt8($0 % 2) })], tolerance: 0))
    for element in [DType.f16, .bf16] {
      cases.append(
        KernelCase(
          "add \(element)", Add(), [try random(element, [45], seed: 47), try random(element, [45], seed: 48)],
          tolerance: 0))
    }
    for type in [DType.f32, .f16, .bf16, .f64, .i64, .i32, .i16, .i8, .u8, .bool] {
      cases.append(KernelCase("cast to \(type)", Cast(type), [x], tolerance: 0))
    }
    let whole = Tensor(.i64, [9], [-300, -129, -1, 0, 1, 127, 255, 70000, 5_000_000_000] as [Int64])
    for type in [DType.f32, .i32, .i8, .u8, .bool, .f64] {
      cases.append(KernelCase("cast from i64 to \(type)", Cast(type), [whole], tolerance: 0))
    }
    let other = Tensor(.i64, [9], [7, 3, 2, 5, -1, 10, -16, 3, 9] as [Int64])
    for function in [BinaryFunction.add, .subtract, .multiply, .divide, .minimum, .maximum, .less, .equal, .modulo] {
      cases.append(
        KernelCase(
          "i64 \(function)", FusedElementwise(.binary(function, .input(0), .input(1))), [whole, other], tolerance: 0))
    }
    // Where an instruction would stop the program.
    let dividends = Tensor(.i64, [6], [7, -7, 0, .min, .min, .max] as [Int64])
    let divisors = Tensor(.i64, [6], [0, 0, 0, -1, 0, -1] as [Int64])
    let quotients: [(any Operator, [Int64])] = [
      (Divide(), [0, 0, 0, .min, 0, -.max]), (Modulo(), [0, 0, 0, 0, 0, 0]),
    ]
    for (op, expected) in quotients {
      let known = KernelCase("\(op)", op, [dividends, divisors], tolerance: 0)
      #expect(try known.expected().array(of: Int64.self) == expected)
      cases.append(known)
    }
    for number in [-1, 0, 3] as [Float] {
      let op = FusedElementwise(.binary(.divide, .input(0), .number(number)))
      cases.append(KernelCase("i64 / \(number)", op, [dividends], tolerance: 0))
    }
    return cases
  }

  @Test(arguments: targets) func elementwiseKernels(_ target: String) throws {
    try check(try elementwise(), on: target)
  }
}
