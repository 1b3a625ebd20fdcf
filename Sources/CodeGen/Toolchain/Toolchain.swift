import Base
import Tensors

/// A source file, in C or in Swift, with everything its object depends on. A Swift file is a module of its own and comes
/// with a C header of the same name.
package struct CompileUnit: Hashable, Sendable {
  /// The file name, such as `model.c` or `kernels_0.swift`.
  package var name: String
  package var text: String
  /// The names of the headers it includes, directly or not.
  package var headers: [String]
  package var flags: [String]

  package init(name: String, text: String, headers: [String] = [], flags: [String]) {
    self.name = name
    self.text = text
    self.headers = headers
    self.flags = flags
  }

  var isSwift: Bool { name.hasSuffix(".swift") }

  /// The name without its extension.
  var stem: String { name.lastIndex(of: ".").map { String(name[..<$0]) } ?? name }

  /// The name of the object file.
  var object: String { stem + ".o" }

  /// The command line after the name of the compiler.
  var arguments: [String] {
    let swift = isSwift ? ["-module-name", stem, "-import-objc-header", stem + ".h"] : []
    return flags + swift + ["-c", name, "-o", object]
  }
}

/// Compiles with the compilers of this machine: in parallel, each unit at most once per content.
package struct Toolchain: Sendable {
  package var compiler: CCompiler
  /// The compiler of units in Swift; needed only if there are any.
  package var swiftCompiler: SwiftCompiler?
  /// Compilations at a time.
  package var jobs: Int
  package var cache: ObjectCache?

  /// A toolchain around a compiler.
  package init(
    compiler: CCompiler, swiftCompiler: SwiftCompiler? = nil, jobs: Int = availableThreads, cache: ObjectCache?
  ) {
    self.compiler = compiler
    self.swiftCompiler = swiftCompiler
    self.jobs = max(jobs, 1)
    self.cache = cache
  }

  /// How a compilation went.
  package struct Report: Hashable, Sendable {
    /// Units whose objects came from the cache.
    package var cached = 0
    /// Units that were compiled.
    package var compiled = 0

    package init(cached: Int = 0, compiled: Int = 0) {
      self.cached = cached
      self.compiled = compiled
    }
  }

  /// The key of a unit's object in the cache: a hash of text, headers, flags and compiler.
  package func key(of unit: CompileUnit, headers: [String: String]) -> String {
    var hash = SHA256()
    hash.update(field: "mcc object 1")
    hash.update(field: (unit.isSwift ? swiftCompiler?.identity : nil) ?? compiler.identity)
    for flag in unit.flags { hash.update(field: flag) }
    hash.update(field: unit.name)
    hash.update(field: unit.text)
    for name in unit.headers.sorted() {
      hash.update(field: name)
      hash.update(field: headers[name] ?? "")
    }
    return hash.hexDigest()
  }

  /// Compiles the units and links them.
  ///
  /// - Parameters:
  ///   - units: the sources; names are distinct.
  ///   - headers: the headers by name.
  ///   - output: the path of the program.
  ///   - folder: where sources and objects go.
  /// - Returns: how much was compiled.
  /// - Throws: `CompileError` of kind `.toolchain` with the compiler's first error.
  package func build(
    _ units: [CompileUnit], headers: [String: String], output: String, in folder: WorkFolder
  ) async throws -> Report {
    for (name, text) in headers { try AtomicFile.write(text, to: folder.file(name)) }
    for unit in units { try AtomicFile.write(unit.text, to: folder.file(unit.name)) }
    var report = Report()
    var missing: [(unit: CompileUnit, key: String)] = []
    for unit in units {
      let key = key(of: unit, headers: headers)
      if let object = cache?.bytes(for: key) {
        try AtomicFile.write(object, to: folder.file(unit.object))
        report.cached += 1
      } else {
        missing.append((unit, key))
      }
    }
    // Largest first: the longest compilation must not begin last.
    missing.sort { ($0.unit.text.utf8.count, $1.unit.name) > ($1.unit.text.utf8.count, $0.unit.name) }
    try await withThrowingTaskGroup(of: Void.self) { group in
      var next = 0
      func startOne() {
        guard next < missing.count else { return }
        let (unit, key) = missing[next]
        next += 1
        group.addTask { try await compile(unit, key: key, in: folder) }
      }
      for _ in 0..<jobs { startOne() }
      while try await group.next() != nil { startOne() }
    }
    report.compiled = missing.count
    if report.compiled > 0 { cache?.trim() }
    try await link(units.map(\.object), output: output, in: folder)
    return report
  }

  private func compile(_ unit: CompileUnit, key: String, in folder: WorkFolder) async throws {
    let object = unit.object
    guard !unit.isSwift else { return try await compileSwift(unit, key: key, in: folder) }
    let answer = try await compiler.run(unit.arguments, in: folder.path)
    guard answer.succeeded else {
      if let flag = Self.unknownFlag(answer.messages, among: unit.flags) {
        throw CompileError(
          .toolchain, "the C compiler '\(compiler.path)' does not know the flag '\(flag)' that the target needs",
          notes: ["choose another compiler with the variable CC, or another --target"])
      }
      throw CompileError(
        .toolchain, "'\(compiler.path)' refused the generated file '\(unit.name)'",
        notes: Self.firstErrors(answer.messages))
    }
    if let cache { cache.store(try MappedFile.contents(path: folder.file(object)), for: key) }
  }

  private func compileSwift(_ unit: CompileUnit, key: String, in folder: WorkFolder) async throws {
    guard let swiftCompiler else { preconditionFailure("\(unit.name) needs a Swift compiler") }
    let answer = try await ChildProcess.run(swiftCompiler.path, unit.arguments, in: folder.path)
    guard answer.succeeded else {
      throw CompileError(
        .toolchain, "'\(swiftCompiler.path)' refused the generated file '\(unit.name)'",
        notes: Self.firstErrors(answer.messages))
    }
    if let cache { cache.store(try MappedFile.contents(path: folder.file(unit.object)), for: key) }
  }

  private func link(_ objects: [String], output: String, in folder: WorkFolder) async throws {
    let answer = try await compiler.run(objects + ["-o", output, "-lm", "-lpthread"], in: folder.path)
    guard answer.succeeded else {
      throw CompileError(
        .toolchain, "'\(compiler.path)' could not link the program", notes: Self.firstErrors(answer.messages))
    }
  }

  /// The flag that the compiler complains about not to know.
  private static func unknownFlag(_ messages: String, among flags: [String]) -> String? {
    for line in messages.split(separator: "\n") {
      let isComplaint = ["unrecognized", "unknown", "unsupported", "bad value", "invalid"].contains {
        line.contains($0)
      }
      guard isComplaint, line.contains("error:"), !line.contains(".c:") else { continue }
      let found = flags.first { flag in
        line.contains(flag) || flag.split(separator: "=").last.map { line.contains("'\($0)'") } ?? false
      }
      if let found { return found }
    }
    return nil
  }

  private static func firstErrors(_ messages: String) -> [String] {
    let lines = messages.split(separator: "\n").map(String.init)
    let errors = lines.filter { $0.contains("error") || $0.contains("undefined") }
    return Array((errors.isEmpty ? lines : errors).prefix(3))
  }
}
