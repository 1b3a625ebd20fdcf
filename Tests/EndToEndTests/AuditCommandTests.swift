import Base
import TestSupport
import Testing

/// `mcc audit` as a person uses it.
@Suite(.serialized) struct AuditCommandTests {
  @Test func exitCodesAndJSON() throws {
    let good = try MCCProgram.run(["audit", CompiledModels.stories])
    #expect(good.exitCode == 0 && good.text.contains("nothing speaks against"), "\(good.text)\(good.errors)")
    let folder = try TemporaryFolder()
    let bad = try folder.write("x.gguf", Array("GGUF".utf8) + [3, 0, 0, 0, 1])
    let refused = try MCCProgram.run(["audit", "--json", bad])
    #expect(refused.exitCode == 1)
    let json = try JSON.parse(refused.output, file: "report")
    #expect(json["verdict"]?.string == "refused" && json["format"]?.string == "gguf")
    #expect(json["findings"]?.array?.first?["offset"]?.int == 8)
    #expect(try MCCProgram.run(["audit", folder.path("none")]).exitCode == 65)
  }

  /// Peak memory, mapped pages included, of a run on a large file over that on a small one.
  @Test func allocatesLittle() throws {
    guard ForeignMachine.isCommand("python3"), let mcc = MCCProgram.path else {
      return Fixtures.skip("needs python3")
    }
    let folder = try TemporaryFolder()
    let script = try folder.write(
      "make.py",
      """
      import json, os, resource, struct, subprocess, sys
      folder, mcc = sys.argv[1:]
      def save(name, header, size):
        text = json.dumps(header).encode(); text += b' ' * (-len(text) % 8)
        with open(folder + name, 'wb') as f:
          f.write(struct.pack('<Q', len(text)) + text); f.truncate(8 + len(text) + size)
      save('/small.safetensors', {'w': {'dtype': 'U8', 'shape': [1], 'data_offsets': [0, 1]}}, 1)
      save('/sparse.safetensors', {'w': {'dtype': 'U8', 'shape': [3 << 30], 'data_offsets': [0, 3 << 30]}}, 3 << 30)
      many = {'tensor%d' % i: {'dtype': 'F32', 'shape': [1], 'data_offsets': [4 * i, 4 * i + 4]} for i in range(60000)}
      save('/many.safetensors', many, 240000)
      def string(s): return struct.pack('<Q', len(s)) + s.encode()
      with open(folder + '/sparse.gguf', 'wb') as f:
        f.write(b'GGUF' + struct.pack('<IQQ', 3, 1, 1) + string('general.architecture') + struct.pack('<I', 8) + string('llama'))
        f.write(string('w') + struct.pack('<IQIQ', 1, 3 << 28, 0, 0)); f.truncate((f.tell() + 31) // 32 * 32 + (3 << 30))
      if len(sys.argv) > 3: sys.exit()
      for name in ['small.safetensors', 'sparse.safetensors', 'many.safetensors', 'sparse.gguf']:
        pid = os.fork()
        if pid == 0:
          null = os.open('/dev/null', os.O_WRONLY); os.dup2(null, 1); os.dup2(null, 2)
          os.execv(mcc, [mcc, 'audit', folder + '/' + name])
        _, status, usage = os.wait4(pid, 0)
        print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)
      """)
    let outcome = try Command.run("python3", [script, folder.path, mcc])
    let lines = outcome.text.split(separator: "\n").map { $0.split(separator: " ").compactMap { Int($0) } }
    #expect(outcome.exitCode == 0 && lines.count == 4, "\(outcome.errors)")
    let small = try #require(lines.first?.last)
    for line in lines {
      #expect(line[0] == 0)
      #expect(line[1] - small <= 64 << 10, "\(lines)")
    }
  }
}
