import Base
import CodeGen
import IR
import TestSupport
import Tensors
import Testing

/// Every kernel family on every target, compiled and run, against the reference meaning of the operators.
///
/// `MCC_TEST_TARGET` restricts the tests to one target.
@Suite struct KernelTests {
  static let targets = TargetRegistry.all.map(\.name)

  func check(_ cases: [KernelCase], on name: String, compiler: String = "clang") throws {
    try KernelHarness.check(cases, on: name, compiler: compiler)
  }

  /// Random numbers, rounded to an element type.
  func random(_ element: DType, _ sizes: [Int], seed: UInt64, in range: ClosedRange<Float> = -1...1) throws
    -> Tensor
  {
    let tensor = Tensor.random(sizes, seed: seed, in: range)
    if element == .f32 { return tensor }
    let cast = Tensor(TensorType(element, sizes))
    try Cast(element).evaluate([tensor.view], into: [cast.mutableView])
    return cast
  }

  /// The type with its first axis as the symbol T.
  func symbolic(_ type: TensorType, axis: Int = 0, name: String = "T") -> TensorType {
    var type = type
    type.shape[axis] = .symbol(Symbol(name, in: 1...64))
    return type
  }

  /// gcc takes what clang takes, without warnings.
  @Test(arguments: targets) func compilesWithGCC(_ target: String) throws {
    let cases = try extremeMatMuls() + rows() + attention() + elementwise() + movement() + epilogues()
    try check(cases.indices.filter { $0 % 6 == 0 }.map { cases[$0] }, on: target, compiler: "gcc")
  }

  @Test func nativeIsTheBestThatRuns() {
    #expect(TargetRegistry.native(features: []).name == "portable")
    #expect(TargetRegistry.native(features: ["avx2", "fma", "f16c", "bmi2"]).name == "x86-64-v3")
    #expect(TargetRegistry.native(features: Set(Target.x86v4.features)).name == "x86-64-v4")
    #expect(HostCPU.features(cpuinfo: "processor\t: 0\nflags\t\t: fpu avx2 fma\n") == ["fpu", "avx2", "fma"])
    #expect(throws: CompileError.self) { try TargetRegistry.target(named: "z80") }
  }
}
