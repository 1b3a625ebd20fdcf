import Base
import CodeGen
import TestSupport
import Testing

@Suite struct ToolchainTests {
  private let source = "#include \"value.h\"\nint main(void) { return VALUE; }\n"

  private func unit(_ text: String, flags: [String] = ["-O1"]) -> CompileUnit {
    CompileUnit(name: "main.c", text: text, headers: ["value.h"], flags: flags)
  }

  @Test func aProgramIsCompiledOnce() async throws {
    let folder = try TemporaryFolder()
    let cache = ObjectCache(folder: folder.path("cache"))
    let toolchain = Toolchain(compiler: try await CCompiler.find(), jobs: 2, cache: cache)
    func build(_ value: Int, _ flags: [String] = ["-O1"]) async throws -> (Toolchain.Report, Int32) {
      let program = folder.path("program")
      let report = try await toolchain.build(
        [unit(source, flags: flags)], headers: ["value.h": "#define VALUE \(value)\n"], output: program,
        in: try WorkFolder())
      return (report, try Command.run(program).exitCode)
    }
    #expect(try await build(3) == (.init(cached: 0, compiled: 1), 3))
    #expect(try await build(3) == (.init(cached: 1, compiled: 0), 3))
    // A header and a flag are part of what an object depends on.
    #expect(try await build(4) == (.init(cached: 0, compiled: 1), 4))
    #expect(try await build(4, ["-O0"]) == (.init(cached: 0, compiled: 1), 4))
    #expect(cache.entries().count == 3)
    #expect(cache.clear().files == 3)
    #expect(cache.entries().isEmpty)
  }

  @Test func anErrorOfTheCompilerIsTold() async throws {
    let folder = try TemporaryFolder()
    let toolchain = Toolchain(compiler: try await CCompiler.find(), cache: nil)
    do {
      _ = try await toolchain.build(
        [unit("int main(void) { return undeclared_name; }\n")], headers: [:], output: folder.path("program"),
        in: try WorkFolder())
      Issue.record("a wrong program was compiled")
    } catch let error as CompileError {
      #expect(error.kind == .toolchain)
      #expect(error.message.contains("main.c"))
      #expect(error.notes.contains { $0.contains("undeclared_name") })
    }
  }

  @Test(arguments: ["-march=no-such-cpu", "-mno-such-feature"]) func anUnknownFlagIsNamed(flag: String) async throws {
    let folder = try TemporaryFolder()
    let toolchain = Toolchain(compiler: try await CCompiler.find(), cache: nil)
    do {
      _ = try await toolchain.build(
        [unit("int main(void) { return 0; }\n", flags: ["-O1", flag])], headers: [:], output: folder.path("program"),
        in: try WorkFolder())
      Issue.record("\(flag) was accepted")
    } catch let error as CompileError {
      #expect(error.kind == .toolchain && error.message.contains(flag), "\(error)")
    }
  }

  @Test func aMissingCompilerIsOneSentence() async throws {
    for environment in [["PATH": "/nowhere"], ["PATH": "/usr/bin", "CC": "no-such-compiler"]] {
      do {
        _ = try await CCompiler.find(environment: environment)
        Issue.record("a compiler was found in \(environment)")
      } catch let error as CompileError {
        #expect(error.kind == .toolchain && error.kind.exitCode == 71)
        #expect(!error.description.contains("\n"))
      }
    }
  }

  @Test func aMissingSwiftCompilerIsOneSentence() async throws {
    for environment in [["PATH": "/nowhere"], ["PATH": "/usr/bin", "SWIFT_EXEC": "no-such-compiler"]] {
      do {
        _ = try await SwiftCompiler.find(environment: environment)
        Issue.record("a compiler was found in \(environment)")
      } catch let error as CompileError {
        #expect(error.kind == .toolchain && error.kind.exitCode == 71)
        #expect(error.message.contains("Swift compiler") && !error.message.contains("\n"))
      }
    }
  }

  /// What a Swift file takes from C belongs to what its object depends on.
  @Test func swiftUnitsAreCompiledOncePerContent() async throws {
    let folder = try TemporaryFolder()
    let cache = ObjectCache(folder: folder.path("cache"))
    let toolchain = Toolchain(
      compiler: try await CCompiler.find(), swiftCompiler: try await SwiftCompiler.find(), jobs: 2, cache: cache)
    func build(_ factor: Int) async throws -> Toolchain.Report {
      let units = [
        CompileUnit(name: "main.c", text: "int twice(int);\nint main(void) { return twice(3); }\n", flags: ["-O1"]),
        CompileUnit(
          name: "twice.swift", text: "@_cdecl(\"twice\") public func twice(_ x: Int32) -> Int32 { x * factor() }\n",
          headers: ["twice.h"], flags: SwiftRenderer.compilerFlags(target: .portable)),
      ]
      return try await toolchain.build(
        units, headers: ["twice.h": "static inline int factor(void) { return \(factor); }\n"],
        output: folder.path("program"), in: try WorkFolder())
    }
    #expect(try await build(2).compiled == 2)
    #expect(try Command.run(folder.path("program")).exitCode == 6)
    #expect(try await build(2).cached == 2)
    #expect(try await build(3) == Toolchain.Report(cached: 1, compiled: 1))
    #expect(try Command.run(folder.path("program")).exitCode == 9)
  }

  @Test func theCacheForgetsWhatWasUsedLongestAgo() throws {
    let folder = try TemporaryFolder()
    var cache = ObjectCache(folder: folder.path("cache"), limit: 250)
    for key in ["aa01", "bb02", "cc03"] { cache.store([UInt8](repeating: 1, count: 100), for: key) }
    cache.trim()
    #expect(cache.entries().count == 2)
    cache.limit = 0
    cache.trim()
    #expect(cache.entries().isEmpty)
  }

  @Test func aCacheThatCannotBeWrittenIsNone() throws {
    let folder = try TemporaryFolder()
    let cache = ObjectCache(folder: try folder.write("file", "x") + "/cache")
    cache.store([1], for: "aa01")
    #expect(cache.bytes(for: "aa01") == nil)
    #expect(cache.entries().isEmpty)
  }

  @Test func theFolderOfTheCacheFollowsTheEnvironment() {
    #expect(ObjectCache.defaultFolder(environment: ["XDG_CACHE_HOME": "/c", "HOME": "/h"]) == "/c/mcc")
    #expect(ObjectCache.defaultFolder(environment: ["HOME": "/h"]) == "/h/.cache/mcc")
    #expect(ObjectCache.defaultFolder(environment: ["XDG_CACHE_HOME": "relative"]) == nil)
  }

  @Test func temporaryFoldersGoAway() throws {
    var path = ""
    do {
      let folder = try WorkFolder()
      path = folder.path
      try WorkFolder.create(folder.file("a/b"))
      try AtomicFile.write("x", to: folder.file("a/b/c"))
      #expect(WorkFolder.names(in: folder.file("a/b")) == ["c"])
    }
    #expect(WorkFolder.names(in: path).isEmpty)
  }
}
