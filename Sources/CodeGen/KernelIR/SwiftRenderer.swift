/// Prints kernels as Swift for one target: SIMD types and unsafe pointers, without allocations or reference counts, as
/// functions with the C signature of `CRenderer`.
package struct SwiftRenderer {
  package let target: Target

  package init(target: Target) { self.target = target }

  /// Flags of the Swift compiler: no checks of overflow, no need of the runtime libraries, the target's instructions.
  package static func compilerFlags(target: Target) -> [String] {
    ["-parse-as-library", "-wmo", "-Ounchecked", "-suppress-warnings", "-disable-bridging-pch"]
      + ["-Xfrontend", "-disable-stack-protector"] + foreignFlags(target.architecture)
      + (["-O3"] + target.compilerFlags).flatMap { ["-Xcc", $0] }
  }

  /// Flags for another architecture than this machine's, of which a Swift toolchain has only the library of Embedded Swift,
  /// for machines without operating system and C library; kernels need neither, and C finds its functions when linking.
  package static func foreignFlags(_ architecture: Architecture?) -> [String] {
    guard let architecture, architecture != Architecture.host else { return [] }
    return ["-target", architecture.bareTriple, "-enable-experimental-feature", "Embedded", "-no-allocations"]
      + ["-Xcc", "-DMCC_FREESTANDING"]
  }

  /// The verbs of the target that Swift kernels take from its C vocabulary, sorted.
  package var verbsFromC: [String] {
    let own = Vocabulary.swift(for: target, fused: target.fuses).verbs
    return target.vocabulary.verbs.keys.filter { own[$0] == nil }.sorted()
  }

  /// A Swift file and the C header that it is compiled with (`-import-objc-header`).
  package func file(_ kernels: [KernelFunction], guardName: String = "KERNELS_SWIFT_H") -> (
    source: String, header: String
  ) {
    var printer = SwiftPrinter(target: target)
    let bodies = kernels.map { printer.function($0) }
    var text = printer.vocabulary.preamble.joined(separator: "\n") + "\n\n"
    for helper in printer.helpers { text += helper + "\n\n" }
    return (text + bodies.joined(separator: "\n"), printer.bridge.text(guardName: guardName))
  }

  /// The Swift type of elements in memory; f16 and bf16 are `UInt16`.
  static func swiftType(_ element: ScalarType) -> String {
    switch element {
    case .f32: "Float"
    case .f64: "Double"
    case .f16, .bf16: "UInt16"
    case .i8: "Int8"
    case .u8: "UInt8"
    case .i16: "Int16"
    case .i32: "Int32"
    case .i64: "Int"
    }
  }

  /// `UnsafePointer<Float>` and so on.
  static func pointerType(_ pointer: Pointer) -> String {
    "Unsafe\(pointer.isMutable ? "Mutable" : "")Pointer<\(swiftType(pointer.element))>"
  }
}
