import Base
import CodeGen
import Glibc
import TestSupport
import Testing

/// Compiling the runtime, finding the bundle, and what a program needs of the processor.
@Suite struct RuntimeBundleTests {
  @Test func everyFileOfTheRuntimeIsEmbedded() throws {
    let folder = Fixtures.packageRoot + "/Sources/CodeGen/Runtime"
    let outcome = try Command.run("/bin/ls", [folder])
    #expect(Set(outcome.text.split(separator: "\n").map(String.init)) == Set(RuntimeSources.names))
  }

  @Test(arguments: RuntimeCode.compilers, [GeneratedSources.Face.languageModel, .encoder, .network])
  func theRuntimeCompilesWithoutWarnings(compiler: String, face: GeneratedSources.Face) throws {
    let model = face == .languageModel ? RuntimeCode.toyLanguageModel : RuntimeCode.toyNetwork
    // Warnings are errors there.
    _ = try RuntimeCode(model: model, face: face, compiler: compiler, flags: ["-O2", "-Wconversion"])
  }

  @Test func aProcessorWithoutTheFeaturesIsRefused() throws {
    let model = RuntimeCode.toyLanguageModel.replacing(
      "features[] = {NULL}", with: "features[] = {\"avx1024\", NULL}")
    let compiler = try #require(RuntimeCode.compilers.first)
    let code = try RuntimeCode(model: model, face: .languageModel, compiler: compiler)
    let program = try RuntimeProgram(
      code, weights: [Float](repeating: 0, count: 261 * 261 + 1))
    try program.expectRefusal(["--prompt-ids", "1"], exitCode: 69, "avx1024")
    #expect(try program.run(["--help"]).exitCode == 0)
    #expect(try program.run(["--manifest"]).exitCode == 0)
  }

  // MARK: Bundle

  /// The bytes of a program.
  static func programBytes() throws -> [UInt8] {
    let program = try RuntimeProgram(try RuntimeCode.network.get(), weights: [0.5])
    return try withExtendedLifetime(program) { try MappedFile.contents(path: program.path) }
  }

  /// Runs the bytes as a program, which must refuse to.
  static func expectRefusal(
    _ bytes: [UInt8], _ part: String, in folder: TemporaryFolder, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let path = try folder.write("damaged", bytes)
    chmod(path, 0o755)
    let outcome = try RuntimeProgram.run(path, ["bench", "--repeat", "1"])
    #expect(outcome.exitCode == 65, "\(outcome)", sourceLocation: sourceLocation)
    #expect(
      outcome.errors.hasPrefix("error: cannot use the program file '") && outcome.errors.contains(part)
        && outcome.errors.split(separator: "\n").count == 1, "\(outcome)", sourceLocation: sourceLocation)
    unlink(path)
  }

  @Test func aMissingOrTruncatedBundleIsSaid() throws {
    let folder = try TemporaryFolder()
    let whole = try Self.programBytes()
    let code = try MappedFile.contents(path: try RuntimeCode.network.get().path)
    try Self.expectRefusal(code, "no bundle", in: folder)
    for missing in [1, 8, 127, 128, 129, 4096] {
      try Self.expectRefusal(Array(whole.dropLast(missing)), "no bundle", in: folder)
    }
    try Self.expectRefusal(whole + [0], "no bundle", in: folder)
  }

  @Test func everyDamagedByteOfTheTrailerIsSaid() throws {
    let folder = try TemporaryFolder()
    var bytes = try Self.programBytes()
    for index in bytes.count - 128..<bytes.count {
      bytes[index] ^= 0x10
      try Self.expectRefusal(bytes, index < bytes.count - 120 ? "no bundle" : "checksum", in: folder)
      bytes[index] ^= 0x10
    }
  }

  /// Trailers with a right checksum and wrong contents.
  @Test func everyFieldOfTheTrailerIsChecked() throws {
    let folder = try TemporaryFolder()
    let whole = try Self.programBytes()
    func refuse(_ offset: Int, _ value: UInt64, _ part: String) throws {
      var trailer = Array(whole.suffix(128))
      trailer.replaceSubrange(offset..<offset + 8, with: NumPyFile.bytes(value))
      let hash = trailer.dropLast(8).reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
      trailer.replaceSubrange(120..<128, with: NumPyFile.bytes(hash))
      try Self.expectRefusal(Array(whole.dropLast(128)) + trailer, part, in: folder)
    }
    try refuse(8, 2 | 128 << 32, "version")
    try refuse(8, 1 | 127 << 32, "version")
    try refuse(16, UInt64(whole.count) + 4096, "larger than the file")
    try refuse(16, 127, "larger than the file")
    try refuse(16, .max, "larger than the file")
    try refuse(16, 128, "multiple of 4096")
    try refuse(24, 1, "another program")
    try refuse(32, 64, "misaligned")
    try refuse(32, .max - 63, "outside")
    try refuse(40, 8, "another size")
    try refuse(40, 1 << 63, "outside")
    try refuse(64, .max, "outside")
    try refuse(72, .max, "outside")
  }

  @Test func aBundleAppendedByHandIsFound() throws {
    let whole = try Self.programBytes()
    let code = try RuntimeCode.network.get().path
    let size = whole[(whole.count - 112)...].prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let folder = try TemporaryFolder()
    let bundle = try folder.write("bundle.bin", Array(whole.suffix(size)))
    let outcome = try Command.run(
      "/bin/bash",
      [
        "-c", #"cp "$1" "$0" && truncate -s %4096 "$0" && cat "$2" >> "$0" && "$0" --manifest"#, folder.path("by-hand"),
        code, bundle,
      ])
    #expect(outcome.text == "{\"source\": \"a test\"}\n", "\(outcome)")
  }
}
