import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

@Suite struct Llama2CTests {
  /// A checkpoint of width 8, 2 heads, one of keys, feed-forward 12, 2 layers, 5 tokens, context 4.
  struct Small {
    var version = 0
    var shared = true
    var group = 4
    var sizes: [Int32] = [8, 12, 2, 2, 1, 5, 4]
    var numbers: [Float] = []

    /// The bytes; codes of version 2 come from `numbers` with scales of 1/64.
    func bytes() -> [UInt8] {
      var random = SplitMix64(seed: 3)
      var output: [UInt8] = []
      func header() -> [UInt8] { sizes.flatMap { FileBytes.littleEndian($0) } }
      func f32(_ count: Int) -> [UInt8] { FileBytes.f32(random.floats(count)) }
      func q8(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) } + FileBytes.f32(random.floats(count / group))
      }
      let (d, h, v) = (8, 12, 5)
      if version == 0 {
        var own = sizes
        if !shared { own[5] = -own[5] }
        output = own.flatMap { FileBytes.littleEndian($0) } + f32(v * d)
        for count in [d, d * d, 4 * d, 4 * d, d * d, d, h * d, d * h, h * d] { output += f32(2 * count) }
        output += f32(d) + f32(4 * 4)
        if !shared { output += f32(v * d) }
        return output
      }
      output = FileBytes.littleEndian(UInt32(0x616B_3432)) + FileBytes.littleEndian(Int32(version)) + header()
      output += [shared ? 1 : 0] + (version == 2 ? FileBytes.littleEndian(Int32(group)) : [])
      output += [UInt8](repeating: 0, count: 256 - output.count)
      output += f32(2 * d) + f32(2 * d) + f32(d)
      let matrices = [d * d, 4 * d, 4 * d, d * d, h * d, d * h, h * d].flatMap { [$0, $0] }
      for count in [v * d] + matrices + (shared ? [] : [v * d]) { output += version == 2 ? q8(count) : f32(count) }
      return output
    }
  }

  @Test(arguments: [0, 1, 2])
  func readsVersions(version: Int) throws {
    for shared in [true, false] {
      let folder = try TemporaryFolder()
      let path = try folder.write("m.bin", Small(version: version, shared: shared).bytes())
      let model = try FormatRegistry.load(path)
      try Verifier.verify(model)
      #expect(model[metadata: "format"] == "llama2c" && model[metadata: "layers"] == "2")
      #expect(model.tokenizer == nil)
      let names = Set(model.constants.constants.map(\.name))
      #expect(names.contains("lm_head.weight") == !shared)
    }
  }

  /// Groups that do not lie within rows are widened exactly: 12 columns in groups of 8.
  @Test func quantizedGroupsAcrossRows() throws {
    let folder = try TemporaryFolder()
    let path = try folder.write("m.bin", Small(version: 2, group: 8).bytes())
    let model = try FormatRegistry.load(path)
    try Verifier.verify(model)
    let graph = try #require(model.functions.first)
    let codes = graph.nodeIDs.compactMap { graph[$0].op as? UnpackCodes }
    // Down projections have rows of 12 numbers; the embedding and six matrices in each of two layers have rows of 8.
    #expect(codes.filter { $0.format == nil }.count == 2 && codes.filter { $0.format != nil }.count == 13)
    for id in graph.nodeIDs {
      guard let op = graph[id].op as? UnpackCodes, case .constant(let codes) = graph[graph[id].inputs[0]].definition,
        case .constant(let scales) = graph[graph[id].inputs[1]].definition
      else { continue }
      var value = graph[id].results[0]
      if op.format != nil, case .operand(let user, _) = graph[value].uses[0] { value = graph[user].results[0] }
      let numbers = try ConstantEvaluator(model, graph).tensor(value).array(of: Float.self)
      let q = try #require(try model.withBytes(of: codes) { $0.map { Float(Int8(bitPattern: $0)) } })
      let s = try #require(try model.withBytes(of: scales) { Array($0.bindMemory(to: Float.self)) })
      #expect(numbers == q.indices.map { q[$0] * s[$0 / op.group] })
    }
  }

  @Test func refusesWhatDoesNotFit() throws {
    let folder = try TemporaryFolder()
    func refuse(_ message: String, _ bytes: [UInt8], kind: CompileError.Kind = .input) throws {
      let path = try folder.write("m.bin", bytes)
      expectFailure(kind, message, "m.bin") { _ = try FormatRegistry.load(path) }
    }
    let good = Small(version: 1).bytes()
    func changed(_ offset: Int, _ value: Int32) -> [UInt8] {
      var bytes = good
      bytes.replaceSubrange(offset..<offset + 4, with: FileBytes.littleEndian(value))
      return bytes
    }
    try refuse("version 3 is not supported", changed(4, 3), kind: .unsupported)
    for offset in stride(from: 8, to: 36, by: 4) {
      for value: Int32 in [0, -1, .min, .max] { try refuse(" is \(value)", changed(offset, value)) }
    }
    try refuse("do not divide", changed(20, 3))
    try refuse("the file has", good + [0])
    try refuse("needs", Array(good.dropLast()))
    // Version 0 has no magic number: a file of another length is in no format.
    try refuse("in no format", Small().bytes() + [0], kind: .unsupported)
  }

  @Test(arguments: [0, 1, 2])
  func damagedFilesGiveErrors(version: Int) throws {
    // Every length of a file of version 0 is that of no other checkpoint.
    try expectOnlyCompileErrors(Small(version: version).bytes(), fileName: "m.bin", mutations: 1000) { path in
      try Verifier.verify(FormatRegistry.load(path))
    }
  }
}
