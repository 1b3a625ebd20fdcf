/// Prints to standard error where and why a pass or rule leaves places as they are, each once.
final class Refusals {
  private let name: String
  private var seen: Set<String> = []

  init(_ name: String) { self.name = name }

  /// Prints a line, unless it was printed before.
  func add(_ line: String) {
    if seen.insert(line).inserted { Standard.error(line) }
  }

  /// Says so if there was none.
  func finish() {
    if seen.isEmpty { Standard.error("\(name): found its pattern nowhere that it had to leave") }
  }
}
