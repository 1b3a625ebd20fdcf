import Base
import IR
import Tensors
import TestSupport
import Testing

/// An operator with every kind of attribute that the core operators do not have; the result has the type of the input.
private struct Decorate: Operator {
  static let name = "decorate"
  struct Detail: Hashable, Codable, DefaultInitializable {
    var words: [String] = []
    @Exact var bound: Float = 0
    var hint: Int?
    init() {}
  }
  @Exact var single: Float = 1
  @Exact var double: Double = 1
  var detail = Detail()
  var sizes: [Dim] = []
  var optional: String? = "set"
  init() {}
  func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 1...1)
    return inputs
  }
  func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {
    outputs[0].bytes.copyMemory(from: inputs[0].bytes)
  }
}

/// Two results of the types of the inputs.
private struct Swap: Operator {
  static let name = "swap"
  init() {}
  func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] {
    try expect(inputs, count: 2...2)
    return [inputs[1], inputs[0]]
  }
  func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {}
}

/// Stands only in lowered models.
private struct Lowered: Operator {
  static let name = "lowered"
  static let level = OperatorLevel.target
  init() {}
  func inferTypes(_ inputs: [TensorType]) throws -> [TensorType] { inputs }
  func evaluate(_ inputs: [TensorView], into outputs: [MutableTensorView]) throws {}
}

private let operators = OperatorRegistry.core.adding([Decorate.self, Swap.self, Lowered.self])

private func parse(_ text: String, file: String? = nil) throws -> Model {
  try Parser.parse(text, file: file, operators: operators)
}

/// The model in `body` printed, parsed and printed again, which must not change anything.
private func expectRoundTrip(_ model: Model, sourceLocation: SourceLocation = #_sourceLocation) throws {
  var model = model
  model.compact()
  let text = try Printer.print(model)
  let back = try parse(text)
  #expect(back == model, "\(text)", sourceLocation: sourceLocation)
  #expect(try Printer.print(back) == text, sourceLocation: sourceLocation)
  try Verifier.verify(back)
}

/// A function around statements, for short cases.
private func wrap(_ statements: String, stage: String = "import") -> String {
  """
  mcc_ir 1 stage = \(stage)
  model @m {
    func @f <T in 1...128, L in 0...128> (%x: f32[T, 64], %y: f32[T, 64]) state(%s: f32[8]) -> (out) {
      \(statements)
      return %z
    }
  }
  """
}

@Suite struct TextModelTests {
  @Test func canonicalTextStaysAsItIs() throws {
    let folder = try TemporaryFolder()
    _ = try folder.write("weights.bin", [UInt8](repeating: 7, count: 200_000))
    let text = """
      mcc_ir 1 stage = simplify
      model @tiny {
        archive @w = "weights.bin" {size = 200000}
        metadata {
          architecture = "llama",
          "source.sha256" = "00ff",
        }

        func @main role = main <T in 1...128, L in 1...128> (
          %tokens: i32[T],
          %position: i32[1]
        ) state(
          %k0: f32[64, 32],
          %unchanged: f32[4]
        ) -> (
          logits: f32[T, 64],
          "other name": f32[64, 32]
        ) {
          %embedding = constant @w["model.embed_tokens.weight", 128..<131200] : f32[512, 64]
          %x = gather(%embedding, %tokens) {axis = 0} : f32[T, 64]  // model.embed_tokens
          %gain = constant splat(1.0) : f32[64]
          %n = rms_norm(%x, %gain) {axis = -1, epsilon = 1e-05} : f32[T, 64]
          %w = constant "down proj" random(seed = 7, deviation = 0.02) : f32[64, 64]
          %logits = matmul(%n, %w) {transposeB = true, epilogue = {bias = false, activation = none, residual = none, \
      gated = false}} : f32[T, 64]  // model.layers.0
          %zeros = constant splat(0.0) : f32[64, 32]
          %k0_new = add(%k0, %zeros) : f32[64, 32]
          update %k0 = %k0_new
          return %logits, %k0_new
        }

        func @second () -> (c: i32[2]) {
          %c = constant [-1, 2] : i32[2]
          return %c
        }

        asset @names = labels {
          labels = [yes, no, "not sure"],
        }

        asset @settings = generation {
          samples = true,
          temperature = 0.7,
          topK = 40,
          topP = 0.9,
          repeatPenalty = 1.0,
          endIDs = [2],
          beginID = 1,
        }
      }

      """
    let path = try folder.write("tiny.mir", text)
    let model = try Parser.parse(contentsOf: path, operators: operators)
    #expect(try Printer.print(model, relativeTo: folder.path) == text)
    try Verifier.verify(model)
    var compacted = model
    compacted.compact()
    #expect(compacted == model)
    #expect(model.stage == .simplify)
    #expect(model.functions.count == 2)
    let main = model.functions[0]
    #expect(main.role == "main")
    #expect(main.symbols == [Symbol("T", in: 1...128), Symbol("L", in: 1...128)])
    #expect(main.outputNames == ["logits", "other name"])
    #expect(main.states.count == 2)
    #expect(main[main.states[0].update].name == "k0_new")
    #expect(main.states[1].update == main.states[1].value)
    let x = try #require(main.value(named: "x"))
    let gather = try #require(main.definingNode(of: x))
    #expect(main[gather].origin == Origin("model.embed_tokens"))
    let n = try #require(main.value(named: "n"))
    #expect(main.op(of: n, as: RMSNorm.self)?.epsilon == 1e-5)
    #expect(model[metadata: "source.sha256"] == "00ff")
    #expect(model.generation?.temperature == 0.7)
  }

  @Test func pathsAreRelativeToTheText() throws {
    let folder = try TemporaryFolder()
    let file = try MappedFile(path: try folder.write("data.bin", [1, 2, 3, 4]))
    var model = Model(name: "m")
    let archive = model.addArchive(file)
    var builder = GraphBuilder(name: "f")
    let value = builder.constant(
      Constant(name: "c", type: TensorType(.f32, [1]), source: .archive(archive, 0..<4)))
    builder.output("c", value)
    model.functions = [builder.graph]
    model.constants = builder.constants
    try expectRoundTrip(model)
    let text = try Printer.print(model, relativeTo: folder.path)
    #expect(text.contains("archive @w = \"data.bin\" {size = 4}"))
    let back = try parse(text, file: folder.path("m.mir"))
    #expect(back.archives[0].file.path == folder.path("data.bin"))
    #expect(ArchivePath.folder(of: "m.mir") == ".")
    #expect(ArchivePath.folder(of: "/m.mir") == "/")
    #expect(ArchivePath.absolute("/x", in: "a") == "/x")
    #expect(throws: CompileError.self) {
      try parse(text.replacing("size = 4", with: "size = 5"), file: folder.path("m.mir"))
    }
    #expect(throws: CompileError.self) { try parse(text, file: folder.path("missing/m.mir")) }
  }

  @Test func everyKindOfConstantRoundTrips() throws {
    var builder = GraphBuilder(name: "f")
    func add(_ name: String, _ type: TensorType, _ source: ConstantSource) {
      let value = builder.constant(Constant(name: name, type: type, source: source))
      builder.output(name, value)
    }
    func inline<Value>(_ element: DType, _ values: [Value]) {
      builder.output("i\(element)", builder.constant(.inline("i \(element)", element, [values.count], values)))
    }
    inline(.f32, [1.5, -0.0, .infinity, -.infinity, 0x1p-149, 0.1] as [Float])
    inline(.f64, [1.5, -0.0, .infinity, 0x1p-1074, 0.1] as [Double])
    inline(.i64, [Int64.min, -1, Int64.max])
    inline(.i32, [Int32.min, Int32.max])
    inline(.i16, [Int16.min, Int16.max])
    inline(.i8, [Int8.min, Int8.max])
    inline(.u8, [UInt8.min, UInt8.max])
    inline(.bool, [0, 1] as [UInt8])
    // Every bit pattern of the narrow types: numbers, infinities and unusual NaNs.
    for element in [DType.f16, .bf16] {
      for block in 0..<16 {
        let bits = (0..<4096).map { UInt16(block * 4096 + $0) }
        builder.output(
          "\(element)\(block)", builder.constant(.inline("\(element) \(block)", element, [4096], bits)))
      }
    }
    for element in [DType.f8e4m3, .f8e5m2] { inline(element, (0..<256).map { UInt8($0) }) }
    add("nan", TensorType(.f32, [2]), .inline([0, 0, 0xC0, 0x7F, 0, 0, 0xC0, 0xFF]))
    add("payload", TensorType(.f32, [1]), .inline([1, 0, 0xC0, 0x7F]))
    add("odd bool", TensorType(.bool, [1]), .inline([2]))
    add("empty", TensorType(.f32, [0, 3]), .inline([]))
    add("scalar", TensorType(.f32, []), .inline([0, 0, 0, 0]))
    add("blocks", TensorType(.f32, [2, 33], encoding: .block(.w4(32))), .inline([UInt8](repeating: 0xA5, count: 72)))
    add("row", TensorType(.f32, [1, 3], encoding: .block(.w8c)), .inline([0, 0, 0x80, 0x3F, 1, 2, 0xFD]))
    let layout = PackedLayout(name: "panel w4", rows: 8, panelBytes: 3, parameters: [4, -1])
    add("panels", TensorType(.f32, [9, 4], encoding: .packed(layout)), .inline([1, 2, 3, 4, 5, 6]))
    let numbers: [Double] = [0.5, -0.0, .nan, -.nan, .init(bitPattern: 0x7FF8_0000_0000_0001), .infinity, 1]
    for (index, number) in numbers.enumerated() {
      add("splat \(index)", TensorType(.bf16, [1 << 20, 1 << 20]), .splat(number))
    }
    add("random", TensorType(.f32, [3]), .random(seed: .max, deviation: 0.02))
    var model = Model(name: "constants \"quoted\" é")
    model.functions = [builder.graph]
    model.constants = builder.constants
    try expectRoundTrip(model)
    let text = try Printer.print(model)
    #expect(text.contains("constant \"nan\" [nan, -nan] : f32[2]") || text.contains("constant [nan, -nan] : f32[2]"))
    #expect(text.contains("hex(\"0100c07f\")"))
    #expect(text.contains("splat(nan(\"7ff8000000000001\"))"))
    #expect(text.contains(": f32[2, 33] block<q4f16g32>"))
    #expect(text.contains(": f32[9, 4] packed<\"panel w4\", 8, 3, 4, -1>"))
  }

  @Test func everyKindOfAttributeRoundTrips() throws {
    var graph = Graph(name: "f", symbols: [Symbol("T", in: 1...9), Symbol("L", in: 1...9)])
    let t = Dim.symbol(Symbol("T", in: 1...9)), l = Dim.symbol(Symbol("L", in: 1...9))
    let x = graph.addInput("x", TensorType(.f32, [t * 2 + 1, (t - l) / 3, 7, (t + 1) / 2 * 4 - l]))
    var op = Decorate()
    op.single = .nan
    op.double = -.nan
    op.detail.words = ["a b", "plain", "", "true", "\"", "né\n"]
    op.detail.bound = -0.0
    op.detail.hint = 3
    op.sizes = [3, t, t * 2 - l, (t + 1) / 2]
    op.optional = nil
    let node = try graph.addNode(op, [x], names: ["name-with.odd$characters"], origin: Origin("a/b: c // d"))
    let second = try graph.addNode(Swap(), [x, graph[node].results[0]], names: ["né w", "%"])
    graph.addOutput("out", graph[second].results[0])
    graph.addOutput("true", graph[second].results[1])
    var model = Model(name: "m", stage: .transform)
    model.functions = [graph]
    try expectRoundTrip(model)
    let text = try Printer.print(model)
    #expect(
      text.contains(
        """
        {single = nan, double = -nan, detail = {words = ["a b", plain, "", "true", "\\"", "né\\n"], bound = -0.0, \
        hint = 3}, sizes = [3, T, "-L+2*T", "(T+1)/2"], optional = null} : f32[2*T+1, (-L+T)/3, 7, 4*(T+1)/2-L]  \
        // a/b: c // d
        """))
    #expect(text.contains(#"%"né w", %"%" = swap(%x, %name-with.odd$characters) :"#))
    let back = try parse(text).functions[0]
    #expect(back[NodeID(index: 0)].origin == Origin("a/b: c // d"))
  }

  @Test func productsOfSizesRoundTrip() throws {
    let symbols = [Symbol("T", in: 1...9), Symbol("L", in: 1...9)]
    let t = Dim.symbol(symbols[0]), l = Dim.symbol(symbols[1])
    func product(_ dims: Dim...) throws -> Dim {
      try dims.dropFirst().reduce(dims[0]) { try #require(Dim.product($0, $1)) }
    }
    let cases: [(Dim, String, Int)] = [
      (try product(t, l), "L*T", 15), (try product(l, 4, t) - 1, "4*L*T-1", 59), (try product(t, t), "T*T", 25),
      (try product(t, l) / 2, "(L*T)/2", 7), (try product(t / 2, l), "L*T/2", 6),
      (try product(t, l) / 2 * 3 + l, "3*(L*T)/2+L", 24), (try product(t + 1, l - 2), "L+L*T-2*T-2", 6),
      (try product((t + 1) / 2, l), "(T+1)/2*L", 9), (try product(product(t, l) / 2, l), "(L*T)/2*L", 21),
    ]
    for (dim, text, value) in cases {
      #expect("\(dim)" == text)
      let names = Dictionary(uniqueKeysWithValues: symbols.map { ($0.name, $0) })
      #expect(try Dim.parse(text, symbols: names) == dim, "\(text)")
      #expect(dim.value { $0.name == "T" ? 5 : 3 } == value, "\(text)")
      #expect(dim.substituting { $0.name == "T" ? 5 : 3 } == .fixed(value), "\(text)")
      #expect(dim.bounds.contains(value), "\(text)")
    }
    let area = try product(t, l)
    #expect(Dim.exactQuotient(area * 6, l * 3) == t * 2)
    #expect(Dim.exactQuotient(area + t, t) == l + 1)
    #expect(Dim.exactQuotient(area + 1, t) == nil)
    #expect(Dim.exactQuotient(t, l) == nil && Dim.exactQuotient(t, 2) == nil && Dim.exactQuotient(t, 0) == nil)
    // What a file may ask for without a tensor of that size.
    let huge = Dim.symbol(Symbol("H", in: 1...1 << 40))
    #expect(Dim.product(huge, huge) == nil)
    #expect(throws: CompileError.self) {
      try Dim.parse("H*H*H", symbols: ["H": Symbol("H", in: 1...1 << 40)])
    }
  }

  @Test func shortFormsAreAccepted() throws {
    let model = try parse(
      """
      // RUN: nothing
      model @m {
        func @f(%x: f32[2, 3,],) -> (%z,) { // a comment
          %a = softmax(%x)
          %b = softmax(%a) {axis = 0}  // origin
          return %b
        }
      }
      """)
    let graph = model.functions[0]
    #expect(model.stage == .import)
    #expect(graph.op(of: graph.outputs[0], as: Softmax.self)?.axis == 0)
    #expect(graph.outputNames == ["z"])
    let nodes = graph.nodeIDs
    #expect(nodes.map { graph[$0].origin } == [nil, Origin("origin")])
    try expectRoundTrip(model)
  }

  @Test func deadNodesAreKept() throws {
    let model = try parse(wrap("%dead = add(%x, %y)\n %c = constant [1.0] : f32[1]\n %z = add(%x, %x)"))
    try expectRoundTrip(model)
    #expect(try Printer.print(model).contains("%dead = add(%x, %y) : f32[T, 64]"))
    // Nothing refers to the constant.
    #expect(!(try Printer.print(model).contains("constant")))
  }

  @Test func tokenizersRoundTrip() throws {
    var tokenizer = Tokenizer(algorithm: .byteLevelBPE)
    tokenizer.tokens = (0..<3000).map { "tok\($0) \"\u{2581}\u{0}\($0)" } + ["", "[", "a,b", "//", "😀"]
    tokenizer.kinds = tokenizer.tokens.map { $0.isEmpty ? .unknown : .normal }
    tokenizer.scores = [.infinity, -0.0, 0.1, .nan, -1e10]
    tokenizer.merges = [1, 2, 3, 4]
    tokenizer.endIDs = [2, 3]
    var model = Model(name: "m")
    model.assets = [
      NamedAsset(name: "t", asset: .tokenizer(tokenizer)), NamedAsset(name: "l", asset: .labels([])),
      NamedAsset(name: "g", asset: .generation(GenerationSettings())),
    ]
    let text = try Printer.print(model)
    let back = try parse(text)
    #expect(back.assets.count == 3)
    // A NaN among plain floats is not equal to itself.
    var expected = tokenizer
    var found = try #require(back.tokenizer)
    #expect(found.scores[3].isNaN)
    expected.scores[3] = 0
    found.scores[3] = 0
    #expect(found == expected)
    #expect(try Printer.print(back) == text)
    #expect(text.split(separator: "\n").allSatisfy { $0.utf8.count <= 120 })
  }

  @Test func errorsNameThePlace() throws {
    let cases: [(String, String)] = [
      (wrap("%z = softmx(%x, %y)"), "unknown operator 'softmx', did you mean 'softmax'? (test.mir:4:10)"),
      (wrap("%z = add(%x, %w)"), "'%w' is not defined before it is used (test.mir:4:18)"),
      (
        wrap("%z = add(%x, %y) : f32[T, 65]"),
        "'%z' is written as f32[T, 65], but 'add' gives f32[T, 64] (test.mir:4:24)"
      ),
      (wrap("%z = add(%x, %y) : f16[T, 64]"), "'%z' is written as f16[T, 64], but 'add' gives f32[T, 64]"),
      (wrap("%z = add(%x, %s)"), "add: "),
      (
        wrap("%z = softmax(%x) {axes = 0}"),
        "unknown key 'axes' of softmax, did you mean 'axis'? valid keys are axis (test.mir:4:22)"
      ),
      (wrap("%z = softmax(%x) {axis = a}"), "'axis' of softmax is 'a', expected an integer (test.mir:4:22)"),
      (wrap("%z = softmax(%x) {axis = 7}"), "softmax: axis 7 lies outside"),
      (wrap("%x = add(%x, %y)"), "'%x' is defined twice (test.mir:4:5)"),
      (wrap("%z, %z = swap(%x, %y)"), "'%z' is defined twice"),
      (wrap("%z = swap(%x, %y)"), "'swap' has 2 results, found 1 names (test.mir:4:5)"),
      (wrap("%z = lowered(%x)"), "the operator 'lowered' stands in a model of the stage 'import' (test.mir:4:10)"),
      (wrap("%z = add(%x, %y) update %x = %z"), "'%x' is no state"),
      (wrap("%z = add(%x, %y) update %s = %z"), "the state '%s' of type f32[8] is updated with f32[T, 64]"),
      (wrap("%z = add(%s, %s) update %s = %z update %s = %z"), "the state '%s' is updated twice"),
      (wrap("%z = add(%x, %y) junk"), "found 'junk', expected '%name = ...', 'update' or 'return' (test.mir:4:22)"),
      (wrap("%z = add(%x %y)"), "found '%y', expected ')' (test.mir:4:17)"),
      (wrap("%z = decorate(%x) {sizes = [Q]}"), "'sizes[0]' of decorate is 'Q', expected a size: unknown symbol 'Q'"),
      (wrap("%z = constant [1.0] : f32[2]"), "found 1 elements, but f32[2] has 2 (test.mir:4:19)"),
      (wrap("%z = constant [1.0, x] : f32[2]"), "element 1 is 'x', which is no f32"),
      (wrap("%z = constant [1, 300] : u8[2]"), "element 1 is the integer 300, which is no u8"),
      (wrap("%z = constant [1e6] : f16[1]"), "element 0 is the number 1e6, which is no f16"),
      (wrap("%z = constant [1.0] : f32[T]"), "a constant has fixed sizes (test.mir:4:27)"),
      (wrap("%z = constant hex(\"0\") : u8[1]"), "found something else than pairs of hexadecimal digits"),
      (wrap("%z = constant hex(\"00\") : f32[1]"), "found 1 bytes, but f32[1] needs 4"),
      (wrap("%z = constant @w[\"a\", 0..<4] : f32[1]"), "the archive '@w' is not declared"),
      (wrap("%z = constant magic(3) : f32[1]"), "found the constant kind 'magic'"),
      (wrap("%z = constant splat(1.0) : f32[1] block<q4f16g32>"), "a made-up constant is dense"),
      (wrap("%z = constant splat(1.0) : f32[1] block<q5>"), "unknown block format 'q5'"),
      (wrap("%z = constant splat(1.0) : f31[1]"), "found 'f31', expected a type such as f32[1, 64]"),
      (wrap("%z = constant splat(1.0) : f32[-1]"), "the size -1 is out of range"),
      (wrap("%z = constant splat(1.0) : f32[2000000000000]"), "the size 2000000000000 is out of range"),
      (wrap("%z = constant splat(1.0) : f32[1000000000, 1000000000, 0]"), "is too large"),
      (wrap("%z = constant splat(1.0) : f32[0] packed<x, 0, 1>"), "a layout has a positive number of rows"),
      (wrap("%z = add(%x, %y)").replacing("T in 1...128", with: "T in 9...1"), "the range 9...1 of the symbol 'T'"),
      (wrap("%z = add(%x, %y)").replacing("T in 1...128", with: "T in 1...99999999999999"), "is no range of sizes"),
      (wrap("%z = add(%x, %y)").replacing("L in", with: "T in"), "the symbol 'T' is declared twice"),
      (
        wrap("%z = add(%x, %y)").replacing("f32[T, 64]", with: "f32[1000*(T+1)/, 64]"),
        "divides by something else than a number"
      ),
      (wrap("%z = add(%x, %y)").replacing("f32[T, 64]", with: "f32[1000000000*T, 999999999]"), "is too large"),
      (wrap("%z = add(%x, %y)").replacing("f32[T, 64]", with: "f32[1-T-T, 999999999]"), "is out of range"),
      (
        wrap("%z = add(%x, %y)").replacing("(out)", with: "(out: f32[1])"),
        "the output 'out' is declared as f32[1], but is f32[T, 64] (test.mir:3:95)"
      ),
      (wrap("%z = add(%x, %y)").replacing("(out)", with: "(out, out)"), "two outputs are named 'out'"),
      (wrap("%z = add(%x, %y)").replacing("(out)", with: "(a, b)"), "'@f' returns 1 values, but declares 2 outputs"),
      (
        wrap("%z = add(%x, %y)").replacing("mcc_ir 1", with: "mcc_ir 2"),
        "found version 2 of the text form, expected 1 (test.mir:1:8)"
      ),
      (
        wrap("%z = add(%x, %y)", stage: "emit"),
        "found the stage 'emit', expected one of import, simplify, transform, lower"
      ),
      (wrap("%z = add(%x, %y)") + "x", "found 'x', expected the end of the text"),
      ("model @m { func @f() -> () { return } func @f() -> () { return } }", "two functions are named '@f'"),
      ("model @m { asset @a = cake {} }", "found the asset kind 'cake'"),
      ("model @m { asset @a = tokenizer {} }", "'algorithm' of asset '@a' is missing"),
      ("model @m { asset @a = labels {label = [a]} }", "asset '@a' has other keys than 'labels'"),
      (
        "model @m { asset @a = generation {topK = x} }",
        "'topK' of asset '@a' is 'x', expected an integer (test.mir:1:23)"
      ),
      ("model @m { metadata {a = 1} }", "metadata 'a' is the integer 1, expected a string"),
      ("model @m { archive @w = \"/nowhere/at/all\" {} }", "cannot read '/nowhere/at/all': no such file or directory"),
      ("model @m { cake }", "found 'cake', expected 'archive', 'asset', 'metadata', 'func' or '}'"),
      ("model @m { func @f(%x: i32[1]) -> () { return }", "found the end of the text, expected 'archive'"),
      ("", "found the end of the text, expected 'model' (test.mir:1:1)"),
    ]
    for (text, expected) in cases {
      do {
        _ = try parse(text, file: "test.mir")
        Issue.record("no error, expected '\(expected)'")
      } catch let error as CompileError {
        #expect(error.kind == .input)
        #expect("\(error)".hasPrefix(expected) || "\(error)".contains(expected), "\(error)")
        #expect(error.subject?.file == "test.mir")
        #expect(error.subject?.line != nil)
      }
    }
    #expect(try parse(wrap("%z = lowered(%x)", stage: "lower")).stage == .lower)
  }

  @Test func deepAndLongTextIsRefused() throws {
    let deep = String(repeating: "[", count: 1_000_000)
    for text in [
      wrap("%z = decorate(%x) {sizes = \(deep)}"), "model @m { metadata {a = \(deep)} }",
      wrap("%z = add(%x, %y)").replacing("f32[T", with: "f32[" + String(repeating: "(", count: 100_000)),
      wrap("%z = add(%x, %y)").replacing("f32[T", with: "f32[" + String(repeating: "T+", count: 100_000)),
    ] {
      #expect(throws: CompileError.self) { try parse(text) }
    }
  }

  @Test func damagedTextNeverCrashes() throws {
    let text = """
      mcc_ir 1 stage = lower
      model @m {
        asset @l = labels {labels = [a, "b\\u{41}"]}
        metadata { a = "b" }
        func @f role = main <T in 1...9> (%x: f32[T, 4], %p: i32[1]) state(%s: f32[8, 4]) -> (o: f32[T, 4]) {
          %w = constant splat(0.5) : f32[4, 4]
          %c = constant [1.0, 2.5, -inf, nan] : f32[4]
          %q = constant hex("00000000000000000000000000000000000000000000000000000000000000000000") : f32[1, 32] block<q8f16g32>
          %h = matmul(%x, %w, %c) {transposeB = false, epilogue = {bias = true, activation = silu}} : f32[T, 4]
          %n = rms_norm(%h, %c) {axis = -1, epsilon = 1e-05} : f32[T, 4]
          %r = reshape(%n) {shape = [T, 2, 2]} : f32[T, 2, 2]
          %t = transpose(%r) {permutation = [0, 2, 1]} : f32[T, 2, 2]
          %u = reshape(%t) {shape = [T, 4]} : f32[T, 4]
          %k = cache_update(%s, %u, %p) : f32[8, 4]
          update %s = %k
          return %u  // origin
        }
      }
      """
    func load(_ bytes: [UInt8]) throws {
      guard let text = String(validating: bytes, as: UTF8.self) else { throw CompileError(.input, "not UTF-8") }
      let printed = try Printer.print(try parse(text))
      #expect(try Printer.print(try parse(printed)) == printed, "\(printed)")
    }
    expectOnlyCompileErrors(Array(text.utf8), mutations: 2000, load: load)
    // One plausible change at a time gets further than noise.
    var random = SplitMix64(seed: 3)
    let characters = Array("0123456789-+*/()[]{}<>,.:=%@\"TLaex_ ".utf8)
    for _ in 0..<4000 {
      var bytes = Array(text.utf8)
      bytes[random.int(below: bytes.count)] = characters[random.int(below: characters.count)]
      if random.int(below: 2) == 0 { bytes.insert(UInt8(ascii: "9"), at: random.int(below: bytes.count)) }
      do {
        try load(bytes)
      } catch let error as CompileError {
        #expect(error.kind == .input || error.kind == .unsupported, "\(error)")
      }
    }
  }
}
