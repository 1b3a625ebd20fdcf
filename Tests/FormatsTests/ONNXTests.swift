import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

/// Protobuf messages written by hand.
enum Wire {
  static func varint(_ value: UInt64) -> [UInt8] {
    var rest = value
    var bytes: [UInt8] = []
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    return bytes + [UInt8(rest)]
  }

  static func number(_ field: UInt64, _ value: UInt64) -> [UInt8] { varint(field << 3) + varint(value) }

  static func bytes(_ field: UInt64, _ value: [UInt8]) -> [UInt8] {
    varint(field << 3 | 2) + varint(UInt64(value.count)) + value
  }

  static func text(_ field: UInt64, _ value: String) -> [UInt8] { bytes(field, Array(value.utf8)) }

  /// A `TensorProto` of f32 with raw data.
  static func tensor(_ name: String, _ dims: [UInt64], raw: [UInt8], type: UInt64 = 1) -> [UInt8] {
    dims.flatMap { number(1, $0) } + number(2, type) + text(8, name) + bytes(9, raw)
  }

  /// A `ValueInfoProto`; a size of 0 is left open under the name `N`.
  static func value(_ name: String, _ dims: [UInt64]) -> [UInt8] {
    let shape = dims.flatMap { bytes(1, $0 == 0 ? text(2, "N") : number(1, $0)) }
    return text(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, shape)))
  }

  static func node(_ type: String, _ inputs: [String], _ outputs: [String], _ attributes: [[UInt8]] = []) -> [UInt8] {
    inputs.flatMap { text(1, $0) } + outputs.flatMap { text(2, $0) } + text(3, "the_\(type)") + text(4, type)
      + attributes.flatMap { bytes(5, $0) }
  }

  static func model(nodes: [[UInt8]], tensors: [[UInt8]], inputs: [[UInt8]], outputs: [[UInt8]]) -> [UInt8] {
    let graph =
      nodes.flatMap { bytes(1, $0) } + tensors.flatMap { bytes(5, $0) } + inputs.flatMap { bytes(11, $0) }
      + outputs.flatMap { bytes(12, $0) }
    return number(1, 8) + bytes(7, graph) + bytes(8, number(2, 17))
  }

  /// Bytes of f32 numbers.
  static func floats(_ values: [Float]) -> [UInt8] { values.flatMap { v in withUnsafeBytes(of: v) { [UInt8]($0) } } }
}

@Suite struct ONNXTests {
  /// y = relu(x W) with W of 2 x 3.
  private static func product(weights: [UInt8]) -> [UInt8] {
    Wire.model(
      nodes: [Wire.node("MatMul", ["x", "w"], ["h"]), Wire.node("Relu", ["h"], ["y"])], tensors: [weights],
      inputs: [Wire.value("x", [1, 2])], outputs: [Wire.value("y", [1, 3])])
  }

  private static let weights = Wire.floats([1, 2, 3, -4, -5, 6])

  private func load(_ bytes: [UInt8], dims: [String: ClosedRange<Int>] = [:]) throws -> Model {
    let folder = try TemporaryFolder()
    return try FormatRegistry.load(folder.write("m.onnx", bytes), LoadOptions(dimensions: dims))
  }

  private func message(_ bytes: [UInt8], dims: [String: ClosedRange<Int>] = [:]) -> String {
    do {
      _ = try load(bytes, dims: dims)
      return "loaded"
    } catch {
      return "\(error)"
    }
  }

  private func run(_ bytes: [UInt8], _ x: [Float], _ shape: [Int]) throws -> [Float] {
    // The weights are mapped, so the file must outlive the evaluation.
    let folder = try TemporaryFolder()
    let model = try FormatRegistry.load(folder.write("m.onnx", bytes))
    try Verifier.verify(model)
    let result = try Evaluator(model).run([NumPyArray(x, shape).tensor]).outputs[0]
    return NumPyArray(result.view).floats
  }

  @Test func weightsAreReadInPlace() throws {
    let bytes = Self.product(weights: Wire.tensor("w", [2, 3], raw: Self.weights))
    #expect(try run(bytes, [1, 1], [1, 2]) == [0, 0, 9])
    #expect(try run(bytes, [2, -1], [1, 2]) == [6, 9, 0])
  }

  @Test func typedNumbersAreReadToo() throws {
    // float_data, packed.
    let tensor =
      Wire.number(1, 2) + Wire.number(1, 3) + Wire.number(2, 1) + Wire.bytes(4, Self.weights) + Wire.text(8, "w")
    #expect(try run(Self.product(weights: tensor), [1, 1], [1, 2]) == [0, 0, 9])
  }

  @Test func openFirstSizeIsOneAndSaid() throws {
    let bytes = Wire.model(
      nodes: [Wire.node("Relu", ["x"], ["y"])], tensors: [], inputs: [Wire.value("x", [0, 2])],
      outputs: [Wire.value("y", [0, 2])])
    let model = try load(bytes)
    #expect(model.functions[0].type(of: model.functions[0].inputs[0]).description == "f32[1, 2]")
    #expect(model.metadata.contains { $0.key == Model.noteKey && $0.value.contains("'N'") })
    let ranged = try load(bytes, dims: ["N": 1...5])
    #expect(ranged.functions[0].type(of: ranged.functions[0].inputs[0]).description == "f32[N, 2]")
    #expect(message(bytes, dims: ["M": 1...5]).contains("'M'"))
  }

  @Test func severalNotesAreOneText() throws {
    let bytes = Wire.model(
      nodes: [Wire.node("Add", ["x", "z"], ["y"])], tensors: [],
      inputs: [Wire.value("x", [0, 2]), Wire.value("z", [0, 2])], outputs: [Wire.value("y", [0, 2])])
    let model = try load(bytes)
    let notes = model.metadata.filter { $0.key == Model.noteKey }.map(\.value)
    #expect(notes.count == 1 && notes[0].contains("'x'") && notes[0].contains("'z'"))
    var compact = model
    compact.compact()
    #expect(try Parser.parse(Printer.print(compact)) == compact)
  }

  @Test func wrongTensorsAreRefusedByName() throws {
    func refusal(_ tensor: [UInt8]) -> String { message(Self.product(weights: tensor)) }
    #expect(refusal(Wire.tensor("w", [2, 3], raw: Array(Self.weights.dropLast()))).contains("'w'"))
    #expect(refusal(Wire.tensor("w", [2, 3], raw: Self.weights + [0])).contains("needs 24"))
    #expect(refusal(Wire.tensor("w", [1 << 62, 1 << 62], raw: Self.weights)).contains("out of range"))
    #expect(refusal(Wire.tensor("w", [UInt64.max, 3], raw: Self.weights)).contains("negative"))
    #expect(refusal(Wire.tensor("w", [2, 3], raw: Self.weights, type: 8)).contains("string"))
    #expect(refusal(Wire.tensor("w", [3, 2], raw: Self.weights)).contains("matmul"))
    #expect(refusal(Wire.tensor("v", [2, 3], raw: Self.weights)).contains("'w'"))
    let twice = Wire.tensor("w", [2, 3], raw: Self.weights) + Wire.bytes(4, Self.weights)
    #expect(refusal(twice).contains("two fields"))
  }

  @Test func externalDataStaysInTheFolder() throws {
    func tensor(_ location: String, offset: String = "0") -> [UInt8] {
      func entry(_ key: String, _ value: String) -> [UInt8] { Wire.bytes(13, Wire.text(1, key) + Wire.text(2, value)) }
      return Wire.number(1, 2) + Wire.number(1, 3) + Wire.number(2, 1) + Wire.text(8, "w") + entry("location", location)
        + entry("offset", offset) + Wire.number(14, 1)
    }
    let folder = try TemporaryFolder()
    try folder.write("w.bin", [0, 0, 0, 0] + Self.weights)
    func load(_ location: String, offset: String = "4") -> String {
      do {
        let path = try folder.write("m.onnx", Self.product(weights: tensor(location, offset: offset)))
        let model = try FormatRegistry.load(path)
        let result = try Evaluator(model).run([NumPyArray([1, 1] as [Float], [1, 2]).tensor]).outputs[0]
        return "\(NumPyArray(result.view).floats)"
      } catch {
        return "\(error)"
      }
    }
    #expect(load("w.bin") == "[0.0, 0.0, 9.0]")
    for name in ["../w.bin", "/etc/passwd", "a/../w.bin", "a/../../w.bin", "./w.bin", "", "..\\w.bin", "w.bin/"] {
      #expect(load(name).contains("external data"), "\(name)")
    }
    #expect(load("none.bin").contains("does not exist"))
    #expect(load("w.bin", offset: "8").contains("needs 24 bytes"))
    #expect(load("w.bin", offset: "-1").contains("offset"))
    #expect(load("w.bin", offset: "99999999999999999999").contains("offset"))
    _ = try Command.run("ln", ["-s", "w.bin", folder.path("link.bin")])
    #expect(load("link.bin").contains("symbolic link"))
    _ = try Command.run("ln", [folder.path("w.bin"), folder.path("hard.bin")])
    #expect(load("hard.bin").contains("hard links"))
  }

  @Test func unknownThingsAreNamed() throws {
    func graph(_ node: [UInt8]) -> [UInt8] {
      Wire.model(
        nodes: [node], tensors: [], inputs: [Wire.value("x", [1, 2])], outputs: [Wire.value("y", [1, 2])])
    }
    let bogus = message(graph(Wire.node("Reluu", ["x"], ["y"])))
    #expect(bogus.contains("'Reluu'") && bogus.contains("'Relu'") && bogus.contains("the_Reluu"))
    let attribute = Wire.text(1, "alpha") + Wire.number(20, 2) + Wire.number(3, 1)
    #expect(message(graph(Wire.node("Relu", ["x"], ["y"], [attribute]))).contains("attribute 'alpha'"))
    #expect(message(graph(Wire.node("Relu", ["z"], ["y"]))).contains("'z'"))
    #expect(message(graph(Wire.node("Relu", [], ["y"]))).contains("input 0"))
    #expect(message(graph(Wire.node("Relu", ["x"], ["x"]))).contains("defined twice"))
  }

  @Test func sizesThatOverflowAreRefused() throws {
    let huge = UInt64(1) << 40
    func graph(_ node: [UInt8], _ inputs: [[UInt8]]) -> [UInt8] {
      Wire.model(nodes: [node], tensors: [], inputs: inputs, outputs: [Wire.value("y", [1])])
    }
    let flatten = graph(Wire.node("Flatten", ["x"], ["y"]), [Wire.value("x", [huge, huge, huge])])
    #expect(message(flatten).contains("out of range"))
    // Each input fits, what they broadcast to does not.
    let sum = graph(
      Wire.node("Add", ["a", "b"], ["y"]), [Wire.value("a", [huge, 1, 1]), Wire.value("b", [1, huge, 1])])
    #expect(message(sum).contains("out of range"))
  }

  /// An i64 tensor.
  private static func integers(_ name: String, _ values: [Int64]) -> [UInt8] {
    let raw = values.flatMap { value in withUnsafeBytes(of: value) { [UInt8]($0) } }
    return Wire.tensor(name, [UInt64(values.count)], raw: raw, type: 7)
  }

  /// y = x reshaped to [x.shape[1] * 2, (x.shape[0] + 1) / 2, -1] by nodes, for an x of [N, 4, 6].
  private static let reshapedByNodes = Wire.model(
    nodes: [
      Wire.node("Shape", ["x"], ["shape"]),
      Wire.node("Slice", ["shape", "one", "two"], ["height"]),
      Wire.node("Gather", ["shape", "zero"], ["count"]),
      Wire.node("Mul", ["height", "two"], ["double"]),
      Wire.node("Add", ["count", "one"], ["more"]),
      Wire.node("Div", ["more", "two"], ["half"]),
      Wire.node("Concat", ["double", "half", "open"], ["target"], [Wire.text(1, "axis") + Wire.number(3, 0)]),
      Wire.node("Equal", ["target", "open"], ["is_open"]),
      Wire.node("Where", ["is_open", "open", "target"], ["chosen"]),
      Wire.node("Reshape", ["x", "chosen"], ["y"]),
    ],
    tensors: [integers("zero", [0]), integers("one", [1]), integers("two", [2]), integers("open", [-1])],
    inputs: [Wire.value("x", [0, 4, 6])], outputs: [Wire.value("y", [0, 0, 0])])

  @Test func shapesAreComputedOnImport() throws {
    func shape(_ count: ClosedRange<Int>) throws -> String {
      let graph = try load(Self.reshapedByNodes, dims: ["N": count]).functions[0]
      #expect(graph.nodeIDs.count == 1)
      return graph.type(of: graph.outputs[0]).description
    }
    #expect(try shape(2...2) == "f32[8, 1, 6]")
    #expect(try shape(4...4) == "f32[8, 2, 6]")
    #expect(message(Self.reshapedByNodes, dims: ["N": 3...3]).contains("'Reshape' of shape [3, 4, 6] to [8, 2, -1]"))
    // 24 * N elements in rows of (N + 1) / 2: no size says that for every N.
    #expect(message(Self.reshapedByNodes, dims: ["N": 1...4]).contains("'Reshape' of shape [N, 4, 6]"))
  }

  /// y = x[-2::-1] and z = gather_elements(x, [2, -1, 0]), for an x of [4].
  private static let picked = Wire.model(
    nodes: [
      Wire.node("Slice", ["x", "from", "to", "zero", "back"], ["y"]),
      Wire.node("GatherElements", ["x", "places"], ["z"], [Wire.text(1, "axis") + Wire.number(3, 0)]),
    ],
    tensors: [
      integers("zero", [0]), integers("from", [-2]), integers("to", [.min + 1]), integers("back", [-1]),
      integers("places", [2, -1, 0]),
    ],
    inputs: [Wire.value("x", [4])], outputs: [Wire.value("y", [3]), Wire.value("z", [3])])

  /// Weights join the graph when a node first names them, be it only to ask for their shape.
  @Test func shapesOfWeights() throws {
    let bytes = Wire.model(
      nodes: [
        Wire.node("Shape", ["w"], ["s"]), Wire.node("Size", ["v"], ["n"]), Wire.node("Mul", ["s", "n"], ["i"]),
        Wire.node("Cast", ["i"], ["f"], [Wire.text(1, "to") + Wire.number(3, 1) + Wire.number(20, 2)]),
        Wire.node("Add", ["x", "f"], ["y"]),
      ],
      tensors: [
        Wire.tensor("w", [2, 3], raw: Self.weights), Wire.tensor("v", [5], raw: Wire.floats([0, 0, 0, 0, 0])),
      ], inputs: [Wire.value("x", [2])], outputs: [Wire.value("y", [2])])
    #expect(try run(bytes, [1, 2], [2]) == [11, 17])
  }

  @Test func reversedSlicesAndPickedElements() throws {
    let folder = try TemporaryFolder()
    let model = try FormatRegistry.load(folder.write("m.onnx", Self.picked))
    try Verifier.verify(model)
    let results = try Evaluator(model).run([NumPyArray([5, 6, 7, 8] as [Float], [4]).tensor]).outputs
    #expect(NumPyArray(results[0].view).floats == [7, 6, 5])
    #expect(NumPyArray(results[1].view).floats == [7, 8, 5])
  }

  @Test func sizesWithSymbolsReachTheGraph() throws {
    // y = x reshaped to [N * 4, -1], and the number N * 4 itself.
    let bytes = Wire.model(
      nodes: [
        Wire.node("Shape", ["x"], ["shape"]), Wire.node("Gather", ["shape", "zero"], ["count"]),
        Wire.node("Mul", ["count", "four"], ["rows"]),
        Wire.node("Concat", ["rows", "open"], ["target"], [Wire.text(1, "axis") + Wire.number(3, 0)]),
        Wire.node("Reshape", ["x", "target"], ["y"]),
      ],
      tensors: [Self.integers("zero", [0]), Self.integers("four", [4]), Self.integers("open", [-1])],
      inputs: [Wire.value("x", [0, 4, 6])], outputs: [Wire.value("y", [0, 0]), Wire.value("rows", [1])])
    let folder = try TemporaryFolder()
    let path = try folder.write("m.onnx", bytes)
    let model = try FormatRegistry.load(path, LoadOptions(dimensions: ["N": 1...5]))
    try Verifier.verify(model)
    let graph = model.functions[0]
    #expect(graph.type(of: graph.outputs[0]).description == "f32[4*N, 6]")
    let results = try Evaluator(model).run([NumPyArray([Float](repeating: 1, count: 72), [3, 4, 6]).tensor]).outputs
    #expect(results[0].view.sizes == [12, 6])
    #expect(NumPyArray(results[1].view).integers == [12])
  }

  /// Graphs that between them have attributes, constants, shape arithmetic and weights in both forms.
  static let smallGraphs = [product(weights: Wire.tensor("w", [2, 3], raw: weights)), reshapedByNodes, picked]

  @Test func deepNestingIsRefused() throws {
    // Graphs inside attributes inside nodes, four levels a step.
    var graph: [UInt8] = []
    for _ in 0..<2000 { graph = Wire.bytes(1, Wire.bytes(5, Wire.bytes(6, graph))) }
    #expect(message(Wire.number(1, 8) + Wire.bytes(7, graph) + Wire.bytes(8, Wire.number(2, 17))).contains("nested"))
  }

  @Test func damageGivesErrorsOnly() throws {
    let bytes = Self.product(weights: Wire.tensor("w", [2, 3], raw: Self.weights))
    // Cut between the graph and the operator set, and inside trailing outputs, a prefix may still be a message.
    try expectOnlyCompileErrors(bytes, fileName: "m.onnx", allowedTruncations: []) { path in
      let model = try FormatRegistry.load(path)
      try Verifier.verify(model)
    }
  }
}
