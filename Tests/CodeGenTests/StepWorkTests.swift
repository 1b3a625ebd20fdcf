import Base
import CodeGen
import IR
import Tensors
import Testing

/// What steps have to move and to compute, against counts made by hand.
@Suite struct StepWorkTests {
  private let t = Symbol("T", in: 1...128)

  @Test func polynomialsAddMultiplyAndGoThroughJSON() throws {
    let size = SizePolynomial(size: .symbol(t) * 3 + .fixed(2))
    let square = size * size
    #expect(square.value(["T": 5]) == 17 * 17)
    #expect((square + SizePolynomial(4)).value(["T": 0]) == 8)
    // A floor division counts as an exact one.
    #expect(SizePolynomial(size: (.symbol(t) + .fixed(1)) / 2).value(["T": 4]) == 2.5)
    for polynomial in [square, SizePolynomial(), SizePolynomial(0.5), SizePolynomial(symbol: "position") * size] {
      let text = polynomial.json.text()
      let read = try #require(SizePolynomial(try JSON.parse(Array(text.utf8), file: "work")))
      for value in [0.0, 1, 7] {
        #expect(read.value(["T": value, "position": 3]) == polynomial.value(["T": value, "position": 3]), "\(text)")
      }
    }
    #expect(SizePolynomial(.string("x")) == nil)
    #expect(SizePolynomial(["T": "x"]) == nil)
  }

  private func work(
    _ op: any Operator, _ operands: [KernelQuery.Operand], stored: [TensorType]? = nil
  ) throws -> StepWork {
    StepWork(
      op, KernelQuery(op, operands), stored: stored ?? operands.map(\.type),
      results: try op.inferTypes(operands.map(\.operationType)))
  }

  @Test func productsCountEveryWeightOncePerToken() throws {
    let x = TensorType(.f32, Shape([.symbol(t), 64]))
    let format = BlockFormat.w4(32)
    let w = TensorType(.f32, [96, 64], encoding: .block(format))
    let weight = KernelQuery.Operand(w, isConstant: true, dequantized: .f32)
    let float = try work(MatMul(transposeB: true), [.init(x), weight])
    #expect(float.arithmetic == .float)
    #expect(float.operations.value(["T": 7]) == Double(2 * 7 * 96 * 64))
    #expect(float.weightBytes.value(["T": 7]) == Double(96 * 2 * 18))
    #expect(float.otherBytes.value(["T": 7]) == Double(7 * 4 * (64 + 96)))
    let packed = TensorType(.f32, x.shape, encoding: .packed(ActivationLayout(depth: 64, group: 32).packed))
    let bytes = try work(MatMul(transposeB: true), [.init(packed, dequantized: .f32), weight])
    #expect(bytes.arithmetic == .nibble)
    #expect(bytes.operations == float.operations)
    let rounding = [Chained.Link(Quantize(.a8(32)), operands: 0), Chained.Link(Dequantize(.f32), operands: 0)]
    let chained = try work(Chained(before: rounding, operation: MatMul(transposeB: true)), [.init(x), weight])
    #expect(chained.arithmetic == .nibble && chained.operations == float.operations)
    let gated = MatMul(transposeB: true, epilogue: Epilogue(activation: .silu, gated: true))
    #expect(try work(gated, [.init(x), weight]).operations == float.operations)
  }

  @Test func recurrentStepsMultiplyWithAllWeights() throws {
    let gates = TensorType(.f32, Shape([.symbol(t), 2, 3 * 16])), state = TensorType(.f32, [2, 16])
    let tanh = ScalarExpression.unary(.tanh, .input(0))
    let steps = try work(
      Recurrence(.gru, activations: [tanh, tanh]),
      [.init(gates), .init(TensorType(.f32, [16, 48]), isConstant: true), .init(state)])
    #expect(steps.operations.value(["T": 5]) == Double(2 * 5 * 2 * 48 * 16))
  }

  @Test func attentionReadsTheRowsBeforeIt() throws {
    let q = TensorType(.f32, Shape([.symbol(t), 64])), cache = TensorType(.f16, [512, 32])
    let position = TensorType(.i32, [1])
    let op = Attention(heads: 8, kvHeads: 4, scale: 1)
    let decoded = try work(op, [.init(q), .init(cache), .init(cache), .init(position)])
    // One token behind 100: 101 keys, for each 64 products and 64 sums of scores and of values.
    #expect(decoded.operations.value(["T": 1, "position": 100]) == Double(101 * 64 * 4))
    let bytes = Double(2 * 101 * 32 * 2 + 2 * 64 * 4 + 4)
    #expect(decoded.bytes.value(["T": 1, "position": 100]) == bytes)
    let window = Attention(heads: 8, kvHeads: 4, scale: 1, window: 16)
    let cut = try work(window, [.init(q), .init(cache), .init(cache), .init(position)])
    #expect(cut.operations.value(["T": 1, "position": 100]) == Double(16 * 64 * 4))
  }

  @Test func convolutionsCountFiltersAndTablesTheirRows() throws {
    let x = TensorType(.f32, [1, 9, 9, 8]), w = TensorType(.f32, [16, 4, 3, 3])
    let conv = Conv2D(strides: [2, 2], padding: [1, 1, 1, 1], groups: 2, layout: .last)
    let found = try work(conv, [.init(x), .init(w, isConstant: true)])
    #expect(found.operations.value([:]) == Double(5 * 5 * 16 * 4 * 3 * 3 * 2))
    let table = TensorType(.f32, [1000, 64]), ids = TensorType(.i32, Shape([.symbol(t)]))
    let gathered = try work(Gather(), [.init(table, isConstant: true), .init(ids)])
    #expect(gathered.weightBytes.value(["T": 3]) == Double(3 * 64 * 4))
  }
}
