import Base
import CodeGen
import Driver
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// Quantized checkpoints of Hugging Face as programs: codes that a kernel reads stay what they are.
@Suite(.serialized) struct QuantizedProgramTests {
  /// The weights in the lowered model are packed blocks of the format, made of the checkpoint's codes without any rounding,
  /// and the program gives the evaluator's logits.
  @Test(arguments: [
    ("gptq4", "q4f16g32z"), ("gptq4_sym", "q4f16g32"), ("gptq3", "q3f16g32z"), ("awq", "q4f16g32z"),
    ("ct_pack4_bf16", "q4f16g32"), ("ct_int8", "q8f32row"), ("ct_mxfp4", "q4e8m0g32_e2m1"),
    ("ct_nvfp4", "q4e4m3g16_e2m1"),
    ("ct_fp8", "q8f32row_e4m3"), ("fp8_block", "q8f32g32_e4m3"), ("bitnet_auto", "q2f16g64t"),
  ])
  func codesReachTheProgram(form: String, format: String) async throws {
    guard let folder = try QuantizedCheckpoints.make(form) else { return }
    let model = try Compiler.model(folder.path, at: .lower, FrontendOptions())
    var kept = 0
    for graph in model.functions {
      for id in graph.nodeIDs {
        #expect(!(graph[id].op is Quantize), "a weight is rounded anew")
        guard let call = graph[id].op as? KernelCall, call.operation.op is MatMul else { continue }
        for operand in call.operands where operand.format != nil {
          // Down projections have 96 columns, which groups of 64 do not divide.
          let name = operand.format?.name ?? ""
          #expect(
            name == format || name.hasPrefix(format + "_") || form == "bitnet_auto" && name == "q2f16g32t", "\(name)")
          kept += 1
        }
      }
    }
    #expect(kept >= 4, "\(form): \(kept) products with blocks")

    let program = try await CompiledModels.compile(folder.path, "quantized-\(form)")
    let result = try await ProgramCheck().run(model: folder.path, program: program)
    // Both multiply the same f32 numbers; only the order of sums differs.
    #expect(try #require(result.differences.map(\.relative).max()) <= 1e-4, "\(form)")
  }

  /// Codes that no kernel reads become f32, which is said; the logits are the same.
  @Test(arguments: ["gptq4_order", "bnb_nf4_double"])
  func otherCodesBecomeNumbers(form: String) async throws {
    guard let folder = try QuantizedCheckpoints.make(form) else { return }
    let program = try await CompiledModels.compile(folder.path, "quantized-\(form)")
    let result = try await ProgramCheck().run(model: folder.path, program: program)
    #expect(try #require(result.differences.map(\.relative).max()) <= 1e-4, "\(form)")
  }
}
