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

  func random(_ sizes: [Int], seed: UInt64, in range: ClosedRange<Float> = -1...1) throws -> Tensor {
    try random(.f32, sizes, seed: seed, in: range)
  }

  func random(_ element: DType, _ sizes: [Int], seed: UInt64, in range: ClosedRange<Float> = -1...1) throws
    -> Tensor
  {
    var generator = SplitMix64(seed: seed)
    let values = generator.floats(sizes.reduce(1, *), in: range)
    let tensor = Tensor(.f32, sizes, values)
    if element == .f32 { return tensor }
    let cast = Tensor(TensorType(element, sizes))
    try Cast(element).evaluate([tensor.view], into: [cast.mutableView])
    return cast
  }

  func quantized(_ tensor: Tensor, _ format: BlockFormat) throws -> Tensor {
    let op = Quantize(format)
    let result = Tensor(try op.inferTypes([tensor.type])[0])
    try op.evaluate([tensor.view], into: [result.mutableView])
    return result
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
