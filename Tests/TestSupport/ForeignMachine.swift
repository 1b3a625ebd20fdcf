import Glibc
import Testing

/// Another architecture than this machine's: what compiles for it and what runs its programs.
///
/// A test that lacks either says so and is skipped, like one without its fixture.
package struct ForeignMachine: Sendable {
  /// How its cross compiler and libraries are called: `aarch64-linux-gnu`.
  package let triple: String

  package init(triple: String) { self.triple = triple }

  private var architecture: Substring { triple.prefix { $0 != "-" } }
  /// The folder of its C library.
  private var libraries: String { "/usr/" + triple }

  /// The command of a C compiler that makes its programs, `clang` or `gcc`; nil, having said so, if there is none.
  package func compiler(_ name: String) -> [String]? {
    if Self.isCommand("\(triple)-gcc") {
      return name == "clang" ? ["clang", "--target=" + triple] : ["\(triple)-gcc"]
    }
    Fixtures.skip("needs \(triple)-gcc (package gcc-\(triple.replacing("_", with: "-")))")
    return nil
  }

  /// What runs its programs.
  ///
  /// - Parameter cpu: the model of the CPU, as QEMU names it.
  /// - Returns: the command; nil, having said so, if there is none.
  package func emulator(cpu: String = "max") -> [String]? {
    for name in ["qemu-\(architecture)", "qemu-\(architecture)-static"] where Self.isCommand(name) {
      return [name, "-L", libraries, "-cpu", cpu]
    }
    Fixtures.skip("needs qemu-\(architecture) (package qemu-user)")
    return nil
  }

  /// Whether everything is tested under emulation, instead of a seeded sample.
  package static let testsEverything = getenv("MCC_TEST_FULL").map { String(cString: $0) == "1" } ?? false

  /// Whether a program of that name is in PATH.
  package static func isCommand(_ name: String) -> Bool {
    let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin"
    return path.split(separator: ":").contains { access("\($0)/\(name)", X_OK) == 0 }
  }
}
