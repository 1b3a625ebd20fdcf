import Base
import Formats
import Glibc
import TestSupport
import Testing

@Suite struct AuditTests {
  @Test func acceptsSoundFiles() throws {
    let folder = try TemporaryFolder()
    for (name, bytes, format): (String, [UInt8], String) in [
      ("a.gguf", GGUFBytes.llama().bytes, "gguf"),
      ("b.safetensors", FileBytes.safetensors([("w", [2, 3])]), "safetensors"),
      ("c.npy", NumPyArray([1, 2, 3] as [Float], [3]).npyBytes, "npy"),
      ("d.npz", ZipBytes.stored([("w.npy", NumPyArray([1, 2] as [Float], [2]).npyBytes)]), "npz"),
      ("e.json", Array("{\"a\": 1}".utf8), "json"),
    ] {
      let report = try Audit.run(try folder.write(name, bytes))
      #expect(report.isAccepted && report.format == format, "\(report.lines)")
    }
    let whole = try Audit.run(folder.path)
    #expect(whole.isAccepted && whole.files.count == 5 && whole.json["verdict"]?.string == "accepted")
    guard let fixtures = Fixtures.folder else { return }
    for name in ["stories260K", "minilm", "onnx", "mlperf-tiny"] {
      let report = try Audit.run("\(fixtures)/\(name)")
      #expect(report.isAccepted, "\(report.lines.joined(separator: "\n"))")
    }
  }

  @Test func namesEveryGlobalOfAPickle() throws {
    let code = """
      import os
      class A:
        def __reduce__(self): return (os.system, ('x',))
      class B:
        def __reduce__(self): return (eval, ('1',))
      for p in (0, 2, 4): save('two%d.pt' % p, {'w': A(), 'v': [B(), A()]}, p)
      save_legacy('two.bin', {'w': A(), 'v': B()})
      pickle.dump({'a': A()}, open(out + 'plain.pkl', 'wb'))
      """
    guard let folder = try TorchPickler.run(code) else { return }
    for name in ["two0.pt", "two2.pt", "two4.pt", "two.bin"] {
      let report = try Audit.run(folder.path(name))
      let messages = report.findings.map(\.message)
      #expect(messages.contains("a pickle names 'posix.system'"), "\(name): \(messages)")
      #expect(
        messages.contains { $0.contains("builtins.eval") || $0.contains("__builtin__.eval") }, "\(name): \(messages)")
      #expect(report.findings.allSatisfy { $0.offset != nil || !$0.message.contains("names") })
    }
    #expect(try !Audit.run(folder.path("plain.pkl")).isAccepted)
    #expect(try !Audit.run(folder.path).isAccepted)
  }

  @Test func foldersAndTheirLinks() throws {
    let checkpoint = TinyCheckpoint()
    let folder = try checkpoint.write()
    #expect(try Audit.run(folder.path).isAccepted)
    try folder.write("modeling.py", "print(1)")
    let noted = try Audit.run(folder.path)
    #expect(noted.isAccepted && noted.findings.contains { $0.message.contains("modeling.py") })
    try folder.write(
      "model.safetensors.index.json", "{\"weight_map\": {\"a\": \"../../etc/passwd\", \"b\": \"/etc/passwd\"}}")
    let report = try Audit.run(folder.path)
    #expect(!report.isAccepted && report.files.flatMap(\.findings).filter { $0.severity == .danger }.count == 2)
    let other = try TemporaryFolder()
    try other.write("x.safetensors", FileBytes.safetensors([("w", [2])]))
    let linked = try TemporaryFolder()
    #expect(symlink(other.path("x.safetensors"), linked.path("model.safetensors")) == 0)
    #expect(try Audit.run(linked.path).findings.contains { $0.message.contains("leaves the folder") })
  }

  @Test func chatTemplatesThatReachForClasses() throws {
    var file = GGUFBytes.llama()
    file.set("tokenizer.chat_template", .string("{{ ''.__class__.__mro__ }}"))
    let folder = try TemporaryFolder()
    let report = try Audit.run(try folder.write("m.gguf", file.bytes))
    #expect(report.findings.contains { $0.message.contains("__class__") } && !report.isAccepted)
  }

  @Test func damagedFilesGiveReports() throws {
    let folder = try TemporaryFolder()
    let files: [(String, [UInt8])] = [
      ("a.gguf", GGUFBytes.llama().bytes), ("b.safetensors", FileBytes.safetensors([("w", [2, 3]), ("v", [4])])),
      ("d.npz", ZipBytes.stored([("w.npy", NumPyArray([1, 2] as [Float], [2]).npyBytes)])),
    ]
    var random = SplitMix64(seed: 4)
    for (name, bytes) in files {
      for _ in 0..<500 {
        var form = bytes
        for _ in 0...random.int(below: 6) { form[random.int(below: form.count)] = UInt8(random.int(below: 256)) }
        if random.int(below: 4) == 0 { form.removeLast(random.int(below: form.count)) }
        _ = try Audit.run(try folder.write(name, form))
      }
    }
  }
}
