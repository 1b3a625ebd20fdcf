import Base
import TestSupport
import Testing

/// Small files of every kind that end early, at every byte: refused, or read as the shorter file that they are.
@Suite struct TruncationTests {
  /// Longer ones take too long for every byte; they are among the mutations of `FuzzTests`.
  private static let longest = 4096

  @Test(arguments: FuzzTarget.all)
  func filesThatEndEarly(target: FuzzTarget) throws {
    let folder = try TemporaryFolder()
    for (name, bytes) in target.others { try folder.write(name, bytes) }
    for bytes in try target.corpus() where bytes.count <= Self.longest {
      for count in bytes.indices {
        let path = try folder.write(target.file, Array(bytes[..<count]))
        do {
          try target.load(path)
          if !target.hasValidPrefixes { Issue.record("accepted \(count) of \(bytes.count) bytes") }
        } catch is CompileError {
        } catch {
          Issue.record("\(count) of \(bytes.count) bytes: threw \(error), not a CompileError")
        }
      }
    }
  }
}
