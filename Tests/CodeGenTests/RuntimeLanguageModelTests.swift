import Base
import CodeGen
import Glibc
import IR
import TestSupport
import Testing

/// The face of a language model, around the toy model of `RuntimeCode`.
@Suite struct RuntimeLanguageModelTests {
  static let vocabulary = 261, context = 512
  static let begin = 256, end = 257

  /// Bytes, then BOS, EOS and two merges.
  static var tokenizer: Tokenizer {
    var tokenizer = Tokenizer(algorithm: .byteLevelBPE)
    var next: UInt32 = 0x100
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: tokenizer.tokens.append(String(Unicode.Scalar(byte)))
      default:
        tokenizer.tokens.append(Unicode.Scalar(next).map { String($0) } ?? "")
        next += 1
      }
    }
    tokenizer.tokens += ["<s>", "</s>", "he", "hel", "lo"]
    tokenizer.kinds = Array(repeating: .normal, count: 256) + [.control, .control, .normal, .normal, .normal]
    let h = Int32(UInt8(ascii: "h")), e = Int32(UInt8(ascii: "e")), l = Int32(UInt8(ascii: "l"))
    tokenizer.merges = [h, e, 258, l, l, Int32(UInt8(ascii: "o"))]
    tokenizer.splitters = [.init(Tokenizer.Pattern(.gpt2), .isolated), .init(.bytes)]
    tokenizer.decoders = [.init(.bytes)]
    tokenizer.added = [.init(id: begin), .init(id: end)]
    tokenizer.beginID = begin
    tokenizer.endIDs = [end]
    return tokenizer
  }

  /// Logits that depend on all tokens before.
  static let table: [Float] = {
    var random = SplitMix64(seed: 7)
    return random.floats(vocabulary * vocabulary)
  }()

  static func hashed(tokenizer: Bool = true, settings: String = "temperature 0\nbos 256\neos 257\n") throws
    -> RuntimeProgram
  {
    try RuntimeProgram(
      try RuntimeCode.languageModel.get(), weights: [1] + table,
      tokenizer: tokenizer ? try TokenizerSection.encode(Self.tokenizer) : [], settings: settings)
  }

  /// A program that always follows a byte of `chain` by the next one.
  static func chained(_ chain: [Int], mode: Float = 0) throws -> RuntimeProgram {
    var weights = [Float](repeating: 0, count: vocabulary * vocabulary)
    for (token, next) in zip(chain, chain.dropFirst()) { weights[token * vocabulary + next] = 1 }
    return try RuntimeProgram(
      try RuntimeCode.languageModel.get(), weights: [mode] + weights,
      tokenizer: try TokenizerSection.encode(tokenizer), settings: "bos 256\neos 257\n")
  }

  static func logits(after ids: ArraySlice<Int>) -> ArraySlice<Float> {
    let row = ids.reduce(0) { ($0 * 31 + $1 + 1) % 1_000_003 } % vocabulary
    return table[row * vocabulary..<(row + 1) * vocabulary]
  }

  static func greedy(_ prompt: [Int], count: Int, penalty: Float = 1) -> [Int] {
    var ids = prompt
    while ids.count < prompt.count + count && ids.count <= context {
      var logits = Array(logits(after: ids[...]))
      for id in Set(ids) { logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty }
      ids.append(logits.indices.reduce(0) { logits[$1] > logits[$0] ? $1 : $0 })
    }
    return ids
  }

  static func list(_ ids: [Int]) -> String { ids.map(String.init).joined(separator: ",") }

  // MARK: Ids

  @Test(arguments: [1, 7, 8, 9, 16, 100])
  func greedyIdsFollowAllTokensForAnyPromptLengthAndThreadCount(length: Int) throws {
    let program = try Self.hashed()
    var random = SplitMix64(seed: UInt64(length))
    let prompt = (0..<length).map { _ in random.int(below: Self.vocabulary) }
    let expected = Self.greedy(prompt, count: 20)
    for threads in ["1", "2", "3", "16"] {
      let ids = try program.ids(
        ["--prompt-ids", Self.list(prompt), "-n", "20", "--ignore-eos", "--threads", threads])
      #expect(ids == expected, "\(threads) threads")
    }
  }

  @Test func generationEndsWhenTheContextIsFull() throws {
    let program = try Self.hashed()
    let prompt = Array(repeating: 5, count: Self.context - 3)
    let outcome = try program.run(["--prompt-ids", Self.list(prompt), "--print-ids", "--ignore-eos", "--threads", "1"])
    #expect(outcome.exitCode == 0)
    #expect(outcome.errors == "note: the context of 512 tokens is full\n")
    // The last token is predicted from a full cache, and never enters it.
    #expect(outcome.text.split(separator: " ").count == Self.context + 1)
    try program.expectRefusal(
      ["--prompt-ids", Self.list(prompt + [1, 2, 3, 4])], exitCode: 65, "513 tokens; the context holds 512")
  }

  @Test func generationStopsAfterTheEndToken() throws {
    let program = try Self.chained([97, 98, Self.end, 99, 100])
    #expect(try program.ids(["--prompt-ids", "97"]) == [97, 98, Self.end])
    #expect(try program.run(["a"]).text == "ab\n")
    #expect(try program.run(["a", "--ignore-eos", "-n", "4"]).text == "abcd\n")
    #expect(try program.ids(["--prompt-ids", "97", "-n", "0"]) == [97])
  }

  @Test func aProgramWithoutTokenizerTakesAndPrintsIds() throws {
    let program = try Self.hashed(tokenizer: false)
    let outcome = try program.run(["--prompt-ids", "5, 6", "-n", "3", "--ignore-eos"])
    #expect(outcome.text == Self.greedy([5, 6], count: 3).map(String.init).joined(separator: " ") + "\n")
    #expect(try program.ids(["-n", "2", "--ignore-eos"]) == Self.greedy([Self.begin], count: 2))
    try program.expectRefusal(["hello"], exitCode: 64, "no tokenizer")
    try program.expectRefusal(["perplexity", "/dev/null"], exitCode: 64, "no tokenizer")
  }

  // MARK: Sampling

  @Test func repeatPenaltyActsOncePerTokenSeen() throws {
    let ids = try Self.hashed().ids(
      ["--prompt-ids", "5,6,5", "-n", "40", "--ignore-eos", "--repeat-penalty", "1.5"])
    #expect(ids == Self.greedy([5, 6, 5], count: 40, penalty: 1.5))
    #expect(ids != Self.greedy([5, 6, 5], count: 40))
  }

  @Test func aSeedGivesTheSameTokensForAnyThreadCount() throws {
    let program = try Self.hashed()
    let sampling = ["--prompt-ids", "1", "-n", "40", "--ignore-eos", "--temperature", "1", "--seed"]
    let first = try program.ids(sampling + ["9"])
    #expect(try program.ids(sampling + ["9", "--threads", "3"]) == first)
    #expect(try program.ids(sampling + ["10"]) != first)
    for narrow in [["--top-k", "1"], ["--top-p", "0"], ["--temperature", "0"]] {
      #expect(try program.ids(sampling + ["9"] + narrow) == Self.greedy([1], count: 40), "\(narrow)")
    }
  }

  /// Draws from one known distribution. Each count is binomial; 5 standard deviations leave less than 1e-5 for a false
  /// alarm of the seeded runs, none of which is left to chance.
  @Test(arguments: [
    (["--temperature", "1"], [0.4, 0.3, 0.2, 0.1]),
    (["--temperature", "0.5"], [0.5333, 0.3, 0.1333, 0.0333]),
    (["--temperature", "1", "--top-k", "2"], [0.5714, 0.4286, 0, 0]),
    (["--temperature", "1", "--top-p", "0.75"], [0.4444, 0.3333, 0.2222, 0]),
    (["--temperature", "1", "--top-k", "3", "--top-p", "0.7"], [0.5714, 0.4286, 0, 0]),
  ])
  func sampledFrequenciesMatchTheDistribution(options: [String], expected: [Double]) throws {
    var row = [Float](repeating: -.infinity, count: Self.vocabulary)
    row[200] = .nan
    for (token, weight) in [(30, 0.4), (20, 0.3), (10, 0.2), (40, 0.1)] { row[token] = Float(log(weight)) }
    let weights = (0..<Self.vocabulary).flatMap { _ in row }
    let program = try RuntimeProgram(try RuntimeCode.languageModel.get(), weights: [0] + weights)
    var counts: [Int: Int] = [:]
    var total = 0
    for seed in 1...4 {
      let ids = try program.ids(
        ["--prompt-ids", "30", "-n", "500", "--ignore-eos", "--seed", "\(seed)"] + options
      ).dropFirst()
      for id in ids { counts[id, default: 0] += 1 }
      total += ids.count
    }
    #expect(total == 2000)
    #expect(Set(counts.keys).isSubset(of: [30, 20, 10, 40]))
    for (token, probability) in zip([30, 20, 10, 40], expected) {
      let deviation = (Double(total) * probability * (1 - probability)).squareRoot()
      let difference = abs(Double(counts[token, default: 0]) - Double(total) * probability)
      #expect(difference <= 5 * deviation + 0.5, "token \(token): \(counts)")
    }
  }

  @Test func defaultsComeFromTheSettings() throws {
    let program = try Self.hashed(settings: "temperature 1\ntop_k 1\nbos 256\neos 257\n")
    #expect(try program.ids(["--prompt-ids", "4", "-n", "9", "--ignore-eos"]) == Self.greedy([4], count: 9))
    let warm = try Self.hashed(settings: "temperature 1\n")
    let draws = try (1...5).map { try warm.ids(["--prompt-ids", "4", "-n", "9", "--seed", "\($0)"]) }
    #expect(Set(draws).count == 5)
    for damaged in ["temperature x\n", "bos 261\n", "color 1\n", "top_p 2\n", "eos 1 2\n"] {
      try Self.hashed(settings: damaged).expectRefusal(["a"], exitCode: 65, "generation settings")
    }
  }

  // MARK: Text

  @Test func promptsComeFromArgumentsFilesAndStandardInput() throws {
    let program = try Self.hashed()
    let folder = try TemporaryFolder()
    let prompt = "hello é\n"
    // hel lo, then ' ' and the bytes of é, and the line feed.
    let ids = [259, 260, 32, 0xC3, 0xA9, 10]
    let file = try folder.write("prompt", prompt)
    let options = ["-n", "5", "--ignore-eos"]
    #expect(try program.ids([prompt] + options) == Self.greedy(ids, count: 5))
    let text = try program.run([prompt] + options).output
    #expect(text.starts(with: Array(prompt.utf8)))
    #expect(try program.run(["generate", prompt] + options).output == text)
    #expect(try program.run(["-"] + options, input: prompt).output == text)
    #expect(try program.run(["--prompt-file", file] + options).output == text)
    #expect(try program.run(["--prompt-file=-"] + options, input: prompt).output == text)
    #expect(try program.run(["--prompt-ids", Self.list(ids)] + options).output == text)
    #expect(try program.ids([""] + options) == Self.greedy([Self.begin], count: 5))
  }

  @Test func textIsWrittenInWholeCharacters() throws {
    // a, é in two tokens, a byte that is no UTF-8, b, € in three tokens, and the beginning of a character.
    let program = try Self.chained([97, 0xC3, 0xA9, 0xFF, 98, 0xE2, 0x82, 0xAC, 0xF0])
    #expect(try program.run(["a", "-n", "8"]).text == "aé\u{FFFD}b€\u{FFFD}\n")
    // Between two writes the reader never sees a part of a character.
    let slow = try Self.chained([97, 0xC3, 0xA9, 0xFF, 98, 0xE2, 0x82, 0xAC, 0xF0], mode: 2)
    let pieces = try slow.shell(
      #"""
      "$0" a -n 8 | while :; do
        piece=$(dd bs=99 count=1 2>/dev/null | od -An -v -tx1)
        [ -z "$piece" ] && break
        echo $piece
      done
      """#)
    let lines = pieces.text.split(separator: "\n")
    #expect(lines.joined(separator: " ") == "61 c3 a9 ef bf bd 62 e2 82 ac ef bf bd 0a")
    #expect(lines.count > 3)
    for line in lines { #expect(!["c3", "e2", "82", "f0"].contains(line.suffix(2)), "\(line)") }
  }

  @Test func stopTextsEndTheTextBeforeThem() throws {
    let program = try Self.chained(Array(97...122))
    func text(_ stops: String..., prompt: String = "a") throws -> String {
      try program.run([prompt, "-n", "25"] + stops.flatMap { ["--stop", $0] }).text
    }
    #expect(try text("def") == "abc\n")
    #expect(try text("dex", "xyz", "cdx") == "abcdefghijklmnopqrstuvw\n")
    #expect(try text("efg", "def") == "abc\n")
    #expect(try text("b") == "a\n")
    // Held back as a possible beginning of a stop text, and printed after all.
    #expect(try text("xyzq") == "abcdefghijklmnopqrstuvwxyz\n")
    // Only what is generated counts.
    #expect(try text("ab", prompt: "ab") == "abcdefghijklmnopqrstuvwxyz" + "\0" + "\n")
    try program.expectRefusal(["a", "--stop", ""], exitCode: 64, "not empty")
    try program.expectRefusal(["a", "--stop", "b", "--print-ids"], exitCode: 64, "--stop")
  }

  // MARK: The end

  @Test func interruptAndClosedPipeEndItInOrder() throws {
    let slow = try Self.chained(Array(97...122), mode: 2)
    let interrupted = try slow.shell(#"timeout --preserve-status -s INT 0.5 "$0" a -n 25; echo "status $?""#)
    #expect(interrupted.text.hasPrefix("a"))
    #expect(interrupted.text.hasSuffix("\nstatus 130\n"))
    #expect(!interrupted.text.contains("z"))
    let closed = try slow.shell(#""$0" a -n 25 | head -c 2; echo " ${PIPESTATUS[0]}""#)
    #expect(closed.text == "ab 0\n")
    #expect(closed.errors == "")
    let full = try slow.shell(#""$0" a -n 3 > /dev/full"#)
    #expect(full.exitCode == 74)
    #expect(full.errors == "error: cannot write to standard output: No space left on device\n")
  }

  @Test func helpVersionAndManifestAlwaysWork() throws {
    let program = try Self.hashed()
    for arguments in [
      ["--help"], ["-h"], ["generate", "--help"], ["perplexity", "-h"], ["logits", "-h"], ["bench", "-h"],
    ] {
      let outcome = try program.run(arguments)
      #expect(outcome.exitCode == 0 && outcome.text.contains("--threads"), "\(arguments)")
    }
    #expect(try program.run(["--version"]).text == "toy (compiled by mcc test for any)\n")
    let manifest = try JSON.parse(try program.run(["--manifest"]).text, file: "manifest")
    #expect(manifest["source"]?.string == "a test")
  }

  @Test func wrongArgumentsAreRefusedWithOneSentence() throws {
    let program = try Self.hashed()
    for (arguments, part) in [
      (["--temprature", "1"], "did you mean '--temperature'"), (["--zzzzzzzzz"], "--help"), (["-n"], "needs a value"),
      (["-n", "x"], "whole number"), (["-n", "-5"], "whole number"), (["--threads", "0"], "1 to 64"),
      (["--threads", "65"], "1 to 64"), (["--seed", "99999999999999999999"], "whole number"),
      (["--top-p", "1.5"], "0 to 1"), (["--top-p", "nan"], "0 to 1"), (["--print-ids=1"], "takes no value"),
      (["--repeat-penalty", "0"], "above 0"), (["once", "upon"], "quotes"), (["a", "--prompt-ids", "1"], "one prompt"),
      (["--prompt-ids", "1,x"], "1,2,3"), (["--prompt-ids", "261"], "outside the vocabulary of 261"),
      (["--prompt-ids", "-1"], "outside the vocabulary"), (["perplexity"], "one FILE"),
      (["perplexity", "x", "--score-from", "2"], "--window"), (["perplexity", "x", "--window", "513"], "context"),
      (["perplexity", "x", "--window", "8", "--score-from", "8"], "below the window"),
      (["logits", "--ids", "x.npy"], "--output"), (["bench", "--prefill", "513"], "context"),
      (["bench", "--context", "512"], "context"),
    ] { try program.expectRefusal(arguments, exitCode: 64, part) }
    try program.expectRefusal(["--prompt-file", "/nonexistent"], exitCode: 65, "/nonexistent")
    try program.expectRefusal(["--prompt-file", "/"], exitCode: 65, "cannot read '/'")
  }

  // MARK: Measuring

  static func loss(_ ids: [Int], from first: Int) -> (sum: Double, count: Int) {
    var sum = 0.0
    for position in first..<ids.count {
      let logits = logits(after: ids[..<position]).map(Double.init)
      let largest = logits.max() ?? 0
      sum += log(logits.reduce(0) { $0 + exp($1 - largest) }) + largest - logits[ids[position]]
    }
    return (sum, max(ids.count - first, 0))
  }

  static func bytes(_ text: String) -> [Int] {
    text.replacing("hel", with: "\u{1}").replacing("he", with: "\u{2}").replacing("lo", with: "\u{3}").utf8
      .map { $0 == 1 ? 259 : $0 == 2 ? 258 : $0 == 3 ? 260 : Int($0) }
  }

  /// f32 sums of 261 exponentials lose less than 1e-6.
  static func expectPerplexity(
    _ outcome: Command.Outcome, _ losses: [(sum: Double, count: Int)], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let expected = exp(losses.reduce(0) { $0 + $1.sum } / Double(losses.reduce(0) { $0 + $1.count }))
    let words = outcome.text.split(whereSeparator: { $0 == " " || $0 == "\n" })
    let found = words.count == 2 && words[0] == "perplexity" ? Double(words[1]) ?? .nan : .nan
    #expect(abs(found / expected - 1) < 1e-5, "\(outcome.text)\(outcome.errors)", sourceLocation: sourceLocation)
  }

  @Test func perplexityOfDocumentsStartsEachWithBOS() throws {
    let program = try Self.hashed()
    let folder = try TemporaryFolder()
    let long = String(repeating: "hello world. ", count: 60)
    let file = try folder.write("text", " \n\thello there\u{3000}<|endoftext|>\n<|endoftext|>\(long)<|endoftext|>x")
    let documents = ["hello there", String(long.dropLast()), "x"].map {
      Array(([Self.begin] + Self.bytes($0)).prefix(Self.context))
    }
    let losses = documents.map { Self.loss($0, from: 1) }
    Self.expectPerplexity(try program.run(["perplexity", file]), losses)
    Self.expectPerplexity(try program.run(["perplexity", file, "--threads", "3"]), losses)
    try program.expectRefusal(["perplexity", try folder.write("empty", " \n")], exitCode: 65, "too short")
    try program.expectRefusal(["perplexity", "/nonexistent"], exitCode: 65, "/nonexistent")
  }

  @Test(arguments: [(8, 1, 256), (33, 20, 256), (33, 32, -1), (64, 1, 7)])
  func perplexityOfWindows(window: Int, first: Int, begin: Int) throws {
    let program = try Self.hashed()
    let text = String(repeating: "The other hello.\n", count: 20)
    let folder = try TemporaryFolder()
    let path = try folder.write("text", text)
    let ids = Self.bytes(text)
    let losses = stride(from: 0, through: ids.count - window, by: window).map { start in
      let tokens = Array(ids[start..<start + window])
      return Self.loss(begin < 0 ? tokens : [begin] + tokens.dropFirst(), from: first)
    }
    #expect(losses.count == ids.count / window)
    let outcome = try program.run([
      "perplexity", path, "--window", "\(window)", "--score-from", "\(first)", "--bos", begin < 0 ? "none" : "\(begin)",
    ])
    Self.expectPerplexity(outcome, losses)
  }

  @Test(arguments: [1, 8, 9, 50])
  func logitsOfEveryPosition(count: Int) throws {
    let program = try Self.hashed()
    let folder = try TemporaryFolder()
    let ids = (0..<count).map { ($0 * 37 + 5) % Self.vocabulary }
    let input = try folder.write(
      "ids.npy", NumPyFile.npy("<i8", [1, count], ids.flatMap { NumPyFile.bytes(Int64($0)) }))
    let output = folder.path("logits.npz")
    let outcome = try program.run(["logits", "--ids", input, "--output", output])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let arrays = try NumPyFile.archive(path: output)
    #expect(arrays.map(\.name) == ["output"])
    #expect(arrays.first?.header == "{'descr': '<f4', 'fortran_order': False, 'shape': (1, \(count), 261), }")
    let expected = (0..<count).flatMap { Self.logits(after: ids[...$0]) }
    #expect(arrays.first?.values(of: Float.self) == expected)
    #expect(folder.names() == ["ids.npy", "logits.npz"])
  }

  @Test func eachOfSeveralTextsStartsAnew() throws {
    let program = try Self.hashed()
    let folder = try TemporaryFolder()
    let texts = (0..<3).map { text in (0..<9).map { ($0 * 37 + text * 11 + 5) % Self.vocabulary } }
    let input = try folder.write(
      "ids.npy", NumPyFile.npy("<i8", [3, 9], texts.flatMap { $0 }.flatMap { NumPyFile.bytes(Int64($0)) }))
    let outcome = try program.run(["logits", "--ids", input, "--output", folder.path("logits.npz")])
    #expect(outcome.exitCode == 0, "\(outcome.errors)")
    let array = try #require(try NumPyFile.archive(path: folder.path("logits.npz")).first)
    #expect(array.header.contains("'shape': (3, 9, 261)"))
    let expected = texts.flatMap { ids in ids.indices.flatMap { Self.logits(after: ids[...$0]) } }
    #expect(array.values(of: Float.self) == expected)
  }

  @Test func logitsRefusesIdsThatDoNotFit() throws {
    let program = try Self.hashed()
    let folder = try TemporaryFolder()
    func refuse(_ descriptor: String, _ shape: [Int], _ bytes: [UInt8], _ part: String) throws {
      let input = try folder.write("ids.npy", NumPyFile.npy(descriptor, shape, bytes))
      try program.expectRefusal(["logits", "--ids", input, "--output", folder.path("o.npz")], exitCode: 65, part)
    }
    try refuse("<i8", [1, 1], NumPyFile.bytes(Int64(261)), "outside the vocabulary")
    try refuse("<i8", [1, 1], NumPyFile.bytes(Int64(1) << 40), "does not fit i32")
    try refuse("<f4", [1, 1], NumPyFile.bytes(Float(1)), "f32 where i32 is expected")
    try refuse("<i2", [2, 1, 1], [0, 0, 0, 0], "[N, T]")
    try refuse("|u1", [0, 4], [], "1 to 512")
    try refuse("|u1", [1, 513], [UInt8](repeating: 0, count: 513), "1 to 512")
    try refuse("<i8", [1, 0], [], "1 to 512")
    #expect(folder.names() == ["ids.npy"])
    let good = try folder.write("ids.npy", NumPyFile.npy("|u1", [1, 1], [1]))
    try program.expectRefusal(
      ["logits", "--ids", good, "--output", "/nonexistent/o.npz"], exitCode: 73, "/nonexistent")
    try program.expectRefusal(["logits", "--ids", good, "--output", "/dev/full"], exitCode: 74, "No space left")
    try program.expectRefusal(["logits", "--ids", good, "--output", folder.path("o.txt")], exitCode: 64, ".npz")
  }

  @Test func benchReportsRatesAndBytes() throws {
    let program = try Self.hashed()
    let text = try program.run(
      ["bench", "--json", "--prefill", "20", "--decode", "11", "--context", "30", "--repeat", "2", "--threads", "2"])
    let result = try JSON.parse(text.text, file: "bench")
    #expect((result["prefill_tokens_per_second"]?.double ?? 0) > 0)
    let rate = try #require(result["decode_tokens_per_second"]?.double)
    // 1000 bytes of weights, and 10 for each of 30 to 40 tokens before.
    #expect(result["bytes_per_token"]?.double == 1350)
    let gigabytes = try #require(result["gigabytes_per_second"]?.double)
    #expect(abs(gigabytes / (rate * 1350e-9) - 1) < 1e-4)  // six digits are printed
    #expect(result["threads"]?.int == 2)
    #expect(try program.run(["bench"]).text.contains("decode"))
  }
}
