import Base
import Driver
import TestSupport
import Testing

/// What a program does at its limits: threads, context, memory.
@Suite struct ProgramLimitTests {
  private func program() async throws -> String {
    try await CompiledModels.compile(CompiledModels.stories, "story-limits")
  }

  /// One sentence on standard error and the exit code.
  private func refuses(_ program: String, _ arguments: [String], exit code: Int32, _ words: String...) throws {
    let outcome = try Command.run(program, arguments)
    #expect(outcome.exitCode == code, "\(arguments): \(outcome.errors)")
    #expect(outcome.output.isEmpty)
    #expect(outcome.errors.hasPrefix("error: ") && outcome.errors.split(separator: "\n").count == 1)
    for word in words { #expect(outcome.errors.contains(word), "\(outcome.errors)") }
  }

  @Test func whatAProgramCannotDoIsOneSentence() async throws {
    let program = try await program()
    for threads in ["0", "-1", "1000000", "two"] {
      try refuses(program, ["--threads", threads, "Once"], exit: 64, "--threads", threads)
    }
    let long = (0..<2000).map { _ in "5" }.joined(separator: ",")
    try refuses(program, ["--prompt-ids", long], exit: 65, "2000", "context")
    try refuses(program, ["bench", "--context", "100000"], exit: 64, "--context")
    try refuses(program, ["perplexity", "--window", "100000", "/dev/null"], exit: 64, "window of 100000")
  }

  /// Cores that the process may not run on do not count, and more threads than cores are worth a warning, but work.
  @Test func threadsFollowTheCoresThatMayBeUsed() async throws {
    guard ForeignMachine.isCommand("taskset") else { return Fixtures.skip("needs taskset (package util-linux)") }
    let program = try await program()
    let bench = try Command.run(
      "taskset", ["-c", "0", program, "bench", "--prefill", "8", "--decode", "4", "--repeat", "1", "--json"])
    #expect(try JSON.parse(bench.text, file: "bench")["threads"]?.int == 1, "\(bench.text) \(bench.errors)")
    let arguments = ["-n", "20", "--temperature", "0", "Once upon a time"]
    let alone = try Command.run("taskset", ["-c", "0", program] + arguments)
    let crowded = try Command.run("taskset", ["-c", "0", program, "--threads", "3"] + arguments)
    #expect(alone.exitCode == 0 && alone.errors.isEmpty)
    #expect(crowded.exitCode == 0 && crowded.output == alone.output)
    #expect(crowded.errors.hasPrefix("warning: 3 threads on 1 core"))
  }

  /// Quotas of control groups are rounded up to whole cores; `max` is none.
  @Test func quotasAreCountedInCores() throws {
    let folder = try TemporaryFolder()
    let runtime = Fixtures.packageRoot + "/Sources/CodeGen/Runtime"
    try folder.write(
      "main.c",
      """
      #include "cpu.h"
      #include <stdio.h>
      int main(int count, char **texts) {
        for (int i = 1; i < count; i++) printf("%d ", mcc_cpu_quota(texts[i]));
        return 0;
      }
      """)
    let built = try Command.run(
      "clang", ["-I", runtime, folder.path("main.c"), runtime + "/cpu.c", "-o", folder.path("quota")])
    #expect(built.exitCode == 0, "\(built.errors)")
    let texts = ["max 100000\n", "150000 100000\n", "100000 100000\n", "50000 100000\n", "", "-1 100000", "1 0"]
    #expect(try Command.run(folder.path("quota"), texts).text == "0 2 1 1 0 0 0 ")
  }

  /// Weights, states and buffers as planned, and no more than 16 MiB for all else.
  @Test func memoryStaysWithinThePlan() async throws {
    let text = try CompiledModels.run(
      try await program(), ["bench", "--prefill", "64", "--decode", "16", "--repeat", "2", "--json"])
    let json = try JSON.parse(text, file: "bench")
    let planned = try #require(json["planned_bytes"]?.int), resident = try #require(json["resident_bytes"]?.int)
    #expect(planned > 1 << 20)
    #expect(resident > 0 && resident <= planned + 16 << 20, "\(resident) bytes resident, \(planned) planned")
  }
}
