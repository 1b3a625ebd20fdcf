import Base
import IR
import TestSupport
import Tensors
import Testing

/// A convolution of bytes with a window of one pixel, input scale 0.5 and zero point 1.
private func bytesConvolution(
  _ epilogue: Epilogue = .identity, _ output: AffineCode? = nil, _ other: AffineCode? = nil
) -> QuantizedConv2D {
  QuantizedConv2D(
    Conv2D(layout: .last, epilogue: epilogue), kernel: [1, 1], input: AffineCode(scale: 0.5, zeroPoint: 1),
    output: output, other: other)
}

/// Cases whose results were worked out by hand.
private let handCases: [OperatorCase] = [
  // Eight bits: scale 2 = 254 / 127; 1 / 2 rounds to even.
  OperatorCase(
    Quantize(.w8c), [.f32([2, 3], [254, 1, -3, 0, 0, 0])],
    [quantized(.w8c, [2, 3], [0, 0, 0, 64, 127, 0, 254, 0, 0, 0, 0, 0, 0, 0])]),
  OperatorCase(
    Dequantize(.f32), [quantized(.w8c, [2, 3], [0, 0, 0, 64, 127, 0, 254, 0, 0, 0, 0, 0, 0, 0])],
    [.f32([2, 3], [254, 0, -4, 0, 0, 0])]),
  OperatorCase(
    QuantizedRows(), [Tensor(.i8, [2, 3], [0, 127, -1, 5, -128, 7] as [Int8]), .f32([2], [2, 1])],
    [quantized(.w8c, [2, 3], [0, 0, 0, 64, 0, 127, 255, 0, 0, 128, 63, 5, 128, 7])]),
  // Half to even, held to 0 ... 255.
  OperatorCase(
    QuantizeLinear(AffineCode(scale: 1, zeroPoint: 2)), [.f32([7], [-9, -1, 0.5, 1.5, -0.5, 300, .infinity])],
    [Tensor(.u8, [7], [0, 1, 2, 4, 2, 255, 255] as [UInt8])]),
  OperatorCase(
    DequantizeLinear(AffineCode(scale: 0.5, zeroPoint: 2)), [Tensor(.u8, [3], [0, 2, 255] as [UInt8])],
    [.f32([3], [-1, 0, 126.5])]),
  // (1 - 1) 127 - (255 - 1) 127 and (0 - 1) 127 - (3 - 1) 127, times 2 * 0.5.
  OperatorCase(
    bytesConvolution(),
    [Tensor(.u8, [1, 1, 2, 2], [1, 255, 0, 3] as [UInt8]), quantized(.w8c, [1, 2], [0, 0, 0, 64, 127, 129])],
    [.f32([1, 1, 2, 1], [-32258, -381])]),
  // -254 + 1 is held to -200, -3 + 1 stays; then the zero point.
  OperatorCase(
    bytesConvolution(Epilogue(bias: true), AffineCode(scale: 127, zeroPoint: 200)),
    [
      Tensor(.u8, [1, 1, 2, 2], [1, 255, 0, 3] as [UInt8]), quantized(.w8c, [1, 2], [0, 0, 0, 64, 127, 129]),
      .f32([1], [127]),
    ],
    [Tensor(.u8, [1, 1, 2, 1], [0, 198] as [UInt8])]),
  // -32258 / 65536 - 0.5 + (4 - 2) 1 / 2 rounds to 0; relu6 ends at 6 / 2 steps; half to even: 0.5 + 2, -0.5 + 3.
  OperatorCase(
    bytesConvolution(
      Epilogue(activation: .relu6, residual: .beforeActivation), AffineCode(scale: 2, zeroPoint: 5),
      AffineCode(scale: 2, zeroPoint: 2)),
    [
      Tensor(.u8, [1, 1, 4, 2], [2, 1, 0, 1, 2, 1, 9, 1] as [UInt8]), quantized(.w8c, [1, 2], [0, 0, 0, 64, 1, 0]),
      Tensor(.u8, [1, 1, 4, 1], [4, 5, 0, 2] as [UInt8]),
    ],
    [Tensor(.u8, [1, 1, 4, 1], [7, 7, 5, 8] as [UInt8])]),
  // Padding has the code of zero: the corner sees one pixel.
  OperatorCase(
    {
      var op = QuantizedConv2D(
        Conv2D(padding: [1, 1, 0, 0], layout: .first), kernel: [2, 2], input: AffineCode(scale: 1, zeroPoint: 7))
      op.layout = .first
      return op
    }(), [Tensor(.u8, [1, 1, 1, 2], [8, 5] as [UInt8]), quantized(.w8c, [1, 4], [0, 0, 128, 63, 1, 2, 3, 4])],
    [.f32([1, 1, 1, 2], [4, -5])]),
  OperatorCase(
    MaxPool2D(kernel: [1, 2]), [Tensor(.u8, [1, 1, 1, 3], [0, 255, 3] as [UInt8])],
    [Tensor(.u8, [1, 1, 1, 2], [255, 255] as [UInt8])]),
  // Four bits, groups of four, the second of two numbers: scale -8 / -8 = 1 (f16 0x3c00), then 4 / -8 = -0.5 (0xb800).
  OperatorCase(
    Quantize(.w4(4)), [.f32([1, 6], [-8, 7, 1, -2, 4, -1])],
    [quantized(.w4(4), [1, 6], [0x00, 0x3c, 0x90, 0x6f, 0x00, 0xb8, 0x80, 0x8a])]),
  OperatorCase(
    Dequantize(.f16), [quantized(.w4(4), [1, 6], [0x00, 0x3c, 0x90, 0x6f, 0x00, 0xb8, 0x80, 0x8a])],
    [Tensor.f32([1, 6], [-8, 7, 1, -2, 4, -1]).converted(to: .f16)]),
  // The scale is 1, codes 2 and 9 of E2M1 are 1 and -0.5.
  OperatorCase(
    Dequantize(.f32), [quantized(.mxfp4, [1, 32], [127, 0x92] + [UInt8](repeating: 0, count: 15))],
    [.f32([1, 32], (0..<32).map { $0 == 0 ? 1 : $0 == 16 ? -0.5 : 0 })]),
  OperatorCase(
    DequantizeGGML(.nvfp4), [Tensor(.u8, [1, 36], [0x38, 0, 0, 0, 0x92] + [UInt8](repeating: 0, count: 31))],
    [.f32([1, 64], (0..<64).map { $0 == 0 ? 1 : $0 == 8 ? -0.5 : 0 })]),
  OperatorCase(
    Gather(),
    [quantized(.w8c, [2, 2], [0, 0, 0, 64, 1, 2, 0, 0, 128, 63, 3, 253]), Tensor(.i64, [3], [1, 0, -1] as [Int64])],
    [.f32([3, 2], [3, -3, 2, 4, 3, -3])]),
  OperatorCase(
    Slice(axis: 0, start: 1, size: 1), [quantized(.w8c, [2, 2], [0, 0, 0, 64, 1, 2, 0, 0, 128, 63, 3, 253])],
    [quantized(.w8c, [1, 2], [0, 0, 128, 63, 3, 253])]),
  OperatorCase(
    Interleave(),
    [quantized(.w8c, [1, 2], [0, 0, 0, 64, 1, 2]), quantized(.w8c, [1, 2], [0, 0, 128, 63, 3, 253])],
    [quantized(.w8c, [2, 2], [0, 0, 0, 64, 1, 2, 0, 0, 128, 63, 3, 253])]),
  OperatorCase(
    Concat(axis: 0),
    [quantized(.w8c, [1, 2], [0, 0, 0, 64, 1, 2]), quantized(.w8c, [1, 2], [0, 0, 128, 63, 3, 253])],
    [quantized(.w8c, [2, 2], [0, 0, 0, 64, 1, 2, 0, 0, 128, 63, 3, 253])]),
  OperatorCase(
    StridedView([3, 2], strides: [1, 3]), [.f32([6], [1, 2, 3, 4, 5, 6])], [.f32([3, 2], [1, 4, 2, 5, 3, 6])]),
  OperatorCase(StridedView([2, 2], strides: [0, 1]), [.f32([2], [1, 2])], [.f32([2, 2], [1, 2, 1, 2])]),
  // Codes 1, 2, 3, 4 of four bits, groups of two.
  OperatorCase(
    {
      var op = UnpackCodes()
      (op.columns, op.group, op.zero) = (4, 2, 1)
      return op
    }(), [Tensor(.u8, [1, 2], [0x21, 0x43] as [UInt8]), .f32([1, 2], [0.5, 2])], [.f32([1, 4], [0, 0.5, 4, 6])]),
  // The same as blocks: scale 0.5 (f16 0x3800) and 2 (0x4000), codes counted from 8.
  OperatorCase(
    {
      var op = UnpackCodes()
      (op.columns, op.group, op.zero, op.format) = (4, 2, 8, .w4(2))
      return op
    }(), [Tensor(.u8, [1, 2], [0x21, 0x43] as [UInt8]), .f32([1, 2], [0.5, 2])],
    [quantized(.w4(2), [1, 4], [0x00, 0x38, 0x21, 0x00, 0x40, 0x43])]),
  // Rows [1, 2] and [3, 4] times the right factor are [5, 2, 1] and [11, 4, 3]; the left one adds twice the first to the second.
  OperatorCase(
    KroneckerMatMul(),
    [.f32([1, 4], [1, 2, 3, 4]), .f32([2, 2], [1, 2, 0, 1]), .f32([2, 3], [1, 0, 1, 2, 1, 0])],
    [.f32([1, 6], [5, 2, 1, 21, 8, 5])]),
  OperatorCase(Hadamard(blocks: [4]), [.f32([1, 4], [1, 2, 3, 4])], [.f32([1, 4], [5, -1, -2, 0])]),
  OperatorCase(
    Hadamard(blocks: [4, 1]), [.f32([2, 6], [1, 2, 3, 4, 5, 6, 0, 0, 0, 2, 7, 8])],
    [.f32([2, 6], [5, -1, -2, 0, 5, 6, 1, -1, -1, 1, 7, 8])]),
  OperatorCase(
    Hadamard(axis: 0, blocks: [4]), [.f32([8, 2], [1, 0, 2, 0, 3, 0, 4, 2, 0, 1, 0, 1, 0, 1, 0, 1])],
    [.f32([8, 2], [5, 1, -1, -1, -2, -1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0])]),
  OperatorCase(
    WeightedSum(), [Tensor(.f64, [2], [0.25, 0.75]), .f32([2], [4, -8]), .f32([2], [0, 4])], [.f32([2], [1, 1])]),
  OperatorCase(WeightedSum(), [Tensor(.f64, [2], [0, 1.0]), .f32([], [.nan]), .f32([], [3])], [.f32([], [3])]),
  OperatorCase(
    TaskVectorSum(.arithmetic, scale: 0.5),
    [Tensor(.f64, [2], [1, 1.0]), .f32([2], [1, 1]), .f32([2], [3, 1]), .f32([2], [1, -3])], [.f32([2], [2, -1])]),
  // Half of each difference: 4 and -3, -5 and 6. The sum of the others is 0 everywhere.
  OperatorCase(
    TaskVectorSum(.ties, density: 0.5),
    [
      Tensor(.f64, [2], [1, 1.0]), .f32([4], [0, 0, 0, 0]), .f32([4], [4, -3, 1, 2]), .f32([4], [-1, -5, 2, 6]),
    ], [.f32([4], [4, -4, 0, 6])]),
  // Differences of 2 and 4, -2 and 4, 1 and -1: no sign is elected for the last.
  OperatorCase(
    TaskVectorSum(.ties, scale: 2),
    [Tensor(.f64, [2], [1, 1.0]), .f32([3], [1, 1, 1]), .f32([3], [3, -1, 2]), .f32([3], [5, 5, 0])],
    [.f32([3], [7, 9, 1])]),
  OperatorCase(
    SphericalInterpolation(), [.f32([2], [2, 0]), .f32([2], [0, 2])], [.f32([2], [0x1.6a09e6p0, 0x1.6a09e6p0])]),
  // No arc: a zero, the same and the opposite direction.
  OperatorCase(
    SphericalInterpolation(t: 0.25), [.f32([2], [0, 0]), .f32([2], [2, 4])], [.f32([2], [0.5, 1])]),
  OperatorCase(
    SphericalInterpolation(t: 0.25), [.f32([2], [1, 2]), .f32([2], [5, 10])], [.f32([2], [2, 4])]),
  OperatorCase(
    SphericalInterpolation(t: 0.25), [.f32([2], [1, 2]), .f32([2], [-1, -2])], [.f32([2], [0.5, 1])]),
  // Logits 1, 1 and 1; 1, 3 and -2, in parts of two and one.
  OperatorCase(
    VocabularyStatistics(rows: 2, function: .binary(.add, .input(0), .number(1))),
    [.f32([2, 2], [0, 0, 2, -3]), .f32([3, 2], [0, 0, 1, 0, 0, 1]), Tensor(.i32, [2], [0, 2] as [Int32])],
    [.f32([3, 2, 2], [1, 1, 3, -2, 2, 1, 1.1353352832, 1, 1, 0, 0, -2])]),
  OperatorCase(
    VocabularyStatistics(rows: 4),
    [.f32([1, 1], [1]), .f32([2, 1], [3, 1]), Tensor(.i32, [1], [1] as [Int32]), .f32([2], [0, 2])],
    [.f32([3, 1, 1], [3, 2, 3])]),
  OperatorCase(Iota(4), [], [Tensor(.i64, [4], [0, 1, 2, 3] as [Int64])]),
  OperatorCase(Sizes([7, 2]), [], [Tensor(.i64, [2], [7, 2] as [Int64])]),
  // Whole numbers: towards zero, with the sign of the divisor, low bits.
  OperatorCase(
    Divide(), [Tensor(.i32, [3], [7, -7, .min] as [Int32]), Tensor(.i32, [3], [2, 2, -1] as [Int32])],
    [Tensor(.i32, [3], [3, -3, .min] as [Int32])]),
  OperatorCase(
    Power(), [Tensor(.i32, [4], [2, 3, -1, 2] as [Int32]), Tensor(.i32, [4], [31, 4, -3, -1] as [Int32])],
    [Tensor(.i32, [4], [.min, 81, -1, 0] as [Int32])]),
  OperatorCase(
    Add(), [Tensor(.u8, [2], [250, 1] as [UInt8]), Tensor(.u8, [1], [10] as [UInt8])],
    [Tensor(.u8, [2], [4, 11] as [UInt8])]),
  OperatorCase(
    Clip(minimum: 0, maximum: 2), [Tensor(.i64, [3], [-5, 1, 7] as [Int64])], [Tensor(.i64, [3], [0, 1, 2] as [Int64])]),
  // NaN stays, whatever the function does with other numbers.
  OperatorCase(ReLU(), [.f32([2], [.nan, -1])], [.f32([2], [.nan, 0])]),
  OperatorCase(Sign(), [.f32([2], [.nan, -0.0])], [.f32([2], [.nan, -0.0])]),
  OperatorCase(MaxPool2D(kernel: [1, 2]), [.f32([1, 1, 1, 3], [.nan, 1, 2])], [.f32([1, 1, 1, 2], [.nan, 2])]),
  OperatorCase(Softplus(), [.f32([2], [200, -200])], [.f32([2], [200, 0])]),
  // Out of range the nearest limit, NaN 0.
  OperatorCase(
    Cast(.i8), [.f32([5], [300, -300, .nan, .infinity, -1.9])], [Tensor(.i8, [5], [127, -128, 0, 127, -1] as [Int8])]),
  // A query whose keys are all masked gives zeros.
  OperatorCase(
    Attention(heads: 1, kvHeads: 1, scale: 1, causal: false),
    [
      .f32([2, 1], [1, 1]), .f32([2, 1], [1, 2]), .f32([2, 1], [5, 7]),
      Tensor(.bool, [2, 2], [0, 0, 0, 1] as [UInt8]),
    ], [.f32([2, 1], [0, 7])]),
  // Weights are alike. The second token's row goes to the third: the first one received 1 + 1/2 + 1/2, the last 1/2.
  OperatorCase(
    BoundedAttention(heads: 1, scale: 0, sinks: 1, recent: 1),
    [
      .f32([1, 2, 1], [.nan, 9]), .f32([1, 2, 1], [9, .nan]), .f32([1, 2, 2], [9, .nan, 9, 9]),
      .f32([3, 1], [1, 1, 1]),
      .f32([3, 1], [1, 2, 3]), .f32([3, 1], [4, 8, 2]), Tensor(.i32, [1], [0] as [Int32]),
    ],
    [
      .f32([1, 2, 1], [1, 3]), .f32([1, 2, 1], [4, 2]), .f32([1, 2, 2], [2, 0.5, 0, 2]), .f32([3, 1], [4, 6, 3]),
    ]),
  // The largest by magnitude, the first of equals, with their places; no place for what is not there.
  OperatorCase(
    SplitOutliers(count: 2), [.f32([3, 3], [1, -5, 2, 0, 3, 0, 4, -4, 4])],
    [
      .f32([3, 3], [1, 0, 0, 0, 0, 0, 0, 0, 4]), .f32([3, 4], [-5, 2, 1, 2, 3, 0, 1, -1, 4, -4, 0, 1]),
    ]),
  // Empty tensors.
  OperatorCase(Concat(axis: 0), [.f32([0, 2], []), .f32([1, 2], [1, 2])], [.f32([1, 2], [1, 2])]),
  OperatorCase(MatMul(), [.f32([2, 0], []), .f32([0, 2], [])], [.f32([2, 2], [0, 0, 0, 0])]),
  OperatorCase(Add(), [.f32([0, 2], []), .f32([2], [1, 2])], [.f32([0, 2], [])]),
  OperatorCase(Reduce(.sum, axes: [0]), [.f32([0, 2], [])], [.f32([2], [0, 0])]),
  OperatorCase(Transpose([1, 0]), [.f32([0, 2], [])], [.f32([2, 0], [])]),
  OperatorCase(Gather(), [.f32([3, 2], [1, 2, 3, 4, 5, 6]), Tensor(.i64, [0], [] as [Int64])], [.f32([0, 2], [])]),
  OperatorCase(Add(), [.f32([], [1]), .f32([], [2])], [.f32([], [3])]),
]

private func quantized(_ format: BlockFormat, _ sizes: [Int], _ bytes: [UInt8]) -> Tensor {
  let tensor = Tensor(TensorType(.f32, sizes, encoding: .block(format)))
  precondition(tensor.view.bytes.count == bytes.count)
  tensor.mutableView.bytes.copyBytes(from: bytes)
  return tensor
}

private let allCases = OperatorCase.recorded + handCases

@Suite struct OperatorEvaluationTests {
  @Test func mnemonicsAreUnique() {
    #expect(OperatorRegistry.core.duplicateNames == [])
    #expect(OperatorRegistry.core.adding([Add.self]).duplicateNames == ["add"])
  }

  @Test func everyOperatorHasACase() {
    let covered = Set(allCases.map(\.op.name))
    #expect(OperatorRegistry.core.names.filter { !covered.contains($0) } == [])
  }

  @Test func unknownOperatorsAreSuggested() throws {
    let error = #expect(throws: CompileError.self) { try OperatorRegistry.core.type(named: "sofmax") }
    #expect(error?.description.contains("did you mean 'softmax'") == true)
    #expect(OperatorRegistry.core["matmul"] == MatMul.self)
    #expect(OperatorRegistry.core["matmull"] == nil)
  }

  /// f32 sums of up to some hundred terms of size 1: errors of some 1e-6 of the largest.
  @Test(arguments: allCases) func givesTheExpectedResults(_ test: OperatorCase) throws {
    let results = try test.op.results(of: test.inputs)
    #expect(results.map(\.type) == test.outputs.map(\.type))
    for (result, expected) in zip(results, test.outputs) {
      if !expected.type.isDense || !expected.type.element.isFloat {
        #expect(result.view.bytes.elementsEqual(expected.view.bytes))
      } else {
        // f16 results may differ in the last of 11 bits.
        let tolerance = expected.type.element == .f16 ? 1e-3 : 3e-6
        let error = maxRelativeError(result.doubles, expected.doubles)
        #expect(error <= tolerance, "found \(result.doubles.prefix(20)), expected \(expected.doubles.prefix(20))")
      }
    }
  }

  /// The same meaning in float64: within f32's error of the recorded numbers, which came from f32 inputs.
  @Test func agreesInDoublePrecision() throws {
    var checked = 0
    for test in OperatorCase.recorded
    where test.op.name != "cast" && test.inputs.contains(where: { $0.type.element == .f32 }) {
      // Angles are products in f32, which f64 cannot repeat; f16 results are coarser than the tolerance.
      if test.op.name == "rope_table" || test.outputs[0].type.element == .f16 { continue }
      let inputs = test.inputs.map { $0.type.element.isFloat ? $0.converted(to: .f64) : $0 }
      let results = try test.op.results(of: inputs)
      for (result, expected) in zip(results, test.outputs) {
        #expect(result.type.element == (expected.type.element.isFloat ? .f64 : expected.type.element))
        #expect(maxRelativeError(result.doubles, expected.doubles) <= 3e-6, "\(test.testDescription)")
      }
      checked += 1
    }
    #expect(checked > 150)
  }

  /// Sums that cancel: f32 cannot tell 1e8 + 1 from 1e8, float64 can.
  @Test func computesInDoublePrecision() throws {
    let x = Tensor(.f64, [1, 2], [1e8, 1.0])
    let w = Tensor(.f64, [2, 1], [1.0, 1.0])
    #expect(try MatMul().results(of: [x, w])[0].doubles == [1e8 + 1])
    #expect(try Add().results(of: [x, w])[0].doubles == [1e8 + 1, 2, 1e8 + 1, 2])
    #expect(try Reduce(.sum, axes: []).results(of: [x])[0].doubles == [1e8 + 1])
  }

  /// Blocks of rows give the same bytes as the whole.
  @Test func rowBlocksGiveTheWhole() throws {
    var names: Set<String> = []
    for test in allCases {
      guard let op = test.op as? any RowMapped else { continue }
      let types = test.inputs.map(\.type)
      let whole = try op.results(of: test.inputs)[0]
      guard whole.view.sizes.first ?? 0 > 0 else { continue }
      let step = op.rowGranularity(types)
      for first in stride(from: 0, to: whole.view.sizes[0], by: step) {
        let rows = first..<min(first + step, whole.view.sizes[0])
        guard let needed = op.inputRows(for: rows, types) else { continue }
        names.insert(op.name)
        let inputs = zip(test.inputs, needed).map { input, rows in rows.map { input.rows($0) } ?? input.view }
        let part = Tensor(whole.rows(rows).type)
        try op.evaluate(inputs, into: [part.mutableView])
        #expect(part.view.bytes.elementsEqual(whole.rows(rows).bytes), "\(test.testDescription), rows \(rows)")
      }
    }
    for name in ["add", "cast", "quantize", "dequantize", "concat", "interleave", "slice", "reshape", "elementwise"] {
      #expect(names.contains(name), "no case of '\(name)' is computed by rows")
    }
  }

  /// Attributes survive the text form, and equality is by bit pattern.
  @Test func attributesRoundTrip() throws {
    for test in allCases { try checkRoundTrip(test.op) }
    #expect(Clip(minimum: -0.0, maximum: 1) != Clip(minimum: 0, maximum: 1))
    #expect(Pad(before: [], after: [], value: .nan) == Pad(before: [], after: [], value: .nan))
    #expect(!Add().isEqual(to: Subtract()) && Add().isEqual(to: Add()))
  }

  private func checkRoundTrip<T: Operator>(_ op: T) throws {
    let attributes = try AttributeCoder.attributes(of: op)
    let copy = try AttributeCoder.decode(
      T.self, from: .dictionary(try AttributeDictionary(parsing: attributes.description)),
      defaults: AttributeCoder.encode(T()), of: T.name)
    #expect(copy == op, "\(T.name) \(attributes)")
  }

  /// What is rotated there and back is what it was, along any axis, and lengths stay: orders with and without Paley
  /// matrices, signs, blocks. Errors are those of sums of as many terms as the order.
  @Test(arguments: [
    Hadamard(blocks: [96]), Hadamard(blocks: [96], seed: 7), Hadamard(blocks: [12]), Hadamard(blocks: [32], seed: -1),
    Hadamard(blocks: [52, 44], seed: 2), Hadamard(blocks: [76, 20]), Hadamard(blocks: [64, 16, 4, 2, 1]),
  ])
  func rotationsAreUndone(_ op: Hadamard) throws {
    var random = SplitMix64(seed: 3)
    let x = Tensor.f32([3, 96, 5], random.floats(3 * 96 * 5))
    let turned = Tensor.f32([3, 5, 96], try Transpose([0, 2, 1]).results(of: [x])[0].array(of: Float.self))
    let middle = try op.along(1).results(of: [x])[0]
    let last = try op.along(-1).results(of: [turned])[0]
    let back = try Transpose([0, 2, 1]).results(of: [last])[0]
    #expect(middle.array(of: Float.self) == back.array(of: Float.self))
    #expect(maxRelativeError(try op.inverted.results(of: [last])[0].doubles, turned.doubles) <= 1e-6)
    #expect(maxRelativeError(last.doubles, turned.doubles) > 0.1)
    func length(_ tensor: Tensor) -> Double { tensor.doubles.reduce(0) { $0 + $1 * $1 } }
    #expect(abs(length(last) / length(turned) - 1) <= 1e-6)
  }

  @Test func randomMatrixProductsAgreeWithSums() throws {
    var random = SplitMix64(seed: 7)
    for (m, n, k) in [(1, 1, 1), (1, 300, 257), (17, 5, 64), (130, 65, 33), (3, 4100, 1030)] {
      let x = Tensor.f32([m, k], random.floats(m * k))
      let w = Tensor.f32([n, k], random.floats(n * k))
      let half = w.converted(to: .bf16)
      let wide = half.converted(to: .f32)
      let found = try MatMul(transposeB: true).results(of: [x, half])[0].array(of: Float.self)
      let (a, b) = (x.array(of: Float.self), wide.array(of: Float.self))
      // Some rows and columns stand for all.
      for i in [0, m - 1] {
        for j in [0, n / 2, n - 1] {
          var sum = 0.0
          for l in 0..<k { sum += Double(a[i * k + l]) * Double(b[j * k + l]) }
          // f32 accumulation of k products below 1.
          #expect(abs(Double(found[i * n + j]) - sum) <= 1e-6 * Double(k).squareRoot() * 4)
        }
      }
    }
  }
}
