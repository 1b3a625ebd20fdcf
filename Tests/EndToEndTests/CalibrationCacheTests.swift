import Base
import Driver
import Glibc
import TestSupport
import Testing

/// Results of calibration that are kept between compilations.
@Suite(.serialized) struct CalibrationCacheTests {
  private static let text = String(
    repeating: """
      Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, \
      red ball. She wanted to play with it, but it was too high. Her friend Tom came to help her. "Do not be sad," he said. \
      They found a long stick and pushed the ball down. They were very happy and played until the sun went down.\n
      """, count: 12)

  private struct Outcome {
    var codes: [UInt8]
    var summary: String
  }

  /// The codes and the summary of a compilation to text.
  private static func compile(
    _ folder: TemporaryFolder, _ arguments: [String], environment: [String: String] = ["XDG_CACHE_HOME": ""]
  ) throws -> Outcome {
    let text = folder.names().contains("text.txt") ? folder.path("text.txt") : try folder.write("text.txt", Self.text)
    let path = try #require(MCCProgram.path), output = folder.path("model.mir")
    let outcome = try Command.run(
      path,
      ["compile", CompiledModels.stories, "--emit", "mir", "--calibrate", text, "-o", output] + arguments,
      environment: environment)
    try #require(outcome.exitCode == 0, "\(outcome.errors)")
    return Outcome(codes: (try? MappedFile.contents(path: output + ".weights")) ?? [], summary: outcome.text)
  }

  /// A second compilation takes what the first one kept, and gives the same bytes; what is damaged is computed again.
  @Test func keepsCodes() throws {
    let folder = try TemporaryFolder(), cache = folder.path("cache")
    let options = ["--quantize", "w4", "--calibration-cache", cache]
    func names() -> [String] { TemporaryFolder.names(in: cache) }
    let first = try Self.compile(folder, options)
    #expect(!first.summary.contains("from the cache") && names().count == 1 && first.codes.count > 100_000)
    let second = try Self.compile(folder, options)
    #expect(second.summary.contains("weights from the cache 21"), "\(second.summary)")
    #expect(second.codes == first.codes)
    let other = try Self.compile(folder, ["--quantize", "w3", "--calibration-cache", cache])
    #expect(!other.summary.contains("from the cache") && names().count == 2)
    #expect(try Self.compile(folder, ["--quantize", "w4"]).summary.contains("from the cache") == false)

    // Cut off, with a byte changed, empty, or of another key.
    let paths = names().map { cache + "/" + $0 }
    let whole = try paths.map { try MappedFile.contents(path: $0) }
    for damage in 0..<5 {
      for (path, bytes) in zip(paths, whole) {
        var bytes = bytes
        switch damage {
        case 0: bytes.removeLast(bytes.count / 3)
        case 1: bytes[bytes.count / 2] ^= 1
        case 2: bytes = []
        case 3: bytes.replaceSubrange(16..<24, with: [UInt8](repeating: 0xFF, count: 8))
        default: bytes = path == paths[0] ? whole[1] : whole[0]
        }
        try AtomicFile.write(bytes, to: path)
      }
      let again = try Self.compile(folder, options)
      #expect(!again.summary.contains("from the cache"), "damage \(damage)")
      #expect(again.codes == first.codes)
    }
    #expect(try Self.compile(folder, options).summary.contains("from the cache"))
  }

  /// Without a name the folder lies in that of the user's caches, if there is one.
  @Test func usesTheFolderOfCaches() throws {
    let folder = try TemporaryFolder()
    let environment = ["XDG_CACHE_HOME": folder.path("xdg")]
    _ = try Self.compile(folder, ["--quantize", "w4"], environment: environment)
    #expect(TemporaryFolder.names(in: folder.path("xdg/mcc/calibration")).count == 1)
    let second = try Self.compile(folder, ["--quantize", "w4"], environment: environment)
    #expect(second.summary.contains("from the cache"))
    let none = try Self.compile(folder, ["--quantize", "w4", "--calibration-cache", "none"], environment: environment)
    #expect(!none.summary.contains("from the cache"))
  }

  /// The losses of layers are measured once for all budgets.
  @Test func keepsLosses() throws {
    let folder = try TemporaryFolder(), cache = folder.path("cache")
    func compile(_ bits: String) throws -> Outcome {
      try Self.compile(folder, ["--bits", bits, "--method", "rtn", "--calibration-cache", cache])
    }
    let first = try compile("4.5")
    #expect(!first.summary.contains("losses from the cache"))
    let other = try compile("3.5")
    #expect(other.summary.contains("losses from the cache 21"), "\(other.summary)")
    #expect(TemporaryFolder.names(in: cache).count == 1)
    // The same choice as without.
    let plain = try Self.compile(folder, ["--bits", "3.5", "--method", "rtn"])
    func choice(_ outcome: Outcome) -> [Substring] {
      outcome.summary.split(separator: "\n").filter { $0.contains("bits per weight") }
    }
    #expect(!plain.summary.contains("from the cache") && choice(plain) == choice(other) && !choice(other).isEmpty)
  }
}
