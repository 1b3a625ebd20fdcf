#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the CPU this process runs on offers.
package enum HostCPU {
  /// Feature names as /proc/cpuinfo spells them (`flags` on x86, `Features` on aarch64); empty where that file is missing.
  package static func features() -> Set<String> {
    features(cpuinfo: contents(of: "/proc/cpuinfo"))
  }

  /// The feature names in the text of /proc/cpuinfo.
  package static func features(cpuinfo: String) -> Set<String> {
    for line in cpuinfo.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2, let key = parts[0].split(whereSeparator: { $0 == "\t" || $0 == " " }).first else {
        continue
      }
      if key == "flags" || key == "Features" { return Set(parts[1].split(separator: " ").map(String.init)) }
    }
    return []
  }

  /// The name of the processor as /proc/cpuinfo has it; its architecture's numbers on aarch64; empty where that is missing.
  package static func model() -> String { model(cpuinfo: contents(of: "/proc/cpuinfo")) }

  /// The name of the processor in the text of /proc/cpuinfo.
  package static func model(cpuinfo: String) -> String {
    var values: [String: String] = [:]
    for line in cpuinfo.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      func trimmed(_ text: Substring) -> String {
        String(text.drop { $0 == " " || $0 == "\t" }.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
      }
      let key = trimmed(parts[0])
      if values[key] == nil { values[key] = trimmed(parts[1]) }
    }
    if let name = values["model name"] { return name }
    return ["CPU implementer", "CPU part", "CPU variant"].compactMap { values[$0] }.joined(separator: " ")
  }

  private static func contents(of path: String) -> String {
    guard let file = fopen(path, "r") else { return "" }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = fread(&buffer, 1, buffer.count, file)
      if count == 0 { break }
      bytes.append(contentsOf: buffer[0..<count])
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
