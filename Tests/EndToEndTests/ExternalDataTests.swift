import Base
import TestSupport
import Testing

/// Weights beside an ONNX file that is named without a folder.
@Suite struct ExternalDataTests {
  /// y = x + w for two numbers, where `w` lies in another file.
  private func model(_ location: String) -> [UInt8] {
    func field(_ number: UInt8, _ body: [UInt8]) -> [UInt8] { [number << 3 | 2, UInt8(body.count)] + body }
    func text(_ number: UInt8, _ text: String) -> [UInt8] { field(number, Array(text.utf8)) }
    func value(_ name: String) -> [UInt8] {
      let shape = field(1, [8, 1]) + field(1, [8, 2])
      return text(1, name) + field(2, field(1, [8, 1] + field(2, shape)))
    }
    let node = text(1, "x") + text(1, "w") + text(2, "y") + text(4, "Add")
    let entry = text(1, "location") + text(2, location)
    let tensor = [8, 1, 8, 2, 0x10, 1] + text(8, "w") + field(13, entry) + [0x70, 1]
    let graph = field(1, node) + field(5, tensor) + field(11, value("x")) + field(12, value("y"))
    return [8, 8] + field(7, graph) + field(8, [0x10, 17])
  }

  /// The records of 2026 about an empty base folder: the check of what is inside of it says no as ever.
  @Test func namesWithoutAFolder() throws {
    guard let mcc = MCCProgram.path else { return Fixtures.skip("needs the mcc executable") }
    let folder = try TemporaryFolder()
    try folder.write("w.bin", [UInt8](repeating: 0, count: 8))
    func run(_ location: String, as path: String) throws -> Command.Outcome {
      try folder.write("m.onnx", model(location))
      return try Command.run("sh", ["-c", "cd \"$0\" && exec \"$1\" inspect \"$2\"", folder.path, mcc, path])
    }
    for path in ["m.onnx", "./m.onnx"] {
      let good = try run("w.bin", as: path)
      #expect(good.exitCode == 0, "\(good.errors)")
      let outside = try run("../w.bin", as: path)
      #expect(outside.exitCode == 65 && outside.errors.contains("external data"), "\(outside.errors)")
    }
    _ = try Command.run("ln", [folder.path("w.bin"), folder.path("hard.bin")])
    _ = try Command.run("ln", ["-s", "/etc/hostname", folder.path("soft.bin")])
    for (location, message) in [("hard.bin", "hard links"), ("soft.bin", "symbolic link")] {
      let refused = try run(location, as: "m.onnx")
      #expect(refused.exitCode == 65 && refused.errors.contains(message), "\(refused.errors)")
    }
  }
}
