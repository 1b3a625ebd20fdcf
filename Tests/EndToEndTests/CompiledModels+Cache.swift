import Base
import CodeGen
import Driver
import Formats
import IR
import Passes
import TestSupport
import Tensors
import Testing

/// What is asked of programs with caches of their own.
extension CompiledModels {
  /// Compiles the bundled checkpoint with a cache, and `pass` behind the fusions, with what its compilation said.
  static func compile(
    _ name: String, cache: CacheType, context: Int? = nil, pass: String? = nil
  ) async throws -> (program: String, summary: Summary) {
    let folder = try folder()
    var options = CompileOptions()
    options.output = folder.file(name)
    options.cacheFolder = folder.file("cache")
    options.frontend.load.cacheType = cache
    options.frontend.load.context = context
    options.frontend.reproducerFolder = nil
    options.frontend.pipeline = try pass.map {
      try Pipeline(parsing: "fuse,merge-matmuls,canonicalize,fuse-elementwise,\($0)", registry: Presets.registry)
    }
    try await options.frontend.readTexts(for: stories)
    var compiler = Compiler(options)
    let summary = try await compiler.compile(stories)
    // Waits until no other child holds the file open for writing, see `Command.run`.
    _ = try run(folder.file(name), ["--version"])
    return (folder.file(name), summary)
  }

  /// The largest relative difference between the logits of a program of the bundled checkpoint and those of the evaluator,
  /// for so many tokens drawn from `seed`, which a program reads in several calls and the evaluator in one, or both in calls
  /// of `chunk`; with `original` the evaluator has the model before all passes.
  static func check(
    _ program: String, tokens: Int, seed: UInt64, chunk: Int? = nil, original: Bool = false
  ) async throws -> Double {
    let folder = try TemporaryFolder()
    var generator = SplitMix64(seed: seed)
    let ids = (0..<tokens).map { _ in Int64(generator.int(below: 512)) }
    try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
    var check = ProgramCheck()
    check.inputs = [folder.path("ids.npy")]
    (check.chunk, check.original) = (chunk, original)
    let result = try await check.run(model: stories, program: program)
    return try #require(result.differences.map(\.relative).max())
  }

  /// Of `tokens` tokens that a program generates one by one, the share that are the likeliest when all are read at once.
  static func likeliestShare(_ program: String, tokens: Int) throws -> Double {
    let folder = try TemporaryFolder()
    let line = try run(program, ["-n", "\(tokens)", "--temperature", "0", "--print-ids", "Once upon a time"])
    let ids = line.split { $0 == "," || $0.isWhitespace }.compactMap { Int64($0) }
    try #require(ids.count > 120)
    try NumPyArray(ids, [1, ids.count]).write(to: folder.path("ids.npy"))
    _ = try run(program, ["logits", "--ids", folder.path("ids.npy"), "--output", folder.path("logits.npz")])
    let logits = try NumPyArchive(path: folder.path("logits.npz")).require("output", file: "logits").doubles
    let vocabulary = logits.count / ids.count
    // The text begins with the prompt, whose tokens nothing chose.
    let places = 8..<(ids.count - 1)
    let same = places.count { place in
      let row = logits[place * vocabulary..<(place + 1) * vocabulary]
      let best = row.indices.max { row[$0] < row[$1] } ?? 0
      return best - row.startIndex == Int(ids[place + 1])
    }
    return Double(same) / Double(places.count)
  }
}
