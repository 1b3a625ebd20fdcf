import Base
import CodeGen
import TestSupport
import Testing

/// Programs whose kernels are Swift.
@Suite struct SwiftKernelProgramTests {
  /// A program with Swift kernels writes what the one with C kernels does, and needs no library of Swift.
  @Test(arguments: [nil, "w8", "w4g32"]) func storiesAreTheSameInSwift(quantize: String?) async throws {
    let name = "story-" + (quantize ?? "f32")
    let c = try await CompiledModels.compile(CompiledModels.stories, name + "-c", quantize: quantize)
    let swift = try await CompiledModels.compile(
      CompiledModels.stories, name + "-swift", quantize: quantize, kernels: .swift)
    for prompt in ["Once upon a time", "The little dog"] {
      let arguments = ["--temperature", "0", "-n", "200", "--print-ids", prompt]
      let expected = try CompiledModels.run(c, arguments)
      #expect(expected.split(separator: " ").count > 100)
      #expect(try CompiledModels.run(swift, arguments) == expected)
    }
    let libraries = try Command.run("ldd", [swift]).text
    #expect(!libraries.contains("swift"), "\(libraries)")
  }
}
