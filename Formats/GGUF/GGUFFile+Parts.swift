import Base
import IR

extension GGUFFile {
  /// The file at `path` with, if it is the first part of a split one, the tensors of all others.
  ///
  /// Parts are called `NAME-00001-of-0000N.gguf` and so on and say their number and count (`split.no`, `split.count`); the
  /// first one holds the metadata, and how many tensors there are in all (`split.tensors.count`).
  static func open(_ file: MappedFile, limits: LoadLimits) throws -> GGUFFile {
    var first = try GGUFFile(file, limits: limits)
    guard let count = try first.partCount() else { return first }
    let suffix = "-\(digits(1))-of-\(digits(count)).gguf"
    guard file.path.hasSuffix(suffix) else {
      throw first.metadata.failure("the first of \(count) parts is not called '...\(suffix)'")
    }
    guard try first.metadata.optionalInt("split.no", in: 0...Int(UInt16.max)) ?? 0 == 0 else {
      throw first.metadata.failure("'split.no' is not 0 in the first part")
    }
    let total = try first.metadata.optionalInt("split.tensors.count", in: 0...limits.tensors)
    let stem = file.path.dropLast(suffix.count)
    for number in 1..<max(count, 1) {
      let part = try MappedFile(path: "\(stem)-\(digits(number + 1))-of-\(digits(count)).gguf")
      var next = try GGUFFile(part, limits: limits)
      guard try next.partCount() == count,
        try next.metadata.optionalInt("split.no", in: 0...Int(UInt16.max)) == number
      else { throw next.metadata.failure("this is not part \(number + 1) of \(count)") }
      guard first.tensors.count + next.tensors.count <= limits.tensors else {
        throw next.metadata.failure("more than \(limits.tensors) tensors in all parts")
      }
      first.add(next.tensors)
    }
    if let total, total != first.tensors.count {
      throw first.metadata.failure(
        "'split.tensors.count' is \(total), but the parts have \(first.tensors.count) tensors")
    }
    return first
  }

  /// The number of parts; nil for a file that is whole.
  private mutating func partCount() throws -> Int? {
    let count = try metadata.optionalInt("split.count", in: 0...Int(UInt16.max)) ?? 0
    return count > 1 ? count : nil
  }

  private static func digits(_ number: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, 5 - text.count)) + text
  }
}
