import Glibc
import Synchronization
import Testing

/// The folder of real models with recorded outputs: `MCC_TEST_MODELS`, else `../shared/models` beside the package.
///
/// A test that needs it begins with `guard let path = Fixtures.path("stories260K/hf") else { return }`. Without the folder
/// that prints why the test is skipped; with `MCC_TEST_STRICT=1` it is a failure.
package enum Fixtures {
  /// The folder, if it exists.
  package static let folder: String? = {
    if let given = getenv("MCC_TEST_MODELS") {
      let path = String(cString: given)
      return exists(path) ? path : nil
    }
    return ["\(packageRoot)/../shared/models", "../shared/models"].first(where: exists).map(resolved)
  }()

  /// The folder that holds Package.swift.
  package static let packageRoot: String = {
    // This file is Tests/TestSupport/Fixtures.swift; the path may lead through symbolic links.
    let parts = resolved(#filePath).split(separator: "/", omittingEmptySubsequences: false)
    return parts.dropLast(3).joined(separator: "/")
  }()

  /// Whether a missing fixture is a failure.
  package static let isStrict = getenv("MCC_TEST_STRICT").map { String(cString: $0) == "1" } ?? false

  /// The path of a fixture; nil, having said so, if it is not there.
  package static func path(_ name: String, sourceLocation: SourceLocation = #_sourceLocation) -> String? {
    if let folder, exists("\(folder)/\(name)") { return "\(folder)/\(name)" }
    skip("needs the fixture \(name) (MCC_TEST_MODELS)", sourceLocation: sourceLocation)
    return nil
  }

  private static let skips = Mutex(0)

  /// Says that the current test, or a part of it, is left out; a failure if `isStrict`.
  package static func skip(_ reason: String, sourceLocation: SourceLocation = #_sourceLocation) {
    let count = skips.withLock { count in
      count += 1
      return count
    }
    print("skipped: \(Test.current?.name ?? "a test") \(reason) [\(count) skipped so far]")
    if isStrict { Issue.record("skipped: \(reason)", sourceLocation: sourceLocation) }
  }

  /// Whether Python has the given modules; says so if not.
  package static func python(_ modules: [String], sourceLocation: SourceLocation = #_sourceLocation) -> Bool {
    let list = modules.joined(separator: ", ")
    if (try? Command.run("python3", ["-c", "import \(list)"]))?.exitCode == 0 { return true }
    skip("needs Python with \(list)", sourceLocation: sourceLocation)
    return false
  }

  private static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  private static func resolved(_ path: String) -> String {
    guard let result = realpath(path, nil) else { return path }
    defer { free(result) }
    return String(cString: result)
  }
}
