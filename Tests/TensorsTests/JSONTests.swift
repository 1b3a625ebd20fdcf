import Base
import Testing

@Suite struct JSONTests {
  private func parse(_ text: String) throws -> JSON { try JSON.parse(text, file: "test.json") }

  @Test func values() throws {
    #expect(
      try parse(#" {"a": [1, -2, 2.5, 1e3, true, false, null, "x"], "b": {}, "c": []} "#) == [
        "a": [1, -2, 2.5, 1000.0, true, false, nil, "x"], "b": [:], "c": [],
      ])
    for (text, expected): (String, JSON) in [
      ("0", 0), ("-0", 0), ("12", 12), ("-1.5e-3", -0.0015), ("\"\"", ""), ("null", nil), (" true ", true),
    ] {
      #expect(try parse(text) == expected, "\(text)")
    }
  }

  @Test func integersStayExact() throws {
    #expect(try parse("9223372036854775807") == .integer(.max))
    #expect(try parse("-9223372036854775808") == .integer(.min))
    #expect(try parse("9223372036854775808") == .unsigned(1 << 63))
    #expect(try parse("18446744073709551615") == .unsigned(.max))
    #expect(try parse("[18446744073709551616, 1]") == [18446744073709551616.0, 1])
    #expect(try parse("-9223372036854775809") == .number(-9223372036854775808))
    // What tokenizer_config.json files say for "no limit".
    #expect(try parse(#"{"model_max_length": 1000000000000000019884624838656}"#)["model_max_length"]?.double == 1e30)
    #expect(try parse("9007199254740993").int == 9007199254740993)
    #expect(try parse("0.12345678901234567890123") == .number(0.12345678901234567890123))
  }

  @Test func pythonNumbers() throws {
    let array = try #require(try parse("[NaN, Infinity, -Infinity]").array)
    #expect(array[0].double?.isNaN == true)
    #expect(array[1].double == .infinity)
    #expect(array[2].double == -.infinity)
  }

  @Test func strings() throws {
    #expect(try parse(#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀""#) == "\"\\/\u{8}\u{c}\n\r\té😀é😀")
    #expect(try parse(#"{"a\u0000b": "\u0000", "a": 2, "a\u0000": 3}"#) == ["a\0b": "\0", "a": 2, "a\0": 3])
    // A noncharacter in the text must not be taken for the stand-in of the zero character.
    let first = String(try #require(Unicode.Scalar(0xFDD0 as UInt32)))
    let second = String(try #require(Unicode.Scalar(0xFDD1 as UInt32)))
    #expect(
      try parse("{\"\(first)\": \"\\u0000\\ufdd1\", \"\\\\u0000\": 1}") == [
        first: .string("\0" + second), "\\u0000": 1,
      ])
  }

  @Test func canonicallyEquivalentKeysDiffer() throws {
    let value = try parse("{\"\u{e9}\": 1, \"e\u{301}\": 2}")
    #expect(value.object?.count == 2)
    #expect(value["\u{e9}"] == 1)
    #expect(value["e\u{301}"] == 2)
  }

  @Test(arguments: [
    "", " ", "{", "[", "[1,", "[1 2]", "[1,]", "{\"a\":1,}", "{\"a\"}", "{\"a\":}", "{a:1}", "{'a':1}", "'a'", "\"a",
    "\"\\x\"", "\"\\u12\"", "tru", "TRUE", "nul", "01", "1.", ".5", "+1", "-", "1e", "1e+", "--1", "0x10", "1 2",
    "{} x",
    "[] []", "// c\n1", "/* c */ 1", "\"a\nb\"", "[1]]", "}", "\u{FEFF}{}", "[,1]", "{,}", "1,", "nan", "infinity",
  ])
  func refused(_ text: String) {
    #expect(throws: CompileError.self) { try parse(text) }
  }

  @Test func refusedBytes() {
    for bytes: [UInt8] in [
      [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x31, 0], [0], [0x22, 0, 0x22],
      [0x22, 0xE2, 0x82, 0x22], [0x7B, 0x22, 0x80, 0x22, 0x3A, 0x31, 0x7D],
    ] {
      #expect(throws: CompileError.self, "\(bytes)") { try JSON.parse(bytes, file: "test.json") }
    }
  }

  @Test func duplicateKeys() throws {
    #expect(throws: CompileError(.input, "duplicate key 'a'", subject: .init(file: "test.json", offset: 14))) {
      try parse(#"{"a":1,"b":2, "a":3}"#)
    }
    #expect(throws: CompileError.self) { try parse(#"{"x":[{"a":1},{"b":1,"b":1}]}"#) }
    #expect(throws: CompileError.self) { try parse(#"{"a":1,"\u0061":3}"#) }
    #expect(try parse(#"[{"a":":"},{"a":1,"b":{"a":2}}]"#).array?.count == 2)
  }

  @Test func nesting() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    }
    #expect(try parse(nested(JSON.deepestNesting - 1)).array != nil)
    #expect(throws: CompileError.self) { try parse(nested(JSON.deepestNesting + 1)) }
    #expect(throws: CompileError.self) { try parse(String(repeating: "[", count: 1_000_000)) }
    #expect(throws: CompileError.self) { try parse(String(repeating: "{\"a\":", count: 100_000)) }
  }

  @Test func truncationNeverSucceeds() throws {
    let text = Array(#"{"a": [1, {"b": "c\u0000\ud83d\ude00"}], "n": 12345678901234567890123, "z": -1.5e3}"#.utf8)
    _ = try JSON.parse(text, file: "x")
    for count in 0..<text.count {
      #expect(throws: CompileError.self, "\(count)") { try JSON.parse(Array(text[..<count]), file: "x") }
    }
  }

  @Test func offsets() throws {
    #expect(throws: CompileError(.input, "invalid number", subject: .init(file: "test.json", offset: 4))) {
      try parse("[1, 02]")
    }
    do {
      _ = try parse("[123456789012345678901234567890, x]")
      Issue.record("accepted")
    } catch let error as CompileError {
      #expect(error.subject?.offset == 33)
    }
  }

  @Test func writing() throws {
    let value: JSON = [
      "text": "a\"\\\n\u{1}é", "list": [1, 2], "nested": [[1], ["k": nil]], "empty": [], "none": [:],
      "big": .unsigned(.max), "float": 0.1, "nan": .number(.nan), "infinite": .number(-.infinity), "whole": 3.0,
    ]
    let compact = value.text()
    #expect(
      compact
        == #"{"text":"a\"\\\n\u0001é","list":[1,2],"nested":[[1],{"k":null}],"empty":[],"none":{},"big":18446744073709551615,"float":0.1,"nan":null,"infinite":null,"whole":3.0}"#
    )
    #expect(try parse(value.text(pretty: true)) == (try parse(compact)))
    let pretty: JSON = ["a": [1, 2], "b": ["c": nil], "d": [[1], [:]]]
    #expect(
      pretty.text(pretty: true) == """
        {
          "a": [1, 2],
          "b": {
            "c": null
          },
          "d": [
            [1],
            {}
          ]
        }

        """)
    for number in [Double.leastNonzeroMagnitude, 1.7976931348623157e308, -0.0, 1e22, 123456789.125] {
      #expect(try parse(JSON.number(number).text()).double == number)
    }
  }

  @Test func largeObjectLookUp() throws {
    var object = JSONObject()
    for index in 0..<1000 { object["key\(index)"] = .int(index) }
    object["key500"] = nil
    object["key7"] = "seven"
    #expect(object.count == 999)
    #expect(object["key500"] == nil && object["key501"] == 501 && object["key7"] == "seven" && object["key999"] == 999)
    #expect(try parse(JSON.object(object).text()) == .object(object))
  }

  @Test func fields() throws {
    let root = JSONField(
      try parse(#"{"n": 3, "x": 2.5, "f": 4.0, "s": "t", "b": true, "o": {"i": [1, 2, "3"]}, "null": null}"#),
      file: "config.json")
    #expect(try root["n"].int() == 3 && root["f"].int() == 4 && root["n"].double() == 3)
    #expect(try root["missing"].int(or: 9) == 9 && root["null"].optionalString() == nil)
    #expect(try root[anyOf: "old", "n"].int() == 3)
    func message(_ body: () throws -> Any) -> String {
      do { return "accepted \(try body())" } catch { return "\(error)" }
    }
    #expect(message { try root["x"].int() } == "'x' is a number, expected an integer (config.json)")
    #expect(message { try root["y"]["z"].int() } == "missing 'y.z', expected an integer (config.json)")
    #expect(message { try root["n"]["z"].int(or: 1) } == "'n' is an integer, expected an object (config.json)")
    #expect(message { try root["o"]["i"].ints() } == "'o.i[2]' is a string, expected an integer (config.json)")
    #expect(message { try root["n"].int(in: 4...5) } == "'n' is 3, expected 4 to 5 (config.json)")
    #expect(message { try JSONField([], file: "f")["a"].int() } == "the document is an array, expected an object (f)")
  }

  /// A byte or two for each value would take hundreds as a tree.
  @Test func manySmallValues() throws {
    for (value, count) in [("{}", 100_000), ("[]", 200_000), ("0", 800_000), ("\"\"", 800_000)] {
      let list = repeatElement(value, count: count).joined(separator: ",")
      #expect(throws: CompileError.self, "\(value)") { try parse("[\(list)]") }
      let few = repeatElement(value, count: count / 4).joined(separator: ",")
      #expect(try parse("[\(few)]").array?.count == count / 4, "\(value)")
      // The same in a larger file.
      let file = Array("[\(list)]".utf8)
      let found = try file.withUnsafeBytes { try JSON.parse($0, file: "x", fileBytes: 64 << 20) }
      #expect(found.array?.count == count, "\(value)")
    }
  }

  @Test func largeVocabulary() throws {
    var text = #"{"model":{"vocab":{"#
    for index in 0..<128_000 { text += "\(index == 0 ? "" : ",")\"\\u0120token\(index)\":\(index)" }
    text += #"},"merges":["#
    for index in 0..<280_000 { text += "\(index == 0 ? "" : ",")\"ab\(index) cd\(index)\"" }
    text += "]}}"
    let bytes = Array(text.utf8)
    let watch = Stopwatch()
    let value = try JSON.parse(bytes, file: "tokenizer.json")
    let seconds = watch.seconds
    #expect(value["model"]?["vocab"]?["Ġtoken127999"] == 127_999)
    #expect(value["model"]?["merges"]?.array?.count == 280_000)
    // A wide margin over what an idle core needs (0.15 s), because tests run beside others.
    #expect(seconds < 3)
  }
}
