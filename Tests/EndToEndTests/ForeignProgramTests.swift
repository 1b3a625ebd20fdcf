import Base
import CodeGen
import Driver
import TestSupport
import Testing

/// Programs for another architecture, under emulation.
@Suite struct ForeignProgramTests {
  /// A target with the CPUs, as QEMU calls them, that run it and that do not.
  struct Case: CustomTestStringConvertible, Sendable {
    var target: String
    var runsOn: [String]
    var lacking: (cpu: String, feature: String)?
    var testDescription: String { target }
  }

  static let aarch64 = [
    Case(target: "aarch64-neon", runsOn: ["cortex-a72", "max"]),
    Case(target: "aarch64-dotprod", runsOn: ["neoverse-n1"], lacking: ("cortex-a72", "asimddp")),
    Case(target: "aarch64-i8mm", runsOn: ["max"], lacking: ("neoverse-n1", "i8mm")),
    Case(target: "aarch64", runsOn: ["cortex-a72", "neoverse-n1", "max"]),
  ]

  static let x86 = [
    Case(target: "x86-64-v2", runsOn: ["Nehalem"], lacking: ("core2duo", "sse4.1")),
    Case(target: "x86-64", runsOn: ["Nehalem", "Haswell"], lacking: ("core2duo", "sse4.1")),
  ]

  /// Tells the recorded story and one from 8-bit weights, and refuses CPUs without its instructions.
  private func check(_ example: Case, _ machine: ForeignMachine, quantize: String? = nil) async throws {
    guard let stories = try StoriesTests.cases(), let story = stories.first else { return }
    let program = try await CompiledModels.compile(
      CompiledModels.stories, "story-\(example.target)-\(quantize ?? "f32")", quantize: quantize,
      target: example.target, runs: false)
    let arguments = ["-n", "100", "--temperature", "0", "--ignore-eos", "--print-ids", "--threads", "2", story.prompt]
    var expected = story.greedy
    if let quantize {
      // Sums of codes are exact on every target, so that the native program tells the same story.
      let native = try await CompiledModels.compile(CompiledModels.stories, "story-\(quantize)", quantize: quantize)
      expected = try StoriesTests.greedy(native, story.prompt)
    }
    for cpu in example.runsOn {
      guard let emulator = machine.emulator(cpu: cpu) else { return }
      let outcome = try Command.run(emulator[0], emulator.dropFirst() + [program] + arguments)
      #expect(outcome.exitCode == 0, "\(outcome.errors)")
      #expect(outcome.text.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) } == expected, "\(cpu)")
    }
    if let lacking = example.lacking, let emulator = machine.emulator(cpu: lacking.cpu) {
      let outcome = try Command.run(emulator[0], emulator.dropFirst() + [program] + arguments)
      #expect(outcome.exitCode == 69)
      #expect(outcome.errors.split(separator: "\n").count == 1 && outcome.errors.contains(lacking.feature))
    }
  }

  @Test(arguments: aarch64) func aarch64ProgramsTellTheRecordedStories(_ example: Case) async throws {
    let machine = ForeignMachine(triple: Architecture.aarch64.triple)
    guard Architecture.host == .aarch64 || machine.compiler("gcc") != nil else { return }
    try await check(example, machine)
    try await check(example, machine, quantize: "w8")
    try await check(example, machine, quantize: "w4g32")
  }

  @Test(arguments: x86) func x86ProgramsCheckTheirCPU(_ example: Case) async throws {
    let machine = ForeignMachine(triple: Architecture.x86_64.triple)
    guard Architecture.host == .x86_64 || machine.compiler("gcc") != nil else { return }
    try await check(example, machine)
  }

  /// A program for several targets takes the best that the CPU runs, or the one that MCC_LEVEL names; each tells the story.
  @Test func programsChooseTheirLevel() async throws {
    guard Architecture.host == .x86_64, let story = try StoriesTests.cases()?.first else { return }
    let machine = ForeignMachine(triple: Architecture.x86_64.triple)
    let program = try await CompiledModels.compile(CompiledModels.stories, "story-levels", target: "x86-64")
    for (cpu, level) in [("Nehalem", "x86-64-v2"), ("Haswell", "x86-64-v3")] {
      guard let emulator = machine.emulator(cpu: cpu) else { return }
      let outcome = try Command.run(emulator[0], emulator.dropFirst() + [program, "--version"])
      #expect(outcome.exitCode == 0 && outcome.text.contains("here it runs as \(level)"), "\(outcome.text)")
    }
    let arguments = ["-n", "100", "--temperature", "0", "--ignore-eos", "--print-ids", story.prompt]
    for target in try TargetRegistry.targets(named: "x86-64") {
      let outcome = try Command.run(program, arguments, environment: ["MCC_LEVEL": target.name])
      if target.runs(on: HostCPU.features()) {
        #expect(outcome.text.split(whereSeparator: { !$0.isNumber }).compactMap { Int($0) } == story.greedy)
      } else {
        #expect(outcome.exitCode == 69)
      }
    }
    let unknown = try Command.run(program, arguments, environment: ["MCC_LEVEL": "x86-64-v9"])
    #expect(unknown.exitCode == 64 && unknown.errors.contains("x86-64-v9"))
    #expect(unknown.errors.split(separator: "\n").count == 1)
  }

  /// Without a cross compiler the message names the package; a compiler for another machine is refused.
  @Test func missingCrossCompilersAreNamed() async throws {
    let foreign: Architecture = Architecture.host == .aarch64 ? .x86_64 : .aarch64
    for (environment, words) in [
      (["PATH": "/nonexistent"], [foreign.rawValue, foreign.crossPackage]),
      (["PATH": "/usr/bin:/bin", "CC": "gcc"], ["'gcc'", foreign.rawValue, foreign.crossPackage]),
    ] {
      do {
        _ = try await CCompiler.find(for: foreign, environment: environment)
        Issue.record("a compiler was found with \(environment)")
      } catch let error as CompileError {
        #expect(error.kind == .toolchain)
        for word in words { #expect(([error.message] + error.notes).joined().contains(word), "\(error) \(word)") }
      }
    }
  }
}
