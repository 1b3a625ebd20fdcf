import CodeGen
import TestSupport
import Testing

/// Kernels printed as Swift, in the same harness against the same reference. A part of the cases, as `swiftc` needs longer;
/// `MCC_TEST_KERNELS=swift` (`make test-full`) runs all of them.
@Suite struct SwiftKernelTests {
  /// One target for each vector width, and one of another architecture.
  static let targets = ["x86-64-v4", "x86-64-v3", "portable", "aarch64-i8mm"]

  /// Every `stride`-th case of each family, so that all families and number formats occur.
  private func sample(_ cases: [KernelCase], stride: Int) -> [KernelCase] {
    cases.indices.filter { $0 % stride == stride / 2 }.map { cases[$0] }
  }

  @Test(arguments: targets) func kernelsComputeWhatTheReferenceDoes(_ name: String) throws {
    let tests = KernelTests()
    var cases = sample(try tests.floatMatMuls(), stride: 17)
    cases += sample(try tests.quantizedMatMuls(), stride: 29)
    cases += sample(try tests.extremeMatMuls(), stride: 9)
    cases += sample(try tests.rows(), stride: 17)
    cases += sample(try tests.attention(), stride: 29)
    cases += sample(try tests.elementwise(), stride: 41)
    cases += sample(try tests.movement(), stride: 31)
    cases += sample(try RecurrenceTests().cases(), stride: 13)
    let target = try TargetRegistry.target(named: name)
    let runs = try cases.flatMap { try $0.runs(on: target) }
    for failure in try KernelHarness(target: target, language: .swift).failures(runs) {
      Issue.record("\(name): \(failure)")
    }
  }

  /// What kernels are checked for is found where it is.
  @Test func checksAndReferenceCountsAreFoundInMachineCode() throws {
    let folder = try TemporaryFolder()
    let object = folder.path("kernels.o")
    func failure(_ body: String, _ mode: String) throws -> String? {
      try folder.write("kernels.swift", "@_cdecl(\"f\") public func f(_ x: Int) -> Int { \(body) }\n")
      let built = try Command.run(
        "swiftc",
        [
          "-parse-as-library", "-wmo", mode, "-module-name", "kernels", "-c", folder.path("kernels.swift"), "-o",
          object,
        ])
      try #require(built.exitCode == 0, "\(built.errors)")
      return try SwiftObject(path: object, functions: ["f"]).failure()
    }
    #expect(try failure("x + 1", "-Ounchecked") == nil)
    #expect(try failure("x + 1", "-O")?.contains("has a check") == true)
    #expect(try failure("Array(repeating: x, count: x).reversed()[x / 2]", "-Ounchecked")?.contains("needs") == true)
    #expect(try SwiftObject(path: object, functions: ["g"]).failure() != nil)
  }

  /// A verb that Swift's SIMD types can say well should be in its vocabulary, and one that they cannot is listed here.
  @Test(arguments: KernelTests.targets) func whatSwiftLacksComesFromC(_ name: String) throws {
    let target = try TargetRegistry.target(named: name)
    let lacking = [
      "loadTail.", "storeTail.", "load.i8", "load.u8", "load.bf16", "convert.", "reduce.", "store.i8", "store.u8",
      "store.bf16", "storeElement.", "dotStep.", "dotFlush.", "dotRows.", "dotToken", "repeat", "exchange",
      "lookup.",
    ]
    let rounding = ["sqrt.f32", "floor.f32", "round.f32"]
    for verb in SwiftRenderer(target: target).verbsFromC
    where !verb.hasSuffix(".f16") && !rounding.contains(verb) && !lacking.contains(where: verb.hasPrefix) {
      Issue.record("Swift kernels take '\(verb)' from C: add it to the Swift vocabulary, or to this list")
    }
  }
}
