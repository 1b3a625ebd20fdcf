import Base
import Testing

/// Gives damaged forms of a valid file to a loader: cut off after every byte, and with bytes changed at random places.
///
/// Every damaged form must either load or throw a `CompileError`; a form that is cut off must throw one. The loader should
/// touch whatever it promises to have checked. A crash ends the test run.
///
/// `bytes` is small, since every prefix is tried; `mutations` forms with one to nine changed bytes follow, decided by
/// `seed`. At lengths in `allowedTruncations` the cut-off file is valid after all.
package func expectOnlyCompileErrors(
  _ bytes: [UInt8], mutations: Int = 2000, seed: UInt64 = 1, allowedTruncations: Set<Int> = [],
  sourceLocation: SourceLocation = #_sourceLocation, load: ([UInt8]) throws -> Void
) {
  func attempt(_ form: [UInt8], _ description: @autoclosure () -> String) -> Bool {
    do {
      try load(form)
      return true
    } catch is CompileError {
      return false
    } catch {
      Issue.record("\(description()): threw \(error), not a CompileError", sourceLocation: sourceLocation)
      return false
    }
  }
  #expect(attempt(bytes, "whole file"), "the undamaged file must load", sourceLocation: sourceLocation)
  for count in bytes.indices where !allowedTruncations.contains(count) {
    if attempt(Array(bytes[..<count]), "cut off after \(count) bytes") {
      Issue.record("accepted a file cut off after \(count) of \(bytes.count) bytes", sourceLocation: sourceLocation)
    }
  }
  var random = SplitMix64(seed: seed)
  // Values at the ends of ranges break more than uniform ones.
  let telling: [UInt8] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF]
  for mutation in 0..<(bytes.isEmpty ? 0 : mutations) {
    var form = bytes
    for _ in 0...random.int(below: 8) {
      let value =
        random.int(below: 2) == 0 ? telling[random.int(below: telling.count)] : UInt8(truncatingIfNeeded: random.next())
      form[random.int(below: form.count)] = value
    }
    _ = attempt(form, "mutation \(mutation)")
  }
}

/// As above, for a loader that reads a file: each form is written to a file called `name`.
package func expectOnlyCompileErrors(
  _ bytes: [UInt8], fileName name: String, mutations: Int = 2000, seed: UInt64 = 1, allowedTruncations: Set<Int> = [],
  sourceLocation: SourceLocation = #_sourceLocation, load: (String) throws -> Void
) throws {
  let folder = try TemporaryFolder()
  expectOnlyCompileErrors(
    bytes, mutations: mutations, seed: seed, allowedTruncations: allowedTruncations, sourceLocation: sourceLocation
  ) { form in
    try load(try folder.write(name, form))
  }
}
