import Base
import CodeGen
import Glibc
import TestSupport
import Testing

/// The face of a tensor network, around the toy network of `RuntimeCode`: reading, checking and writing arrays.
@Suite struct RuntimeTensorTests {
  static let x: [Float] = (0..<15).map { Float($0) * 0.25 - 1 }
  static let k: [Int32] = [0, 3, 6, 9, 12, 15, 18]

  static func program() throws -> RuntimeProgram { try RuntimeProgram(try RuntimeCode.network.get(), weights: [0.5]) }

  /// A folder with x.npy and k.npy.
  static func inputs() throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    try folder.write("x.npy", NumPyFile.npy("<f4", [5, 3], NumPyFile.bytes(x)))
    try folder.write("k.npy", NumPyFile.npy("<i4", [7], NumPyFile.bytes(k)))
    return folder
  }

  /// Runs the program and expects what the network computes. Sums of four numbers differ by a rounding each.
  static func expectOutputs(
    _ arguments: [String], in folder: TemporaryFolder, x: [Float] = x, k: [Int32] = k,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let path = folder.path("y.npz")
    let outcome = try program().run(arguments + ["--output", path])
    #expect(outcome.exitCode == 0, "\(outcome.errors)", sourceLocation: sourceLocation)
    guard outcome.exitCode == 0 else { return }
    let arrays = try NumPyFile.archive(path: path)
    try #require(arrays.map(\.name) == ["sum", "twice", "outer"], sourceLocation: sourceLocation)
    let rows = x.count / 3
    let odd = stride(from: 1, to: k.count, by: 2).map { Int64(k[$0]) }
    let shapes = ["(\(rows),)", "(\(rows), 3)", "(\(rows * odd.count),)"]
    for (array, shape) in zip(arrays, shapes) {
      #expect(array.header.contains("'shape': \(shape)"), "\(array.header)", sourceLocation: sourceLocation)
    }
    let sums = arrays[0].values(of: Float.self)
    for (row, sum) in sums.enumerated() {
      let expected = x[3 * row..<3 * row + 3].reduce(0.5, +)
      #expect(abs(sum - expected) <= 1e-6 * max(1, abs(expected)), sourceLocation: sourceLocation)
    }
    #expect(arrays[1].values(of: Float.self) == x.map { 2 * $0 }, sourceLocation: sourceLocation)
    let outer = (0..<rows).flatMap { row in odd.map { Int64(100 * row) + $0 } }
    #expect(arrays[2].values(of: Int64.self) == outer, sourceLocation: sourceLocation)
  }

  // MARK: Inputs

  @Test func inputsAreGivenByNameOrByArchive() throws {
    let folder = try Self.inputs()
    let x = folder.path("x.npy"), k = folder.path("k.npy")
    try Self.expectOutputs(["--input", "x=\(x)", "--input", "k=\(k)"], in: folder)
    try Self.expectOutputs(["--input=k=\(k)", "--input", "x=\(x)", "--threads", "7"], in: folder)
    let arrays = [("x", try MappedFile.contents(path: x)), ("k", try MappedFile.contents(path: k))]
    let both = try folder.write("both.npz", NumPyFile.npz(arrays + [("other", arrays[0].1)]))
    try Self.expectOutputs(["--input", both], in: folder)
    try Self.expectOutputs(["--input", "x=\(both)", "--input", "k=\(k)"], in: folder)
    let renamed = try folder.write("renamed.npz", NumPyFile.npz([("anything", arrays[0].1)]))
    try Self.expectOutputs(["--input", "x=\(renamed)", "--input", "k=\(k)"], in: folder)
  }

  @Test func elementsAreConvertedWhereNothingIsLost() throws {
    let folder = try Self.inputs()
    let x = folder.path("x.npy"), k = folder.path("k.npy")
    func expectX(_ descriptor: String, _ bytes: [UInt8], _ expected: [Float]) throws {
      let path = try folder.write("cx.npy", NumPyFile.npy(descriptor, [expected.count / 3, 3], bytes))
      try Self.expectOutputs(["--input", "x=\(path)", "--input", "k=\(k)"], in: folder, x: expected)
    }
    try expectX("<f8", NumPyFile.bytes(Self.x.map(Double.init)), Self.x)
    // Binary16: 1, -2, the largest, the smallest normal and subnormal ones, a third.
    let halves: [UInt16] = [0x3C00, 0xC000, 0x7BFF, 0x0400, 0x0001, 0x3555]
    try expectX("<f2", NumPyFile.bytes(halves), [1, -2, 65504, 0x1p-14, 0x1p-24, 0x1.554p-2])
    func expectK(_ descriptor: String, _ bytes: [UInt8], _ expected: [Int32]) throws {
      let path = try folder.write("ck.npy", NumPyFile.npy(descriptor, [expected.count], bytes))
      try Self.expectOutputs(["--input", "x=\(x)", "--input", "k=\(path)"], in: folder, k: expected)
    }
    try expectK("<i8", NumPyFile.bytes([7, -1, 1 << 30] as [Int64]), [7, -1, 1 << 30])
    try expectK("<i2", NumPyFile.bytes([7, -300, 2] as [Int16]), [7, -300, 2])
    try expectK("|i1", NumPyFile.bytes([7, -128, 2] as [Int8]), [7, -128, 2])
    try expectK("|u1", [7, 255, 2], [7, 255, 2])
    try expectK("<i8", NumPyFile.bytes([4] as [Int64]), [4])  // M = 0: an empty output
    for version: UInt8 in [1, 2, 3] {
      let bytes = NumPyFile.npy("<f4", [5, 3], NumPyFile.bytes(Self.x), version: version)
      let path = try folder.write("v.npy", bytes)
      try Self.expectOutputs(["--input", "x=\(path)", "--input", "k=\(k)"], in: folder)
    }
  }

  @Test func arraysThatDoNotFitAreRefused() throws {
    let folder = try Self.inputs()
    let program = try Self.program()
    let x = folder.path("x.npy"), k = folder.path("k.npy")
    func refuse(_ name: String, _ npy: [UInt8], _ part: String) throws {
      let path = try folder.write("bad.npy", npy)
      try program.expectRefusal(
        [
          "--input", "\(name)=\(path)", "--input", name == "x" ? "k=\(k)" : "x=\(x)", "--output", folder.path("n.npz"),
        ], exitCode: 65, part)
    }
    func floats(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: 4 * count) }
    try refuse("x", NumPyFile.npy("<f4", [17, 3], floats(51)), "'N' from 1 to 16")
    try refuse("x", NumPyFile.npy("<f4", [0, 3], []), "'N' from 1 to 16")
    try refuse("x", NumPyFile.npy("<f4", [5, 4], floats(20)), "f32[5, 4] where f32[N, 3] is expected")
    try refuse("x", NumPyFile.npy("<f4", [15], floats(15)), "f32[15] where f32[N, 3] is expected")
    try refuse("k", NumPyFile.npy("<i4", [8], floats(8)), "i32[8] where i32[2 * M + 1] is expected")
    try refuse("x", NumPyFile.npy("<i4", [5, 3], floats(15)), "type i32 where f32 is expected")
    try refuse("x", NumPyFile.npy("|b1", [1, 3], [0, 1, 1]), "type bool where f32 is expected")
    try refuse("k", NumPyFile.npy("<f4", [1], floats(1)), "type f32 where i32 is expected")
    try refuse(
      "k", NumPyFile.npy("<i8", [1], NumPyFile.bytes(Int64(1) << 31)), "2147483648 at index 0 does not fit i32")
    try refuse("x", NumPyFile.npy(">f4", [5, 3], floats(15)), "big-endian")
    try refuse("x", NumPyFile.npy("<c8", [5, 3], floats(30)), "none of f8")
    try refuse("x", NumPyFile.npy("<f4", [5, 3], floats(15), fortranOrder: true), "Fortran order")
    try refuse("x", NumPyFile.npy("<f4", [5, 3], floats(14)), "cut short")
    try refuse("x", NumPyFile.npy("<f4", [5, 3], floats(16)), "more bytes")
    try refuse("x", NumPyFile.npy("<f4", [Int](repeating: 1, count: 9), floats(1)), "8 axes")
    try refuse("x", NumPyFile.npy("<f4", [Int.max, 3], floats(1)), "out of range")
    let member = NumPyFile.npy("<f4", [5, 3], NumPyFile.bytes(Self.x))
    try refuse("x", NumPyFile.npz([("x", member)], method: 8), "compressed")
    var damaged = NumPyFile.npz([("x", member)])
    damaged[200] ^= 1
    try refuse("x", damaged, "checksum")
    #expect(folder.names() == ["bad.npy", "k.npy", "x.npy"])
  }

  @Test func wrongArgumentsAreRefusedWithOneSentence() throws {
    let folder = try Self.inputs()
    let program = try Self.program()
    let x = folder.path("x.npy"), output = ["--output", folder.path("n.npz")]
    let complete = ["--input", "x=\(x)", "--input", "k=\(folder.path("k.npy"))"]
    try program.expectRefusal(["--input", x] + output, exitCode: 65, "names none of the inputs (x, k)")
    try program.expectRefusal(["--input", "q=\(x)"] + output, exitCode: 64, "no input 'q'; its inputs: x, k")
    try program.expectRefusal(["--input", "x=\(x)"] + output, exitCode: 65, "'k' is missing")
    try program.expectRefusal(["--input", "x=\(x)", "--input", "x=\(x)"] + output, exitCode: 64, "twice")
    try program.expectRefusal(["--input", "x=/nonexistent"] + output, exitCode: 65, "/nonexistent")
    try program.expectRefusal(output, exitCode: 64, "'--input' is missing")
    try program.expectRefusal(complete, exitCode: 64, "'--output' is missing")
    try program.expectRefusal(["stray"] + output, exitCode: 64, "stray")
    try program.expectRefusal(complete + ["--ouptut", "a"], exitCode: 64, "'--output'")
    try program.expectRefusal(complete + ["--output", folder.path("n.npy")], exitCode: 64, "one array only")
    try program.expectRefusal(complete + ["--output", folder.path("n.txt")], exitCode: 64, ".npz or .npy")
    try program.expectRefusal(complete + ["--output", "/nonexistent/n.npz"], exitCode: 73, "/nonexistent")
    try program.expectRefusal(complete + ["--output", "/dev/full"], exitCode: 74, "No space left")
    #expect(folder.names() == ["k.npy", "x.npy"])
  }

  @Test func anOutputReplacesAFileAndKeepsItsMode() throws {
    let folder = try Self.inputs()
    let path = try folder.write("y.npz", "old")
    chmod(path, 0o600)
    try Self.expectOutputs(
      ["--input", "x=\(folder.path("x.npy"))", "--input", "k=\(folder.path("k.npy"))"], in: folder)
    var status = stat()
    stat(path, &status)
    #expect(status.st_mode & 0o777 == 0o600)
  }

  /// Gives damaged files to the program; each run must end with a result or one sentence.
  static func expectNoCrash(_ bytes: [UInt8], arguments: (String) -> [String]) throws {
    let program = try program()
    try expectOnlyCompileErrors(bytes, fileName: "damaged", mutations: 300) { path in
      let outcome = try program.run(arguments(path) + ["--output", path + ".npz"])
      if outcome.exitCode == 0 { return }
      #expect(outcome.exitCode == 64 || outcome.exitCode == 65, "\(outcome)")
      #expect(outcome.errors.hasPrefix("error: ") && outcome.errors.split(separator: "\n").count == 1, "\(outcome)")
      throw CompileError(.input, outcome.errors)
    }
  }

  @Test func damagedArraysNeverCrashTheProgram() throws {
    let folder = try Self.inputs()
    let k = folder.path("k.npy")
    try Self.expectNoCrash(NumPyFile.npy("<f4", [2, 3], NumPyFile.bytes(Array(Self.x.prefix(6))))) {
      ["--input", "x=\($0)", "--input", "k=\(k)"]
    }
  }

  @Test func damagedArchivesNeverCrashTheProgram() throws {
    let arrays = [
      ("x", NumPyFile.npy("<f4", [2, 3], NumPyFile.bytes(Array(Self.x.prefix(6))))),
      ("k", NumPyFile.npy("<i4", [1], NumPyFile.bytes([Int32(4)]))),
    ]
    try Self.expectNoCrash(NumPyFile.npz(arrays)) { ["--input", $0] }
  }

  // MARK: The rest

  @Test func benchReportsMilliseconds() throws {
    let folder = try Self.inputs()
    let program = try Self.program()
    let outcome = try program.run(["bench", "--json", "--repeat", "3", "--dim", "N=4"])
    let result = try JSON.parse(outcome.text, file: "bench")
    let median = try #require(result["milliseconds"]?["median"]?.double)
    let minimum = try #require(result["milliseconds"]?["minimum"]?.double)
    #expect(minimum > 0 && minimum <= median)
    let given = try program.run(["bench", "--input", "x=\(folder.path("x.npy"))", "--repeat", "2"])
    #expect(given.exitCode == 0 && given.text.contains("median"))
    for (arguments, part) in [
      (["--dim", "N=17"], "1 to 16"), (["--dim", "Q=1"], "NAME=N"), (["--dim", "N"], "NAME=N"),
      (["--input", "x=\(folder.path("x.npy"))", "--dim", "N=4"], "given twice"), (["--repeat", "0"], "from 1"),
    ] { try program.expectRefusal(["bench"] + arguments, exitCode: 64, part) }
  }

  @Test func helpTellsInputsOutputsAndSizes() throws {
    let program = try Self.program()
    let help = try program.run(["--help"])
    #expect(help.exitCode == 0)
    for part in ["f32[N, 3]", "i32[2 * M + 1]", "i64[?]", "1 to 16", "--output"] { #expect(help.text.contains(part)) }
    #expect(try program.run(["bench", "--help"]).text.contains("--repeat"))
    #expect(try program.run(["--version"]).text == "net (compiled by mcc test for any)\n")
    #expect(try program.run(["--manifest"]).text == "{\"source\": \"a test\"}\n")
  }
}
