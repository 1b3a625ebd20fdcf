import Base
import CodeGen
import Formats
import Glibc
import IR
import TestSupport
import Testing

/// Tokenizers of checkpoints, written by `TokenizerSection` and read by the runtime, against the ids that the package
/// `tokenizers` gives (Fixtures/tokenizer_cases.json).
@Suite struct TokenizerTests {
  /// Prints for each text on standard input (a 32-bit length, then bytes) the ids, then the bytes they decode to.
  private static let program = """
    #include <stdio.h>
    #include <string.h>

    #include "tensor_file.h"
    #include "tokenizer.h"

    const mcc_program mcc_model;

    int main(int argc, char **argv) {
      (void)argc;
      size_t size, blob_size;
      const uint8_t *blob = mcc_file_read(argv[1], &blob_size);
      const char *problem;
      mcc_tokenizer *tokenizer = mcc_tokenizer_open((mcc_bytes){blob, blob_size}, INT32_MAX, &problem);
      if (tokenizer == NULL) {
        printf("%s\\n", problem);
        return 65;
      }
      const uint8_t *input = mcc_file_read("-", &size), *end = input + size;
      while (input < end) {
        uint32_t length;
        memcpy(&length, input, sizeof length);
        mcc_ids ids = {0};
        mcc_tokenizer_encode(tokenizer, (const char *)input + 4, length, true, &ids);
        input += 4 + length;
        mcc_text text = {0};
        mcc_decoder *decoder = mcc_decoder_open(tokenizer, true);
        for (int64_t i = 0; i < ids.count; i++) {
          printf("%d ", ids.data[i]);
          mcc_decoder_add(decoder, ids.data[i], &text);
        }
        mcc_decoder_finish(decoder, &text);
        mcc_decoder_close(decoder);
        printf("|");
        for (size_t i = 0; i < text.count; i++) printf(" %d", (unsigned char)text.data[i]);
        printf("\\n");
      }
      return 0;
    }

    """

  /// The compiled program, in a folder that lives as long as the tests.
  private static let built: Result<(path: String, folder: TemporaryFolder), any Error> = Result {
    let folder = try TemporaryFolder()
    try folder.write("driver.c", program)
    let wanted = [
      "tensor_file.c", "failure.c", "program.c", "cpu.c", "thread_pool.c", "mapping.c",
      "tensor_convert.c", "tensor_writer.c", "profile.c", "unicode.c",
    ]
    var sources = ["driver.c"]
    for file in RuntimeSources.files(of: .languageModel) {
      try folder.write(file.name, file.text)
      if wanted.contains(file.name) || (file.name.hasPrefix("tokenizer") && file.name.hasSuffix(".c")) {
        sources.append(file.name)
      }
    }
    let outcome = try Command.run(
      "cc",
      ["-std=gnu11", "-O1", "-o", folder.path("program")] + sources.map { folder.path($0) } + ["-lm", "-lpthread"])
    guard outcome.exitCode == 0 else { throw CompileError(.toolchain, outcome.errors) }
    return (folder.path("program"), folder)
  }

  /// Ids and decoded bytes of each text.
  private static func encode(_ texts: [[UInt8]], _ tokenizer: Tokenizer) throws -> [(ids: [Int], text: [UInt8])] {
    let folder = try TemporaryFolder()
    let section = try folder.write("section", try TokenizerSection.encode(tokenizer))
    let input = texts.flatMap { text in withUnsafeBytes(of: UInt32(text.count)) { Array($0) } + text }
    let outcome = try Command.run(try built.get().path, [section], input: input)
    #expect(outcome.exitCode == 0, "\(outcome.text)\(outcome.errors)")
    return outcome.text.split(separator: "\n").map { line in
      let parts = line.split(separator: "|", omittingEmptySubsequences: false)
      return (
        parts[0].split(separator: " ").compactMap { Int($0) },
        parts.dropFirst().joined().split(separator: " ").compactMap { UInt8($0) }
      )
    }
  }

  private struct Case {
    var text: String
    var ids: [Int]
  }

  private static func cases(_ name: String) throws -> [Case] {
    let path = Fixtures.packageRoot + "/Tests/EndToEndTests/Fixtures/tokenizer_cases.json"
    let entries = try #require(try JSON.read(path: path).array)
    #expect(entries.count > 150)
    return try entries.map { entry in
      Case(
        text: try #require(entry["text"]?.string), ids: try #require(entry[name]?.array).compactMap { $0.int })
    }
  }

  private static func expectCases(_ name: String, _ tokenizer: Tokenizer) throws {
    let cases = try cases(name)
    let results = try encode(cases.map { Array($0.text.utf8) }, tokenizer)
    try #require(results.count == cases.count)
    for (expected, found) in zip(cases, results) {
      #expect(found.ids == expected.ids, "\(name): \(expected.text.debugDescription)")
    }
  }

  @Test func sentencePieceFormGivesTheReferenceIds() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    try Self.expectCases("stories", tokenizer)
  }

  @Test(arguments: [
    ("gpt2", Tokenizer.Pattern.Rule.gpt2), ("llama3", .llama3), ("qwen2", .qwen2), ("whole", .llama3),
  ])
  func byteLevelFormGivesTheReferenceIds(name: String, rule: Tokenizer.Pattern.Rule) throws {
    guard let path = Fixtures.path("pycode7m") else { return }
    var tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    tokenizer.splitters = [.init(Tokenizer.Pattern(rule), .isolated), .init(.bytes)]
    if name == "whole" {
      tokenizer.ignoresMerges = true
      let pairs = stride(from: 0, to: tokenizer.merges.count, by: 2).map { Array(tokenizer.merges[$0..<$0 + 2]) }
      tokenizer.merges = pairs.reversed().flatMap { $0 }
    }
    try Self.expectCases(name, tokenizer)
  }

  @Test(arguments: ["bert", "cased", "raw"])
  func wordPiecesGiveTheReferenceIds(name: String) throws {
    guard let path = Fixtures.path("minilm") else { return }
    var tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    if name == "cased" { tokenizer.normalizers[0].bert?.lowersCase = false }
    if name == "raw" {
      tokenizer.normalizers[0].bert?.cleansText = false
      tokenizer.normalizers[0].bert?.spacesIdeographs = false
      tokenizer.normalizers[0].bert?.stripsAccents = false
    }
    try Self.expectCases(name, tokenizer)
  }

  /// Pieces are joined and words parted by one space, but for punctuation; special tokens stand for nothing.
  @Test func wordPiecesDecodeToWords() throws {
    guard let path = Fixtures.path("minilm") else { return }
    let tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    let texts = ["Unaffable  EMBEDDINGS, na\u{EF}ve!", "[CLS]x", ""]
    let results = try Self.encode(texts.map { Array($0.utf8) }, tokenizer)
    #expect(
      results.map { String(decoding: $0.text, as: UTF8.self) } == ["unaffable embeddings, naive!", "x", ""])
  }

  /// The prompts of expected.json, through the scores of the GGUF.
  @Test func scoredFormGivesTheReferenceIds() throws {
    guard let path = Fixtures.path("stories260K/stories260K-f32.gguf"),
      let expected = Fixtures.path("stories260K/expected.json")
    else { return }
    let tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    #expect(tokenizer.algorithm == .scoredBPE)
    let cases = try #require(try JSON.read(path: expected)["cases"]?.array)
    let prompts = try cases.map { try #require($0["prompt"]?.string) }
    let results = try Self.encode(prompts.map { Array($0.utf8) }, tokenizer)
    for (entry, result) in zip(cases, results) {
      #expect(result.ids == entry["prompt_ids"]?.array?.compactMap { $0.int })
    }
  }

  /// Every text comes back, apart from bytes that are no UTF-8; special tokens stand for nothing.
  @Test(arguments: ["stories260K/hf", "pycode7m", "stories260K/stories260K-f32.gguf"])
  func decodingGivesTheTextBack(name: String) throws {
    guard let path = Fixtures.path(name) else { return }
    let tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    var random = SplitMix64(seed: 3)
    var texts = (0..<200).map { _ in (0..<random.int(below: 40)).map { _ in UInt8(random.int(below: 256)) } }
    // Compared by bytes: a combining character makes a letter of its own of what is before it.
    let special = ["<s>", "</s>", "<unk>", "<|endoftext|>", "\u{2581}"].map { Array($0.utf8) }
    let cases = try Self.cases("gpt2").filter { text in !special.contains { Array(text.text.utf8).contains($0) } }
    texts += cases.map { Array($0.text.utf8) }
    for (text, result) in zip(texts, try Self.encode(texts, tokenizer)) {
      guard let valid = String(validating: text, as: UTF8.self) else {
        // Byte tokens that follow one another are replaced together, byte-level ones as U+FFFD is defined.
        let repaired = Array(String(decoding: text, as: UTF8.self).utf8)
        if name == "pycode7m" { #expect(result.text == repaired) }
        #expect(String(validating: result.text, as: UTF8.self) != nil)
        continue
      }
      #expect(result.text == Array(valid.utf8))
    }
  }

  /// A merge of every pair would take minutes.
  @Test func longTextsTakeLinearithmicTime() throws {
    guard let path = Fixtures.path("stories260K/hf") else { return }
    let tokenizer = try #require(try FormatRegistry.load(path).tokenizer)
    let text = Array("the ".utf8)
    let texts = [Array((0..<500_000).map { text[$0 % 4] })]
    let watch = Stopwatch()
    let result = try Self.encode(texts, tokenizer)
    #expect(result.first?.text == texts[0])
    #expect(watch.seconds < 20)
  }

  /// Whatever the section holds, the reader refuses it or encodes with it.
  @Test(arguments: ["stories260K/hf", "minilm"])
  func damagedSectionsNeverCrashTheReader(model: String) throws {
    guard let path = Fixtures.path(model) else { return }
    let section = try TokenizerSection.encode(try #require(try FormatRegistry.load(path).tokenizer))
    let folder = try TemporaryFolder()
    let program = try Self.built.get().path
    let text = Array("\u{5}\0\0\0a <s>".utf8)
    var random = SplitMix64(seed: 4)
    for attempt in 0..<300 {
      var damaged = section
      if attempt % 3 == 0 { damaged.removeLast(random.int(below: damaged.count)) }
      for _ in 0...random.int(below: 6) where !damaged.isEmpty {
        let inHeader = random.int(below: 2) == 0
        let place = random.int(below: inHeader ? min(200, damaged.count) : damaged.count)
        damaged[place] = [0, 1, 0x7F, 0xFF, UInt8(random.int(below: 256))][random.int(below: 5)]
      }
      let outcome = try Command.run(program, [try folder.write("section", damaged)], input: text, timeout: 30)
      #expect(outcome.exitCode == 0 || outcome.exitCode == 65, "attempt \(attempt): \(outcome)")
    }
  }
}
