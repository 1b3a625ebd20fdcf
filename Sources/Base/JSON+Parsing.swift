import CJSON
import Glibc

extension JSON {
  /// The deepest nesting of arrays and objects that is read.
  package static let deepestNesting = 200

  /// Parses one JSON document (RFC 8259), with white space around it.
  ///
  /// Beyond the RFC `NaN`, `Infinity` and `-Infinity` are accepted. Integers outside 64 bits become `.number`. Refused
  /// are duplicate keys, invalid UTF-8, control characters in strings, nesting deeper than `deepestNesting`, more than 2 GiB,
  /// and so many values that their tree would take more than four times the file and 64 MiB. The file has `fileBytes` where
  /// the document is a part of it.
  ///
  /// - Throws: `CompileError` of kind `.input` with the byte offset.
  package static func parse(_ bytes: UnsafeRawBufferPointer, file: String, fileBytes: Int? = nil) throws -> JSON {
    try parse(bytes, file: file, fileBytes: fileBytes, leaving: []).value
  }

  /// Parses one JSON document, but leaves the arrays and objects under `paths` as text: in the value they are empty.
  ///
  /// - Returns: the value, and for each path where the array or object is, nil if there is none.
  static func parse(
    _ bytes: UnsafeRawBufferPointer, file: String, fileBytes: Int? = nil, leaving paths: [[String]]
  ) throws -> (value: JSON, parts: [JSONPart?]) {
    func failure(_ message: String, at offset: Int) -> CompileError {
      CompileError(.input, message, subject: .init(file: file, offset: offset))
    }
    guard bytes.count < Int(Int32.max) else { throw failure("the JSON text is larger than 2 GiB", at: 0) }
    let scan: JSONScan
    do {
      scan = try JSONScan(bytes, leaving: paths)
    } catch {
      throw failure(error.message, at: error.offset)
    }
    guard scan.treeBytes <= 4 * (fileBytes ?? bytes.count) + 64 << 20 else {
      throw failure("the JSON text has too many values for its \(bytes.count) bytes", at: 0)
    }
    var reader = TreeReader()
    let value: JSON
    if scan.edits.isEmpty && !scan.hasZeroEscape {
      value = try reader.read(bytes, failure)
    } else {
      // json-c saturates long integers and ends keys at U+0000.
      let (copy, replacement) = scan.rewrite(bytes)
      reader.zeroReplacement = replacement
      value = try copy.withUnsafeBytes { copy in try reader.read(copy) { failure($0, at: scan.original($1)) } }
    }
    guard reader.keyCount == scan.keyCount else {
      let (key, offset) = JSONScan.duplicateKey(bytes)
      throw failure("duplicate key \(key)", at: offset)
    }
    return (value, scan.parts)
  }

  /// Parses a JSON document held in an array.
  package static func parse(_ bytes: [UInt8], file: String) throws -> JSON {
    try bytes.withUnsafeBytes { try parse($0, file: file) }
  }

  /// Parses a JSON document held in a string.
  package static func parse(_ text: String, file: String) throws -> JSON {
    try parse(Array(text.utf8), file: file)
  }

  /// Reads and parses a JSON file.
  package static func read(path: String) throws -> JSON {
    let file = try MappedFile(path: path)
    return try withExtendedLifetime(file) { try parse(file.bytes, file: path) }
  }
}

/// Runs json-c over a text and copies its tree into `JSON` values.
private struct TreeReader {
  /// Members of all objects met so far.
  var keyCount = 0
  /// The character that stands for U+0000.
  var zeroReplacement: Character?

  mutating func read(
    _ bytes: UnsafeRawBufferPointer, _ failure: (String, Int) -> CompileError
  ) throws -> JSON {
    guard let tokener = json_tokener_new_ex(Int32(JSON.deepestNesting)) else {
      throw CompileError(.io, "out of memory")
    }
    defer { json_tokener_free(tokener) }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT)
    let text = bytes.assumingMemoryBound(to: CChar.self)
    var root = json_tokener_parse_ex(tokener, text.baseAddress, Int32(bytes.count))
    var status = json_tokener_get_error(tokener)
    let consumed = json_tokener_get_parse_end(tokener)
    if status == json_tokener_continue {
      // A number at the end of the text is complete only once its terminator is seen.
      var terminator: CChar = 0
      root = json_tokener_parse_ex(tokener, &terminator, 1)
      status = json_tokener_get_error(tokener)
    }
    defer { json_object_put(root) }
    switch status {
    case json_tokener_success: break
    case json_tokener_continue: throw failure("the JSON text ends too early", bytes.count)
    case json_tokener_error_depth: throw failure("nesting deeper than \(JSON.deepestNesting)", consumed)
    default:
      let reason = json_tokener_error_desc(status).map { String(cString: $0) } ?? "unknown error"
      throw failure("invalid JSON (\(reason))", consumed)
    }
    if consumed < bytes.count, bytes[consumed...].contains(where: { !JSONScan.isSpace($0) }) {
      throw failure("text after the end of the JSON value", consumed)
    }
    return convert(root)
  }

  private mutating func convert(_ node: OpaquePointer?) -> JSON {
    switch json_object_get_type(node) {
    case json_type_boolean: return .bool(json_object_get_boolean(node) != 0)
    case json_type_double: return .number(json_object_get_double(node))
    case json_type_int:
      // Negative numbers read as unsigned give 0, numbers above Int64.max read as signed give Int64.max.
      let unsigned = json_object_get_uint64(node)
      if unsigned > UInt64(Int64.max) { return .unsigned(unsigned) }
      return .integer(json_object_get_int64(node))
    case json_type_string:
      let count = Int(json_object_get_string_len(node))
      return .string(text(json_object_get_string(node), count))
    case json_type_array:
      let count = json_object_array_length(node)
      var elements: [JSON] = []
      elements.reserveCapacity(count)
      for index in 0..<count { elements.append(convert(json_object_array_get_idx(node, index))) }
      return .array(elements)
    case json_type_object:
      guard let table = json_object_get_object(node) else { return .object(JSONObject()) }
      let count = Int(table.pointee.count)
      var keys: [String] = []
      var values: [JSON] = []
      keys.reserveCapacity(count)
      values.reserveCapacity(count)
      var entry = table.pointee.head
      while let member = entry {
        let key = member.pointee.k.map { $0.assumingMemoryBound(to: CChar.self) }
        keys.append(text(key, key.map { strlen($0) } ?? 0))
        values.append(convert(member.pointee.v.map { OpaquePointer($0) }))
        entry = member.pointee.next
      }
      keyCount += count
      return .object(JSONObject(distinctKeys: keys, values: values))
    default: return .null
    }
  }

  private func text(_ start: UnsafePointer<CChar>?, _ count: Int) -> String {
    let raw = UnsafeRawBufferPointer(start: start, count: count)
    let text = String(decoding: raw, as: UTF8.self)
    guard let zeroReplacement, text.contains(zeroReplacement) else { return text }
    return String(String.UnicodeScalarView(text.unicodeScalars.map { Character($0) == zeroReplacement ? "\0" : $0 }))
  }
}
