import Base
import Driver
import Formats
import TestSupport
import Testing

/// `mcc profile` on programs of both kinds: what it counts, not how long anything takes.
@Suite struct ProfileTests {
  private func profile(_ arguments: [String]) throws -> JSON {
    let outcome = try MCCProgram.run(["profile", "--json"] + arguments)
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    return try JSON.parse(outcome.output, file: "profile")
  }

  private func sum(_ rows: JSON?, _ key: String) -> Double {
    (rows?.array ?? []).reduce(0) { $0 + ($1[key]?.double ?? .nan) }
  }

  @Test func aLanguageModelIsCountedByKernelAndByLayer() async throws {
    let program = try await CompiledModels.compile(CompiledModels.stories, "profile-story", quantize: "w8")
    let json = try profile([program, "--decode", "9", "--context", "20", "--repeat", "2", "--threads", "2"])
    #expect(json["threads"]?.int == 2)
    let functions = json["functions"]?.array ?? []
    #expect(functions.map { $0["role"]?.string } == ["decode"])
    let decode = try #require(functions.first)
    #expect(decode["calls"]?.int == 18)
    #expect(decode["sizes"]?["position"]?.double == 24)
    for key in ["steps", "seconds", "bytes", "operations"] {
      let whole = sum(decode["steps"], key)
      #expect(whole > 0)
      #expect(abs(sum(decode["kernels"], key) - whole) <= 1e-9 * whole, "\(key)")
      #expect(abs(sum(decode["layers"], key) - whole) <= 1e-9 * whole, "\(key)")
    }
    let layers = (decode["layers"]?.array ?? []).compactMap { $0["name"]?.string }
    for layer in 0..<5 { #expect(layers.contains("model.layers.\(layer)"), "\(layers)") }
    #expect((decode["steps"]?.array ?? []).allSatisfy { ($0["seconds"]?.double ?? 0) > 0 })
    // 64 x 64, 64 x 32, 64 x 172 and 64 x 512 matrices, 2 operations for each weight and token, and little else.
    let layer: Int = 64 * 64 * 2 + 64 * 32 * 2 + 64 * 172 * 3
    let products = Double((5 * layer + 64 * 512) * 2 * 18)
    let operations = sum(decode["kernels"], "operations")
    #expect(operations > products && operations < 1.2 * products, "\(operations) for \(products)")
  }

  @Test func aPromptIsReadAtOnce() async throws {
    let program = try await CompiledModels.compile(CompiledModels.stories, "profile-story", quantize: "w8")
    let json = try profile([program, "--prefill", "33", "--repeat", "3", "--threads", "1"])
    let functions = json["functions"]?.array ?? []
    #expect(functions.map { $0["role"]?.string } == ["prefill"])
    #expect(functions.first?["calls"]?.int == 3)
    #expect(functions.first?["sizes"]?["T"]?.double == 33)
    #expect(functions.first?["sizes"]?["L"]?.double == 1)
    let commands = try profile([program, "--", "generate", "--prompt-ids", "1,2,3", "-n", "5", "--threads", "1"])
    #expect(Set((commands["functions"]?.array ?? []).map { $0["role"]?.string }) == ["prefill", "decode"])
  }

  @Test func aNetworkIsCountedByItsNodes() async throws {
    let model = Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx"
    let program = try await CompiledModels.compile(model, "profile-kws")
    let input = Fixtures.packageRoot + "/Examples/keyword_spotting/stop.npy"
    let json = try profile([program, "--input", input, "--repeat", "2", "--threads", "2"])
    let main = try #require(json["functions"]?.array?.first)
    #expect(main["role"]?.string == "main" && main["calls"]?.int == 2)
    #expect(sum(main["kernels"], "operations") > 0)
    let text = try MCCProgram.run(["profile", program, "--repeat", "1", "--steps"]).text
    for word in ["share", "GB/s", "GOP/s", "waiting", "kernel", "layer", "step"] {
      #expect(text.contains(word), "\(text)")
    }
  }

  @Test func whatCannotBeProfiledIsSaid() async throws {
    let program = try await CompiledModels.compile(CompiledModels.stories, "profile-story", quantize: "w8")
    func fails(_ arguments: [String], _ code: Int32, _ word: String) throws {
      let outcome = try MCCProgram.run(["profile"] + arguments)
      #expect(outcome.exitCode == code && outcome.errors.contains(word), "\(outcome)")
    }
    try fails([program, "--decode", "0"], 64, "--decode")
    try fails([program, "--decode", "1", "--prefill", "1"], 64, "--prefill")
    try fails([program, "--decode", "100000"], 64, "context")
    try fails([CompiledModels.stories + "/config.json"], 65, "config.json")
    let folder = try TemporaryFolder()
    let outcome = try Command.run(
      program, ["bench", "--repeat", "1", "--decode", "1", "--prefill", "0"],
      environment: ["MCC_PROFILE": folder.path("no/profile.json")])
    #expect(outcome.exitCode == 73 && outcome.errors.contains("no/profile.json"), "\(outcome)")
  }
}
