import Base
import IR
import Tensors
import Testing

@Suite struct QuantizationSpecTests {
  @Test(arguments: [
    ("w8", "w8gca8"), ("w8gc", "w8gca8"), ("w8g32", "w8g32a8"), ("w8a32", "w8gca32"), ("w4", "w4g32a8"),
    ("w4g32", "w4g32a8"), ("w4g64a32", "w4g64a32"), ("w4g128a8kv16", "w4g128a8kv16"), ("w4kv32", "w4g32a8kv32"),
    ("wf16", "wf16"), ("wbf16", "wbf16"), ("wf32kv16", "wf32kv16"), ("wf16a32", "wf16"),
  ]) func reads(_ text: String, _ canonical: String) throws {
    let spec = try QuantizationSpec(parsing: text)
    #expect(spec.description == canonical)
    #expect(try QuantizationSpec(parsing: spec.description) == spec)
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
    #expect(f16.bitsPerWeight(columns: 64) == 16)
  }

  @Test(arguments: [
    ("", "expected 'w' and the width of the weights (w8, w4, wf32, wf16, wbf16)"),
    ("8", "expected 'w'"), ("w", "unknown weights 'w'"), ("w7", "unknown weights 'w7'"),
    ("w84", "unknown weights 'w84'"),
    ("w16", "unknown weights 'w16'"), ("W8", "expected 'w'"), ("w4g", "unknown group 'g'"),
    ("w4g33", "unknown group 'g33' (choices: g32, g64, g128)"),
    ("w8g16", "unknown group 'g16' (choices: gc, g32, g64, g128)"), ("wf16g32", "have no group"),
    ("w8a16", "unknown activations 'a16' (choices: a8, a32)"), ("w8kv12", "unknown KV cache 'kv12'"),
    ("w8kv16a8", "unexpected 'a8' (the order is w, g, a, kv, as in w4g32a8kv16)"), ("w8 ", "unexpected ' '"),
    ("w8g99999999999999999999", "unknown group"), ("w٤", "unknown weights"),
  ]) func refuses(_ text: String, _ message: String) throws {
    let error = #expect(throws: CompileError.self) { try QuantizationSpec(parsing: text) }
    #expect(error?.kind == .usage)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    #expect(error?.message.contains("in the quantization '\(text)'") == true)
  }

  @Test(arguments: [
    ("w3", "weights 'w3' are not supported yet"), ("w2g32", "weights 'w2'"), ("w6", "weights 'w6'"),
    ("w5", "weights 'w5'"),
    ("wt", "weights 'wt'"), ("wmxfp4", "weights 'wmxfp4'"), ("w4gc", "4-bit weights need a group"),
    ("w8kv8", "an 8-bit KV cache"), ("w8kv4", "a 4-bit KV cache"),
    ("wf16a8", "8-bit activations need quantized weights"),
  ]) func saysWhatIsNotThereYet(_ text: String, _ message: String) throws {
    let error = #expect(throws: CompileError.self) { try QuantizationSpec(parsing: text) }
    #expect(error?.kind == .unsupported)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
  }
}
