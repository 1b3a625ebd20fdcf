import Base
import TestSupport
import Testing

/// Documents of which parts stay text, and the cursor that reads those.
@Suite struct JSONDocumentTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func document(_ bytes: [UInt8]) throws -> JSONDocument {
    try JSONDocument(
      MappedFile(path: folder.write("d.json", bytes)), leaving: [["model", "vocab"], ["model", "merges"]])
  }

  private func document(_ text: String) throws -> JSONDocument { try document(Array(text.utf8)) }

  private func text(_ bytes: UnsafeRawBufferPointer) -> String { String(decoding: bytes, as: UTF8.self) }

  /// What comes next as a tree; nil if `true`, `false`, `null` or no value is in it.
  private func tree(_ cursor: inout JSONCursor) throws -> JSON? {
    if let bytes = try cursor.string() { return .string(text(bytes)) }
    if cursor.enter(.array) {
      var elements: [JSON] = []
      while try cursor.nextElement() {
        guard let element = try tree(&cursor) else { return nil }
        elements.append(element)
      }
      return .array(elements)
    }
    if cursor.enter(.object) {
      var object = JSONObject()
      while let key = try cursor.nextKey().map({ text($0) }) {
        guard object[key] == nil else { throw CompileError(.input, "duplicate key '\(key)'") }
        guard let value = try tree(&cursor) else { return nil }
        object[key] = value
      }
      return .object(object)
    }
    guard let number = try cursor.number().map({ text($0) }) else { return nil }
    if let value = Int64(number) { return .integer(value) }
    if let value = UInt64(number) { return .unsigned(value) }
    return Double(number).map { .number($0) }
  }

  /// The vocabulary of a document as a tree.
  private func vocabulary(_ body: String) throws -> JSON? { try vocabulary(Array(body.utf8)) }

  private func vocabulary(_ body: [UInt8]) throws -> JSON? {
    let found = try document(Array(#"{"model": {"vocab": "#.utf8) + body + Array("}}".utf8))
    // Brackets in the body may end the vocabulary early.
    guard found.root.value?.object?.count == 1, found.root.value?["model"]?.object?.count == 1,
      var cursor = found.cursor("model", "vocab")
    else { return nil }
    return try tree(&cursor)
  }

  @Test func leavesPartsEmpty() throws {
    let found = try document(
      #"{"vocab": {"a": 1}, "model": {"model": {"vocab": [1]}, "merges" : [ "a b", ["c", "d"] ], "n": [2], "vocab": {}},"#
        + #" "other": {"merges": [3]}}"#)
    #expect(
      found.root.value == [
        "vocab": ["a": 1], "model": ["model": ["vocab": [1]], "merges": [], "n": [2], "vocab": [:]],
        "other": ["merges": [3]],
      ])
    #expect(found.cursor("model", "vocab")?.count == 0 && found.cursor("model", "merges")?.count == 2)
    #expect(found.cursor("model") == nil && found.cursor("vocab") == nil)
    var cursor = try #require(found.cursor("model", "merges"))
    let isObject = cursor.enter(.object)
    let merges = try tree(&cursor)
    #expect(!isObject && merges == ["a b", ["c", "d"]])
  }

  /// What is no array and no object is read as ever, and a key is known however it is spelled.
  @Test func partsAreFoundByTheirKeys() throws {
    let plain = try document(#"{"model": {"vocab": 3, "merges": "x"}}"#)
    #expect(plain.cursor("model", "vocab") == nil && plain.root.value?["model"]?["vocab"] == 3)
    for text in [#"{"model":[{"vocab":[1]}]}"#, #"[{"model":{"vocab":[1]}}]"#, #"{"model":1,"x":{"vocab":[1]}}"#] {
      #expect(try document(text).cursor("model", "vocab") == nil, "\(text)")
      #expect(try document(text).root.value == JSON.parse(text, file: ""), "\(text)")
    }
    #expect(try document(#"{"\u006dodel": {"voca\u0062": [1]}}"#).cursor("model", "vocab")?.count == 1)
    for text in [#"{"model":{"vocab":[1],"vocab":[2]}}"#, #"{"model":{"vocab":{"a":1}},"model":{"vocab":{"a":2}}}"#] {
      #expect(throws: CompileError.self, "\(text)") { try document(text) }
    }
  }

  /// Rewriting for json-c moves offsets: they are those of the file in all errors, and in the parts nothing is rewritten.
  @Test func offsetsAreThoseOfTheFile() throws {
    let body =
      #"{"model":{"vocab":{"\u0000a":[123456789012345678901234567890,2]},"n":123456789012345678901234567890,"z":"\u0000""#
    let found = try document(body + "}}")
    #expect(found.root.value == ["model": ["vocab": [:], "n": 123456789012345678901234567890.0, "z": "\0"]])
    var cursor = try #require(found.cursor("model", "vocab"))
    let read: [String?] = [
      cursor.enter(.object) ? "object" : nil, try cursor.nextKey().map { text($0) },
      cursor.enter(.array) ? "array" : nil, try cursor.nextElement() ? "element" : nil,
      try cursor.number().map { text($0) },
    ]
    #expect(read == ["object", "\0a", "array", "element", "123456789012345678901234567890"])
    do {
      _ = try document(body + ",x}}")
      Issue.record("accepted")
    } catch let error as CompileError {
      #expect(error.subject?.offset == body.utf8.count + 1)
    }
  }

  /// All low halves after some high ones, and halves without the other: as characters, and as json-c reads them.
  @Test func surrogatePairs() throws {
    for high: UInt32 in [0xD800, 0xD83D, 0xDBFF] {
      let lows = Array(0xDC00...0xDFFF as ClosedRange<UInt32>)
      let list = lows.map { "\"\\u\(String(high, radix: 16))\\u\(String($0, radix: 16, uppercase: $0 % 2 == 0))\"" }
      let body = "[\(list.joined(separator: ","))]"
      let expected = try lows.map { low in
        JSON.string(String(try #require(Unicode.Scalar(0x10000 + (high - 0xD800) << 10 + (low - 0xDC00)))))
      }
      #expect(try vocabulary(body) == .array(expected))
      #expect(try JSON.parse(body, file: "") == .array(expected))
    }
    for (spelled, text): (String, String) in [
      (#"\ud83d"#, "\u{FFFD}"), (#"\ude00"#, "\u{FFFD}"), (#"\ud83dx"#, "\u{FFFD}x"), (#"\ud83d\n"#, "\u{FFFD}\n"),
      (#"\ud83d\u0041"#, "\u{FFFD}A"), (#"\ud83d\ud83d\ude00"#, "\u{FFFD}😀"), (#"\ude00\ud83d"#, "\u{FFFD}\u{FFFD}"),
    ] {
      #expect(try vocabulary("[\"\(spelled)\"]") == [.string(text)], "\(spelled)")
      #expect(try JSON.parse("[\"\(spelled)\"]", file: "") == [.string(text)], "\(spelled)")
    }
  }

  @Test func integers() throws {
    let numbers = try document(
      #"{"model":{"vocab":[0, 12, -3, 1e3, 2.0, 2.5, 9223372036854775807, 9223372036854775808, 1e30, "x", -0]}}"#)
    var cursor = try #require(numbers.cursor("model", "vocab"))
    #expect(cursor.count == 11)
    var found: [Int?] = []
    var texts: [String] = []
    guard cursor.enter(.array) else { return }
    while try cursor.nextElement() {
      found.append(try cursor.integer())
      if let bytes = try cursor.string() { texts.append(text(bytes)) }
    }
    #expect(found == [0, 12, -3, 1000, 2, nil, Int.max, nil, nil, nil, 0] && texts == ["x"])
  }

  @Test(
    arguments: [
      (#"["a" "b"]"#, 5, "expected ',' or ']'"), (#"["a",]"#, 5, "expected a value"),
      (#"{"a":1,}"#, 7, "expected a key"), (#"{"a" 1}"#, 5, "expected ':'"),
      (#"{"a":1 "b":2}"#, 7, "expected ',' or '}'"),
      (#"{1:2}"#, 1, "expected a key"), (#"["\x"]"#, 2, "invalid escape"), (#"["\u12g4"]"#, 2, "invalid escape"),
      (#"["a\u00"]"#, 3, "invalid escape"), ("[\"a\u{1}\"]", 3, "control character"), ("[01]", 1, "invalid number"),
      ("[1.]", 1, "invalid number"), (#"["a"}"#, nil, "invalid JSON"), (#"{"a":1]"#, nil, "invalid JSON"),
    ] as [(String, Int?, String)])
  func malformed(body: String, offset: Int?, message: String) throws {
    do {
      _ = try vocabulary(body)
      Issue.record("accepted")
    } catch let error as CompileError {
      #expect(error.message.contains(message), "\(error)")
      let found = error.subject?.offset.map { $0 - #"{"model": {"vocab": "#.utf8.count }
      #expect(found != nil && (offset == nil || found == offset), "\(error)")
    }
  }

  private static let sample =
    #"{"a": [1, -2.5e-3, "b\n\u00e9\ud83d\ude00"], "": {"é😀": [[], {}, [18446744073709551615, 1e400]]}, "n": "\\\"\/"}"#

  @Test func truncationNeverSucceeds() throws {
    let whole = Array(#"{"model":{"merges":["a b"],"vocab":\#(Self.sample)}}"#.utf8)
    for count in whole.indices {
      #expect(throws: CompileError.self, "\(count)") { try document(Array(whole[..<count])) }
    }
    let body = Array(Self.sample.utf8)
    for count in body.indices {
      #expect(throws: CompileError.self, "\(count)") { try vocabulary(Array(body[..<count])) }
    }
  }

  /// The cursor accepts what json-c accepts, and finds the same in it.
  @Test func agreesWithTheTree() throws {
    let sample = Array(Self.sample.utf8)
    let telling = Array("\"\\{}[],:0-1.eunx \n\u{7F}\u{1}".utf8) + [0xFF, 0xC3]
    var random = SplitMix64(seed: 3)
    var accepted = 0
    for _ in 0..<4000 {
      var body = sample
      for _ in 0...random.int(below: 3) {
        let place = random.int(below: body.count)
        switch random.int(below: 3) {
        case 0: body[place] = telling[random.int(below: telling.count)]
        case 1: body.remove(at: place)
        default: body.insert(telling[random.int(below: telling.count)], at: place)
        }
      }
      let said = String(decoding: body, as: UTF8.self)
      let expected = try? JSON.parse(body, file: "")
      let found: JSON?
      do { found = try vocabulary(body) } catch is CompileError { found = nil }
      if let found {
        #expect(found == expected, "\(said)")
        accepted += 1
      } else if let expected {
        #expect(Self.hasLiterals(expected) || expected.array == nil && expected.object == nil, "\(said)")
      }
    }
    #expect(accepted > 200)
  }

  /// Whether a value is in it that the cursor does not read.
  private static func hasLiterals(_ value: JSON) -> Bool {
    switch value {
    case .null, .bool: true
    case .number(let number): !number.isFinite
    case .array(let elements): elements.contains { hasLiterals($0) }
    case .object(let object): object.contains { hasLiterals($0.value) }
    default: false
    }
  }
}
