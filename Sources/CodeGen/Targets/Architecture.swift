/// A family of CPUs that one machine code runs on, with or without some instructions.
package enum Architecture: String, Hashable, Sendable, CaseIterable {
  case x86_64, aarch64

  /// That of the machine this process runs on; nil if mcc knows it only through portable C.
  package static var host: Architecture? {
    #if arch(x86_64)
      return .x86_64
    #elseif arch(arm64)
      return .aarch64
    #else
      return nil
    #endif
  }

  /// How cross compilers and folders of libraries are called: `aarch64-linux-gnu`.
  package var triple: String { rawValue + "-linux-gnu" }

  /// The name, for the Swift compiler, of a machine without operating system.
  var bareTriple: String { self == .x86_64 ? "x86_64-unknown-none-elf" : "aarch64-none-none-elf" }

  /// The Debian package of the cross compiler with the C library.
  package var crossPackage: String { self == .x86_64 ? "gcc-x86-64-linux-gnu" : "gcc-aarch64-linux-gnu" }
}
