import Glibc

/// A file mapped read-only into memory for as long as the object lives.
///
/// Weights are addressed in place through `bytes`; nothing is copied. Symbolic links in the path are followed. Pointers
/// into the mapping must not outlive the object: keep it in a variable or property, never take `bytes` of a temporary.
package final class MappedFile: Sendable {
  /// The path as it was given.
  package let path: String
  /// The length in bytes.
  package let size: Int
  /// What tells this content from another of the same path, for cache keys.
  package let identity: Identity
  private nonisolated(unsafe) let base: UnsafeMutableRawPointer?

  /// Device, file number, length and time of the last change of a file.
  package struct Identity: Hashable, Sendable {
    package let device: UInt64
    package let inode: UInt64
    package let size: Int64
    package let modifiedNanoseconds: Int64

    init(_ status: stat) {
      device = UInt64(status.st_dev)
      inode = UInt64(status.st_ino)
      size = Int64(status.st_size)
      modifiedNanoseconds = Int64(status.st_mtim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_mtim.tv_nsec)
    }
  }

  /// Maps the whole file at `path`.
  ///
  /// - Throws: `CompileError` of kind `.input` if it does not exist, cannot be read, or is no regular file.
  package init(path: String) throws {
    func failure(_ reason: String) -> CompileError { CompileError(.input, "cannot read '\(path)': \(reason)") }
    guard !path.utf8.contains(0) else { throw failure("the name contains a zero byte") }
    let descriptor = retrying { open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }
    guard descriptor >= 0 else { throw failure(describeErrno(errno)) }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw failure(describeErrno(errno)) }
    switch status.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR: throw failure("it is a directory")
    default: throw failure("it is not a regular file")
    }
    let size = Int(status.st_size)
    if size > 0 {
      guard let address = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), address != MAP_FAILED else {
        throw failure(describeErrno(errno))
      }
      base = address
    } else {
      base = nil
    }
    self.path = path
    self.size = size
    identity = Identity(status)
  }

  deinit {
    if let base { munmap(base, size) }
  }

  /// All bytes of the file.
  package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: size) }

  /// A copy of a whole file, for small ones.
  package static func contents(path: String) throws -> [UInt8] {
    let file = try MappedFile(path: path)
    return withExtendedLifetime(file) { Array(file.bytes) }
  }

  /// A copy of a whole file of text.
  ///
  /// - Throws: `CompileError` of kind `.input` with the place of the first byte that is not UTF-8.
  package static func text(path: String) throws -> [UInt8] {
    let file = try MappedFile(path: path)
    return try withExtendedLifetime(file) {
      var place = 0
      while place < file.size {
        let length = file.bytes[place] < 0x80 ? 1 : JSONScan.sequenceLength(file.bytes, place)
        guard length > 0 else { throw CompileError(.input, "'\(path)' is not UTF-8 text, byte \(place)") }
        place += length
      }
      return Array(file.bytes)
    }
  }

  /// The bytes of `range`.
  ///
  /// - Throws: `CompileError` of kind `.input` if the range is not inside the file.
  package func slice(_ range: Range<Int>) throws -> UnsafeRawBufferPointer {
    guard range.lowerBound >= 0, range.upperBound <= size else {
      throw CompileError(
        .input,
        "the file ends at byte \(size), but bytes \(range.lowerBound) to \(range.upperBound) are needed",
        subject: .init(file: path))
    }
    return UnsafeRawBufferPointer(rebasing: bytes[range])
  }

  /// Gives the pages that lie wholly inside `range` back to the system; they are read again when touched again.
  package func release(_ range: Range<Int>) {
    guard let base else { return }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let first = (max(range.lowerBound, 0) + page - 1) / page * page
    let last = range.upperBound >= size ? size : range.upperBound / page * page
    if last > first { madvise(base + first, last - first, MADV_DONTNEED) }
  }

  /// Gives all pages back to the system.
  package func release() { release(0..<size) }

  /// Tells the system that `range` will be read soon and in order.
  package func prefetch(_ range: Range<Int>) {
    guard let base else { return }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let first = max(range.lowerBound, 0) / page * page
    let last = min(range.upperBound, size)
    if last > first { madvise(base + first, last - first, MADV_WILLNEED) }
  }
}
