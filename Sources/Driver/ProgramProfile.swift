import Base
import CodeGen
import Glibc

/// Where the time of a generated program goes: the program runs with its stopwatches on, and what they show is held
/// against the work that its manifest names for every step.
package struct ProgramProfile: Sendable {
  /// What is measured.
  package enum Work: Hashable, Sendable {
    /// Tokens read at once, into an empty cache or behind `context` tokens.
    case prefill(Int, context: Int)
    /// Tokens decoded one by one.
    case decode(Int, context: Int)
    /// Runs of a network on files with inputs; on random numbers where there are none.
    case network(inputs: [String], dimensions: [String])
    /// The program with these arguments.
    case command([String])
  }

  /// The time of some steps and the work in it.
  package struct Row: Hashable, Sendable {
    package var name: String
    /// Calls of kernels.
    package var calls = 0.0
    /// Seconds, the mean over the threads.
    package var seconds = 0.0
    /// Seconds of the slowest thread of each step.
    package var slowest = 0.0
    /// Seconds if all calls were like the shortest, which other programs on the machine disturbed least.
    package var least = 0.0
    package var operations = 0.0
    package var bytes = 0.0

    package init(name: String) { self.name = name }

    package var bytesPerSecond: Double { seconds > 0 ? bytes / seconds : 0 }
    package var operationsPerSecond: Double { seconds > 0 ? operations / seconds : 0 }

    fileprivate mutating func add(_ other: Row) {
      calls += other.calls
      seconds += other.seconds
      slowest += other.slowest
      least += other.least
      operations += other.operations
      bytes += other.bytes
    }
  }

  /// The runs of one function.
  package struct Function: Sendable {
    package var role: String
    package var calls: Int
    /// Seconds of all calls.
    package var seconds: Double
    /// Means over the calls of the sizes that the caller decides.
    package var sizes: [(name: String, value: Double)]
    package var steps: [Row]
    /// Summed by kernel and by layer, longest first and in order.
    package var kernels: [Row]
    package var layers: [Row]

    /// Seconds that the threads did not spend in kernels: waiting for one another, and between the steps.
    package var waiting: Double { max(seconds - steps.reduce(0) { $0 + $1.seconds }, 0) }

    /// The sum of the rows.
    package var total: Row {
      var row = Row(name: "all kernels")
      for step in steps { row.add(step) }
      return row
    }
  }

  package var name: String
  package var target: String
  package var threads: Int
  package var functions: [Function]

  // MARK: Measuring

  /// Whether the program at `path` is a language model.
  package static func isLanguageModel(_ path: String) throws -> Bool {
    let functions = try ProgramFile(try MappedFile(path: path)).manifest()["functions"]?.array ?? []
    return functions.contains { $0["role"]?.string == "decode" }
  }

  /// Runs `program` and reads what its stopwatches show.
  ///
  /// - Throws: `CompileError` of kind `.input` if the file is no program of this kind, `.usage` if it cannot do the work.
  package static func measure(_ program: String, _ work: Work, threads: Int?, repeats: Int?) async throws -> Self {
    let path = ChildProcess.path(of: program)
    let manifest = try ProgramFile(try MappedFile(path: program)).manifest()
    let roles = (manifest["functions"]?.array ?? []).compactMap { $0["role"]?.string }
    var arguments: [String]
    var measured: Set<String>?
    switch work {
    case .prefill(let tokens, let context), .decode(let tokens, let context):
      guard roles.contains("decode") else {
        throw CompileError(.usage, "'\(program)' is no language model; --prefill and --decode are for those")
      }
      let isPrefill = if case .prefill = work { true } else { false }
      arguments = ["bench", "--prefill", "\(isPrefill ? tokens : 0)", "--decode", "\(isPrefill ? 0 : tokens)"]
      if context > 0 { arguments += ["--context", "\(context)"] }
      measured = [isPrefill && tokens > 1 && roles.contains("prefill") ? "prefill" : "decode"]
    case .network(let inputs, let dimensions):
      if roles.contains("decode") {
        throw CompileError(.usage, "'\(program)' is a language model; it is measured with --prefill or --decode")
      }
      arguments = ["bench"] + inputs.flatMap { ["--input", $0] } + dimensions.flatMap { ["--dim", $0] }
    case .command(let words): arguments = words
    }
    if arguments.first == "bench" { arguments += ["--repeat", "\(repeats ?? 5)"] }
    if let threads { arguments += ["--threads", "\(threads)"] }
    let folder = try WorkFolder()
    let file = folder.file("profile.json")
    let answer = try await ChildProcess.run(path, arguments, environment: ["MCC_PROFILE": file])
    guard answer.succeeded else {
      let line = answer.messages.split(separator: "\n").first.map(String.init) ?? ""
      throw CompileError(
        .usage, "'\(program) \(arguments.joined(separator: " "))' failed", notes: line.isEmpty ? [] : [line])
    }
    guard access(file, R_OK) == 0 else {
      throw CompileError(
        .input, "'\(program)' measured nothing: it was compiled by a version of mcc without profiles, or did not run")
    }
    return try Self(try JSON.parse(MappedFile.contents(path: file), file: file), manifest: manifest, only: measured)
  }

  // MARK: Reading

  /// What the stopwatches of a program show.
  ///
  /// - Parameters:
  ///   - times: what the program wrote.
  ///   - manifest: that of the program.
  ///   - roles: the functions of interest; nil for all.
  /// - Throws: `CompileError` of kind `.input` if the two do not belong together.
  package init(_ times: JSON, manifest: JSON, only roles: Set<String>? = nil) throws {
    name = manifest["name"]?.string ?? ""
    target = manifest["target"]?.string ?? ""
    threads = times["threads"]?.int ?? 1
    functions = []
    let kernels = (manifest["kernels"]?.array ?? []).map { $0.string ?? "" }
    for entry in times["functions"]?.array ?? [] {
      guard let role = entry["role"]?.string, roles?.contains(role) ?? true else { continue }
      let sameRole = (manifest["functions"]?.array ?? []).filter { $0["role"]?.string == role }
      let known = sameRole.first { $0["target"]?.string == entry["target"]?.string }?["steps"]?.array ?? []
      let stamps = entry["steps"]?.array ?? []
      guard let calls = entry["calls"]?.int, let seconds = entry["seconds"]?.double, known.count == stamps.count else {
        throw CompileError(.input, "the profile of '\(name)' does not fit to its manifest")
      }
      let sizes = (entry["sizes"]?.object ?? JSONObject()).map { (name: $0.key, value: $0.value.double ?? 0) }
      let binding = Dictionary(sizes.map { ($0.name, $0.value) }) { first, _ in first }
      var function = Function(
        role: role, calls: calls, seconds: seconds, sizes: sizes, steps: [], kernels: [], layers: [])
      var byKernel: [String: Int] = [:]
      var byLayer: [String: Int] = [:]
      for (step, times) in zip(known, stamps) {
        func work(_ key: String) -> Double {
          (step[key].flatMap { SizePolynomial($0) } ?? SizePolynomial()).value(binding) * Double(calls)
        }
        let kernel = step["kernel"]?.int ?? -1
        var row = Row(name: kernels.indices.contains(kernel) ? kernels[kernel] : "?")
        row.calls = Double(calls)
        row.seconds = times["mean"]?.double ?? 0
        row.slowest = times["most"]?.double ?? 0
        row.least = times["least"]?.double ?? 0
        row.operations = work("operations")
        row.bytes = work("weight_bytes") + work("other_bytes")
        Self.add(row, to: &function.kernels, &byKernel)
        let origin = step["origin"]?.string ?? ""
        var layer = row
        layer.name = Self.layer(of: origin)
        Self.add(layer, to: &function.layers, &byLayer)
        row.name = "\(origin): \(row.name)"
        function.steps.append(row)
      }
      function.kernels.sort { $0.seconds > $1.seconds }
      functions.append(function)
    }
    guard !functions.isEmpty else { throw CompileError(.input, "'\(name)' ran none of its functions") }
  }

  private static func add(_ row: Row, to rows: inout [Row], _ index: inout [String: Int]) {
    if let position = index[row.name] {
      rows[position].add(row)
    } else {
      index[row.name] = rows.count
      rows.append(row)
    }
  }

  /// The layer that a place in the model belongs to: up to the first part that ends in a digit, such as
  /// `model.layers.3` of `model.layers.3.mlp.up_proj`; without one the whole place.
  static func layer(of origin: String) -> String {
    var end = origin.startIndex
    while end < origin.endIndex {
      let next = origin[end...].firstIndex { $0 == "." || $0 == "/" } ?? origin.endIndex
      if next > end, let last = origin[end..<next].last, last.isASCII, last.isNumber { return String(origin[..<next]) }
      end = next == origin.endIndex ? next : origin.index(after: next)
    }
    return origin
  }
}
