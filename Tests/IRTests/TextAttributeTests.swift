import Base
import IR
import Testing

/// Structures with every kind of attribute.
private enum Sample {
  enum Color: String, Codable, Hashable, CaseIterable { case red, darkGreen = "dark_green", other = "#1 choice" }
  enum Level: Int, Codable, Hashable, CaseIterable { case low = 1, high = 9 }
  enum Payload: Codable, Hashable {
    case plain
    case clamp(low: Int, high: Int)
    case named(String)
  }
  struct Inner: Codable, Hashable, DefaultInitializable {
    var bias = false
    var color = Color.red
    var depth: Int? = nil
    init() {}
    init(bias: Bool, color: Color, depth: Int? = nil) { (self.bias, self.color, self.depth) = (bias, color, depth) }
  }
  struct Outer: Codable, Hashable, DefaultInitializable {
    var axis = -1
    @Exact var epsilon: Float = 1e-5
    @Exact var scale: Double = 0.1
    var strides = [1, 1]
    var color = Color.darkGreen
    var level = Level.low
    var inner = Inner()
    var optionalInner: Inner?
    var optional: Int?
    var setOptional: Int? = 7
    var text = "two words"
    var isOn = true
    var payload = Payload.plain
    var items: [Inner] = []
    var holes: [Int?] = []
    var big: UInt64 = 0
    var small: Int8 = 0
    var table: [String: Int] = [:]
    init() {}
  }
  struct Empty: Codable, Hashable, DefaultInitializable { init() {} }
  struct Word: Codable, Hashable { var word: String }
  struct Bare: Codable, Hashable {
    var first: Int
    var second: String
  }
}

private func encode(_ value: Sample.Outer) throws -> String {
  try AttributeCoder.encode(value, defaults: try AttributeCoder.encode(Sample.Outer())).description
}

private func decode(_ text: String) throws -> Sample.Outer {
  try AttributeCoder.decode(Sample.Outer.self, overDefaults: try AttributeDictionary(parsing: text), of: "sample")
}

private func message(_ body: () throws -> Void) -> String {
  do {
    try body()
    return "no error"
  } catch let error as CompileError {
    return error.kind == .input ? error.message : "kind \(error.kind): \(error.message)"
  } catch {
    return "not a CompileError: \(error)"
  }
}

@Suite struct TextAttributeTests {
  @Test func printsKeysInTheOrderOfDeclaration() throws {
    #expect(
      try encode(Sample.Outer()) == """
        {axis = -1, epsilon = 1e-05, scale = 0.1, strides = [1, 1], color = dark_green, level = 1, \
        inner = {bias = false, color = red}, setOptional = 7, text = "two words", isOn = true, \
        payload = {plain = {}}, items = [], holes = [], big = 0, small = 0, table = {}}
        """)
  }

  @Test func roundTripsEveryKind() throws {
    var value = Sample.Outer()
    value.axis = .min
    value.epsilon = -0.0
    value.scale = .leastNonzeroMagnitude
    value.strides = []
    value.color = .other
    value.level = .high
    value.inner = .init(bias: true, color: .darkGreen, depth: 3)
    value.optionalInner = .init(bias: true, color: .red)
    value.optional = 0
    value.setOptional = nil
    value.text = "quote \" slash \\ line\nbell \u{7} ünï 日本 \u{202E} 😀"
    value.isOn = false
    value.payload = .clamp(low: -3, high: 6)
    value.items = [.init(), .init(bias: true, color: .other)]
    value.holes = [1, nil, 3]
    value.big = .max
    value.small = -128
    value.table = ["zulu": 1, "alpha": 2, "m n": 3]
    let text = try encode(value)
    #expect(try decode(text) == value)
    #expect(try encode(try decode(text)) == text)
    #expect(text.contains(#"table = {alpha = 2, "m n" = 3, zulu = 1}"#))
    #expect(text.contains("setOptional = null"))
    #expect(text.utf8.allSatisfy { $0 >= 0x20 })
    value.payload = .named("true")
    #expect(try decode(try encode(value)) == value)
  }

  @Test(
    arguments: [
      0, -0.0, 1, 0.1, 1e-5, 0x1p-149, 3.4028235e38, .infinity, -.infinity, 16_777_216, 0x1p-126, 0.30000001,
    ] as [Float])
  func roundTripsFloats(number: Float) throws {
    var value = Sample.Outer()
    value.epsilon = number
    value.scale = Double(number).nextUp
    #expect(try decode(try encode(value)) == value)
  }

  @Test func roundTripsNaNWithItsSign() throws {
    var value = Sample.Outer()
    value.epsilon = .nan
    value.scale = -.nan
    let text = try encode(value)
    #expect(text.contains("epsilon = nan, scale = -nan"))
    let back = try decode(text)
    #expect(back == value)
    #expect(back.scale.sign == .minus)
    #expect(back.epsilon.sign == .plus)
  }

  /// A decimal just above the middle of two floats: through a double it would become the middle itself and round down.
  @Test func roundsDecimalsOnce() throws {
    let text = "1.00000005960464477540"
    #expect(try decode("{epsilon = \(text)}").epsilon == 1 + Float.ulpOfOne)
    #expect(Float(try #require(Double(text))) == 1)
  }

  @Test func everyKeyMayBeLeftOut() throws {
    #expect(try decode("{}") == Sample.Outer())
    let value = try decode("{inner = {color = dark_green}, optionalInner = {bias = true}, items = [{}, {bias = true}]}")
    #expect(value.inner == .init(bias: false, color: .darkGreen))
    #expect(value.optionalInner == .init(bias: true, color: .red))
    #expect(value.items == [.init(), .init(bias: true, color: .red)])
    #expect(value.axis == -1)
    #expect(try decode("{payload = {clamp = {low = 1, high = 2}}}").payload == .clamp(low: 1, high: 2))
    #expect(try decode("{setOptional = null}").setOptional == nil)
    #expect(try decode("{epsilon = 2}").epsilon == 2)
    #expect(try decode("{ axis=3 , strides =[2,3,],}").strides == [2, 3])
    #expect(try decode("{\"axis\" = 3}").axis == 3)
  }

  @Test func quotesWhatIsNoPlainWord() throws {
    func printed(_ word: String) throws -> String { try AttributeCoder.encode(Sample.Word(word: word)).description }
    #expect(try printed("silu") == "{word = silu}")
    for word in ["true", "false", "null", "nan", "inf", "", "1st", "a-b", "a b", "é", "a.b"] {
      #expect(try printed(word) == "{word = \"\(word)\"}")
      let tree = try AttributeValue(parsing: try printed(word))
      #expect(try AttributeCoder.decode(Sample.Word.self, from: tree, of: "word") == .init(word: word))
    }
    #expect(try printed("\0\u{1b}\u{2028}\r\t") == #"{word = "\u{0}\u{1b}\u{2028}\r\t"}"#)
  }

  @Test func emptyStructuresHaveNoKeys() throws {
    #expect(try AttributeCoder.attributes(of: Sample.Empty()).isEmpty)
    #expect(
      message { _ = try AttributeCoder.decode(Sample.Empty.self, overDefaults: .init([("x", .integer(1))]), of: "add") }
        == "unknown key 'x': add takes no keys")
  }

  @Test func longDictionariesStayInOrder() throws {
    let table = Dictionary(uniqueKeysWithValues: (0..<1000).map { ("k\($0)", $0) })
    let text = try AttributeCoder.encode(table).description
    #expect(text.hasPrefix("{k0 = 0, k1 = 1, k10 = 10, k100 = 100,"))
    let tree = try AttributeValue(parsing: text)
    #expect(try AttributeCoder.decode([String: Int].self, from: tree, of: "table") == table)
    #expect(try AttributeCoder.encode(Set(["b", "a", "c"])).description == "[a, b, c]")
  }

  @Test func errorsNameKeyFoundAndExpected() {
    let cases: [(String, String)] = [
      ("{axes = 1}", "unknown key 'axes' of sample, did you mean 'axis'? valid keys are axis, epsilon, scale,"),
      ("{inner = {bios = true}}", "unknown key 'bios' of 'inner' of sample, did you mean 'bias'?"),
      ("{items = [{}, {zzz = 1}]}", "unknown key 'zzz' of 'items[1]' of sample, valid keys are bias, color, depth"),
      ("{axis = silu}", "'axis' of sample is 'silu', expected an integer"),
      ("{axis = 1.5}", "'axis' of sample is the number 1.5, expected an integer"),
      ("{axis = null}", "'axis' of sample is null, expected an integer"),
      ("{axis = 18446744073709551615}", "expected an integer in -9223372036854775808...9223372036854775807"),
      ("{small = 128}", "'small' of sample is the integer 128, expected an integer in -128...127"),
      ("{big = -1}", "'big' of sample is the integer -1, expected an integer in 0...18446744073709551615"),
      ("{isOn = 1}", "'isOn' of sample is the integer 1, expected true or false"),
      ("{text = 5}", "'text' of sample is the integer 5, expected a string"),
      ("{epsilon = yes}", "'epsilon' of sample is 'yes', expected a number"),
      ("{epsilon = 1e39}", "'epsilon' of sample is the number 1e39, expected a number of at most 3.4028235e+38"),
      ("{color = dark_gren}", "expected one of red, dark_green, #1 choice; did you mean 'dark_green'?"),
      ("{color = 5}", "'color' of sample is the integer 5, expected one of red, dark_green, #1 choice"),
      ("{level = 2}", "'level' of sample is the integer 2, expected one of 1, 9"),
      ("{strides = 3}", "'strides' of sample is the integer 3, expected a list"),
      ("{strides = [1, x]}", "'strides[1]' of sample is 'x', expected an integer"),
      ("{inner = 3}", "'inner' of sample is the integer 3, expected a dictionary"),
      ("{inner = {color = pink}}", "'inner.color' of sample is 'pink', expected one of red"),
      ("{payload = {clamp = {low = 1}}}", "'payload.clamp.high' of sample is missing"),
      ("{payload = {clamp = {low = 1, high = 2, x = 3}}}", "unknown key 'x' of 'payload.clamp' of sample"),
      ("{payload = {bogus = {}}}", "'payload' of sample cannot be read"),
      ("{table = {a = b}}", "'table.a' of sample is 'b', expected an integer"),
    ]
    for (text, expected) in cases {
      let found = message { _ = try decode(text) }
      #expect(found.contains(expected), "\(text): \(found)")
    }
    #expect(
      message { _ = try AttributeCoder.decode(Sample.Bare.self, from: try .init(parsing: "{first = 1}"), of: "bare") }
        == "'second' of bare is missing")
  }

  @Test func syntaxErrorsNameThePlace() {
    let cases: [(String, String)] = [
      ("{axis}", "found '}', expected '=' (line 1:6)"),
      ("{axis = }", "found '}', expected a value (line 1:9)"),
      ("{axis = 1\n  scale = 2}", "found 'scale', expected ',' or '}' (line 2:3)"),
      ("{axis = 1, axis = 2}", "the key 'axis' stands twice (line 1:12)"),
      ("{text = \"abc}", "a string does not end (line 1:9)"),
      ("{text = \"a\\q\"}", "unknown escape in a string, expected \\n, \\r, \\t, \\\", \\\\ or \\u{...} (line 1:11)"),
      ("{text = \"\\u{d800}\"}", "expected \\u{...} with the number of a Unicode character in hexadecimal (line 1:10)"),
      ("{text = \"\\u{1111111111}\"}", "expected \\u{...} with the number of a Unicode character"),
      ("{text = \"a\nb\"}", "a string does not end on its line (line 1:9)"),
      ("{axis = 12abc}", "a number is followed by 'a' (line 1:11)"),
      ("{text = é}", "unexpected character 'é' (line 1:9)"),
      ("{text = \"éé\" é}", "unexpected character 'é' (line 1:14)"),
      ("{axis = -x}", "found 'x', expected a number after '-' (line 1:10)"),
      ("{axis = 1} 2", "found '2', expected the end of the attributes (line 1:12)"),
      ("{axis = \u{1}}", "unexpected control character 1 (line 1:9)"),
      ("", "found the end of the text, expected '{' (line 1:1)"),
    ]
    for (text, expected) in cases {
      do {
        _ = try decode(text)
        Issue.record("no error for \(text)")
      } catch {
        #expect("\(error)".hasPrefix(expected), "\(text): \(error)")
      }
    }
  }

  @Test func nestingIsLimited() throws {
    let deep = String(repeating: "[", count: 100_000)
    #expect(message { _ = try AttributeValue(parsing: deep) }.contains("nested too deeply"))
    let fine = String(repeating: "[", count: 200) + String(repeating: "]", count: 200)
    #expect(try AttributeValue(parsing: fine).description == fine)
  }

  @Test func everyTruncationIsAnError() throws {
    let text = try encode(Sample.Outer())
    for length in text.indices {
      #expect(throws: CompileError.self) { _ = try decode(String(text[..<length])) }
    }
  }
}
