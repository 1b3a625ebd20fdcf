import Base
import Glibc

extension Audit {
  private static let entryLimit = 10_000
  private static let depthLimit = 4

  /// The files of a folder that belong to a model, and what should not be there.
  static func folder(_ path: String) -> AuditReport {
    var report = AuditReport(path: path)
    report.format = "folder"
    var pending = [(path, 0)]
    var count = 0
    while let (current, depth) = pending.popLast() {
      for name in names(in: current) {
        count += 1
        guard count <= entryLimit else {
          report.danger("the folder has more than \(entryLimit) entries")
          return report
        }
        let inner = "\(current)/\(name)"
        var status = stat()
        guard lstat(inner, &status) == 0 else { continue }
        switch status.st_mode & S_IFMT {
        case S_IFLNK: link(inner, from: path, &report)
        case S_IFDIR:
          if depth + 1 < depthLimit { pending.append((inner, depth + 1)) }
        case S_IFREG: file(inner, &report)
        default: report.danger("'\(inner)' is no regular file")
        }
      }
    }
    report.fact("entries", count)
    return report
  }

  private static func names(in path: String) -> [String] {
    (try? namesInFolder(path, limit: entryLimit + 1)) ?? []
  }

  /// A link is right in a hub cache, from a snapshot to its blobs; anywhere else it leaves the folder.
  private static func link(_ path: String, from folder: String, _ report: inout AuditReport) {
    func resolved(_ path: String) -> String? {
      guard let absolute = realpath(path, nil) else { return nil }
      defer { free(absolute) }
      return String(cString: absolute)
    }
    guard let target = resolved(path), let root = resolved(folder) else {
      report.danger("'\(path)' is a link to nothing")
      return
    }
    let parts = root.split(separator: "/")
    let blobs =
      parts.count >= 3 && parts[parts.count - 2] == "snapshots"
      ? "/" + parts.dropLast(2).joined(separator: "/") + "/blobs/" : root + "/"
    guard target.hasPrefix(root + "/") || target.hasPrefix(blobs) else {
      report.danger("'\(path)' is a link that leaves the folder, to '\(target)'")
      return
    }
    file(path, &report)
  }

  private static func file(_ path: String, _ report: inout AuditReport) {
    let lowered = path.lowercased()
    if [".py", ".so", ".dll", ".sh", ".exe"].contains(where: { lowered.hasSuffix($0) }) {
      report.notice("'\(path)' is a program, which mcc does not run")
      return
    }
    let weights = [
      ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npz", ".npy", ".pkl", ".tflite",
    ]
    guard weights.contains(where: { lowered.hasSuffix($0) }) || lowered.hasSuffix(".json") else { return }
    guard let mapped = try? MappedFile(path: path) else {
      report.danger("'\(path)' cannot be read")
      return
    }
    report.bytes += mapped.size
    let inner = Self.report(mapped)
    if inner.format == AuditReport(path: path).format {
      report.notice("'\(path)' is in no format that mcc reads")
    } else {
      report.files.append(inner)
    }
  }
}
