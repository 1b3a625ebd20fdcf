import Base
import Tensors

extension Audit {
  /// Goes through the header member by member and keeps the places of the tensors alone.
  static func safetensors(_ file: MappedFile, _ report: inout AuditReport) throws {
    // A header that is small as a tree is read as a checkpoint is.
    let declared = file.bytes.loadUnaligned(as: UInt64.self).littleEndian
    guard declared > 1 << 20 else {
      let checkpoint = try SafetensorsFile(file, limits: limits)
      report.fact("tensors", checkpoint.tensors.count)
      for tensor in checkpoint.tensors {
        if let type = tensor.foreignType { report.notice("tensor '\(tensor.name)' has the dtype \(type)") }
      }
      return
    }
    guard declared <= UInt64(LoadLimits().headerBytes), declared <= UInt64(file.size - 8) else {
      _ = try SafetensorsFile(file)
      return
    }
    var scan = HeaderScan(file, length: Int(declared))
    try scan.run(&report)
    report.fact("tensors", scan.places.count)
  }

  /// A walk over the members of a JSON object that parses one value at a time.
  private struct HeaderScan {
    let file: MappedFile
    let end: Int
    var position = 8
    /// Begin and end of each tensor, from the start of the data.
    var places: [(begin: Int, end: Int)] = []
    private var names: Set<Int> = []
    private var released = 0

    init(_ file: MappedFile, length: Int) {
      self.file = file
      end = 8 + length
    }

    private func failure(_ message: String) -> CompileError {
      CompileError(.input, message, subject: .init(file: file.path, offset: position))
    }

    private mutating func skipSpace() {
      while position < end, [0x20, 0x09, 0x0A, 0x0D].contains(file.bytes[position]) { position += 1 }
    }

    private mutating func take(_ character: Unicode.Scalar) throws {
      skipSpace()
      guard position < end, UInt32(file.bytes[position]) == character.value else {
        throw failure("expected '\(character)' in the header")
      }
      position += 1
    }

    /// Passes over a string and gives its range with the quotes.
    private mutating func string() throws -> Range<Int> {
      skipSpace()
      let start = position
      try take("\"")
      while position < end, file.bytes[position] != UInt8(ascii: "\"") {
        position += file.bytes[position] == UInt8(ascii: "\\") ? 2 : 1
      }
      guard position < end else { throw failure("the header ends inside a string") }
      position += 1
      return start..<position
    }

    /// Passes over an object of at most 64 KiB and gives its range.
    private mutating func object() throws -> Range<Int> {
      skipSpace()
      let start = position
      var depth = 0
      repeat {
        guard position < end, position - start < 65536 else { throw failure("an entry of the header does not end") }
        switch file.bytes[position] {
        case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
        case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
        case UInt8(ascii: "\""):
          _ = try string()
          continue
        default: break
        }
        position += 1
      } while depth > 0
      return start..<position
    }

    mutating func run(_ report: inout AuditReport) throws {
      try take("{")
      skipSpace()
      while position < end, file.bytes[position] != UInt8(ascii: "}") {
        let key = try string()
        try take(":")
        let value = try object()
        try check(key, value)
        skipSpace()
        guard position < end, file.bytes[position] == UInt8(ascii: ",") else { break }
        position += 1
        if position - released > 4 << 20 {
          file.release(released..<position)
          released = position
        }
      }
      try take("}")
      skipSpace()
      guard position == end else { throw failure("text after the header") }
      places.sort { ($0.begin, $0.end) < ($1.begin, $1.end) }
      var reached = 0
      for place in places {
        guard place.begin == reached else {
          let problem = place.begin < reached ? "overlap" : "leave a gap"
          throw CompileError(
            .input, "tensors \(problem) at byte \(place.begin) of the data", subject: .init(offset: end + place.begin))
        }
        reached = place.end
      }
      guard reached == file.size - end else {
        throw CompileError(
          .input, "the tensors end at byte \(end + reached), but the file has \(file.size) bytes",
          subject: .init(offset: end + reached))
      }
    }

    private mutating func check(_ key: Range<Int>, _ value: Range<Int>) throws {
      let name = try file.slice(key)
      // Names as hashes: a collision would be called a duplicate, once in 2^40 files of a million tensors.
      var hasher = Hasher()
      hasher.combine(bytes: name)
      guard names.insert(hasher.finalize()).inserted else { throw failure("a name occurs twice in the header") }
      if name.elementsEqual("\"__metadata__\"".utf8) { return }
      let json = try JSON.parse(try file.slice(value), file: file.path)
      guard let offsets = json["data_offsets"]?.array, offsets.count == 2, let begin = offsets[0].int,
        let finish = offsets[1].int, begin >= 0, begin <= finish, finish <= file.size - end
      else { throw failure("an entry of the header has no offsets within the file") }
      guard json["dtype"]?.string != nil, let shape = json["shape"]?.array?.map({ $0.int ?? -1 }),
        shape.allSatisfy({ $0 >= 0 })
      else { throw failure("an entry of the header has no dtype or no shape") }
      _ = try Shape.checkedCount(shape, of: "a tensor")
      guard places.count < 1 << 20 else { throw failure("more than \(1 << 20) tensors") }
      places.append((begin, finish))
    }
  }
}
