import Base
import IR
import Tensors

extension Audit {
  /// Walks over the fields of an ONNX file with a stack of its own: no message is built.
  static func onnx(_ file: MappedFile, _ report: inout AuditReport) throws {
    var walk = ONNXWalk(file: file)
    try walk.run(&report)
    report.fact("nodes", walk.nodes)
    report.fact("tensors", walk.tensors)
  }

  private struct ONNXWalk {
    /// A message that is walked into.
    enum Message { case model, graph, node, attribute, function, tensor, entry }

    /// A message with the bytes that are left of it.
    struct Level {
      var message: Message
      var range: Range<Int>
      /// Of a tensor: its sizes, element type and where its bytes are; of an entry: key and value.
      var sizes: [Int] = []
      var element: UInt64 = 0
      var rawBytes: Int?
      var key = "", value = ""
    }

    static let depthLimit = 128

    let file: MappedFile
    var nodes = 0
    var tensors = 0
    private var released = 0

    init(file: MappedFile) { self.file = file }

    private func failure(_ message: String, _ offset: Int) -> CompileError {
      CompileError(.input, message, subject: .init(file: file.path, offset: offset))
    }

    private func varint(_ offset: inout Int, _ end: Int) throws -> UInt64 {
      var value: UInt64 = 0
      for shift in stride(from: UInt64(0), to: 70, by: 7) {
        guard offset < end else { throw failure("the file ends inside a number", offset) }
        let byte = file.bytes[offset]
        offset += 1
        if shift < 64 { value |= UInt64(byte & 0x7F) << shift }
        if byte < 0x80 { return value }
      }
      throw failure("a number of more than ten bytes", offset)
    }

    private static func child(_ message: Message, _ field: UInt64) -> Message? {
      switch (message, field) {
      case (.model, 7), (.attribute, 6), (.attribute, 11): .graph
      case (.model, 25): .function
      case (.graph, 1), (.function, 7): .node
      case (.graph, 5), (.attribute, 5), (.attribute, 10): .tensor
      case (.node, 5): .attribute
      case (.tensor, 13): .entry
      default: nil
      }
    }

    mutating func run(_ report: inout AuditReport) throws {
      var stack = [Level(message: .model, range: 0..<file.size)]
      while var level = stack.popLast() {
        guard !level.range.isEmpty else {
          finish(level, &report)
          continue
        }
        let start = level.range.lowerBound, end = level.range.upperBound
        var offset = start
        let key = try varint(&offset, end)
        let field = key >> 3
        switch key & 7 {
        case 0:
          let value = try varint(&offset, end)
          if level.message == .tensor {
            if field == 1 { level.sizes.append(Int(truncatingIfNeeded: value)) }
            if field == 2 { level.element = value }
          }
        case 1: offset += 8
        case 5: offset += 4
        case 2:
          let length = try varint(&offset, end)
          guard length <= UInt64(end - offset) else {
            throw failure("a field of \(length) bytes does not fit into the \(end - offset) bytes left", start)
          }
          let body = offset..<offset + Int(length)
          offset = body.upperBound
          level.range = offset..<end
          try look(into: body, field, &level)
          if level.sizes.count > 64 { throw failure("a tensor of more than 64 axes", start) }
          stack.append(level)
          if let child = Self.child(level.message, field) {
            guard stack.count < Self.depthLimit else {
              throw failure("messages are nested more than \(Self.depthLimit) deep", start)
            }
            if child == .node { nodes += 1 }
            if child == .tensor { tensors += 1 }
            stack.append(Level(message: child, range: body))
          }
          if offset - released > 4 << 20 {
            file.release(released..<offset)
            released = offset
          }
          continue
        default: throw failure("a field has the unknown wire type \(key & 7)", start)
        }
        guard offset <= end, level.sizes.count <= 64 else { throw failure("the file ends inside a field", start) }
        level.range = offset..<end
        stack.append(level)
      }
    }

    /// What a field of a tensor or entry says.
    private func look(into body: Range<Int>, _ field: UInt64, _ level: inout Level) throws {
      switch (level.message, field) {
      case (.tensor, 1):
        // Packed sizes.
        var offset = body.lowerBound
        while offset < body.upperBound {
          level.sizes.append(Int(truncatingIfNeeded: try varint(&offset, body.upperBound)))
          guard level.sizes.count <= 64 else { throw failure("a tensor of more than 64 axes", body.lowerBound) }
        }
      case (.tensor, 9): level.rawBytes = body.count
      case (.entry, 1): level.key = text(body)
      case (.entry, 2): level.value = text(body)
      default: break
      }
    }

    private func text(_ range: Range<Int>) -> String {
      String(decoding: file.bytes[range.lowerBound..<min(range.upperBound, range.lowerBound + 4096)], as: UTF8.self)
    }

    private func finish(_ level: Level, _ report: inout AuditReport) {
      let place = level.range.lowerBound
      switch level.message {
      case .entry:
        guard level.key == "location" else {
          let known = ["offset", "length", "checksum", "basepath"]
          if !known.contains(level.key) { report.notice("external data has the key '\(level.key)'", at: place) }
          return
        }
        if ContainedFile.isPlainName(level.value) {
          let folder = ArchivePath.folder(of: file.path)
          do {
            _ = try ContainedFile.open(level.value, in: folder, named: "external data")
          } catch let error as CompileError {
            report.danger(error.message, at: place)
          } catch {}
        } else {
          report.danger("external data at '\(level.value)' leaves the folder of the model", at: place)
        }
      case .tensor:
        if level.sizes.contains(where: { $0 < 0 }) {
          report.danger("a tensor has a negative size", at: place)
        } else if (try? Shape.checkedCount(level.sizes, of: "")) == nil {
          report.danger("a tensor has the absurd shape \(level.sizes)", at: place)
        } else if let raw = level.rawBytes, raw > 0, let width = Self.widths[level.element],
          level.sizes.reduce(1, *).multipliedReportingOverflow(by: width) != (raw, false)
        {
          report.danger("a tensor of shape \(level.sizes) has \(raw) bytes", at: place)
        }
      default: break
      }
    }

    /// Bytes of the element types that have whole ones, by number.
    private static let widths: [UInt64: Int] = [
      1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2,
    ]
  }
}
