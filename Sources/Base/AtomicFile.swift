import Glibc
import Synchronization

/// An output file that appears whole, by `commit`, or not at all.
///
/// Bytes go to an unnamed or hidden file in the same folder; `commit` brings them to the disk and renames. A file of the
/// same name is replaced; a symbolic link is followed and stays. Without `commit` nothing remains. A path that names a
/// device or a pipe is written to directly.
///
/// `append` and `pad` are for one thread at a time; `write(_:at:)` may be called from many threads at once.
package final class AtomicFile: Sendable {
  /// The path as it was given.
  package let path: String
  private let target: String
  private let permissions: mode_t
  private let descriptor: Int32
  /// The hidden name; nil if the file has none yet or the target is no regular file.
  private let temporaryName: String?
  private let isDirect: Bool
  private let state: Mutex<State>

  private struct State {
    var buffer: [UInt8] = []
    /// The offset in the file at which the buffer begins.
    var bufferStart = 0
    var isOpen = true
  }

  private static let bufferSize = 1 << 20

  /// Begins a file that `commit` will put at `path`.
  ///
  /// The created file has `permissions` less the process's mask.
  ///
  /// - Throws: `CompileError` of kind `.create` if a file of that name cannot be created.
  package init(path: String, permissions: UInt32 = 0o644) throws {
    func failure(_ reason: String) -> CompileError { CompileError(.create, "cannot create '\(path)': \(reason)") }
    guard !path.isEmpty, !path.utf8.contains(0) else { throw failure("this is no file name") }
    self.path = path
    self.permissions = mode_t(permissions)
    state = Mutex(State())

    var status = stat()
    let exists = stat(path, &status) == 0
    if exists, status.st_mode & S_IFMT == S_IFDIR { throw failure("it is a directory") }
    if path.hasSuffix("/") { throw failure("it names a directory") }
    if exists, access(path, W_OK) != 0 { throw failure(describeErrno(errno)) }
    if exists, status.st_mode & S_IFMT != S_IFREG {
      isDirect = true
      target = path
      temporaryName = nil
      descriptor = retrying { open(path, O_WRONLY | O_CLOEXEC) }
      guard descriptor >= 0 else { throw failure(describeErrno(errno)) }
      return
    }
    isDirect = false
    target = exists ? Self.resolved(path) ?? path : path
    let folder = Self.folder(of: target)
    let unnamed = retrying { open(folder, O_WRONLY | O_CLOEXEC | Self.unnamedFlag, 0o600) }
    // Unnamed files need support from the file system to be made and /proc to be named later.
    if unnamed >= 0, access("/proc/self/fd/\(unnamed)", F_OK) == 0 {
      descriptor = unnamed
      temporaryName = nil
      return
    }
    if unnamed >= 0 { close(unnamed) }
    let name = Self.hiddenName(beside: target)
    descriptor = retrying { open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600) }
    temporaryName = name
    guard descriptor >= 0 else { throw failure(describeErrno(errno)) }
  }

  deinit { discard() }

  /// The offset in the file of what is appended next.
  package var offset: Int { state.withLock { $0.bufferStart + $0.buffer.count } }

  /// Writes bytes at the end.
  package func append(_ bytes: UnsafeRawBufferPointer) throws {
    try state.withLock { state in
      if state.buffer.count + bytes.count > Self.bufferSize { try flush(&state) }
      if bytes.count >= Self.bufferSize {
        try write(bytes, at: state.bufferStart, inOrder: true)
        state.bufferStart += bytes.count
      } else {
        state.buffer.append(contentsOf: bytes)
      }
    }
  }

  /// Writes bytes at the end.
  package func append(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try append($0) } }

  /// Writes text in UTF-8 at the end.
  package func append(_ text: String) throws { try append(Array(text.utf8)) }

  /// Writes zeros up to the next multiple of `alignment`.
  package func pad(to alignment: Int) throws {
    precondition(alignment > 0, "an alignment is positive")
    let rest = offset % alignment
    if rest != 0 { try append([UInt8](repeating: 0, count: alignment - rest)) }
  }

  /// Sets aside `count` bytes at the end, to be filled by `write(_:at:)`; what is not written reads as zero.
  ///
  /// Space on the disk is claimed where the file system can, so that a full disk shows now.
  ///
  /// - Returns: the offset of the first byte.
  package func reserve(_ count: Int) throws -> Int {
    precondition(count >= 0, "a size is not negative")
    return try state.withLock { state in
      try flush(&state)
      let start = state.bufferStart
      if count > 0, !isDirect {
        let code = retryingCode { posix_fallocate(descriptor, off_t(start), off_t(count)) }
        guard code == 0 || code == EOPNOTSUPP || code == EINVAL else { throw writeFailure(code) }
        if code != 0, ftruncate(descriptor, off_t(start + count)) != 0 { throw writeFailure(errno) }
      }
      state.bufferStart += count
      return start
    }
  }

  /// Writes bytes at an offset that `reserve` gave. A pipe has no offsets and refuses.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws {
    try write(bytes, at: offset, inOrder: false)
  }

  private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int, inOrder: Bool) throws {
    var rest = bytes
    var offset = offset
    while !rest.isEmpty {
      // Linux transfers at most 2 GiB less a page at a time.
      let count = min(rest.count, 1 << 30)
      let written = retrying {
        isDirect && inOrder
          ? Glibc.write(descriptor, rest.baseAddress, count)
          : pwrite(descriptor, rest.baseAddress, count, off_t(offset))
      }
      guard written > 0 else { throw writeFailure(written < 0 ? errno : EIO) }
      rest = UnsafeRawBufferPointer(rebasing: rest[written...])
      offset += written
    }
  }

  /// Puts the file in place. Nothing can be written afterwards.
  ///
  /// - Throws: `CompileError` of kind `.io` if the disk refuses, `.create` if the name is refused.
  package func commit() throws {
    try state.withLock { state in
      precondition(state.isOpen, "a file is committed once")
      do {
        try flush(&state)
        if !isDirect { try publish() }
      } catch {
        discard(&state)
        throw error
      }
      state.isOpen = false
      guard close(descriptor) == 0 || isDirect else { throw writeFailure(errno) }
    }
  }

  /// Drops the file; also done when the object goes away without `commit`.
  package func discard() { state.withLock { discard(&$0) } }

  /// Writes a whole file in one go.
  package static func write(_ bytes: [UInt8], to path: String, permissions: UInt32 = 0o644) throws {
    let file = try AtomicFile(path: path, permissions: permissions)
    try file.append(bytes)
    try file.commit()
  }

  /// Writes a whole text file in one go.
  package static func write(_ text: String, to path: String, permissions: UInt32 = 0o644) throws {
    try write(Array(text.utf8), to: path, permissions: permissions)
  }

  private func publish() throws {
    let mask = umask(0)
    umask(mask)
    guard fchmod(descriptor, permissions & ~mask) == 0 else { throw writeFailure(errno) }
    let status = retrying { fsync(descriptor) }
    guard status == 0 || errno == EINVAL else { throw writeFailure(errno) }
    let name: String
    if let temporaryName {
      name = temporaryName
    } else {
      name = Self.hiddenName(beside: target)
      guard linkat(AT_FDCWD, "/proc/self/fd/\(descriptor)", AT_FDCWD, name, Int32(AT_SYMLINK_FOLLOW)) == 0 else {
        throw createFailure(errno)
      }
    }
    guard rename(name, target) == 0 else {
      let code = errno
      unlink(name)
      throw createFailure(code)
    }
  }

  private func flush(_ state: inout State) throws {
    guard !state.buffer.isEmpty else { return }
    try state.buffer.withUnsafeBytes { try write($0, at: state.bufferStart, inOrder: true) }
    state.bufferStart += state.buffer.count
    state.buffer.removeAll(keepingCapacity: true)
  }

  private func discard(_ state: inout State) {
    guard state.isOpen else { return }
    state.isOpen = false
    if let temporaryName { unlink(temporaryName) }
    close(descriptor)
  }

  private func writeFailure(_ code: Int32) -> CompileError {
    CompileError(.io, "cannot write '\(path)': \(describeErrno(code))")
  }

  private func createFailure(_ code: Int32) -> CompileError {
    CompileError(.create, "cannot create '\(path)': \(describeErrno(code))")
  }

  private func retryingCode(_ call: () -> Int32) -> Int32 {
    while true {
      let code = call()
      if code != EINTR { return code }
    }
  }

  /// `O_TMPFILE`, whose macro the importer does not see.
  private static let unnamedFlag: Int32 = 0o20000000 | Int32(O_DIRECTORY)

  private static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private static func hiddenName(beside path: String) -> String {
    let name = path[(path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex)...]
    let random = String(UInt64.random(in: 0 ... .max), radix: 36)
    // A name may have 255 bytes.
    return folder(of: path) + "/." + String(decoding: name.utf8.prefix(200), as: UTF8.self) + "." + random
  }

  private static func resolved(_ path: String) -> String? {
    guard let resolved = realpath(path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }
}
