import Base
import Driver
import TestSupport
import Testing

/// The C that `--emit c` writes: compiled by what is there, without warnings, and equal in behaviour.
@Suite struct EmittedSourcesTests {
  @Test(arguments: ["clang", "gcc"], ["native", "portable"])
  func compilesWithoutWarningsAndTellsTheStory(compiler: String, target: String) async throws {
    guard try Command.run("sh", ["-c", "command -v \(compiler) && command -v make"]).exitCode == 0 else {
      Fixtures.skip("needs \(compiler) and make")
      return
    }
    let folder = try TemporaryFolder()
    var options = CompileOptions()
    options.artefact = .c
    options.target = target
    options.output = folder.path("story")
    var generator = Compiler(options)
    _ = try await generator.compile(CompiledModels.stories)
    let made = try Command.run(
      "make", ["-C", folder.path("story"), "-j2", "CC=\(compiler)", "CFLAGS=-Wall -Wextra -Werror"], timeout: 300)
    #expect(made.exitCode == 0, "\(made.errors)")
    let whole = try await CompiledModels.compile(CompiledModels.stories, "story")
    let arguments = ["-n", "30", "--temperature", "0", "--print-ids", "Once upon a time"]
    #expect(
      try CompiledModels.run(folder.path("story/stories260K"), arguments) == CompiledModels.run(whole, arguments))
  }
}
