import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Kernels that normalise and round their input themselves.
@Suite struct ChainedTests {
  /// Products for one token. Without a norm the codes are those of the reference, so that only the order of sums
  /// differs: 1e-5. With one, numbers differ by rounding, and a code may fall on the other side of a tie: 1/127 of one
  /// factor in a sum of some ten, 5e-3.
  private func products() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (k, format) in [(100, BlockFormat.w4(32)), (64, .w8c), (160, BlockFormat(bits: 3, group: 64, scale: .f16))] {
      let n = 34
      let w = try Tensor.random([n, k], seed: 1).quantized(format)
      let (x, gain, bias) = (Tensor.random([1, k], seed: 2), Tensor.random([k], seed: 3), Tensor.random([k], seed: 4))
      let residual = Tensor.random([1, n], seed: 5)
      let rounding = [
        Chained.Link(Quantize(.a8(format.group ?? 32)), operands: 0), Chained.Link(Dequantize(), operands: 0),
      ]
      let op = MatMul(transposeB: true, epilogue: Epilogue(residual: .afterActivation))
      let gated = MatMul(transposeB: true, epilogue: Epilogue(activation: .silu, gated: true))
      cases += [
        KernelCase(
          "rounding \(format.name)", Chained(before: rounding, operation: op), [x, w, residual], constants: [1],
          dequantized: [1], tolerance: 1e-5),
        KernelCase(
          "rms \(format.name)",
          Chained(before: [Chained.Link(RMSNorm(epsilon: 1e-5), operands: 1)] + rounding, operation: op),
          [x, w, residual, gain], constants: [1, 3], dequantized: [1], tolerance: 5e-3),
        KernelCase(
          "layer gated \(format.name)",
          Chained(before: [Chained.Link(LayerNorm(epsilon: 1e-5), operands: 2)] + rounding, operation: gated),
          [x, w, gain, bias], constants: [1, 2, 3], dequantized: [1], tolerance: 5e-3),
      ]
      // Fewer codes, of the very numbers.
      let narrow = [
        Chained.Link(Quantize(.a8(format.group ?? 32), codeBits: 4), operands: 0),
        Chained.Link(Dequantize(), operands: 0),
      ]
      cases.append(
        KernelCase(
          "rounding to a4 \(format.name)", Chained(before: narrow, operation: op), [x, w, residual], constants: [1],
          dequantized: [1], tolerance: 1e-5))
      // Rotated numbers differ by rounding as well.
      let rotation = Chained.Link(Hadamard(blocks: k == 100 ? [20, 80] : [k], seed: 9), operands: 0)
      cases += [
        KernelCase(
          "rotation \(format.name)", Chained(before: [rotation] + rounding, operation: op), [x, w, residual],
          constants: [1], dequantized: [1], tolerance: 5e-3),
        KernelCase(
          "rms rotation \(format.name)",
          Chained(before: [Chained.Link(RMSNorm(epsilon: 1e-5), operands: 1), rotation] + rounding, operation: op),
          [x, w, residual, gain], constants: [1, 3], dequantized: [1], tolerance: 5e-3),
      ]
    }
    return cases
  }

  /// Norms before the rounding: numbers 1 and 7 of any sign, half of each, have the root mean square 5, so that the
  /// scale is the same in every order of summation, and codes, scales and sums must be equal.
  private func roundings() throws -> [KernelCase] {
    var cases: [KernelCase] = []
    for (t, k) in [(1, 64), (3, 100), (5, 36)] {
      var signs = SplitMix64(seed: 7)
      let noise = signs.floats(t * k, in: -1...1)
      let x = Tensor(.f32, [t, k], (0..<(t * k)).map { ($0 % 2 == 0 ? 1 : 7) * (noise[$0] < 0 ? -1 : 1) } as [Float])
      let gain = Tensor.random([k], seed: 8)
      let op = Chained(before: [Chained.Link(RMSNorm(epsilon: 0), operands: 1)], operation: Quantize(.a8(32)))
      cases.append(KernelCase("norm \(t)x\(k)", op, [x, gain], constants: [1], tolerance: 0))
      let narrow = Chained(
        before: [Chained.Link(RMSNorm(epsilon: 0), operands: 1)], operation: Quantize(.a8(32), codeBits: 5))
      cases.append(KernelCase("norm a5 \(t)x\(k)", narrow, [x, gain], constants: [1], tolerance: 0))
      // Sums of a few small whole numbers are exact in any order, and so is their half.
      let rotation = Chained.Link(Hadamard(blocks: [4]), operands: 0)
      cases.append(
        KernelCase(
          "rotation \(t)x\(k)", Chained(before: [rotation], operation: Quantize(.a8(32))), [x], tolerance: 0))
      let symbolic = TensorType(.f32, [.symbol(Symbol("T", in: 1...64)), .fixed(k)])
      cases.append(
        KernelCase(
          "norm Tx\(k)", op, [x, gain], types: [symbolic, gain.type], constants: [1], symbols: ["T": t], tolerance: 0))
    }
    return cases
  }

  @Test(arguments: KernelTests.targets) func chains(_ name: String) throws {
    let target = try TargetRegistry.target(named: name)
    let runs = try (products() + roundings()).flatMap { try $0.runs(on: target) }
    for failure in try KernelHarness(target: target).failures(runs) { Issue.record("\(name): \(failure)") }
  }

  /// x + W round(norm(x)), with one row or some.
  private func model(rows: Dim, rotates: Bool = false) throws -> Model {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [rows, 64]))
    let gain = builder.constant(
      Constant(name: "g", type: TensorType(.f32, [64]), source: .random(seed: 1, deviation: 1 as Double)))
    let weight = builder.constant(
      Constant(name: "w", type: TensorType(.f32, [64, 64]), source: .random(seed: 3, deviation: 1 as Double)))
    var norm = try builder.emit(RMSNorm(epsilon: 1e-5), x, gain)
    if rotates { norm = try builder.emit(Hadamard(blocks: [64]), norm) }
    let rounded = try builder.emit(Dequantize(), try builder.emit(Quantize(.a8(32)), norm))
    let factor = try builder.emit(Dequantize(), try builder.emit(Quantize(.w4(32)), weight))
    builder.output(
      "y",
      try builder.emit(MatMul(transposeB: true, epilogue: Epilogue(residual: .afterActivation)), rounded, factor, x))
    var model = Model(name: "chain", stage: .transform)
    model.functions = [builder.graph]
    model.constants = builder.constants
    return model
  }

  @Test func oneTokenDoesAllInOneKernel() throws {
    func operations(_ rows: Dim, rotates: Bool = false) throws -> [String] {
      var model = try model(rows: rows, rotates: rotates)
      var context = PassContext()
      try CodeGenerator(target: .portable).lower(&model, &context)
      #expect(try Parser.parse(Printer.print(model), operators: .core.adding(LoweringRegistry.operators)) == model)
      let graph = model.functions[0]
      return graph.topologicalOrder().compactMap { (graph[$0].op as? KernelCall)?.operation.op }.map { op in
        (op as? Chained).map { "\($0.before.map(\.operation.op.name).joined(separator: " ")) \($0.operation.op.name)" }
          ?? op.name
      }
    }
    #expect(try operations(1) == ["rms_norm quantize dequantize matmul"])
    #expect(try operations(1, rotates: true) == ["rms_norm hadamard quantize dequantize matmul"])
    #expect(try operations(4, rotates: true) == ["rms_norm hadamard quantize", "matmul"])
    #expect(try operations(4) == ["rms_norm quantize", "matmul"])
  }
}
