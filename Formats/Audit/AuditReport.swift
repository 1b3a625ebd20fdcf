import Base

/// What an audit found in a file or folder.
package struct AuditReport: Sendable {
  /// How grave a finding is.
  package enum Severity: String, Sendable {
    /// Worth knowing; nothing is wrong.
    case notice
    /// Reason not to use the file: damage, or something that reaches beyond the data of a model.
    case danger
  }

  /// Something that was found.
  package struct Finding: Sendable {
    package var severity: Severity
    package var message: String
    /// Where in the file.
    package var offset: Int?
  }

  package var path: String
  /// The form of the file, such as `gguf`; `unknown` if mcc reads no such files.
  package var format = "unknown"
  package var bytes = 0
  /// Counts and sizes, in order.
  package private(set) var facts: [(key: String, value: Int)] = []
  package private(set) var findings: [Finding] = []
  /// How many findings were left out because there were too many.
  package private(set) var omitted = 0
  /// The reports about the files of a folder.
  package var files: [AuditReport] = []

  private static let findingLimit = 200

  package init(path: String) { self.path = path }

  /// Whether nothing speaks against the file, nor against any file of the folder.
  package var isAccepted: Bool {
    !findings.contains { $0.severity == .danger } && files.allSatisfy(\.isAccepted) && omitted == 0
  }

  package mutating func fact(_ key: String, _ value: Int) { facts.append((key, value)) }

  package mutating func notice(_ message: String, at offset: Int? = nil) { add(.notice, message, offset) }

  package mutating func danger(_ message: String, at offset: Int? = nil) { add(.danger, message, offset) }

  private mutating func add(_ severity: Severity, _ message: String, _ offset: Int?) {
    if findings.count < Self.findingLimit {
      findings.append(Finding(severity: severity, message: message, offset: offset))
    } else {
      omitted += 1
    }
  }

  /// Notes an error of a reader as a danger.
  mutating func danger(_ error: CompileError) {
    var text = error.message
    if let object = error.subject?.object { text += " (\(object))" }
    for note in error.notes { text += "; " + note }
    danger(text, at: error.subject?.offset)
  }

  /// The report as JSON: path, format, bytes, facts, findings, files, verdict.
  package var json: JSON {
    var object = JSONObject()
    object["path"] = .string(path)
    object["format"] = .string(format)
    object["bytes"] = .integer(Int64(bytes))
    var members = JSONObject()
    for (key, value) in facts { members[key] = .integer(Int64(value)) }
    object["facts"] = .object(members)
    object["findings"] = .array(
      findings.map { finding in
        var entry = JSONObject()
        entry["severity"] = .string(finding.severity.rawValue)
        entry["message"] = .string(finding.message)
        if let offset = finding.offset { entry["offset"] = .integer(Int64(offset)) }
        return .object(entry)
      })
    if omitted > 0 { object["omitted"] = .integer(Int64(omitted)) }
    if !files.isEmpty { object["files"] = .array(files.map(\.json)) }
    object["verdict"] = .string(isAccepted ? "accepted" : "refused")
    return .object(object)
  }

  /// The report as lines of text.
  package var lines: [String] {
    var lines = ["\(path): \(format), \(bytes) bytes" + facts.map { ", \($0.value) \($0.key)" }.joined()]
    for finding in findings {
      lines.append(
        "  \(finding.severity.rawValue): \(finding.message)" + (finding.offset.map { " (byte \($0))" } ?? ""))
    }
    if omitted > 0 { lines.append("  and \(omitted) more") }
    for file in files { lines += file.lines.map { "  " + $0 } }
    return lines
  }
}
