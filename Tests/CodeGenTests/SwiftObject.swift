import Base
import TestSupport

/// The machine code of kernels in Swift: what must not be in it.
struct SwiftObject {
  /// The object file.
  var path: String
  /// The functions that are meant to be in it.
  var functions: [String]

  /// What is wrong, nil if nothing: a call of Swift's runtime or library (reference counts, allocation, what the optimiser
  /// did not inline), or an instruction that stops the program, as checks of bounds and overflow end in.
  func failure() throws -> String? {
    let disassembly = try Command.run("llvm-objdump", ["-d", "-r", "--no-show-raw-insn", path])
    guard disassembly.exitCode == 0 else { return "llvm-objdump: \(disassembly.errors)" }
    var function = ""
    // Embedded Swift puts the runtime into each object, where nothing may call it.
    var isRuntime = false
    for line in disassembly.text.split(separator: "\n") {
      if line.hasSuffix(">:"), let name = line.split(separator: "<").last?.dropLast(2) {
        function = String(name)
        isRuntime = Self.isRuntime(name)
        continue
      }
      if isRuntime { continue }
      let words = line.split { $0 == " " || $0 == "\t" || $0 == "<" || $0 == ">" || $0 == "+" }
      if words.count > 1, Self.traps.contains(String(words[1])) { return "\(function) has a check: \(words[1])" }
      if let called = words.first(where: { Self.isRuntime($0) || Self.isOfLibrary($0) }) {
        return "\(function) needs \(called)"
      }
    }
    let symbols = Set(
      try Command.run("llvm-nm", ["--defined-only", "-j", path]).text.split(separator: "\n").map(String.init))
    let missing = functions.filter { !symbols.contains($0) }
    return missing.isEmpty ? nil : "there is no code of \(missing.joined(separator: ", "))"
  }

  private static let traps: Set<String> = ["ud2", "brk", "udf", "int3", "hlt"]

  /// Mangled names of other modules than the kernels' own; `$e` is Embedded Swift's `$s`.
  private static func isOfLibrary(_ name: Substring) -> Bool {
    (name.hasPrefix("$s") || name.hasPrefix("$e")) && !name.dropFirst(2).hasPrefix("7kernels")
  }

  private static func isRuntime(_ name: Substring) -> Bool { name.hasPrefix("swift_") || name.hasPrefix("_swift_") }
}
