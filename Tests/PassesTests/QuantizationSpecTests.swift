import Base
import IR
import Tensors
import Testing

@Suite struct QuantizationSpecTests {
  @Test(arguments: [
    ("w8", "w8gca8"), ("w8gc", "w8gca8"), ("w8g32", "w8g32a8"), ("w8a32", "w8gca32"), ("w4", "w4g32a8"),
    ("w4g32", "w4g32a8"), ("w4g64a32", "w4g64a32"), ("w4g128a8kv16", "w4g128a8kv16"), ("w4kv32", "w4g32a8kv32"),
    ("w8gckv8", "w8gca8kv8"), ("w4kv4", "w4g32a8kv4"), ("wf16kv4t", "wf16kv4t"),
    ("w4kv3n", "w4g32a8kv3n"), ("w4kv4nat8", "w4g32a8kv4nat8"),
    ("wf16", "wf16"), ("wbf16", "wbf16"), ("wf32kv16", "wf32kv16"), ("wf16a32", "wf16"),
    ("w6", "w6g32a8"), ("w5g64", "w5g64a8"), ("w3a32", "w3g32a32"), ("w2g128", "w2g128a8"), ("wt", "wtg32a8"),
    ("wnf4", "wnf4g32a8"), ("wiq4nlg64", "wiq4nlg64a8"), ("wtl4g128", "wtl4g128a8"), ("wtl3", "wtl3g32a8"),
    ("wcb4a32", "wcb4g32a32"), ("wcb3g64kv16", "wcb3g64a8kv16"), ("wmxfp4", "wmxfp4a8"),
    ("wnvfp4a32kv8", "wnvfp4a32kv8"),
    ("wfp8", "wfp8a32"), ("wfp8a32kv16", "wfp8a32kv16"), ("w4z", "w4g32za8"), ("w4g128za32kv16", "w4g128za32kv16"),
    ("w2g64z", "w2g64za8"), ("w4at8", "w4g32a8at8"), ("wf32at8", "wf32at8"), ("w8a32kv8at32", "w8gca32kv8at32"),
    ("w4kv4tat8", "w4g32a8kv4tat8"), ("w4a4", "w4g32a4"), ("w6a6", "w6g32a6"), ("w4g32a6", "w4g32a6"),
    ("w8a7kv8", "w8gca7kv8"), ("wmxfp4a5", "wmxfp4a5"), ("wta4at8", "wtg32a4at8"),
  ]) func reads(_ text: String, _ canonical: String) throws {
    let spec = try QuantizationSpec(parsing: text)
    #expect(spec.description == canonical)
    #expect(try QuantizationSpec(parsing: spec.description) == spec)
  }

  /// Groups of four-bit caches: equal parts of 16 to 32 numbers, the largest there are, else the whole head.
  @Test(
    arguments: [
      (128, 32), (64, 32), (32, 32), (8, 8), (6, 6), (34, 34), (48, 24), (72, 24), (80, 20), (96, 32), (7, nil),
    ] as [(Int, Int?)])
  func cachesHaveGroups(_ head: Int, _ group: Int?) {
    #expect(CacheType.i4.format(headDim: head)?.group == group)
    #expect(CacheType.i4t.format(headDim: head)?.group == group.map { _ in head })
    #expect(CacheType.i8.format(headDim: head)?.group == (head % 4 == 0 ? head : nil))
    #expect(CacheType.f16.format(headDim: head) == nil)
  }

  @Test func saysFormats() throws {
    let w8 = try QuantizationSpec(parsing: "w8")
    #expect(w8.weightFormat == .w8c && w8.activationFormat == .a8(32) && w8.weightType == nil && w8.cacheType == nil)
    let w4 = try QuantizationSpec(parsing: "w4g64kv16")
    #expect(w4.weightFormat == .w4(64) && w4.activationFormat == .a8(64) && w4.cacheType == .f16)
    let f16 = try QuantizationSpec(parsing: "wf16")
    #expect(f16.weightFormat == nil && f16.activationFormat == nil && f16.weightType == .f16)
    // 4 bits and an f16 scale per 32; 172 numbers take six groups.
    #expect(try QuantizationSpec(parsing: "w4").bitsPerWeight(columns: 64) == 4.5)
    #expect(try QuantizationSpec(parsing: "w4").bitsPerWeight(columns: 172) == 6 * 18 * 8 / 172.0)
    #expect(try QuantizationSpec(parsing: "w8").bitsPerWeight(columns: 64) == 8.5)
    // A byte more per group for the zero point.
    #expect(try QuantizationSpec(parsing: "w4g128z").bitsPerWeight(columns: 256) == 4.1875)
    #expect(try QuantizationSpec(parsing: "w3").bitsPerWeight(columns: 64) == 3.5)
    #expect(try QuantizationSpec(parsing: "wtg128").bitsPerWeight(columns: 256) == 2.125)
    #expect(try QuantizationSpec(parsing: "w6").weightFormat == BlockFormat(bits: 6, group: 32, scale: .f16))
    #expect(try QuantizationSpec(parsing: "wt").weightFormat?.codes == .ternary)
    let formats: [(String, BlockFormat, Double)] = [
      ("wmxfp4", .mxfp4, 4.25), ("wnvfp4", .nvfp4(divisor: 4096), 4.5), ("wnf4g64", .levels(.nf4, 64), 4.25),
      ("wiq4nl", .levels(.iq4nl, 32), 4.5), ("wtl4", .levels(.twinLog, 32), 4.5), ("wtl3", .levels(.twinLog3, 32), 3.5),
      ("wcb4", .levels(.nf4, 32), 4.5), ("wcb3", .levels(.nf3, 32), 3.5), ("wfp8", .float8(), 8.25),
    ]
    for (text, format, bits) in formats {
      let spec = try QuantizationSpec(parsing: text)
      #expect(spec.weightFormat == format && spec.bitsPerWeight(columns: 128) == bits, "\(text)")
      #expect(spec.weights.isFitted == ["wnvfp4", "wcb4", "wcb3"].contains(text))
    }
    #expect(try QuantizationSpec(parsing: "wnvfp4").activationFormat == .a8(16))
    #expect(try QuantizationSpec(parsing: "wnvfp4").widenedToBytes.weightFormat == .w8(32))
    #expect(try QuantizationSpec(parsing: "w3g64z").widenedToBytes.weightFormat == .w8(64))
    #expect(f16.bitsPerWeight(columns: 64) == 16)
    // Activations of fewer bits are bytes with fewer values.
    let w4a4 = try QuantizationSpec(parsing: "w4g64a4")
    #expect(w4a4.activationFormat == .a8(64))
    #expect(w4a4.activationRounding(group: 64) == Quantize(.a8(64), codeBits: 4))
    #expect(w4.activationRounding(group: 64) == Quantize(.a8(64)) && f16.activationRounding(group: 32) == nil)
  }

  @Test(arguments: [
    (
      "",
      "expected 'w' and the width of the weights (w8, w6, w5, w4, w3, w2, wt, wnf4, wiq4nl, wtl4, wtl3, wcb4, wcb3, wmxfp4, "
        + "wnvfp4, wfp8, wf32, wf16, wbf16)"
    ),
    ("wnf5", "unknown weights 'wnf5'"), ("wmxfp4g32", "weights of type mxfp4 say their group"),
    ("wnf4g16", "unknown group 'g16'"), ("wnf4z", "zero points are for"), ("wcb5", "unknown weights 'wcb5'"),
    ("8", "expected 'w'"), ("w", "unknown weights 'w'"), ("w7", "unknown weights 'w7'"),
    ("w84", "unknown weights 'w84'"),
    ("w16", "unknown weights 'w16'"), ("W8", "expected 'w'"), ("w4g", "unknown group 'g'"),
    ("w4g33", "unknown group 'g33' (choices: g32, g64, g128)"),
    ("w8g16", "unknown group 'g16' (choices: gc, g32, g64, g128)"), ("wf16g32", "have no group"),
    ("w8a16", "unknown activations 'a16' (choices: a8, a7, a6, a5, a4, a32)"), ("w4a3", "unknown activations 'a3'"),
    ("w4a9", "unknown activations 'a9'"), ("w4a0", "unknown activations 'a0'"), ("w4a", "unknown activations 'a'"),
    ("w8kv12", "unknown KV cache 'kv12'"),
    ("w8kv8t", "unknown KV cache 'kv8t' (choices: kv32, kv16, kv8, kv4, kv4t, kv4n, kv3n, kv2n)"),
    ("w8kv", "unknown KV cache 'kv'"),
    ("w8kv16a8", "unexpected 'a8' (the order is w, g, a, kv, at, as in w4g32a8kv16at8)"), ("w8 ", "unexpected ' '"),
    ("w8g99999999999999999999", "unknown group"), ("w٤", "unknown weights"),
    ("w8g32z", "zero points are for w6, w5, w4, w3 and w2: unexpected 'z'"), ("wtz", "zero points are for"),
    ("w4zg32", "unexpected 'g32'"), ("w4at", "unknown attention 'at'"),
    ("w8at16", "unknown attention 'at16' (choices: at8, at32)"), ("w8at8kv8", "unexpected 'kv8'"),
  ]) func refuses(_ text: String, _ message: String) throws {
    let error = #expect(throws: CompileError.self) { try QuantizationSpec(parsing: text) }
    #expect(error?.kind == .usage)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    #expect(error?.message.contains("in the quantization '\(text)'") == true)
  }

  @Test(arguments: [
    ("wnf4gc", "weights of fewer than 8 bits need a group"),
    ("wfp8a8", "weights of type fp8 are multiplied by activations as they are"),
    ("wfp8a4", "weights of type fp8 are multiplied by activations as they are"),
    ("w4gc", "weights of fewer than 8 bits need a group"),
    ("wf16a8", "8-bit activations need quantized weights"), ("wf32a4", "4-bit activations need quantized weights"),
  ]) func saysWhatIsNotThereYet(_ text: String, _ message: String) throws {
    let error = #expect(throws: CompileError.self) { try QuantizationSpec(parsing: text) }
    #expect(error?.kind == .unsupported)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
  }
}
