import Base
import Formats
import Glibc
import IR
import Tensors
import TestSupport
import Testing

/// The records about ONNX, protobuf and TensorFlow Lite.
extension AttackCatalogueTests {
  // MARK: ONNX

  /// A graph of these nodes from `x` to `y`.
  private static func graph(
    _ nodes: [[UInt8]], _ tensors: [[UInt8]] = [], x: [UInt64] = [1, 2], y: [UInt64] = [1, 2]
  ) -> [UInt8] {
    Wire.model(nodes: nodes, tensors: tensors, inputs: [Wire.value("x", x)], outputs: [Wire.value("y", y)])
  }

  private static func integers(_ name: String, _ values: Int64...) -> [UInt8] {
    Wire.tensor(name, [UInt64(values.count)], raw: values.flatMap { FileBytes.littleEndian($0) }, type: 7)
  }

  /// y = x + w, where w lies outside of the file as these entries say.
  private static func external(_ entries: [(String, String)], name: String = "w") -> [UInt8] {
    let list = entries.flatMap { Wire.bytes(13, Wire.text(1, $0.0) + Wire.text(2, $0.1)) }
    let tensor =
      Wire.number(1, 1) + Wire.number(1, 2) + Wire.number(2, 1) + Wire.text(8, name) + list + Wire.number(14, 1)
    return graph([Wire.node("Add", ["x", name], ["y"])], [tensor])
  }

  private static func external(_ location: String) -> [UInt8] { external([("location", location)]) }

  private static func model(_ id: String, _ message: String, _ bytes: [UInt8]) -> Attack {
    Attack(id, message, "model.onnx", bytes)
  }

  private static func product(_ tensor: [UInt8]) -> [UInt8] { graph([Wire.node("Add", ["x", "w"], ["y"])], [tensor]) }

  static let locations: [Attack] = [
    ("CVE-2022-25882 (parent)", "../w.bin"), ("CVE-2022-25882 (absolute)", "/etc/passwd"),
    ("CVE-2022-25882 (drive letter)", "C:\\w.bin"), ("CVE-2024-27318 (nested)", "a/../../w.bin"),
    ("CVE-2024-27318 (mixed slashes)", "a\\../w.bin"), ("CVE-2024-27318 (fragment)", "#/../w.bin"),
    ("CVE-2024-27318 (empty)", ""), ("CVE-2025-51480 (what would be written again)", "sub/../../w.bin"),
  ].map { model($0, "external data", external($1)) }

  static let onnx: [Attack] =
    locations + [
      model(
        "CVE-2024-27319 (a long name in the message)", "external data",
        external([("location", "../w")], name: String(repeating: "n", count: 100_000))),
      model("CVE-2026-34445 (negative offset)", "offset", external([("location", "w"), ("offset", "-1")])),
      model(
        "CVE-2026-34445 (huge length)", "length", external([("location", "w"), ("length", "18446744073709551616")])),
      model(
        "CVE-2026-34445 (names of internals)", "without a location",
        external([("__class__", "w"), ("__dict__", "w"), ("basepath", "/etc"), ("data", "x")])),
      model(
        "tract 2390 (raw data too short)", "needs 8",
        product(Wire.tensor("w", [1, 2], raw: [0, 0, 0, 0]))),
      model(
        "tract 2390 (raw data too long)", "needs 8",
        product(Wire.tensor("w", [1, 2], raw: [UInt8](repeating: 0, count: 9)))),
      model(
        "tract 2390 (raw and typed)", "two fields",
        product(Wire.tensor("w", [1, 2], raw: Wire.floats([1, 2])) + Wire.bytes(4, Wire.floats([1, 2])))),
      model("ORT 4349, 4585 (no inputs)", "input 0", graph([Wire.node("Relu", [], ["y"])])),
      model("ORT 4349, 4585 (a cycle)", "nothing before it computes", graph([Wire.node("Add", ["x", "y"], ["y"])])),
      model(
        "ORT 4349, 4585 (one name twice)", "defined twice",
        graph([Wire.node("Relu", ["x"], ["y"]), Wire.node("Relu", ["x"], ["y"])])),
      model(
        "ORT 4349, 4585 (one initializer twice)", "two initializers",
        graph([], [Wire.tensor("w", [1], raw: [0, 0, 0, 0]), Wire.tensor("w", [1], raw: [0, 0, 0, 0])])),
      model(
        "length past the end", "does not fit", Wire.number(1, 8) + Wire.varint(7 << 3 | 2) + Wire.varint(1000) + [0]),
      model("a negative length", "does not fit", Wire.number(1, 8) + Wire.varint(7 << 3 | 2) + Wire.varint(.max) + [0]),
      model(
        "a packed field of 2^31", "does not fit",
        Wire.number(1, 8) + Wire.bytes(7, Wire.bytes(5, Wire.varint(1 << 3 | 2) + Wire.varint(1 << 31) + [1]))),
      model(
        "CVE-2026-0994 (a number of eleven bytes)", "",
        [8] + [UInt8](repeating: 0xFF, count: 10) + [1] + Wire.bytes(7, [])),
      model(
        "CVE-2024-7254 (groups 10^5 deep)", "", Wire.number(1, 8) + [UInt8](repeating: 5 << 3 | 3, count: 100_000)),
      model(
        "CVE-2024-7254 (groups 10^5 deep in a type)", "",
        graph([]) + Wire.bytes(7, Wire.bytes(11, Wire.bytes(2, [UInt8](repeating: 9 << 3 | 3, count: 100_000))))),
      model(
        "CVE-2025-4565 (graphs in attributes)", "nested", Wire.number(1, 8) + Wire.bytes(7, steps([1, 5, 6], 30_000))),
      model(
        "CVE-2024-24786 (types in types)", "",
        Wire.number(1, 8) + Wire.bytes(7, Wire.bytes(11, Wire.text(1, "x") + Wire.bytes(2, steps([4, 1], 50_000))))),
    ]

  /// Messages in one another: the fields in turn, `count` times.
  private static func steps(_ fields: [UInt64], _ count: Int) -> [UInt8] {
    var reversed: [UInt8] = []
    for _ in 0..<count {
      for field in fields.reversed() {
        reversed += (Wire.varint(field << 3 | 2) + Wire.varint(UInt64(reversed.count))).reversed()
      }
    }
    return reversed.reversed()
  }

  /// Each is refused as damaged or not supported, within two seconds of a core.
  @Test(arguments: onnx)
  func graphIsRefused(attack: Attack) throws {
    let folder = try TemporaryFolder()
    let path = try folder.write(attack.file, attack.bytes)
    let watch = ThreadTime()
    do {
      _ = try FormatRegistry.load(path)
      Issue.record("accepted")
    } catch let error as CompileError {
      #expect([.input, .unsupported].contains(error.kind), "\(error)")
      #expect(attack.message.isEmpty || error.description.contains(attack.message), "\(error)")
      #expect(error.description.contains(attack.file), "\(error)")
    }
    _ = try Audit.run(path)
    #expect(watch.seconds < 2)
    #expect(folder.names() == [attack.file])
  }

  /// Hundreds of thousands of empty messages, and numbers of one byte: their objects would take hundreds of times the file.
  @Test func manySmallMessages() throws {
    let folder = try TemporaryFolder()
    let bodies: [[UInt8]] = [
      FileBytes.repeating([1 << 3 | 2, 0], 400_000),
      FileBytes.repeating([13 << 3 | 2, 0], 400_000),
      Wire.bytes(1, FileBytes.repeating([1 << 3 | 2, 0], 2_000_000)),
      Wire.bytes(5, Wire.bytes(7, [UInt8](repeating: 1, count: 20_000_000))),
    ]
    for body in bodies {
      let path = try folder.write("m.onnx", Wire.number(1, 8) + Wire.bytes(7, body) + Wire.bytes(8, Wire.number(2, 17)))
      expectFailure(.input, "more fields than a file of", "m.onnx") { _ = try FormatRegistry.load(path) }
    }
  }

  /// CVE-2026-27489, CVE-2026-34447: links, also in place of a folder. CVE-2026-34446: a second name of a file elsewhere.
  @Test func linksOfExternalData() throws {
    let folder = try TemporaryFolder()
    let outside = try TemporaryFolder()
    try outside.write("w.bin", [UInt8](repeating: 0, count: 8))
    #expect(symlink(outside.path("w.bin"), folder.path("soft.bin")) == 0)
    #expect(symlink(outside.path, folder.path("sub")) == 0)
    #expect(link(outside.path("w.bin"), folder.path("hard.bin")) == 0)
    for (location, message) in [
      ("soft.bin", "symbolic link"), ("sub/w.bin", "symbolic link"), ("hard.bin", "hard links"),
    ] {
      let path = try folder.write("model.onnx", Self.external(location))
      expectFailure(.input, message, location) { _ = try FormatRegistry.load(path) }
    }
  }

  /// Files of more than 2 GiB: offsets are not cut to 32 bits.
  @Test func largeExternalData() throws {
    let folder = try TemporaryFolder()
    let place = 3 << 30
    try folder.write("w.bin", [])
    #expect(truncate(folder.path("w.bin"), place + 8) == 0)
    let path = try folder.write("model.onnx", Self.external([("location", "w.bin"), ("offset", "\(place)")]))
    let model = try FormatRegistry.load(path)
    let ranges = model.constants.constants.compactMap { constant -> Range<Int>? in
      if case .archive(_, let range) = constant.source { range } else { nil }
    }
    #expect(ranges == [place..<place + 8])
    try folder.write("model.onnx", Self.external([("location", "w.bin"), ("offset", "\(place + 4)")]))
    expectFailure(.input, "needs 8 bytes") { _ = try FormatRegistry.load(path) }
  }

  /// The bomb of `Tile` and its kind: a file of some bytes that says results of exabytes is refused, one that says many
  /// gigabytes is read without computing them.
  @Test(
    arguments: [
      ("Tile", ["x", "n"], Int64(1) << 40), ("Expand", ["x", "n"], 1 << 40), ("ConstantOfShape", ["n"], 1 << 40),
      ("Tile", ["x", "n"], 1 << 15), ("Expand", ["x", "n"], 1 << 17), ("ConstantOfShape", ["n"], 1 << 17),
    ] as [(String, [String], Int64)])
  func tileBomb(type: String, inputs: [String], size: Int64) throws {
    let folder = try TemporaryFolder()
    let shape: [UInt64] = type == "Expand" ? [1, 1] : [1, 2]
    let path = try folder.write(
      "model.onnx",
      Self.graph([Wire.node(type, inputs, ["y"])], [Self.integers("n", size, size)], x: shape, y: [1, 1]))
    let watch = ThreadTime()
    do {
      try Verifier.verify(FormatRegistry.load(path))
      #expect(size < 1 << 40)
    } catch let error as CompileError {
      #expect([.input, .unsupported].contains(error.kind), "\(error)")
    }
    #expect(watch.seconds < 2)
  }

  /// Bombs of `Range`, `Resize` and of sizes that are computed.
  @Test func bombsOfComputedSizes() throws {
    func integer(_ name: String, _ value: Int64) -> [UInt8] {
      Wire.number(2, 7) + Wire.text(8, name) + Wire.bytes(9, FileBytes.littleEndian(value))
    }
    let count = integer("n", 1 << 40)
    let graphs: [[UInt8]] = [
      Self.graph([Wire.node("Range", ["zero", "n", "one"], ["y"])], [integer("zero", 0), integer("one", 1), count]),
      Self.graph(
        [Wire.node("Resize", ["x", "", "", "n"], ["y"])], [Self.integers("n", 1, 1, 1 << 31, 1 << 31)], x: [1, 1, 2, 2]),
      Self.graph(
        [
          Wire.node("Mul", ["n", "n"], ["m"]), Wire.node("Mul", ["m", "m"], ["k"]),
          Wire.node("Expand", ["x", "k"], ["y"]),
        ],
        [Self.integers("n", 1 << 40)]),
    ]
    let folder = try TemporaryFolder()
    for (index, bytes) in graphs.enumerated() {
      let path = try folder.write("model.onnx", bytes)
      let watch = ThreadTime()
      #expect(throws: CompileError.self, "\(index)") { try Verifier.verify(FormatRegistry.load(path)) }
      #expect(watch.seconds < 2)
    }
  }

  // MARK: TensorFlow Lite

  private static func tflite(_ name: String) throws -> [UInt8] {
    try MappedFile.contents(path: "\(Fixtures.packageRoot)/Tests/EndToEndTests/Fixtures/tflite/\(name).tflite")
  }

  /// What is said about a file with another number at each of its places in turn.
  private func messages(_ name: String, where isChanged: (Int32) -> Bool, _ value: Int32) throws -> [String] {
    let whole = try Self.tflite(name)
    let folder = try TemporaryFolder()
    var found: [String] = []
    for place in stride(from: 8, through: whole.count - 4, by: 4) {
      let old = whole.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place, as: Int32.self) }
      guard isChanged(old) else { continue }
      var form = whole
      form.replaceSubrange(place..<place + 4, with: FileBytes.littleEndian(value))
      do {
        try Verifier.verify(FormatRegistry.load(folder.write("m.tflite", form)))
      } catch let error as CompileError {
        found.append("\(error)")
      }
    }
    return found
  }

  /// CVE-2022-23557, CVE-2022-21741: strides and multipliers of 0 that were divided by.
  @Test(arguments: ["depthwise", "q_depthwise", "conv_valid_relu6", "max_pool", "transpose_conv"])
  func cve202223557(name: String) throws {
    let found = try messages(name, where: { (1...8).contains($0) }, 0)
    #expect(found.count > 3)
  }

  /// CVE-2022-23558: sizes whose product wraps.
  @Test(arguments: ["tile", "reshape", "conv_same_relu", "q_moves"])
  func cve202223558(name: String) throws {
    for value in [Int32.max, 1 << 30, .min] {
      let found = try messages(name, where: { (1...64).contains($0) }, value)
      #expect(found.count > 3)
    }
  }

  /// CVE-2020-15212: sums over segments with ids below 0; the operator is not read.
  @Test func cve202015212() throws {
    var form = try Self.tflite("softmax")
    for place in form.indices where form[place] == 25 { form[place] = 125 }
    let folder = try TemporaryFolder()
    let path = try folder.write("m.tflite", form)
    expectFailure(.unsupported, "'SEGMENT_SUM'") { _ = try FormatRegistry.load(path) }
  }
}
