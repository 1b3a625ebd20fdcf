import Base
import IR
import Tensors
import TestSupport
import Testing

private let t = Symbol("T", in: 1...128)
private let l = Symbol("L", in: 1...128)
private let dimT = Dim.symbol(t)
private let dimL = Dim.symbol(l)

private func f32(_ dims: Dim...) -> TensorType { TensorType(.f32, Shape(dims)) }
private func typed(_ element: DType, _ dims: Dim...) -> TensorType { TensorType(element, Shape(dims)) }
private let position = TensorType(.i32, [1] as Shape)

/// What an operator says about inputs that it does not take.
private struct Rejection: Sendable, CustomTestStringConvertible {
  var op: any Operator
  var inputs: [TensorType]
  var message: String
  init(_ op: any Operator, _ inputs: [TensorType], _ message: String) {
    (self.op, self.inputs, self.message) = (op, inputs, message)
  }
  var testDescription: String { "\(op.name): \(message)" }
}

private let w8c = TensorType(.f32, [4, 18], encoding: .block(.w8c))
private let conv3x3 = QuantizedConv2D(Conv2D(), kernel: [3, 3], input: AffineCode(scale: 1, zeroPoint: 0))

private let rejections: [Rejection] = [
  Rejection(QuantizeLinear(), [typed(.f16, 2)], "expected f32 elements"),
  Rejection(QuantizeLinear(AffineCode(scale: -1)), [f32(2)], "found scale -1.0 and zero point 0"),
  Rejection(QuantizeLinear(AffineCode(scale: 1, zeroPoint: 256)), [f32(2)], "zero point 256"),
  Rejection(DequantizeLinear(), [typed(.i8, 2)], "expected u8 elements"),
  Rejection(DequantizeLinear(AffineCode(scale: .nan)), [typed(.u8, 2)], "found scale nan"),
  Rejection(conv3x3, [f32(1, 2, 5, 5), w8c], "found image of element type f32, expected u8"),
  Rejection(conv3x3, [typed(.u8, 1, 2, 5, 5), f32(4, 18)], "expected rows of q8f32row"),
  Rejection(conv3x3, [typed(.u8, 1, 3, 5, 5), w8c], "do not fit windows of [3, 3] over 3 channels in 1 groups"),
  Rejection(conv3x3, [typed(.u8, 1, 2, 2, 5), w8c], "height"),
  Rejection(
    QuantizedConv2D(
      Conv2D(epilogue: Epilogue(residual: .beforeActivation)), kernel: [3, 3], input: AffineCode(scale: 1),
      other: AffineCode(scale: 1)),
    [typed(.u8, 1, 2, 5, 5), w8c, f32(1, 4, 3, 3)], "expected u8[1, 4, 3, 3]"),
  Rejection(KroneckerMatMul(), [f32(2, 6), f32(2, 2), f32(2, 3)], "factors of 4 rows in all do not fit rows of 6"),
  Rejection(KroneckerMatMul(), [f32(6), f32(2, 2), f32(3, 3)], "expected rank 2 or more"),
  Rejection(KroneckerMatMul(), [f32(2, 6), f32(2), f32(3, 3)], "left factor"),
  Rejection(KroneckerMatMul(), [f32(2, 6), f32(2, 2), f32(dimT, 3)], "rows of the right factor"),
  Rejection(Hadamard(blocks: [6]), [f32(2, 6)], "no Hadamard matrix of order 6"),
  Rejection(Hadamard(blocks: [4]), [f32(2, 6)], "blocks of [4] do not divide 6 numbers"),
  Rejection(Hadamard(blocks: [8, 2]), [f32(2, 6)], "blocks of [8, 2] do not divide 6 numbers"),
  Rejection(Hadamard(blocks: []), [f32(2, 6)], "found 0 blocks"),
  Rejection(Hadamard(blocks: [-4]), [f32(2, 8)], "order -4"),
  Rejection(Hadamard(axis: 0, blocks: [2]), [f32(dimT, 6)], "expected a number"),
  Rejection(MatMul(), [f32(2, 3)], "found 1 inputs, expected 2"),
  Rejection(
    MatMul(), [f32(2, 3), f32(4, 5)],
    "left factor of shape [2, 3] has 3 columns, but right factor of shape [4, 5] has 4 rows"),
  Rejection(MatMul(transposeB: true), [f32(2, 3), f32(3, 5)], "(transposed) has 5 rows"),
  Rejection(MatMul(), [f32(3), f32(3, 4)], "found left factor of shape [3], expected rank 2 or more"),
  Rejection(MatMul(), [typed(.i32, 2, 3), f32(3, 4)], "element type i32, expected a floating-point type"),
  Rejection(MatMul(), [f32(2, 2, 3), f32(3, 3, 4)], "leading axes of shapes [2, 2, 3] and [3, 3, 4] do not broadcast"),
  Rejection(
    MatMul(transposeB: false, epilogue: Epilogue(bias: true)), [f32(2, 3), f32(3, 4), f32(3)],
    "found bias of shape [3], expected [4]"),
  Rejection(
    MatMul(transposeB: false, epilogue: Epilogue(residual: .afterActivation)), [f32(2, 3), f32(3, 4), f32(4)],
    "found residual of shape [4], expected [2, 4]"),
  Rejection(
    MatMul(transposeB: false, epilogue: Epilogue(gated: true)), [f32(2, 3), f32(3, 5)],
    "found 5 gated columns, expected an even number"),
  Rejection(
    MatMul(transposeB: false, epilogue: Epilogue(residual: .beforeActivation, gated: true)),
    [f32(2, 3), f32(3, 4), f32(2, 2)], "adds the residual after the activation"),
  Rejection(
    MatMul(), [f32(2, 32), TensorType(.f32, [32, 32], encoding: .block(.w4(32)))],
    "block<q4f16g32>, expected a dense tensor"),
  Rejection(Conv2D(), [f32(1, 3, 5, 5), f32(4, 2, 3, 3)], "does not fit an image of 3 channels"),
  Rejection(Conv2D(groups: 2), [f32(1, 4, 5, 5), f32(3, 2, 3, 3)], "3 output channels do not divide into 2 groups"),
  Rejection(Conv2D(), [f32(1, 3, 2, 5), f32(4, 3, 3, 3)], "a window of 3 does not fit into padded height 2"),
  Rejection(
    Conv2D(strides: [1]), [f32(1, 3, 5, 5), f32(4, 3, 3, 3)], "attribute 'strides' is [1], expected 2 numbers"),
  Rejection(Conv2D(strides: [0, 1]), [f32(1, 3, 5, 5), f32(4, 3, 3, 3)], "at least 1"),
  Rejection(Conv2D(), [f32(1, dimT, 5, 5), f32(4, 3, 3, 3)], "found channels 'T', expected a number"),
  Rejection(MaxPool2D(kernel: [2, 2], padding: [2, 0, 0, 0]), [f32(1, 1, 5, 5)], "without a pixel"),
  Rejection(MaxPool2D(kernel: [2, 2]), [f32(1, 5, 5)], "has rank 3, expected rank 4"),
  Rejection(AveragePool2D(kernel: [6, 2]), [f32(1, 1, 5, 5)], "a window of 6 does not fit into padded height 5"),
  Rejection(Reduce(.sum, axes: [2]), [f32(1, 2)], "axis 2 lies outside of shape [1, 2] of rank 2"),
  Rejection(Reduce(.sum, axes: [1, -1]), [f32(1, 2)], "axis -1 is given twice"),
  Rejection(Reduce(.mean, axes: [0]), [typed(.i32, 2)], "function 'mean' does not take elements of type i32"),
  Rejection(Softmax(axis: 3), [f32(1, 2)], "axis 3 lies outside"),
  Rejection(LogSoftmax(), [typed(.i64, 2)], "expected a floating-point type"),
  Rejection(RMSNorm(), [f32(2, 8), f32(4)], "found weight of shape [4], expected [8]"),
  Rejection(RMSNorm(epsilon: .nan), [f32(2, 8), f32(8)], "attribute 'epsilon' is nan"),
  Rejection(LayerNorm(), [f32(2, 8), f32(8), f32(4)], "found bias of shape [4], expected [8]"),
  Rejection(BatchNorm(), [f32(2, 3), f32(3), f32(3), f32(2), f32(3)], "found mean of shape [2], expected [3]"),
  Rejection(RopeTable(length: 2), [f32(1), f32(4)], "found position of type f32[1], expected i32[1]"),
  Rejection(Rope(headDim: 6), [f32(2, 8), f32(2, 2, 2)], "8 columns do not divide into heads of 6"),
  Rejection(Rope(headDim: 4), [f32(2, 8), f32(2, 2, 3)], "expected [T, 2, W] with W at most 2"),
  Rejection(Rope(headDim: 4), [f32(2, 8), f32(3, 2, 2)], "has not one row per row of [2, 8]"),
  Rejection(CacheUpdate(), [f32(4, 8), f32(5, 8), position], "5 rows do not fit into a cache of shape [4, 8]"),
  Rejection(CacheUpdate(), [f32(4, 8), f32(1, 6), position], "expected equal columns"),
  Rejection(
    Attention(heads: 3, kvHeads: 2, scale: 1), [f32(2, 6), f32(2, 4), f32(2, 4)], "3 heads do not divide into 2"),
  Rejection(
    Attention(heads: 2, kvHeads: 2, scale: 1), [f32(2, 6), f32(2, 4), f32(2, 4)], "do not fit keys of shape [2, 4]"),
  Rejection(
    Attention(heads: 2, kvHeads: 2, scale: 1), [f32(3, 4), f32(2, 4), f32(2, 4)],
    "3 causal queries need as many keys, found 2"),
  Rejection(
    Attention(heads: 2, kvHeads: 2, scale: 1, causal: false), [f32(2, 4), f32(2, 4), f32(2, 4), position],
    "a position is for causal attention"),
  Rejection(
    Attention(heads: 2, kvHeads: 2, scale: 1, causal: false), [f32(2, 4), f32(3, 4), f32(3, 4), f32(2, 2)],
    "mask of shape [2, 2] does not broadcast to [1, 2, 2, 3]"),
  Rejection(
    Attention(heads: 2, kvHeads: 2, scale: 1, causal: false, window: 4), [f32(2, 4), f32(3, 4), f32(3, 4)],
    "'window' is for causal attention"),
  Rejection(
    Attention(heads: 2, kvHeads: 2, scale: 1, softcap: 0), [f32(2, 4), f32(3, 4), f32(3, 4)], "'softcap' is 0.0"),
  Rejection(Gather(), [f32(4, 2), f32(3)], "found indices of element type f32, expected i32 or i64"),
  Rejection(Gather(type: .i8), [f32(4, 2), position], "does not convert f32 to i8"),
  Rejection(
    Gather(axis: 1), [TensorType(.f32, [4, 32], encoding: .block(.w4(32))), position],
    "not gathered along its last axis"),
  Rejection(Reshape([3, 4]), [f32(2, 5)], "shape [2, 5] has not as many elements as [3, 4]"),
  Rejection(Reshape([dimT, 3]), [f32(dimL, 3)], "shape [L, 3] has not as many elements as [T, 3]"),
  Rejection(Reshape([-2, -5]), [f32(2, 5)], "expected sizes of at least 0"),
  Rejection(Reshape([0x100_0000_0000, 0x100_0000_0000]), [f32(2, 5)], "has not as many elements"),
  Rejection(Reshape([dimT * (1 << 20), 0x100_0000_0000, 8]), [f32(2, 5)], "has not as many elements"),
  Rejection(
    Slice(axis: 0, start: 0, size: 0x100_0000_0000, step: 1 << 40), [f32(2, 5)], "attribute 'step' is 1099511627776"),
  Rejection(Conv2D(), [f32(1, 3, dimT, 5), f32(4, 3, 3, 3)], "a window of 3 does not fit into padded height T"),
  Rejection(
    Attention(heads: .max, kvHeads: 1, scale: 1), [f32(2, 0), f32(2, 0), f32(2, 4)], "heads do not divide"),
  Rejection(Transpose([0, 0]), [f32(2, 5)], "attribute 'permutation' is [0, 0]"),
  Rejection(Slice(axis: 0, start: 1, size: 2), [f32(2, 5)], "elements 1 to 3 lie outside of axis 0 of shape [2, 5]"),
  Rejection(Slice(axis: 0, start: 0, size: 1, step: 0), [f32(2, 5)], "attribute 'step' is 0"),
  Rejection(Slice(axis: 0, start: -1, size: 1), [f32(2, 5)], "expected at least 0"),
  Rejection(Concat(axis: 0), [], "found 0 inputs, expected at least 1"),
  Rejection(Concat(axis: 0), [f32(1, 2), f32(1, 3)], "found inputs of types f32[1, 2] and f32[1, 3]"),
  Rejection(Concat(axis: 0), [f32(1, 2), f32(2)], "found inputs of types f32[1, 2] and f32[2]"),
  Rejection(Interleave(), [f32(1, 2), f32(2, 2)], "expected equal ones"),
  Rejection(Pad(before: [1], after: [0, 0]), [f32(1, 2)], "attribute 'before' is [1], expected 2 numbers"),
  Rejection(Pad(before: [0], after: [0], value: 0.5), [typed(.i32, 2)], "expected a whole number"),
  Rejection(Expand([2, 3]), [f32(2, 2)], "shape [2, 2] does not broadcast to [2, 3]"),
  Rejection(Quantize(.w8c), [typed(.i32, 2, 2)], "expected a floating-point type"),
  Rejection(Quantize(.a8(32), codeBits: 3), [f32(2, 32)], "'codeBits' is 3"),
  Rejection(Quantize(.a8(32), codeBits: 8), [f32(2, 32)], "expected 4 to 7"),
  Rejection(Quantize(.w8(32), codeBits: 4), [f32(2, 32)], "for the format 'q8f16g32'"),
  Rejection(Quantize(.w4(32), codeBits: 4), [f32(2, 32)], "for the format 'q4f16g32'"),
  Rejection(Dequantize(), [f32(2, 2)], "found input of type f32[2, 2], expected a block format"),
  Rejection(DequantizeGGML(.q6_k), [typed(.u8, 2, 209)], "found rows of 209 bytes, expected a multiple of 210"),
  Rejection(DequantizeGGML(.q6_k), [f32(2, 210)], "expected rows of u8"),
  Rejection(
    BoundedAttention(heads: 2, scale: 1),
    [f32(2, 35, 4), f32(2, 35, 4), f32(2, 2, 35), f32(1, 8), f32(1, 8), f32(1, 8), position],
    "found caches of 35 rows, expected 36"),
  Rejection(
    BoundedAttention(heads: 3, scale: 1),
    [f32(2, 40, 4), f32(2, 40, 4), f32(2, 2, 40), f32(1, 12), f32(1, 8), f32(1, 8), position],
    "3 heads do not divide into 2"),
  Rejection(
    BoundedAttention(heads: 2, scale: 1, recent: 0),
    [f32(2, 40, 4), f32(2, 40, 4), f32(2, 2, 40), f32(1, 8), f32(1, 8), f32(1, 8), position],
    "4 sinks and 0 last tokens"),
  Rejection(
    BoundedAttention(heads: 2, scale: 1),
    [f32(2, 40, 4), f32(2, 40, 4), f32(2, 40, 2), f32(1, 8), f32(1, 8), f32(1, 8), position],
    "found received attention of shape [2, 40, 2], expected [2, 2, 40]"),
  Rejection(
    BoundedAttention(heads: 2, scale: 1),
    [f32(2, dimT, 4), f32(2, 40, 4), f32(2, 2, 40), f32(1, 8), f32(1, 8), f32(1, 8), position], "expected a number"),
  Rejection(
    BoundedAttention(heads: 2, scale: .infinity),
    [f32(2, 40, 4), f32(2, 40, 4), f32(2, 2, 40), f32(1, 8), f32(1, 8), f32(1, 8), position], "expected a finite number"
  ),
  Rejection(Cast(.i32), [TensorType(.f32, [2, 32], encoding: .block(.w4(32)))], "expected a dense tensor"),
  Rejection(FusedElementwise(.binary(.add, .input(0), .input(2))), [f32(2), f32(2)], "names input %2, found 2 inputs"),
  Rejection(
    FusedElementwise(.unary(.exp, .input(0))), [typed(.i32, 2)], "'exp(%0)' does not take elements of type i32"),
  Rejection(Clip(), [typed(.bool, 2)], "does not take elements of type bool"),
  Rejection(LeakyReLU(), [typed(.i32, 2)], "expected a floating-point type"),
  Rejection(Select(), [f32(2), f32(2), f32(2)], "found condition of element type f32, expected bool"),
  Rejection(
    Select(), [typed(.bool, 2), f32(2), typed(.f16, 2)], "found element types f32 and f16, expected equal ones"),
  Rejection(Sqrt(), [typed(.i32, 2)], "does not take elements of type i32"),
  Rejection(Not(), [f32(2)], "expected bool elements"),
  Rejection(Add(), [f32(2), f32(3)], "shapes [2] and [3] do not broadcast"),
  Rejection(Add(), [f32(dimT), f32(dimL)], "shapes [T] and [L] do not broadcast"),
  Rejection(Add(), [f32(2), typed(.i32, 2)], "found element types f32 and i32, expected equal ones"),
  Rejection(Add(), [typed(.bool, 2), typed(.bool, 2)], "does not take elements of type bool"),
  Rejection(And(), [f32(2), f32(2)], "expected bool"),
]

@Suite struct OperatorTypeTests {
  @Test(arguments: rejections) fileprivate func wrongInputsAreRejected(_ test: Rejection) throws {
    let error = #expect(throws: CompileError.self) { try test.op.inferTypes(test.inputs) }
    let message = error?.description ?? ""
    #expect(message.hasPrefix("\(test.op.name): "))
    #expect(message.contains(test.message), "found: \(message)")
    #expect(error?.kind == .input)
  }

  @Test func everyOperatorRejectsTheWrongNumberOfInputs() {
    for type in OperatorRegistry.core.types {
      let op = type.init()
      // These follow from sizes alone.
      if op is Iota || op is Sizes {
        #expect(throws: CompileError.self, "\(op.name)") { try op.inferTypes([TensorType(.i64, [1])]) }
        continue
      }
      #expect(throws: CompileError.self, "\(op.name)") { try op.inferTypes([]) }
    }
  }

  @Test func symbolicSizesPassThrough() throws {
    func check(_ op: any Operator, _ inputs: [TensorType], _ result: TensorType) throws {
      #expect(try op.inferTypes(inputs) == [result], "\(op.name)")
    }
    try check(MatMul(transposeB: true), [f32(dimT, 64), typed(.bf16, 32, 64)], f32(dimT, 32))
    try check(MatMul(), [f32(4, dimT, dimL), f32(dimL, 3)], f32(4, dimT, 3))
    try check(
      Conv2D(strides: [2, 1], padding: [1, 1, 1, 1]), [f32(1, 3, dimT, dimL), f32(4, 3, 3, 3)],
      f32(1, 4, (dimT - 1) / 2 + 1, dimL))
    try check(MaxPool2D(kernel: [2, 2], strides: [2, 2]), [f32(dimT, 3, 8, 8)], f32(dimT, 3, 4, 4))
    try check(Reduce(.mean, axes: [1], keepDims: true), [f32(dimT, 3)], f32(dimT, 1))
    try check(RMSNorm(), [f32(dimT, 8), typed(.bf16, 8)], f32(dimT, 8))
    try check(RopeTable(length: dimT), [position, f32(4)], f32(dimT, 2, 4))
    try check(Rope(headDim: 8), [f32(dimT, 16), f32(dimT, 2, 4)], f32(dimT, 16))
    try check(CacheUpdate(), [typed(.f16, 256, 16), f32(dimT, 16), position], typed(.f16, 256, 16))
    try check(
      Attention(heads: 4, kvHeads: 2, scale: 1), [f32(dimT, 16), typed(.f16, 256, 8), typed(.f16, 256, 6), position],
      f32(dimT, 12))
    try check(Gather(type: .f32), [typed(.bf16, 100, 8), typed(.i32, dimT)], f32(dimT, 8))
    try check(Gather(), [TensorType(.f32, [100, 32], encoding: .block(.w4(32))), typed(.i32, dimT)], f32(dimT, 32))
    try check(Reshape([dimT * 2, 4]), [f32(dimT, 8)], f32(dimT * 2, 4))
    try check(Reshape([dimL, dimT, 2, 4]), [f32(dimL, dimT, 8)], f32(dimL, dimT, 2, 4))
    try check(Slice(axis: 0, start: dimT - dimL, size: dimL), [f32(dimT, 8)], f32(dimL, 8))
    try check(Concat(axis: 0), [f32(dimT, 8), f32(3, 8), f32(dimT, 8)], f32(dimT * 2 + 3, 8))
    try check(Interleave(), [f32(dimT, 8), f32(dimT, 8)], f32(dimT * 2, 8))
    try check(Pad(before: [1, 0], after: [2, 0]), [f32(dimT, 8)], f32(dimT + 3, 8))
    try check(Expand([dimT, 8]), [f32(1, 8)], f32(dimT, 8))
    try check(Add(), [f32(dimT, 8), f32(8)], f32(dimT, 8))
    try check(Less(), [f32(dimT, 8), f32(1)], typed(.bool, dimT, 8))
    try check(Quantize(.a8(32)), [f32(dimT, 64)], TensorType(.f32, [dimT, 64], encoding: .block(.a8(32))))
  }

  @Test func symbolsInAttributesAreReplaced() throws {
    let bind: (Symbol) -> Dim? = { $0 == t ? 5 : ($0 == l ? 2 : nil) }
    #expect(Slice(axis: 0, start: dimT - dimL, size: dimL).substituting(bind) == Slice(axis: 0, start: 3, size: 2))
    #expect(Reshape([dimT, 4]).substituting(bind) == Reshape([5, 4]))
    #expect(Expand([dimT, 4]).substituting(bind) == Expand([5, 4]))
    #expect(RopeTable(length: dimT).substituting(bind) == RopeTable(length: 5))
  }

  @Test func valuesOutOfRangeAreRejected() throws {
    let x = Tensor.f32([3, 2], [1, 2, 3, 4, 5, 6])
    func message(_ op: any Operator, _ inputs: [Tensor]) -> String {
      do {
        _ = try op.results(of: inputs)
        return "no error"
      } catch {
        return "\(error)"
      }
    }
    for index in [3, -4, .max, .min] as [Int64] {
      #expect(
        message(Gather(), [x, Tensor(.i64, [1], [index])])
          == "gather: index \(index) lies outside of axis 0 of shape [3, 2]")
    }
    for place in [2, -1, .max, .min] as [Int32] {
      #expect(
        message(CacheUpdate(), [x, .f32([2, 2], [0, 0, 0, 0]), .i32(place)]).contains("2 rows at position \(place)"))
      #expect(
        message(Attention(heads: 1, kvHeads: 1, scale: 1), [.f32([2, 2], [0, 0, 0, 0]), x, x, .i32(place)])
          .contains("2 queries at position \(place)"))
    }
    let (base, exponent) = (Tensor(.i32, [2], [1, 0] as [Int32]), Tensor(.i32, [2], [-1, -1] as [Int32]))
    #expect(message(Power(), [base, exponent]) == "power: zero has no negative power among whole numbers")
    #expect(message(Reduce(.max, axes: [0]), [.f32([0, 2], [])]).contains("of no elements"))
  }

  @Test func formatsFromTextAreChecked() throws {
    func read(_ text: String) throws {
      _ = try AttributeCoder.decode(
        Quantize.self, from: .dictionary(try AttributeDictionary(parsing: "{format = {\(text)}}")),
        defaults: AttributeCoder.encode(Quantize()), of: "quantize")
    }
    for text in [
      "bits = 7", "bits = 1000000000000000000", "bits = 4, group = 0", "bits = 3, group = 4", "group = 7", "group = -2",
      "group = 9000000000000000000", "scale = i32", "codes = zeroPoint", "bits = 3, codes = ternary",
    ] {
      #expect(throws: CompileError.self, "\(text)") { try read(text) }
    }
    for text in ["bits = 3", "bits = 6, group = 8, codes = zeroPoint", "bits = 2, codes = ternary", "group = 6"] {
      try read(text)
    }
  }

  @Test func activationsAreTheFunctionsOfTheirName() {
    for activation in Activation.allCases where activation != .none && activation != .relu6 {
      guard case .unary(let function, .input(0)) = activation.function else {
        Issue.record("\(activation) is no single function")
        continue
      }
      #expect(function.rawValue == activation.rawValue)
    }
  }
}
