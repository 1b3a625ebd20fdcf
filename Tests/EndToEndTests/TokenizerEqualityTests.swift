import TestSupport
import Testing

/// A sample of `make test-tokenizers`: tokenizers of several kinds against the package `tokenizers`.
@Suite struct TokenizerEqualityTests {
  /// Texts in many scripts, with emoji, code and control characters, encoded by a program that mcc makes with the tokenizer,
  /// and decoded, also from random ids.
  @Test(arguments: ["o200k", "llama-2", "xlm-roberta", "clip", "bert"])
  func textsGiveTheIdsOfThePackage(family: String) throws {
    guard Fixtures.python(["numpy", "tokenizers"]) else { return }
    let mcc = try #require(MCCProgram.path)
    let script = Fixtures.packageRoot + "/Tests/tokenizer_equality.py"
    let outcome = try Command.run(
      "python3", [script, "--mcc", mcc, "--lines", "1000", "--family", family], timeout: 300)
    #expect(outcome.exitCode == 0, "\(outcome.text)\(outcome.errors)")
    #expect(outcome.text.contains("\(family): 0 of "))
  }
}
