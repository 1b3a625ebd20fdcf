import Base
import Formats
import IR
import TestSupport
import Testing

/// The records about vocabularies, tokenizers and templates, and about files that mcc does not take for models.
extension AttackCatalogueTests {
  /// The tiny Llama with a tokenizer file.
  private func tokenizer(_ name: String, _ bytes: [UInt8]) throws -> Tokenizer {
    let folder = try TinyCheckpoint().write()
    try folder.write(name, bytes)
    return try #require(try folder.load().tokenizer)
  }

  private func tokenizer(_ json: JSON) throws -> Tokenizer { try tokenizer("tokenizer.json", Array(json.text().utf8)) }

  private static let llama = TinyCheckpoint.llamaTokenizer

  /// CVE-2026-1260: tables of pieces of any content.
  @Test func cve20261260() throws {
    var random = SplitMix64(seed: 9)
    var accepted = 0
    for _ in 0..<300 {
      var bytes: [UInt8] = []
      for _ in 0..<random.int(below: 9) {
        let text = (0..<random.int(below: 6)).map { _ in
          UInt8(random.int(below: 4) == 0 ? 0xE2 : random.int(below: 128))
        }
        bytes += Wire.bytes(
          1,
          Wire.bytes(1, text) + [0x15] + FileBytes.littleEndian(UInt32(truncatingIfNeeded: random.next()))
            + Wire.number(3, UInt64(random.int(below: 8))))
      }
      bytes += Wire.bytes(2, Wire.number(3, UInt64(random.int(below: 4))) + Wire.number(41, random.next()))
      do {
        _ = try tokenizer("tokenizer.model", bytes)
        accepted += 1
      } catch is CompileError {}
    }
    #expect(accepted < 300)
  }

  /// sentencepiece 1263: a piece of 100 KB; 1308: a piece with a zero byte; 1269: places in the map that lie outside of it.
  @Test func sentencepiece() throws {
    let long = String(repeating: "a", count: 100_000)
    for text in [long, "a\0b"] {
      let piece = Wire.bytes(1, Wire.text(1, text) + [0x15] + FileBytes.f32([-1]))
      let found = try tokenizer("tokenizer.model", piece + Wire.bytes(2, Wire.number(3, 2)))
      #expect(found.tokens.first.map { Array($0.utf8) } == Array(text.utf8))
      let json = Self.llama.setting("model", "vocab", text, to: 7).setting("model", "vocab", "aa", to: nil)
        .setting("model", "merges", to: [])
      #expect(try tokenizer(json).tokens[7].utf8.elementsEqual(text.utf8))
    }
    for map: [UInt8] in [
      [0xFF, 0xFF, 0xFF, 0xFF], [4, 0, 0, 0, 0, 0, 0, 0x80, 0x61], [4, 0, 0, 0, 5, 0, 0, 0x80, 0],
    ] {
      let model = FuzzTarget.sentencePiece(type: 1) + Wire.bytes(3, Wire.bytes(2, map))
      expectFailure(.input, "'precompiled_charsmap'", "tokenizer.model") { _ = try tokenizer("tokenizer.model", model) }
    }
  }

  /// tokenizer.json: nesting, expressions that backtrack, merges of missing tokens.
  @Test func tokenizerJSON() throws {
    for (path, text): ([String], String) in [
      (["normalizer"], String(repeating: "[", count: 100_000)),
      (["model", "vocab"], String(repeating: "[", count: 100_000) + String(repeating: "]", count: 100_000)),
      (["model", "vocab"], String(repeating: "{\"a\":", count: 50_000) + "1" + String(repeating: "}", count: 50_000)),
      (["model", "merges"], String(repeating: "[", count: 100_000) + String(repeating: "]", count: 100_000)),
    ] {
      var json = Self.llama
      json = path.count == 1 ? json.setting(path[0], to: "@") : json.setting(path[0], path[1], to: "@")
      let watch = ThreadTime()
      expectFailure(.input, "tokenizer.json") {
        _ = try tokenizer("tokenizer.json", Array(json.text().replacing("\"@\"", with: text).utf8))
      }
      #expect(watch.seconds < 2)
    }
    let split: JSON = ["type": "Split", "pattern": ["Regex": "(a+)+$"], "behavior": "Isolated", "invert": false]
    expectFailure(.unsupported, "the regular expression '(a+)+$'") {
      _ = try tokenizer(Self.llama.setting("pre_tokenizer", to: split))
    }
    expectFailure(.input, "needs the token 'b'") {
      _ = try tokenizer(Self.llama.setting("model", "merges", to: ["a b"]))
    }
  }

  /// tokenizer.json: ten million added tokens. Their tree would take gigabytes.
  @Test func tenMillionAddedTokens() throws {
    let list = FileBytes.repeating(Array("{},".utf8), 10_000_000)
    let watch = ThreadTime()
    expectFailure(.input, "too many values", "tokenizer.json") {
      _ = try tokenizer("tokenizer.json", Array("{\"added_tokens\":[".utf8) + list + Array("{}]}".utf8))
    }
    #expect(watch.seconds < 2)
  }

  /// CVE-2024-34359, CVE-2026-5760: templates that reach for classes, or never end, are text for mcc, and the audit
  /// names them.
  @Test func cve202434359() throws {
    let templates = [
      "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{% for x in range(1000000000) %}{{ x }}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ]
    for (index, template) in templates.enumerated() {
      var file = GGUFBytes.llama()
      file.set("tokenizer.chat_template", .string(template))
      let folder = try TemporaryFolder()
      let path = try folder.write("m.gguf", file.bytes)
      #expect(try FormatRegistry.load(path).tokenizer != nil)
      #expect(try Audit.run(path).isAccepted == (index > 0))
    }
  }

  /// CVE-2026-28500, CVE-2025-23304, CVE-2025-54412, CVE-2025-54413, CVE-2025-54886: what a configuration says is data,
  /// and no file of the checkpoint is run.
  @Test func configurationsAreData() throws {
    var checkpoint = TinyCheckpoint()
    checkpoint.config["auto_map"] = ["AutoModelForCausalLM": "modeling_x.X"]
    checkpoint.files["modeling_x.py"] = "raise SystemExit(3)"
    checkpoint.config["_target_"] = "os.system"
    try Verifier.verify(checkpoint.write().load())
    checkpoint.config["callbacks"] = [["class_path": "os.system", "init_args": ["x"]]]
    expectFailure(.unsupported, "'callbacks'") { _ = try checkpoint.write().load() }
  }

  /// CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-9905, CVE-2025-9906, CVE-2025-49655: Keras files; CVE-2024-5187,
  /// CVE-2024-7776: archives that are unpacked. None of these is a format of mcc, whatever the name.
  @Test func foreignArchives() throws {
    let config = Array("{\"class_name\":\"Lambda\"}".utf8)
    var tar = [UInt8](repeating: 0, count: 1536)
    tar.replaceSubrange(0..<12, with: Array("../../escape".utf8))
    tar.replaceSubrange(257..<262, with: Array("ustar".utf8))
    let folder = try TemporaryFolder()
    for (name, bytes): (String, [UInt8]) in [
      ("m.keras", ZipBytes.stored([("config.json", config), ("model.weights.h5", [0x89, 0x48, 0x44, 0x46])])),
      ("m.h5", [0x89] + Array("HDF\r\n\u{1A}\n".utf8) + [UInt8](repeating: 0, count: 100)), ("m.onnx", tar),
      ("m.tar.gz", [0x1F, 0x8B, 8, 0] + [UInt8](repeating: 0, count: 60)),
    ] {
      let path = try folder.write(name, bytes)
      #expect(throws: CompileError.self, "\(name)") { try FormatRegistry.load(path) }
    }
    #expect(folder.names() == ["m.h5", "m.keras", "m.onnx", "m.tar.gz"])
  }

  /// GO-2025-3548: a small archive whose member says that it grows without end.
  @Test func inflatingArchive() throws {
    let folder = try TemporaryFolder()
    let bytes = ZipBytes.archive([.init("a.npy", [0x03, 0x00], method: 8, size: 1 << 30)])
    let path = try folder.write("m.npz", bytes)
    let watch = ThreadTime()
    #expect(throws: CompileError.self) { try NumPyArchive(path: path) }
    #expect(try !Audit.run(path).isAccepted)
    #expect(watch.seconds < 2)
  }

  /// Numbers that are no numbers are weights like others.
  @Test func weightsThatAreNoNumbers() throws {
    let header = "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}"
    let bytes = FileBytes.safetensors(
      header + String(repeating: " ", count: (8 - header.utf8.count % 8) % 8), FileBytes.f32([.nan, .infinity, -0]))
    let folder = try TemporaryFolder()
    let path = try folder.write("m.safetensors", bytes)
    #expect(try SafetensorsFile(MappedFile(path: path)).tensors.count == 1)
    #expect(try Audit.run(path).isAccepted)
  }
}
