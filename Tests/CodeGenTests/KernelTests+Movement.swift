import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Kernels that move elements: gather, transpose, slice, concatenate, pad.
extension KernelTests {
  func movement() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    let indices = Tensor(.i32, [4], [3, 0, -1, 17] as [Int32])
    let many = Tensor(.i64, [2, 2], [3, 0, 1, 17] as [Int64])
    for columns in [5, 33, 64, 1100] {
      for element in [DType.f32, .f16, .bf16] {
        let table = try random(element, [18, columns], seed: 51)
        for constant in [true, false] {
          cases.append(
            KernelCase(
              "gather \(element) \(columns)", Gather(axis: 0, type: .f32), [table, indices],
              types: [table.type, symbolic(indices.type)], constants: constant ? [0] : [], symbols: ["T": 4],
              tolerance: 0))
        }
        cases.append(KernelCase("gather \(element) i64 \(columns)", Gather(axis: 0), [table, many], tolerance: 0))
      }
      for format in [BlockFormat.w8c, .w8(32), .w4(32), .w4(128)] + narrowFormats {
        let table = try Tensor.random([18, columns], seed: 52).quantized(format)
        cases.append(
          KernelCase(
            "gather \(format.name) \(columns)", Gather(axis: 0), [table, indices], constants: [0], tolerance: 1e-7))
      }
    }
    let x = Tensor.random([3, 4, 5], seed: 53)
    cases.append(
      KernelCase("gather axis 1", Gather(axis: 1), [x, Tensor(.i32, [2], [2, 0] as [Int32])], tolerance: 0))
    for permutation in [[0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 0, 2]] {
      cases.append(KernelCase("transpose \(permutation)", Transpose(permutation), [x], tolerance: 0))
      cases.append(
        KernelCase(
          "transpose T \(permutation)", Transpose(permutation), [x], types: [symbolic(x.type)], symbols: ["T": 3],
          tolerance: 0))
    }
    for axis in 0..<3 {
      cases.append(KernelCase("slice \(axis)", Slice(axis: axis, start: 1, size: 2), [x], tolerance: 0))
      cases.append(KernelCase("slice \(axis) by 2", Slice(axis: axis, start: 0, size: 2, step: 2), [x], tolerance: 0))
      cases.append(KernelCase("concat \(axis)", Concat(axis: axis), [x, x, x], tolerance: 0))
    }
    let size = Dim.symbol(Symbol("T", in: 1...64))
    for dim in [Dim.fixed(19), size] {
      cases.append(KernelCase("iota \(dim)", Iota(dim), [], symbols: ["T": 5], tolerance: 0))
      cases.append(KernelCase("sizes \(dim)", Sizes([3, dim, dim + 1]), [], symbols: ["T": 5], tolerance: 0))
    }
    cases.append(
      KernelCase(
        "gather of T rows", Gather(axis: 1), [x, Tensor(.i64, [3], [1, -1, -4] as [Int64])],
        types: [TensorType(.f32, [3, .symbol(Symbol("T", in: 1...64)), 5]), TensorType(.i64, [3])],
        symbols: ["T": 4], tolerance: 0))
    let last = Slice(axis: 0, start: .symbol(Symbol("T", in: 1...64)) - 1, size: 1)
    cases.append(
      KernelCase("slice the last row", last.substituting { _ in 3 }, [x], types: [x.type], tolerance: 0))
    cases.append(KernelCase("interleave", Interleave(), [x, x], tolerance: 0))
    cases.append(KernelCase("expand", Expand([2, 3, 4, 5]), [x], tolerance: 0))
    cases.append(KernelCase("expand 1", Expand([3, 4, 6]), [Tensor.random([4, 1], seed: 54)], tolerance: 0))
    cases.append(KernelCase("pad", Pad(before: [1, 0, 2], after: [0, 3, 1], value: 7), [x], tolerance: 0))
    cases.append(
      KernelCase(
        "pad T", Pad(before: [1, 0, 2], after: [0, 3, 1]), [x], types: [symbolic(x.type)], symbols: ["T": 3],
        tolerance: 0))
    for element in [DType.f16, .i64, .u8] {
      cases.append(
        KernelCase(
          "transpose \(element)", Transpose([1, 0]), [try random(element, [7, 9], seed: 55, in: 0...100)], tolerance: 0)
      )
    }
    return cases
  }

  @Test(arguments: targets) func movementKernels(_ target: String) throws { try check(try movement(), on: target) }
}
